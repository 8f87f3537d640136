//! Arbitrary histories: clients at two servers, connections that break, servers that die and return.

use proptest::prelude::*;
use talea_model::Fate;

use super::*;

#[derive(Clone, Debug)]
enum Do {
    Deliver(usize),
    Advance(u64),
    Begin(usize),
    Join(usize, u64),
    Commit(usize, u64, bool),
    Abort(usize, u64),
    Repeat(usize, usize),
    CutClient(usize),
    CutServers(usize, usize),
    Partition(usize, usize, bool),
    Restart(usize),
}

fn history(servers: usize) -> impl Strategy<Value = Vec<Do>> {
    let server = 0..servers;
    let client = 0usize..4;
    let tx = 1u64..10;
    prop::collection::vec(
        prop_oneof![
            12 => any::<prop::sample::Index>().prop_map(|index| Do::Deliver(index.index(1 << 10))),
            3 => (1u64..700).prop_map(Do::Advance),
            3 => client.clone().prop_map(Do::Begin),
            2 => (client.clone(), tx.clone()).prop_map(|(client, tx)| Do::Join(client, tx)),
            4 => (client.clone(), tx.clone(), any::<bool>()).prop_map(|(client, tx, next)| Do::Commit(client, tx, next)),
            1 => (client.clone(), tx).prop_map(|(client, tx)| Do::Abort(client, tx)),
            2 => (client.clone(), any::<prop::sample::Index>()).prop_map(|(client, index)| Do::Repeat(client, index.index(64))),
            1 => client.prop_map(Do::CutClient),
            1 => (server.clone(), server.clone()).prop_map(|(a, b)| Do::CutServers(a, b)),
            1 => (server.clone(), server.clone(), any::<bool>()).prop_map(|(a, b, whole)| Do::Partition(a, b, whole)),
            1 => server.prop_map(Do::Restart),
        ],
        0..120,
    )
}

struct Sent {
    client: usize,
    session: SessionId,
    sequence: u64,
    request: Request,
    answer_ids: Vec<u64>,
}

fn run(servers: usize, log_bound: LogBound, history: &[Do]) {
    run_in(World::cutting(servers, log_bound), history);
}

fn run_in(mut world: World, history: &[Do]) {
    let servers = world.nodes.len();
    let mut sent: Vec<Sent> = Vec::new();
    for home in 0..4 {
        world.client(home % servers);
    }
    // Client 0 made the container; 1 to 4 are the history's.
    let send = |world: &mut World, sent: &mut Vec<Sent>, client: usize, request: Request| {
        let client = client + 1;
        let sequence = world.send(client, request.clone());
        let session = world.clients[client].session;
        sent.push(Sent { client, session, sequence, request, answer_ids: vec![sequence] });
    };
    for action in history {
        match action.clone() {
            Do::Deliver(choice) => drop(world.deliver_one(choice)),
            Do::Advance(ms) => world.advance(ms),
            Do::Begin(client) => {
                send(&mut world, &mut sent, client, Request::Begin { container: RUN, collective: true })
            }
            Do::Join(client, tx) => send(&mut world, &mut sent, client, Request::Join { tx: TxId(tx) }),
            Do::Commit(client, tx, next) => {
                let summary = world.touched_if_any();
                let request = Request::Commit { tx: TxId(tx), summary, attributes: vec![], manifest: None, next };
                send(&mut world, &mut sent, client, request);
            }
            Do::Abort(client, tx) => {
                send(&mut world, &mut sent, client, Request::Abort { tx: TxId(tx), reason: "asked".into() });
            }
            Do::Repeat(client, index) => {
                let mine: Vec<usize> = (0..sent.len()).filter(|n| sent[*n].client == client + 1).collect();
                if let Some(n) = mine.get(index % mine.len().max(1)) {
                    let one = &mut sent[*n];
                    let id = world.clients[one.client].last_id + 1;
                    world.clients[one.client].last_id = id;
                    world.send_as(one.client, id, one.sequence, one.request.clone());
                    one.answer_ids.push(id);
                }
            }
            Do::CutClient(client) => world.cut(End::Client(client + 1)),
            Do::CutServers(a, b) => world.cut_servers(a, b),
            Do::Partition(a, b, whole) if a != b => world.set_reachable(a, b, whole),
            Do::Partition(..) => {}
            Do::Restart(server) => {
                world.kill(server);
                world.start(server);
            }
        }
    }
    world.unreachable.clear();
    world.advance(20_000);
    check(&world, &sent);
}

