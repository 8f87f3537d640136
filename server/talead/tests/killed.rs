//! A client that is killed at any instruction of what it does in its rings leaves the server unharmed and its slots free (docs/design.md §6):
//! real processes are led to an instruction of a seed's choice by ptrace(2) and get SIGKILL there.
//!
//! `TALEA_KILL_POINTS` and `TALEA_KILL_SEED` ask for more and for others.

#[path = "support/data.rs"]
mod data;
#[path = "support/held.rs"]
mod held;
#[path = "support/server.rs"]
mod support;
#[path = "support/tracer.rs"]
mod tracer;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use data::{client, container, unopened_at};
use held::{Held, held, until};
use support::{ALONE, SECRET, Server, directory};
use talea_client::{Client, Condition, EntryFetch, EntryUpdate, Object, ValueKind, Write};
use talea_model::{Extent, ObjectClass, Oid, View};
use tracer::{Traced, mark, this_thread};

const CONTROL: &str = "TALEA_TEST_CONTROL";
const POINTS: u64 = 240;
/// What the dead write in epochs, both values in each, and what they write at once; what those who live write.
const EPOCHS: Oid = Oid::new(ObjectClass::SX, 77);
const AT_ONCE: Oid = Oid::new(ObjectClass::S1, 78);
const HONEST: Oid = Oid::new(ObjectClass::SX, 79);
/// A message that lies in the ring, and one in the shared area.
const SMALL: usize = 64;
const LARGE: usize = 10_000;
/// Instructions of an operation up to its doorbell, its first system call, and from there to its end, about. More lead into what follows.
const TO_DOORBELL: u64 = 7_500;
const FROM_DOORBELL: u64 = 5_000;

/// What a victim does, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    UpdateSmall,
    UpdateLarge,
    FetchSmall,
    FetchLarge,
    UpdateAtOnce,
    Commit,
    Connect,
}

const ACTS: [Act; 7] = [
    Act::UpdateSmall,
    Act::UpdateLarge,
    Act::FetchSmall,
    Act::FetchLarge,
    Act::UpdateAtOnce,
    Act::Commit,
    Act::Connect,
];

fn update(object: &Object, write: &Write<'_>, dkey: &[u8], value: u8, bytes: usize) {
    let (extents, data) = ([Extent::new(0, bytes as u64).unwrap()], vec![value; bytes]);
    let (kind, condition) = (ValueKind::Array { record_bytes: 1 }, Condition::None);
    let entry = EntryUpdate { dkey, akey: b"a", kind, condition, extents: &extents, data: &data };
    object.update(write, &[entry]).unwrap();
}

/// The one value that fills all of it; 0: nobody has written there.
fn fetch(object: &Object, view: &View, dkey: &[u8], bytes: usize) -> u8 {
    let (extents, mut data) = ([Extent::new(0, bytes as u64).unwrap()], vec![0xee; bytes]);
    object.fetch(view, &mut [EntryFetch::array(dkey, b"a", 1, &extents, &mut data)]).unwrap();
    assert!(data.iter().all(|byte| *byte == data[0]), "a part of a value: {:?}", &data[..SMALL]);
    data[0]
}

/// A process of its own, which is killed.
#[test]
#[ignore = "a part of the test below"]
fn victim() {
    let control = std::env::var(CONTROL).unwrap();
    let connect = || {
        let client = unopened_at(&control, SECRET, 60_000);
        client.open().unwrap();
        let run = client.container_open("run").unwrap();
        (client, run)
    };
    let (_client, run) = connect();
    let (epochs, at_once) = (run.object(EPOCHS), run.object(AT_ONCE));
    let mut epoch = run.begin(true).unwrap();
    println!("\nready {}", this_thread());
    for value in (1..=250).cycle() {
        for act in ACTS {
            mark(act as i32);
            let write = Write::Inside(&epoch);
            match act {
                Act::UpdateSmall => update(&epochs, &write, b"small", value, SMALL),
                Act::UpdateLarge => update(&epochs, &write, b"large", value, LARGE),
                Act::FetchSmall => assert_eq!(fetch(&epochs, &epoch.view(), b"small", SMALL), value),
                Act::FetchLarge => assert_eq!(fetch(&epochs, &epoch.view(), b"large", LARGE), value),
                Act::UpdateAtOnce => update(&at_once, &Write::Auto, b"value", value, LARGE),
                Act::Commit => {
                    let outcome = epoch.commit(&epoch.summary(), b"", true);
                    outcome.committed.unwrap();
                    epoch = outcome.next.unwrap();
                }
                Act::Connect => {
                    let (_other, run) = connect();
                    assert_eq!(fetch(&run.object(AT_ONCE), &View::Latest, b"value", LARGE), value);
                }
            }
        }
    }
}

