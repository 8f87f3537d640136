//! Who has not proved itself gets nothing; who does not read holds up nobody else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use talea_control::shell::{ControlError, Listeners};
use talea_fabric::handshake::HELLO_BYTES;
use talea_fabric::{Address, Credentials};
use talea_wire::control::{Reply, Request};

use crate::support::{Client, System, create, wait_for};

#[test]
fn a_wrong_secret_gets_silence() {
    let system = System::new();
    let (zero, _one) = system.two_servers();
    let foreign = Credentials::new([1; 16], [3; 32]);
    for address in &zero.addresses {
        assert!(Client::without_session(&foreign, address).is_err());
    }
    let Address::Unix { path, .. } = &zero.addresses[0] else { panic!() };
    let Address::Tcp { host_port } = &zero.addresses[1] else { panic!() };
    let mut answer = Vec::new();
    let mut unix = UnixStream::connect(path).unwrap();
    unix.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    unix.write_all(&[0x55; HELLO_BYTES]).unwrap();
    let _ = unix.read_to_end(&mut answer);
    let mut tcp = TcpStream::connect(host_port).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    tcp.write_all(&[0x55; HELLO_BYTES]).unwrap();
    let _ = tcp.read_to_end(&mut answer);
    assert_eq!(answer, b"", "not a byte");
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn strangers_that_say_nothing_keep_nobody_out() {
    let system = System::new();
    let (zero, _one) = system.two_servers();
    let Address::Tcp { host_port } = &zero.addresses[1] else { panic!() };
    let _silent: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(host_port).unwrap()).collect();
    let mut client = Client::connect(&system, &zero, 1);
    create(&mut client, "run");
}

#[test]
fn a_client_that_does_not_read_is_dropped_and_holds_up_nobody() {
    let system = System::new();
    let (zero, _one) = system.two_servers();
    let mut other = Client::connect(&system, &zero, 0);
    // Few requests for much: what a client sends without reading stays within its socket's buffer.
    for n in 0..600 {
        create(&mut other, &format!("{n:0>120}"));
    }
    let mut stalled = Client::connect(&system, &zero, 0);
    stalled.flood(Request::ContainerList, 250);
    wait_for(|| match other.ok(Request::Status) {
        Reply::Status(status) => status.sessions.len() == 1,
        reply => panic!("{reply:?}"),
    });
    create(&mut other, "one-more");
}

#[test]
fn a_live_socket_is_not_taken_over_and_a_dead_one_is() {
    let system = System::new();
    let (zero, _one) = system.two_servers();
    let address = zero.addresses[0].clone();
    let Address::Unix { path, .. } = &address else { panic!() };
    assert!(matches!(Listeners::bind(std::slice::from_ref(&address)), Err(ControlError::Listen { .. })));
    zero.end().unwrap();
    assert!(!std::path::Path::new(path).exists(), "a server that ends leaves no socket");
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    Listeners::bind(&[address]).unwrap();
}
