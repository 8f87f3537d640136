//! Bulk between nodes, over libfabric: a call that returned at its deadline leaves its memory alone, whatever the server does then.

#[path = "support/data.rs"]
mod data;
#[path = "support/server.rs"]
mod support;

use std::sync::Arc;

use data::{KIND, container};
use rustix::process::{Pid, Signal, kill_process};
use support::{ALONE, Options, SECRET, SYSTEM, Server, directory};
use talea_client::{Client, Condition, EntryFetch, EntryUpdate, FabricPolicy, Object, Tuning, Write};
use talea_fabric::{Credentials, Policy, RealClock, Spin, client_endpoint};
use talea_model::{Extent, ObjectClass, View};

const MIB: usize = 1 << 20;
/// More than the sockets between both take.
const CALLS: u64 = 10;

fn client(server: &Server) -> Client {
    let endpoint = client_endpoint(&Credentials::new(SYSTEM, SECRET), Policy::Libfabric, Spin::Never).unwrap();
    let tuning =
        Tuning { name: "test".to_owned(), deadline_ms: 20_000, fabric: FabricPolicy::Libfabric, ..Tuning::default() };
    let home = server.control[0].parse().unwrap();
    let client = Client::with_endpoint(Box::new(endpoint), Arc::new(RealClock), home, 7, tuning);
    client.open().unwrap();
    client
}

fn update(object: &Object, dkey: u64, data: &[u8]) -> talea_client::Result<()> {
    let (dkey, extents) = (dkey.to_be_bytes(), [Extent::new(0, MIB as u64).unwrap()]);
    let condition = Condition::None;
    let entry = EntryUpdate { dkey: &dkey, akey: b"data", kind: KIND, condition, extents: &extents, data };
    object.update(&Write::Auto, &[entry])
}

fn fetch(object: &Object, dkey: u64, out: &mut [u8]) -> talea_client::Result<()> {
    let (dkey, extents) = (dkey.to_be_bytes(), [Extent::new(0, MIB as u64).unwrap()]);
    object.fetch(&View::Latest, &mut [EntryFetch::array(&dkey, b"data", 1, &extents, out)])
}

#[test]
fn memory_of_calls_that_a_stopped_server_lets_down_is_left_alone() {
    left_alone(r#","interface":"127.0.0.1""#);
}

#[test]
fn memory_of_calls_that_a_stopped_server_lets_down_is_left_alone_over_datagrams() {
    left_alone(r#","interface":"127.0.0.1","provider":"tcp;ofi_rxm""#);
}

fn left_alone(more: &str) {
    let (_outer, path) = directory();
    let mut server = Server::start(&path, &Options { more, ..ALONE });
    server.wait_ready();
    let client = client(&server);
    let oid = client.new_oid(ObjectClass::S1);
    let object = container(&client).object(oid);
    let mut data = vec![1; MIB];
    (0..CALLS).for_each(|dkey| update(&object, dkey, &data).unwrap());
    let hasty = container(&client.with_deadline_ms(300)).object(oid);
    let pid = Pid::from_child(&server.child);
    kill_process(pid, Signal::STOP).unwrap();
    let mut outs = vec![vec![0x55; MIB]; 2];
    for (dkey, out) in outs.iter_mut().enumerate() {
        assert!(fetch(&hasty, dkey as u64, out).is_err());
    }
    for dkey in 0..CALLS {
        data.fill(2);
        assert!(update(&hasty, dkey, &data).is_err());
        // Ours again: nobody may read this.
        data.fill(0xee);
    }
    kill_process(pid, Signal::CONT).unwrap();
    // What was given up is done as it was, or not at all; answers that come late go nowhere.
    let mut found = vec![0; MIB];
    for dkey in 0..CALLS {
        fetch(&object, dkey, &mut found).unwrap();
        assert!([1, 2].contains(&found[0]) && found.iter().all(|byte| *byte == found[0]), "dkey {dkey}: {}", found[0]);
    }
    assert!(outs.iter().flatten().all(|byte| *byte == 0x55), "a fetch that had failed has written");
    update(&object, 0, &vec![3; MIB]).unwrap();
    fetch(&object, 0, &mut found).unwrap();
    assert!(found.iter().all(|byte| *byte == 3));
}
