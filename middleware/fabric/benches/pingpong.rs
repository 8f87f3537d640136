//! Round trips between two threads: a message of so many bytes one way, 64 bytes back, over each fabric; and in each group the
//! floor that the machine sets: a copy and a shared word, a copy and two wake-ups, or bare TCP.

use std::hint::black_box;
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use talea_fabric::{
    Address, Clock, Credentials, DatagramEndpoint, Event, Hello, LibfabricEndpoint, Member, PeerId, RealClock,
    RingEndpoint, SendError, Spin, StreamEndpoint,
};

type Group<'a> = BenchmarkGroup<'a, WallTime>;

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
    group: &mut Group<'_>,
    mode: Mode,
    make: impl Fn() -> E,
    listen: impl Fn(&mut E) -> Address,
) {
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
        group.bench_function(BenchmarkId::new("round-trip", size), |bencher| {
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
    for (name, mode) in [("ring-spinning", Mode::Spinning), ("ring-blocking", Mode::Blocking)] {
        let mut group = criterion.benchmark_group(name);
        match mode {
            Mode::Spinning => floor_of_shared_memory(&mut group, std::hint::spin_loop),
            Mode::Blocking => floor_of_wake_ups(&mut group),
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s").to_string_lossy().into_owned();
        let make = || RingEndpoint::new(&credentials(), Spin::Never).expect("an endpoint");
        fabric(&mut group, mode, make, |server| server.listen(&path).expect("a listener"));
    }
}

fn libfabric(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("libfabric-tcp-blocking");
    floor_of_tcp(&mut group);
    let make = || LibfabricEndpoint::new(&credentials(), Spin::Never).expect("an endpoint");
    fabric(&mut group, Mode::Blocking, make, |server| server.listen("127.0.0.1").expect("a listener"));
}

fn datagrams(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("libfabric-rdm-tcp-blocking");
    floor_of_tcp(&mut group);
    let make = || DatagramEndpoint::new(&credentials(), Spin::Never).expect("an endpoint");
    fabric(&mut group, Mode::Blocking, make, |server| server.listen("tcp;ofi_rxm", "127.0.0.1").expect("a listener"));
}

fn streams(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream-tcp-blocking");
    floor_of_tcp(&mut group);
    let make = || StreamEndpoint::new(&credentials(), Spin::Never).expect("an endpoint");
    fabric(&mut group, Mode::Blocking, make, |server| server.listen_tcp("127.0.0.1:0").expect("a listener"));
}

/// One thread copies the bytes, then hands one word to the other, which hands it back.
fn floor_of_shared_memory(group: &mut Group<'_>, pause: impl Fn() + Copy + Send + 'static) {
    let word = Arc::new(AtomicU64::new(0));
    let theirs = word.clone();
    let thread = thread::spawn(move || {
        loop {
            match theirs.load(Ordering::Acquire) {
                u64::MAX => return,
                ping if !ping.is_multiple_of(2) => theirs.store(ping + 1, Ordering::Release),
                _ => pause(),
            }
        }
    });
    for size in SIZES {
        let (bytes, mut shared) = (vec![3u8; size], vec![0u8; size]);
        group.bench_function(BenchmarkId::new("floor-shared-word", size), |bencher| {
            bencher.iter(|| {
                shared.copy_from_slice(black_box(&bytes));
                black_box(&shared);
                let ping = word.load(Ordering::Relaxed) + 1;
                word.store(ping, Ordering::Release);
                while word.load(Ordering::Acquire) == ping {
                    pause();
                }
            });
        });
    }
    word.store(u64::MAX, Ordering::Release);
    thread.join().expect("the other thread");
}

/// One thread copies the bytes and wakes the other through a pipe, which wakes it back.
fn floor_of_wake_ups(group: &mut Group<'_>) {
    let (mut there, mut ping) = std::io::pipe().expect("a pipe");
    let (mut back, mut pong) = std::io::pipe().expect("a pipe");
    let thread = thread::spawn(move || {
        let mut byte = [0];
        while there.read_exact(&mut byte).is_ok() && pong.write_all(&byte).is_ok() {}
    });
    for size in SIZES {
        let (bytes, mut shared) = (vec![3u8; size], vec![0u8; size]);
        group.bench_function(BenchmarkId::new("floor-wake-ups", size), |bencher| {
            bencher.iter(|| {
                shared.copy_from_slice(black_box(&bytes));
                black_box(&shared);
                ping.write_all(&[1]).expect("a write");
                back.read_exact(&mut [0]).expect("a reply");
            });
        });
    }
    drop(ping);
    thread.join().expect("the other thread");
}

/// Bare TCP over the loopback interface, without framing or proof.
fn floor_of_tcp(group: &mut Group<'_>) {
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
        group.bench_function(BenchmarkId::new("floor-tcp", size), |bencher| {
            bencher.iter(|| {
                socket.write_all(&bytes).expect("a write");
                socket.read_exact(&mut reply).expect("a reply");
            });
        });
        drop(socket);
        thread.join().expect("the other thread");
    }
}

fn quick() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
}

criterion_group!(name = benches; config = quick(); targets = rings, streams, libfabric, datagrams);
criterion_main!(benches);
