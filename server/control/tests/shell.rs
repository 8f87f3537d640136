//! The control plane over real sockets, processes and files.

#[path = "shell/support.rs"]
mod support;

#[path = "shell/durable.rs"]
mod durable;
#[path = "shell/strangers.rs"]
mod strangers;

use support::{Client, Server, System, begin, commit, create, wait_for};
use talea_model::{Fate, Step};
use talea_wire::RefusalCode;
use talea_wire::control::{Reply, Request, Waited};
use talea_wire::log::ProducerState;

#[test]
fn two_servers_serve_clients_over_unix_and_tcp() {
    let system = System::new();
    let (zero, one) = system.two_servers();
    let mut local = Client::connect(&system, &zero, 0);
    let mut remote = Client::connect(&system, &one, 1);
    let container = create(&mut local, "run");
    let begun = begin(&mut local, container);
    remote.ok(Request::Join { tx: begun.tx });
    let committed = commit(&mut local, begun.tx, &[0, 1]).unwrap();
    assert_eq!(committed.step, Step(1));
    let Reply::Container(info) = remote.ok(Request::ContainerOpen { name: "run".into() }) else { panic!() };
    assert_eq!((info.container, info.step), (container, Step(1)));
    for server in [&zero, &one] {
        wait_for(|| server.told().horizon >= committed.position);
        assert!(server.told().serving && server.told().ready);
    }
    one.handle.log_end(5);
    wait_for(|| one.told().caught_up == vec![5]);
}

#[test]
fn a_wait_ends_in_one_of_four_ways() {
    let system = System::new();
    let (zero, one) = system.two_servers();
    let mut producer = Client::connect(&system, &zero, 0);
    let mut consumer = Client::connect(&system, &one, 0);
    let container = create(&mut producer, "run");
    producer.ok(Request::Producer { container: None, state: ProducerState::Active });
    let waiting = |after| Request::Wait { container, after: Step(after), limit: 8 };
    let waited = |reply| match reply {
        Reply::Waited(waited) => waited,
        other => panic!("{other:?}"),
    };
    consumer.deadline_ms = 100;
    assert_eq!(waited(consumer.ok(waiting(0))), Waited::NotReady);
    consumer.deadline_ms = 10_000;
    let id = consumer.send(waiting(0));
    let tx = begin(&mut producer, container).tx;
    commit(&mut producer, tx, &[0]).unwrap();
    assert!(matches!(waited(consumer.answer(id).unwrap()), Waited::Steps { latest: Step(1), .. }));
    let id = consumer.send(waiting(1));
    producer.ok(Request::Producer { container: None, state: ProducerState::Ended });
    assert_eq!(waited(consumer.answer(id).unwrap()), Waited::End);
    producer.ok(Request::Producer { container: None, state: ProducerState::Active });
    let id = consumer.send(waiting(1));
    drop(producer);
    assert_eq!(waited(consumer.answer(id).unwrap()), Waited::ProducerLost);
}

/// Not a test of its own: the process that [`a_killed_process_takes_its_transactions_with_it`] kills.
#[test]
fn victim() {
    let Ok(path) = std::env::var("TALEA_TEST_VICTIM") else { return };
    let tx = std::env::var("TALEA_TEST_TX").unwrap().parse().unwrap();
    let mut client = Client::at(&support::credentials(), &path.parse().unwrap());
    client.ok(Request::Join { tx: talea_model::TxId(tx) });
    // A forked child holds a copy of the socket, so that only the process's own end tells.
    let _holder = std::process::Command::new("sleep").arg("30").spawn();
    println!("joined");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn a_killed_process_takes_its_transactions_with_it() {
    use std::io::{BufRead, BufReader};
    let system = System::new();
    let (zero, one) = system.two_servers();
    let mut owner = Client::connect(&system, &zero, 0);
    let container = create(&mut owner, "run");
    for home in [&zero, &one] {
        let tx = begin(&mut owner, container).tx;
        let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env("TALEA_TEST_VICTIM", home.addresses[0].to_string())
            .env("TALEA_TEST_TX", tx.0.to_string())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains("joined")), "the victim joins");
        victim.kill().unwrap();
        victim.wait().unwrap();
        wait_for(|| zero.fate(tx) == Some(Fate::Aborted));
        let refusal = commit(&mut owner, tx, &[0]).unwrap_err();
        assert!(refusal.code == RefusalCode::Closed && refusal.text.contains("ended"), "{refusal}");
    }
}

#[test]
fn a_lost_follower_goes_down_and_a_lost_leader_is_named() {
    let system = System::new();
    let (zero, one) = system.two_servers();
    let mut client = Client::connect(&system, &zero, 0);
    one.stop();
    wait_for(|| zero.told().down >= 1);
    assert!(matches!(client.ok(Request::Status), Reply::Status(_)));
    drop(client);

    let system = System::new();
    let (zero, one) = system.two_servers();
    let mut client = Client::connect(&system, &one, 0);
    zero.stop();
    let refusal = client.ask(Request::ContainerList).unwrap_err();
    assert!(refusal.code == RefusalCode::NoLeader && refusal.text.contains("server 0"), "{refusal}");
    wait_for(|| !one.told().serving);
    let server: &Server = &one;
    assert!(server.told().ready);
}

#[test]
fn i9_an_idle_system_sleeps() {
    let system = System::new();
    let (zero, one) = system.two_servers();
    let _client = Client::connect(&system, &one, 0);
    let before = zero.messages();
    std::thread::sleep(std::time::Duration::from_millis(3000));
    let beats = zero.messages() - before;
    assert!(beats <= 10, "{beats} messages in three idle seconds: heartbeats are no more often than every 500 ms");
}