fn check(world: &World, sent: &[Sent]) {
    let servers = world.nodes.len();
    assert!((0..servers).all(|server| world.node(server).is_ready()), "all serve again");
    let same = (1..servers).all(|server| world.node(server).pool() == world.node(0).pool());
    assert!(same, "all have the same state");
    (0..servers).for_each(|server| world.check_view(server));
    // The log says what happened: from it, each transaction's fate and each step, once.
    let mut replayed = Pool::default();
    let mut begun: Vec<TxId> = Vec::new();
    for record in world.records() {
        let applied = replayed.apply(&record).unwrap();
        begun.extend(applied.changes.iter().filter_map(|change| match change {
            TargetChange::Begin { tx, .. } => Some(*tx),
            _ => None,
        }));
    }
    assert_eq!(&replayed, world.node(0).pool());
    for one in sent {
        let answers: Vec<&Outcome> =
            one.answer_ids.iter().filter_map(|id| world.clients[one.client].answers.get(id)).collect();
        let good: Vec<&Reply> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        assert!(good.windows(2).all(|pair| pair[0] == pair[1]), "exactly once: {:?} {good:?}", one.request);
        if let Some(Reply::Committed(committed)) = good.first() {
            let Request::Commit { tx, .. } = &one.request else { panic!() };
            assert_eq!(replayed.fate(*tx), Some(Fate::Committed(committed.stamp)), "what was answered happened");
        }
    }
    // Who is gone leaves nothing open.
    let living: Vec<SessionId> = (1..=4).map(|client| world.clients[client].session).collect();
    for tx in begun {
        if replayed.fate(tx) == Some(Fate::Open) {
            assert!(living.iter().any(|session| replayed.has_session(*session)), "{tx} is nobody's");
        }
    }
    let gone = sent.iter().filter(|one| !world.links.contains_key(&End::Client(one.client)));
    for one in gone {
        assert!(!replayed.has_session(one.session), "a session without a connection lives on");
    }
}

impl World {
    fn touched_if_any(&self) -> Summary {
        match self.nodes.iter().flatten().any(|node| node.pool().map().is_some()) {
            true => self.touched(),
            false => Summary::default(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn holds_under_any_history(history in history(2)) {
        run(2, LogBound::default(), &history);
    }

    #[test]
    fn holds_under_any_history_with_three_replicas(history in history(3)) {
        run(3, LogBound::default(), &history);
    }

    #[test]
    fn holds_under_any_history_where_servers_follow_through_others(
        servers in 4usize..8, width in 1usize..4, records in 1u64..40, history in history(7)
    ) {
        let log_bound = if records < 20 { LogBound { records, bytes: 1 << 20 } } else { LogBound::default() };
        let of = |server: &usize| server % servers;
        let history: Vec<Do> = history.into_iter().map(|action| match action {
            Do::CutServers(a, b) => Do::CutServers(of(&a), of(&b)),
            Do::Partition(a, b, whole) => Do::Partition(of(&a), of(&b), whole),
            Do::Restart(server) => Do::Restart(of(&server)),
            other => other,
        }).collect();
        run_in(World::spreading_and_cutting(servers, width, log_bound), &history);
    }

    #[test]
    fn holds_under_any_history_while_logs_are_cut(servers in 2usize..4, records in 1u64..20, history in history(2)) {
        run(servers, LogBound { records, bytes: 1 << 20 }, &history);
    }
}
