//! Round trips between two threads: a message of so many bytes one way, 64 bytes back, over each fabric; and the floors that
//! the machine sets: two threads that spin on one word, and bare TCP.

use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use talea_fabric::{
    Address, Clock, Credentials, Event, Hello, LibfabricEndpoint, Member, PeerId, RealClock, RingEndpoint, SendError,
    Spin, StreamEndpoint,
};

const SIZES: [usize; 3] = [64, 4096, 1024 * 1024];
const REPLY: [u8; 64] = [7; 64];

fn credentials() -> Credentials {
    Credentials::new([1; 16], [2; 32])
}

fn in_a_minute() -> u64 {
    RealClock.monotonic_ns() + 60_000_000_000
}

/// Whether the two sides sleep while they wait, or look until something is there.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Blocking,
    Spinning,
}

fn next(endpoint: &mut dyn Member, mode: Mode, stop: &AtomicBool) -> Option<Event> {
    loop {
        if let Some(event) = endpoint.recv() {
            return Some(event);
        }
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        match mode {
            Mode::Blocking => endpoint.wait(in_a_minute()),
            Mode::Spinning => std::hint::spin_loop(),
        }
    }
}

fn send(endpoint: &mut dyn Member, peer: PeerId, bytes: &[u8]) {
    while let Err(error) = endpoint.send(peer, &[IoSlice::new(bytes)]) {
        assert_eq!(error, SendError::Full, "the peer is gone");
        endpoint.wait(in_a_minute());
    }
}

fn replies(server: &mut dyn Member, mode: Mode, stop: &AtomicBool) {
    while let Some(event) = next(server, mode, stop) {
        if let Event::Message { peer, message } = event {
            assert!(!message.is_empty());
            drop(message);
            send(server, peer, &REPLY);
        }
    }
}

fn fabric<E: Member + 'static>(
    criterion: &mut Criterion,
    name: &str,
    mode: Mode,
    make: impl Fn() -> E,
    listen: impl Fn(&mut E) -> Address,
) {
    let mut group = criterion.benchmark_group(name);
    let stop = Arc::new(AtomicBool::new(false));
    let mut server = make();
    let address = listen(&mut server);
    let waker = server.waker();
    let stopped = stop.clone();
    let thread = thread::spawn(move || replies(&mut server, mode, &stopped));
    let mut client = make();
    let peer = client.connect(&address, &Hello::default(), in_a_minute()).expect("a connection");
    for size in SIZES {
        let bytes = vec![3; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                send(&mut client, peer, &bytes);
                next(&mut client, mode, &stop)
            });
        });
    }
    stop.store(true, Ordering::Relaxed);
    waker.wake();
    thread.join().expect("the server's thread");
}

fn rings(criterion: &mut Criterion) {
    for (name, mode) in [("ring-blocking", Mode::Blocking), ("ring-spinning", Mode::Spinning)] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s").to_string_lossy().into_owned();
        let make = || RingEndpoint::new(&credentials(), Spin::Never).expect("an endpoint");
        fabric(criterion, name, mode, make, |server| server.listen(&path).expect("a listener"));
    }
}

fn libfabric(criterion: &mut Criterion) {
    for (name, mode) in [("libfabric-tcp-blocking", Mode::Blocking), ("libfabric-tcp-spinning", Mode::Spinning)] {
        let make = || LibfabricEndpoint::new(&credentials(), Spin::Never).expect("an endpoint");
        fabric(criterion, name, mode, make, |server| server.listen("127.0.0.1").expect("a listener"));
    }
}

fn streams(criterion: &mut Criterion) {
    let make = || StreamEndpoint::new(&credentials(), Spin::Never).expect("an endpoint");
    fabric(criterion, "stream-tcp-blocking", Mode::Blocking, make, |server| {
        server.listen_tcp("127.0.0.1:0").expect("a listener")
    });
}

/// Two threads hand one word to and fro.
fn floor_of_shared_memory(criterion: &mut Criterion) {
    let word = Arc::new(AtomicU64::new(0));
    let theirs = word.clone();
    let thread = thread::spawn(move || {
        loop {
            match theirs.load(Ordering::Acquire) {
                u64::MAX => return,
                ping if ping % 2 == 1 => theirs.store(ping + 1, Ordering::Release),
                _ => std::hint::spin_loop(),
            }
        }
    });
    criterion.bench_function("floor/shared-word-spinning", |bencher| {
        bencher.iter(|| {
            let ping = word.load(Ordering::Relaxed) + 1;
            word.store(ping, Ordering::Release);
            while word.load(Ordering::Acquire) == ping {
                std::hint::spin_loop();
            }
        });
    });
    word.store(u64::MAX, Ordering::Release);
    thread.join().expect("the other thread");
}

/// Bare TCP over the loopback interface, without framing or proof.
fn floor_of_tcp(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("floor/tcp-blocking");
    for size in SIZES {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let thread = thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("a connection");
            socket.set_nodelay(true).expect("an option");
            let mut bytes = vec![0; size];
            while socket.read_exact(&mut bytes).is_ok() && socket.write_all(&REPLY).is_ok() {}
        });
        let mut socket = TcpStream::connect(address).expect("a connection");
        socket.set_nodelay(true).expect("an option");
        let (bytes, mut reply) = (vec![3; size], REPLY);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                socket.write_all(&bytes).expect("a write");
                socket.read_exact(&mut reply).expect("a reply");
            });
        });
        drop(socket);
        thread.join().expect("the other thread");
    }
}

criterion_group!(benches, floor_of_shared_memory, rings, floor_of_tcp, streams, libfabric);
criterion_main!(benches);
