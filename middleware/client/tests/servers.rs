//! The client against two real servers: containers, epochs, snapshots that never change, steps, and lost servers.

#[path = "support/servers.rs"]
mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use support::Servers;
use talea_client::{
    Client, Condition, ConnectOptions, ContainerProperties, EntryFetch, EntryUpdate, ErrorKind, ProducerState, Punch,
    RuntimeDir, SnapshotAt, ValueKind, WaitOutcome, Write as Order,
};
use talea_model::{Extent, Key, ObjectClass, Step, View};

const BYTES: ValueKind = ValueKind::Array { record_bytes: 1 };
const CHUNK: usize = 1 << 20;

/// Writes `data` from the object's start, a dkey a chunk, as files do.
fn write(object: &talea_client::Object, order: &Order<'_>, data: &[u8]) -> talea_client::Result<()> {
    let keys: Vec<Key> = (0..data.len().div_ceil(CHUNK) as u64).map(Key::from_u64).collect();
    let extents: Vec<[Extent; 1]> =
        data.chunks(CHUNK).map(|chunk| [Extent::new(0, chunk.len() as u64).unwrap()]).collect();
    let entries: Vec<EntryUpdate<'_>> = data
        .chunks(CHUNK)
        .enumerate()
        .map(|(at, chunk)| EntryUpdate {
            dkey: &keys[at],
            akey: b"d",
            kind: BYTES,
            condition: Condition::None,
            extents: &extents[at],
            data: chunk,
        })
        .collect();
    object.update(order, &entries)
}

fn read(object: &talea_client::Object, view: &View, bytes: usize) -> talea_client::Result<Vec<u8>> {
    let mut data = vec![0xee; bytes];
    let keys: Vec<Key> = (0..bytes.div_ceil(CHUNK) as u64).map(Key::from_u64).collect();
    let extents: Vec<[Extent; 1]> =
        data.chunks(CHUNK).map(|chunk| [Extent::new(0, chunk.len() as u64).unwrap()]).collect();
    let mut entries: Vec<EntryFetch<'_>> = data
        .chunks_mut(CHUNK)
        .enumerate()
        .map(|(at, chunk)| EntryFetch::array(&keys[at], b"d", 1, &extents[at], chunk))
        .collect();
    object.fetch(view, &mut entries)?;
    Ok(data)
}

#[test]
fn epochs_of_two_processes_become_visible_at_once_and_snapshots_never_change() {
    let servers = Servers::start();
    let (one, two) = (servers.client(), servers.client_of_second());
    let container = one.container_create("run", ContainerProperties::default(), false).unwrap();
    let same = two.container_join(&container.blob()).unwrap();
    let (a, b) = (one.new_oid(ObjectClass::SX), two.new_oid(ObjectClass::S1));
    let mut follower = same.subscribe(Step(0)).unwrap();
    assert_eq!(follower.wait(0).unwrap(), WaitOutcome::NotReady);
    let mut epoch = container.begin(true).unwrap();
    let mut before = None;
    for step in 1..=3u8 {
        let theirs = same.join(&epoch.blob()).unwrap();
        write(&container.object(a), &Order::Inside(&epoch), &vec![step; 5 * CHUNK + 7]).unwrap();
        write(&same.object(b), &Order::Inside(&theirs), &[step; 100]).unwrap();
        assert_eq!(read(&container.object(b), &epoch.view(), 100).unwrap(), [step; 100], "inside the epoch");
        assert_eq!(read(&same.object(b), &View::Latest, 100).unwrap(), [step - 1; 100], "not outside of it");
        assert!(same.query().unwrap().pending_updates > 0);
        let mut summary = epoch.summary();
        summary.merge(&theirs.summary());
        theirs.closed_elsewhere();
        let outcome = epoch.commit(&summary, b"attributes", true);
        assert_eq!(outcome.committed.unwrap().step, Step(step as u64));
        epoch = outcome.next.unwrap();
        match follower.wait(5_000).unwrap() {
            WaitOutcome::Steps { steps, latest } => {
                assert_eq!(latest, Step(step as u64));
                assert_eq!((steps.len(), steps[0].step, &steps[0].attributes[..]), (1, latest, &b"attributes"[..]));
            }
            other => panic!("{other:?}"),
        }
        let snapshot = same.snapshot(SnapshotAt::Step(Step(step as u64))).unwrap();
        assert_eq!(read(&same.object(a), &snapshot.view(), 5 * CHUNK + 7).unwrap(), vec![step; 5 * CHUNK + 7]);
        if let Some((last, old)) = before.replace((snapshot, step)) {
            assert_eq!(read(&same.object(b), &last.view(), 100).unwrap(), [old; 100], "it never changes");
        }
    }
    epoch.abort("the end").unwrap();
    container.producer(ProducerState::Ended).unwrap();
    assert_eq!(follower.wait(5_000).unwrap(), WaitOutcome::End);
}

