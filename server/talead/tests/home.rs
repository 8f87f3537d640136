//! Real servers and the clients that lose them: what one client can do by itself, again and again, without another one's help.

#[path = "support/data.rs"]
mod data;
#[path = "support/server.rs"]
mod support;

use std::time::{Duration, Instant};

use data::{client, container};
use rustix::process::{Pid, Signal, kill_process};
use support::{PATIENCE, Server, servers};
use talea_client::{Client, Write};
use talea_model::{Layout, ObjectClass, Oid, TargetId};

const LEASE: &str = r#","membership_lease_ms":1000"#;

fn signal(server: &Server, signal: Signal) {
    kill_process(Pid::from_child(&server.child), signal).unwrap();
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An object that lies on one target alone.
fn object_on(client: &Client, target: TargetId) -> Oid {
    let map = client.map();
    let mut oids = std::iter::repeat_with(|| client.new_oid(ObjectClass::S1));
    oids.find(|oid| Layout::of(*oid, &map).unwrap().targets() == [target]).unwrap()
}

#[test]
fn a_client_of_one_target_finds_it_again_when_its_server_was_stopped_and_goes_on() {
    let (_outer, all) = servers(3, LEASE);
    let (writer, other) = (client(&all[0], 3_000), client(&all[1], 20_000));
    let target = TargetId(4);
    let object = container(&writer).object(object_on(&writer, target));
    let write = || data::fill(&object, &Write::Auto, 1, 1);
    write().unwrap();
    signal(&all[2], Signal::STOP);
    until("it is not missed", || !other.status().unwrap().map.is_up(target));
    // It has to meet this: who never asks while the target is down knows nothing to be mistaken about.
    until("it does not hear of it", || write().is_err() && !writer.map().is_up(target));
    signal(&all[2], Signal::CONT);
    until("it does not come back", || other.status().unwrap().map.is_up(target));
    until("the client never asks again", || write().is_ok());
}
