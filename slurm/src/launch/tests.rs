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
            Say::Configure { first_servers, .. } => {
                self.files.insert(0);
                assert_eq!(first_servers.len() as u32, self.nodes);
                self.registered.push(depth);
                out.push(Message {
                    depth: depth + 1,
                    heard: Heard::Listening { server: 0, control: vec!["a".into()] },
                });
            }
            Say::Leader(_) => {
                for server in 1..self.nodes * self.per_node {
                    self.files.insert(server / self.per_node);
                    // Registering with server 0 is a message of its own.
                    self.registered.push(depth + 1);
                    out.push(Message { depth: depth + 1, heard: Heard::Listening { server, control: vec![] } });
                }
                let last = self.registered.iter().max().copied().unwrap_or(0);
                out.push(Message { depth: last + 1, heard: Heard::PoolReady });
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
    let (mut launch, first) = Launch::begin(nodes, nodes * per_node, persist);
    let mut waiting: VecDeque<Message> = VecDeque::new();
    let mut depth = 0;
    match first {
        Some(say) => waiting.extend(world.hear(&say, 1)),
        None => waiting.extend((0..nodes).map(|node| Message { depth: 1, heard: Heard::Kept { node, kept: None } })),
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
    Some(Kept { system: system.into(), first_server, servers })
}

fn decide(found: Vec<Option<Kept>>, servers: u32) -> Say {
    let (mut launch, none) = Launch::begin(found.len() as u32, servers, true);
    assert_eq!(none, None);
    let mut said = None;
    for (node, kept) in found.into_iter().enumerate() {
        assert_eq!(said, None, "decided before all had spoken");
        said = launch.heard(Heard::Kept { node: node as u32, kept });
    }
    said.unwrap()
}

#[test]
fn kept_servers_keep_their_numbers_wherever_their_nodes_stand_now() {
    let configured = decide(vec![kept("s", 2, 3), kept("s", 0, 3), kept("s", 1, 3)], 3);
    assert_eq!(configured, Say::Configure { system: Some("s".into()), first_servers: vec![2, 0, 1] });
    let Say::Fail(why) = decide(vec![kept("s", 2, 3), None, kept("s", 1, 3)], 3) else { panic!() };
    assert!(why.contains("missing here: servers 0"), "{why}");
    assert!(matches!(decide(vec![kept("s", 0, 2), kept("t", 1, 2)], 2), Say::Fail(_)));
    assert!(matches!(decide(vec![kept("s", 0, 2), kept("s", 0, 2)], 2), Say::Fail(_)), "one server twice");
    let fresh = decide(vec![None, None], 4);
    assert_eq!(fresh, Say::Configure { system: None, first_servers: vec![0, 2] });
}

#[test]
fn says_for_whom_it_waits() {
    let (mut launch, _) = Launch::begin(3, 3, false);
    launch.heard(Heard::Listening { server: 1, control: vec![] });
    assert_eq!(launch.waiting_for(), "servers 0, 2");
    let (launch, _) = Launch::begin(100, 100, false);
    assert!(launch.waiting_for().starts_with("100 servers"));
}
