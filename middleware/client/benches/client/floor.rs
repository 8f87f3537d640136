//! What the machine and the bare fabric take for the same bytes.

use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use crc_fast::{CrcAlgorithm, checksum};
use serde_json::json;
use talea_fabric::{
    Address, Clock, Credentials, Event, Hello, LibfabricEndpoint, Member, PeerId, RealClock, RingEndpoint, SendError,
    Spin, StreamEndpoint,
};

use crate::load::{PROCESSES, Pattern};
use crate::measure::{Floor, Samples};
use crate::worker::{Worker, ready};

const REPLY_BYTES: usize = 64;
const MIB: usize = 1 << 20;
/// Far larger than any cache.
const LARGE_BYTES: usize = 256 * MIB;

fn credentials() -> Credentials {
    Credentials::new([1; 16], [2; 32])
}

fn later() -> u64 {
    RealClock.monotonic_ns() + 60_000_000_000
}

fn make(fabric: &str, mode: &str) -> Box<dyn Member> {
    let spin = mode.parse().unwrap_or(Spin::Never);
    match fabric {
        "ring" => Box::new(RingEndpoint::new(&credentials(), spin).expect("an endpoint")),
        "libfabric" => Box::new(LibfabricEndpoint::new(&credentials(), spin).expect("an endpoint")),
        _ => Box::new(StreamEndpoint::new(&credentials(), spin).expect("an endpoint")),
    }
}

fn listening(fabric: &str, mode: &str, path: &str) -> (Box<dyn Member>, Address) {
    let spin = mode.parse().unwrap_or(Spin::Never);
    match fabric {
        "ring" => {
            let mut endpoint = RingEndpoint::new(&credentials(), spin).expect("an endpoint");
            let address = endpoint.listen(path).expect("a listener");
            (Box::new(endpoint), address)
        }
        "libfabric" => {
            let mut endpoint = LibfabricEndpoint::new(&credentials(), spin).expect("an endpoint");
            let address = endpoint.listen("127.0.0.1").expect("a listener");
            (Box::new(endpoint), address)
        }
        _ => {
            let mut endpoint = StreamEndpoint::new(&credentials(), spin).expect("an endpoint");
            let address = match fabric {
                "unix" => endpoint.listen_unix(path),
                _ => endpoint.listen_tcp("127.0.0.1:0"),
            };
            (Box::new(endpoint), address.expect("a listener"))
        }
    }
}

fn next(endpoint: &mut dyn Member) -> Option<Event> {
    loop {
        if let Some(event) = endpoint.recv() {
            return Some(event);
        }
        endpoint.wait(later());
    }
}

fn send(endpoint: &mut dyn Member, peer: PeerId, bytes: &[u8]) -> bool {
    loop {
        match endpoint.send(peer, &[IoSlice::new(bytes)]) {
            Ok(()) => return true,
            Err(SendError::Full) => endpoint.wait(later()),
            Err(_) => return false,
        }
    }
}

/// The other end: a message of N bytes whose first eight say how many bytes are wanted back.
pub(crate) fn pong(fabric: &str, mode: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("p").to_string_lossy().into_owned();
    let (mut endpoint, address) = listening(fabric, mode, &path);
    println!("{address}");
    let answer = vec![7u8; MIB];
    while let Some(event) = next(&mut *endpoint) {
        match event {
            Event::Up { .. } | Event::Connected { .. } => {}
            Event::Message { peer, message } => {
                let wanted = message[..8].try_into().map_or(REPLY_BYTES, |bytes| u64::from_le_bytes(bytes) as usize);
                drop(message);
                send(&mut *endpoint, peer, &answer[..wanted]);
            }
            Event::Down { .. } => return,
        }
    }
}

/// Round trips of `there` bytes one way and `back` bytes the other, between two processes over a bare fabric.
pub(crate) fn ping_pong(fabric: &str, mode: &str, there: usize, back: usize, count: usize) -> Floor {
    let (_worker, said) = Worker::start(&["pong".into(), fabric.into(), mode.into()]);
    let address: Address = said.parse().expect("an address");
    let mut endpoint = make(fabric, mode);
    let peer = endpoint.connect(&address, &Hello::default(), later()).expect("a connection");
    let mut bytes = vec![3u8; there.max(8)];
    bytes[..8].copy_from_slice(&(back as u64).to_le_bytes());
    let mut round = |_| {
        assert!(send(&mut *endpoint, peer, &bytes), "the other end is there");
        match next(&mut *endpoint) {
            Some(Event::Message { message, .. }) => assert_eq!(message.len(), back),
            other => panic!("{other:?}"),
        }
    };
    Samples::take(count / 10, &mut round);
    let samples = Samples::take(count, round);
    endpoint.disconnect(peer);
    Floor { name: format!("{fabric} ping-pong, {mode}, {there} B and {back} B"), value: samples.median() }
}

