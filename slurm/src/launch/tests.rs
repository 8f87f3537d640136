//! A thousand agents in memory: what is said in which order, and how many round trips one after another it takes.

use std::collections::VecDeque;

use super::*;

/// A message with the length of the chain of messages that led to it.
struct Message {
    depth: u32,
    heard: Heard,
}

/// Nodes with agents and servers, and server 0's count of who has registered.
struct Nodes {
    nodes: u32,
    per_node: u32,
    /// Deepest message that the pool's readiness depends on.
    registered: Vec<u32>,
    messages_sent: u64,
    files: BTreeSet<u32>,
}

impl Nodes {
    /// What all agents do with a word of the launcher, and what comes back.
    fn hear(&mut self, say: &Say, depth: u32) -> Vec<Message> {
        // srun carries standard input to the tasks by a tree or in parallel: one step of the chain.
        self.messages_sent += u64::from(self.nodes);
        let mut out = Vec::new();
        match say {
            Say::Configure(Configuration { first_servers, .. }) => {
                self.files.insert(0);
                assert_eq!(first_servers.len() as u32, self.nodes);
                self.registered.push(depth);
                out.push(Message {
                    depth: depth + 1,
                    heard: Heard::Listening { server: 0, control: vec!["a".into()], replicas: vec![] },
                });
            }
            Say::Leader { .. } => {
                for server in 1..self.nodes * self.per_node {
                    self.files.insert(server / self.per_node);
                    // Registering with server 0 is a message of its own.
                    self.registered.push(depth + 1);
                    let heard = Heard::Listening { server, control: vec![], replicas: vec![] };
                    out.push(Message { depth: depth + 1, heard });
                }
                let last = self.registered.iter().max().copied().unwrap_or(0);
                let ready = |server| Message { depth: last + 1, heard: Heard::PoolReady { server } };
                out.extend((0..self.nodes * self.per_node).map(ready));
            }
            Say::Ready | Say::Fail(_) => {}
        }
        out
    }
}

/// Plays a launch; the order in which messages arrive is drawn from `seed`. Returns the length of the longest chain until
/// readiness, and the messages.
fn play(nodes: u32, per_node: u32, persist: bool, seed: u64) -> (u32, u64) {
    let mut world = Nodes { nodes, per_node, registered: vec![], messages_sent: 0, files: BTreeSet::new() };
    let (mut launch, first) = Launch::begin(nodes, nodes * per_node, false, persist);
    let mut waiting: VecDeque<Message> = VecDeque::new();
    let mut depth = 0;
    match first {
        Some(say) => waiting.extend(world.hear(&say, 1)),
        None => {
            let nothing = |node| Heard::Kept { node, host: format!("n{node}"), kept: None };
            waiting.extend((0..nodes).map(|node| Message { depth: 1, heard: nothing(node) }));
        }
    }
    let mut random = seed;
    while !waiting.is_empty() {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let message = waiting.remove((random >> 33) as usize % waiting.len()).unwrap();
        depth = depth.max(message.depth);
        match launch.heard(message.heard) {
            Some(Say::Ready) => {
                assert!(waiting.is_empty(), "ready while {} messages were still to come", waiting.len());
                assert_eq!(world.files.len() as u32, nodes, "ready before every node had its files");
                return (depth, world.messages_sent);
            }
            Some(Say::Fail(why)) => panic!("{why}"),
            Some(say) => waiting.extend(world.hear(&say, depth + 1)),
            None => {}
        }
    }
    panic!("never ready; waiting for {}", launch.waiting_for());
}

#[test]
fn round_trips_do_not_grow_with_the_nodes() {
    for persist in [false, true] {
        let (few, _) = play(2, 1, persist, 1);
        for nodes in [4, 64, 1000] {
            for seed in 0..20 {
                let (chain, messages) = play(nodes, 1, persist, seed);
                assert_eq!(chain, few, "{nodes} nodes");
                assert_eq!(messages, 2 * u64::from(nodes), "two words of the launcher to each node");
            }
        }
        // Configuration, address, leader, registration, ready; what is kept before that.
        assert_eq!(few, if persist { 6 } else { 5 });
    }
    assert_eq!(play(1000, 2, false, 3).0, 5);
}

fn kept(system: &str, first_server: u32, servers: u32) -> Option<Kept> {
    let hosts = (0..servers).map(|server| format!("n{server}")).collect();
    let (system, own_servers, targets, capacity_bytes) = (system.into(), 1, 2, 1 << 30);
    Some(Kept { system, first_server, own_servers, servers, targets, capacity_bytes, hosts })
}