/// A victim, and which of its threads works.
fn spawn_victim(server: &Server) -> (Child, Traced) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .env(CONTROL, &server.control[0])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let thread = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("ready ")?.parse().ok());
    let traced = Traced::seize(child.id(), thread.expect("the victim ended early"));
    (child, traced)
}

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// What clients hold; the versions of what they have committed are nobody's.
fn holds(looker: &Client, server: &Server) -> Held {
    Held { versions: 0, ..held(looker, &[server]).unwrap() }
}

/// Kills a victim; says in what, and at which instruction.
fn kill_one(server: &Server, random: &mut Random) -> (Act, (String, u64)) {
    let (mut child, traced) = spawn_victim(server);
    // In the second round nothing is new to it.
    let marks = ACTS.len() as u64 + random.below(ACTS.len() as u64);
    (0..marks).for_each(|_| _ = traced.to_mark());
    let act = ACTS[traced.to_mark() as usize];
    match (act, random.below(2)) {
        (Act::Connect, _) => {
            traced.pass_calls(random.below(160));
            traced.steps(random.below(400));
        }
        (_, 0) => traced.steps(random.below(TO_DOORBELL)),
        _ => {
            traced.pass_calls(1);
            traced.steps(random.below(FROM_DOORBELL));
        }
    }
    let at = traced.instruction();
    traced.kill();
    child.wait().unwrap();
    (act, at)
}

/// Those who live go on, and find what they wrote.
fn go_on(object: &Object, value: u8) {
    for (dkey, bytes) in [(b"small", SMALL), (b"large", LARGE)] {
        update(object, &Write::Auto, dkey, value, bytes);
        assert_eq!(fetch(object, &View::Latest, dkey, bytes), value);
    }
}

#[test]
fn a_client_that_is_killed_at_any_instruction_leaves_the_server_as_it_was() {
    let (points, seed) = (number("TALEA_KILL_POINTS", POINTS), number("TALEA_KILL_SEED", 1));
    let (_outer, path) = directory();
    let mut server = Server::start(&path, &ALONE);
    server.wait_ready();
    let looker = client(&server, 60_000);
    let run = container(&looker);
    let (epochs, at_once, honest) = (run.object(EPOCHS), run.object(AT_ONCE), run.object(HONEST));
    let mut random = Random(seed);
    go_on(&honest, 255);
    let before = holds(&looker, &server);
    let (mut places, mut acts) = (BTreeSet::new(), BTreeSet::new());
    for point in 0..points {
        let (act, at) = kill_one(&server, &mut random);
        go_on(&honest, point as u8 | 1);
        until(&format!("point {point} of seed {seed}: {act:?} at {at:x?}"), || {
            let now = holds(&looker, &server);
            if now == before { Ok(()) } else { Err(format!("{now:?}\ninstead of {before:?}")) }
        });
        // What it had not committed is gone, and what it had is there whole.
        let seen =
            [(&b"small"[..], SMALL), (b"large", LARGE)].map(|(dkey, bytes)| fetch(&epochs, &View::Latest, dkey, bytes));
        assert_eq!(seen[0], seen[1], "point {point} of seed {seed}: half a commit; {act:?} at {at:x?}");
        fetch(&at_once, &View::Latest, b"value", LARGE);
        acts.insert(act);
        places.insert(at);
    }
    println!("{points} points at {} instructions of {acts:?}", places.len());
    assert!(points < POINTS || acts.len() == ACTS.len(), "{acts:?}");
    assert!(places.len() as u64 > points * 3 / 4, "{} instructions for {points} points", places.len());
    assert_eq!(server.child.try_wait().unwrap(), None, "the server lives");
}