#[test]
fn values_conditions_lists_and_punches() {
    let servers = Servers::start();
    let client = servers.client();
    let container = client.container_create("c", ContainerProperties::default(), true).unwrap();
    assert_eq!(client.container_open("none").err().unwrap().kind(), ErrorKind::NoContainer);
    let object = container.object(client.new_oid(ObjectClass::SX));
    let entry = |dkey| EntryUpdate {
        dkey,
        akey: b"v",
        kind: ValueKind::Single,
        condition: Condition::Insert,
        extents: &[],
        data: b"value",
    };
    let names: Vec<Vec<u8>> = (0..20).map(|n| format!("name{n:02}").into_bytes()).collect();
    for name in &names {
        object.update(&Order::Auto, &[entry(name)]).unwrap();
    }
    assert_eq!(object.update(&Order::Auto, &[entry(&names[3])]).unwrap_err().kind(), ErrorKind::Exists);
    let two = [entry(&names[0]), entry(&names[1])];
    assert_eq!(object.update(&Order::Auto, &two).unwrap_err().kind(), ErrorKind::Argument);
    let page = object.dkeys(&View::Latest, b"", 7).unwrap();
    assert!(page.more);
    assert_eq!(page.names[..], names[..page.names.len()]);
    let rest = object.dkeys(&View::Latest, page.names.last().unwrap(), 100).unwrap();
    assert_eq!((&rest.names[..], rest.more), (&names[page.names.len()..], false));
    let mut out = [0; 3];
    let mut fetch = [EntryFetch::single(&names[5], b"v", &mut out)];
    object.fetch(&View::Latest, &mut fetch).unwrap();
    assert_eq!((fetch[0].found, fetch[0].bytes), (true, 5));
    assert_eq!(&out, b"val");
    assert_eq!(container.objects(&View::Latest, None, 10).unwrap().0, [object.oid()]);
    object.punch(&Order::Auto, &Punch { dkey: &names[5], ..Punch::default() }).unwrap();
    assert_eq!(object.dkeys(&View::Latest, b"", 100).unwrap().names.len(), 19);
    object.punch(&Order::Auto, &Punch::default()).unwrap();
    assert_eq!(object.dkeys(&View::Latest, b"", 100).unwrap().names.len(), 0);
}

#[test]
fn threads_share_a_client() {
    let servers = Servers::start();
    let client = servers.client();
    let container = client.container_create("c", ContainerProperties::default(), true).unwrap();
    std::thread::scope(|scope| {
        for number in 0..6u8 {
            let container = container.clone();
            scope.spawn(move || {
                let object = container.object(container.client().new_oid(ObjectClass::SX));
                for round in 0..30u8 {
                    let data = [number ^ round; 5000];
                    write(&object, &Order::Auto, &data).unwrap();
                    assert_eq!(read(&object, &View::Latest, 5000).unwrap(), data);
                }
            });
        }
    });
}

#[test]
fn a_killed_server_is_named_and_a_session_that_ends_aborts() {
    let mut servers = Servers::start();
    let client = servers.client();
    let container = client.container_create("c", ContainerProperties::default(), true).unwrap();
    let object = container.object(client.new_oid(ObjectClass::SX));
    let lost = servers.client();
    let epoch = lost.container_open("c").unwrap().begin(true).unwrap();
    write(&epoch.container().object(object.oid()), &Order::Inside(&epoch), &[1; 100]).unwrap();
    let (blob, tx) = (epoch.blob(), epoch.tx());
    drop(epoch);
    drop(lost);
    // Its connection and ours are two: which of them the server reads first is not said.
    let began = std::time::Instant::now();
    while container.query().unwrap().info.open_transactions > 0 {
        assert!(began.elapsed().as_secs() < 30, "the epoch of a process that has gone is aborted");
    }
    let theirs = container.join(&blob).unwrap();
    let error = write(&object, &Order::Inside(&theirs), &[2; 100]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Aborted, "tx {tx}: {error}");
    assert!(theirs.has_failed());
    servers.kill(1);
    let error = write(&object, &Order::Inside(&container.begin(true).unwrap()), &vec![3; 8 * CHUNK]).unwrap_err();
    // By its connection, or by the pool's word if that was faster: the loss aborts the epoch.
    assert!(matches!(error.kind(), ErrorKind::ServerLost | ErrorKind::Aborted), "{error}");
    assert!(error.to_string().contains("server 1"), "{error}");
    servers.kill(0);
    let error = container.with_deadline_ms(1_500).query().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ServerLost, "{error}");
    assert!(error.to_string().contains("server 0"), "{error}");
}

/// Not a test of its own: the process that the next test kills. It opens an epoch, writes in it, says so, and waits.
#[test]
#[ignore = "run by a_killed_process_aborts_its_epoch"]
fn victim() {
    let Ok(runtime) = std::env::var("TALEA_TEST_VICTIM") else { return };
    let system = RuntimeDir::at(runtime).unwrap().load("t").unwrap();
    let client = Client::connect_to(&system, &ConnectOptions::default()).unwrap();
    let container = client.container_open("c").unwrap();
    let epoch = container.begin(true).unwrap();
    write(&container.object(client.new_oid(ObjectClass::SX)), &Order::Inside(&epoch), &vec![9; 3 * CHUNK]).unwrap();
    eprintln!("written");
    std::thread::sleep(std::time::Duration::from_secs(600));
}

#[test]
fn a_killed_process_aborts_its_epoch() {
    let servers = Servers::start();
    let client = servers.client();
    let container = client.container_create("c", ContainerProperties::default(), true).unwrap();
    let runtime = servers.system.directory.parent().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "victim", "--nocapture"])
        .env("TALEA_TEST_VICTIM", runtime)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    while !said.contains("written") {
        said.clear();
        assert!(stderr.read_line(&mut said).unwrap() > 0, "the victim ended by itself");
    }
    let usage = container.query().unwrap();
    assert_eq!(usage.info.open_transactions, 1);
    assert!(usage.pending_updates > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut tries = 0;
    loop {
        let usage = container.query().unwrap();
        if usage.info.open_transactions == 0 && usage.pending_updates == 0 {
            assert_eq!(usage.info.step, Step(0));
            break;
        }
        tries += 1;
        assert!(tries < 1000, "{usage:?}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(container.objects(&View::Latest, None, 10).unwrap().0, []);
}
