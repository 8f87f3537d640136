//! A log in a file: what was acknowledged is there after a restart; a damaged file is an error.

use std::os::unix::fs::FileExt;

use talea_control::shell::ControlError;
use talea_control::store::log_file;
use talea_model::{ServerId, Step};
use talea_wire::RefusalCode;
use talea_wire::control::{Reply, Request};

use crate::support::{Client, System, begin, commit, create};

#[test]
fn a_restarted_leader_knows_what_it_acknowledged() {
    let system = System::new();
    let server = system.durable_server(1).unwrap();
    let mut client = Client::connect(&system, &server, 0);
    let container = create(&mut client, "run");
    let tx = begin(&mut client, container).tx;
    let committed = commit(&mut client, tx, &[0]).unwrap();
    let open = begin(&mut client, container).tx;
    server.end().unwrap();

    let server = system.durable_server(1).unwrap();
    let mut client = Client::connect(&system, &server, 0);
    let Reply::Container(info) = client.ok(Request::ContainerOpen { name: "run".into() }) else { panic!() };
    assert_eq!((info.step, info.open_transactions), (Step(1), 0));
    assert_eq!(commit(&mut client, open, &[0]).unwrap_err().code, RefusalCode::Closed);
    let tx = begin(&mut client, container).tx;
    let next = commit(&mut client, tx, &[]).unwrap();
    assert!(next.stamp > committed.stamp && next.position > committed.position);
    server.end().unwrap();
}

#[test]
fn a_damaged_log_stops_the_server_and_stays_as_it_is() {
    let system = System::new();
    let server = system.durable_server(1).unwrap();
    create(&mut Client::connect(&system, &server, 0), "run");
    server.end().unwrap();
    let path = system.directory.path().join("log").join(log_file(ServerId(0)));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0xa5; 4096], 0).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = system.durable_server(1).err().unwrap();
    assert!(matches!(error, ControlError::Log(_)), "{error}");
    assert!(error.to_string().contains("Nothing was changed"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