/// One copy and one checksum of a MiB, over buffers far larger than the caches, in nanoseconds.
pub(crate) fn copy_and_checksum() -> Floor {
    let from = vec![5u8; LARGE_BYTES];
    let mut to = vec![1u8; LARGE_BYTES];
    let samples = Samples::take(2 * LARGE_BYTES / MIB, |number| {
        let at = number % (LARGE_BYTES / MIB) * MIB;
        to[at..at + MIB].copy_from_slice(black_box(&from[at..at + MIB]));
        black_box(checksum(CrcAlgorithm::Crc32Iscsi, &to[at..at + MIB]));
    });
    Floor { name: "copy + checksum of 1 MiB".into(), value: samples.median() }
}

/// A write of a block into a file of a directory and its flush, in nanoseconds.
pub(crate) fn write_and_flush(directory: &std::path::Path, bytes: usize, count: usize) -> f64 {
    let path = directory.join("floor");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path).expect("a file");
    file.write_all_at(&vec![1; MIB], 0).expect("room for a file");
    file.sync_all().expect("a flush");
    let data = vec![3u8; bytes];
    let samples = Samples::take(count, |number| {
        file.write_all_at(&data, (number % (MIB / bytes) * bytes) as u64).expect("a write");
        file.sync_data().expect("a flush");
    });
    let _ = std::fs::remove_file(&path);
    samples.median()
}

/// A read of 4 KiB around the page cache from a file of a directory, in nanoseconds.
pub(crate) fn read_of_device(directory: &std::path::Path, count: usize) -> f64 {
    use rustix::fs::{Mode, OFlags};
    const BLOCK: usize = 4096;
    let path = directory.join("floor");
    std::fs::write(&path, vec![1; MIB]).expect("room for a file");
    let file =
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECT, Mode::empty()).expect("a file to be read directly");
    let mut room = vec![0u8; 2 * BLOCK];
    let at = room.as_ptr().align_offset(BLOCK);
    let samples = Samples::take(count, |number| {
        let from = number * 7 % (MIB / BLOCK) * BLOCK;
        let read = rustix::io::pread(&file, &mut room[at..at + BLOCK], from as u64);
        assert_eq!(read.expect("a read"), BLOCK);
    });
    let _ = std::fs::remove_file(&path);
    samples.median()
}

/// Bytes that each process of a floor on tmpfs moves, in laps over the file.
const MOVED_BYTES: u64 = 800 << 20;

/// The same blocks of a file on tmpfs, of as many bytes, from as many processes at once: operations a second of all. The file is there
/// before, so writes overwrite its pages.
pub(crate) fn tmpfs(pattern: &Pattern) -> Floor {
    let Pattern { write, bytes, interleaved, span } = *pattern;
    let path = format!("/dev/shm/talea-bench-floor-{}", std::process::id());
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path).expect("a file on tmpfs");
    let zeros = vec![1u8; MIB];
    let pieces = span.div_ceil(MIB as u64);
    (0..pieces).for_each(|number| file.write_all_at(&zeros, number * MIB as u64).expect("room on tmpfs"));
    let words = |number: usize| {
        let flags = [write, interleaved].map(|flag| flag.to_string());
        let numbers = [bytes, span, number as u64].map(|number| number.to_string());
        ["tmpfs".to_owned(), path.clone()].into_iter().chain(flags).chain(numbers).collect::<Vec<_>>()
    };
    let mut workers: Vec<Worker> = (0..PROCESSES).map(|number| Worker::start(&words(number)).0).collect();
    workers.iter_mut().for_each(Worker::go);
    let rate = workers.iter_mut().map(|worker| worker.results()["rate"].as_f64().unwrap_or(0.0)).sum();
    let _ = std::fs::remove_file(&path);
    let (verb, of) = if write { ("pwrite", "used pages of ") } else { ("pread", "") };
    let order = if interleaved { "interleaved" } else { "at random" };
    let name = format!("{verb} of {bytes} B {order} in {of}{pieces} MiB on tmpfs, {PROCESSES} processes");
    Floor { name, value: rate }
}

pub(crate) fn tmpfs_worker(words: &[&str]) {
    let [path, write, interleaved, numbers @ ..] = words else { return };
    let numbers: Vec<u64> = numbers.iter().map(|text| text.parse().unwrap_or(0)).collect();
    let [bytes, span, number] = numbers[..] else { return };
    let pattern = Pattern { write: *write == "true", bytes, interleaved: *interleaved == "true", span };
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the parent's file");
    let mut buffer = vec![2u8; bytes as usize];
    let (mut random, operations) = (number + 1, MOVED_BYTES / bytes);
    if !ready("ready") {
        return;
    }
    let began = Instant::now();
    for operation in 0..operations {
        let at = pattern.place(operation, (number, PROCESSES as u64), &mut random);
        let done = if pattern.write { file.write_all_at(&buffer, at) } else { file.read_exact_at(&mut buffer, at) };
        assert!(done.is_ok());
    }
    println!("{}", json!({ "rate": operations as f64 / began.elapsed().as_secs_f64() }));
}