/// What a launch says when the nodes `a0`, `a1`, … have said what they keep.
fn decide(found: Vec<Option<Kept>>, servers: Option<u32>) -> (Launch, Say) {
    let nodes = found.len() as u32;
    let (mut launch, none) = Launch::begin(nodes, servers.unwrap_or(nodes), servers.is_some(), true);
    assert_eq!(none, None);
    let mut said = None;
    for (node, kept) in found.into_iter().enumerate() {
        assert_eq!(said, None, "decided before all had spoken");
        said = launch.heard(Heard::Kept { node: node as u32, host: format!("a{node}"), kept });
    }
    (launch, said.unwrap())
}

fn configured(say: Say) -> Configuration {
    let Say::Configure(configuration) = say else { panic!("{say:?}") };
    configuration
}

fn refused(say: Say) -> String {
    let Say::Fail(why) = say else { panic!("{say:?}") };
    why
}

#[test]
fn kept_servers_keep_their_numbers_wherever_their_nodes_stand_now() {
    let (launch, say) = decide(vec![kept("s", 2, 3), kept("s", 0, 3), kept("s", 1, 3)], Some(3));
    let known = configured(say);
    assert_eq!((known.first_servers, known.introducer), (vec![Some(2), Some(0), Some(1)], 0));
    assert_eq!(known.hosts, ["a1", "a2", "a0"], "where they are now");
    assert_eq!(known.kept.unwrap().system, "s");
    assert_eq!(launch.missing(), []);
    let other = decide(vec![kept("s", 0, 2), kept("t", 1, 2)], None).1;
    assert!(refused(other).contains("a0 and a1 keep different systems"));
    let twice = decide(vec![kept("s", 0, 2), kept("s", 0, 2)], None).1;
    assert!(refused(twice).contains("a0 and a1 see the same media"));
    assert!(refused(decide(vec![kept("s", 0, 2), kept("s", 1, 2)], Some(4)).1).contains("--servers"));
    let fresh = configured(decide(vec![None, None], Some(4)).1);
    assert_eq!((fresh.kept, fresh.first_servers), (None, vec![Some(0), Some(2)]));
    assert_eq!(fresh.hosts, ["a0", "a0", "a1", "a1"]);
}

fn listen(launch: &mut Launch, server: u32, replicas: &[u32]) -> Option<Say> {
    launch.heard(Heard::Listening { server, control: vec![format!("at {server}")], replicas: replicas.to_vec() })
}

/// Three servers and the log on all of them: two go on, one of them introduces, and a node with nothing takes no part of it.
#[test]
fn a_kept_system_goes_on_without_a_node() {
    let (mut launch, say) = decide(vec![kept("s", 2, 3), None, kept("s", 1, 3)], None);
    let known = configured(say);
    assert_eq!((known.first_servers, known.introducer), (vec![Some(2), None, Some(1)], 1));
    assert_eq!(launch.missing(), [(0, "n0".to_owned())]);
    let leader = listen(&mut launch, 1, &[0, 1, 2]);
    assert_eq!(leader, Some(Say::Leader { server: 1, control: vec!["at 1".into()] }));
    assert_eq!(listen(&mut launch, 2, &[0, 1, 2]), None);
    assert_eq!(launch.heard(Heard::PoolReady { server: 1 }), None);
    assert_eq!(launch.heard(Heard::PoolReady { server: 2 }), None, "one node cannot reach it yet");
    assert_eq!(launch.heard(Heard::Installed { node: 1 }), Some(Say::Ready));
}

#[test]
fn without_its_log_a_kept_system_says_which_nodes_it_needs() {
    let (mut launch, say) = decide(vec![None, kept("s", 2, 4)], None);
    configured(say);
    let why = refused(listen(&mut launch, 2, &[0, 1, 2]).unwrap());
    for word in [
        "1 of its 4 servers",
        "1 more of: server 0 on n0, server 1 on n1.",
        "--nodelist=n0,n1,n3",
        "Nothing of it is lost",
    ] {
        assert!(why.contains(word), "{word}: {why}");
    }
    // A server without any part of the log knows nothing of who has it.
    let (mut launch, say) = decide(vec![kept("s", 1, 2)], None);
    configured(say);
    assert!(refused(listen(&mut launch, 1, &[]).unwrap()).contains("1 more of: server 0 on n0."));
    // The members have changed since: 3 stands in for 0, and only 3's word is the newest one.
    let (mut launch, say) = decide(vec![kept("s", 1, 4), kept("s", 3, 4)], None);
    configured(say);
    assert!(matches!(listen(&mut launch, 1, &[0, 1, 2]), Some(Say::Leader { server: 1, .. })));
    assert_eq!(listen(&mut launch, 3, &[1, 2, 3]), None);
}

#[test]
fn says_for_whom_it_waits() {
    let (mut launch, _) = Launch::begin(3, 3, false, false);
    listen(&mut launch, 1, &[]);
    assert_eq!(launch.waiting_for(), "servers 0, 2");
    let (launch, _) = Launch::begin(100, 100, false, false);
    assert!(launch.waiting_for().starts_with("100 servers"));
}
