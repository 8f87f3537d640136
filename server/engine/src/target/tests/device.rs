//! Fetches of a target whose data lies on a device.

use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use talea_model::{SessionId, View};
use talea_tier::{Media, NvmeMedium, SimMedium, SimRead, Torn};
use talea_wire::data::{Body, Condition};

use super::bench::*;
use crate::Target;

#[test]
fn fetches_that_come_together_ask_the_device_together() {
    let mut bench = Bench::new();
    bench.up(2);
    let keys: Vec<String> = (0..8).map(|key| format!("key {key}")).collect();
    let value_of = |key: &String| key.repeat(2000).into_bytes();
    for key in &keys {
        assert_eq!(bench.put(AUTO, View::Latest, key.as_bytes(), &value_of(key)), Some(Answer::Done));
    }
    bench.medium.is_device();
    let mut asked = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        let mut head = bench.head(None, View::Latest);
        head.session = SessionId(1 + number as u64 % 2);
        asked.push((bench.send(head, Body::Fetch(vec![single(key.as_bytes(), &[], Condition::None)])), key));
    }
    assert_eq!(bench.medium.take_reads(), [], "nothing is read before the turn's end");
    let answers = bench.finish();
    let expected: Vec<_> = asked.iter().map(|(id, key)| (*id, value(&value_of(key)).unwrap())).collect();
    assert_eq!(answers, expected);
    let reads = bench.medium.take_reads();
    let begun = reads.iter().take_while(|read| matches!(read, SimRead::Begun(_))).count();
    assert_eq!((begun, reads.len()), (8, 16), "all are under way before the first one is waited for: {reads:?}");
    assert_eq!(bench.target.parked(), 0);
}

/// A device whose writes beyond its beginning fail from now on, when they are under way.
fn break_device(file: &std::os::fd::OwnedFd) {
    assert!(fstat(file).unwrap().st_size > 4096);
    ftruncate(file, 4096).unwrap();
    fcntl_add_seals(file, SealFlags::GROW).unwrap();
}

#[test]
fn an_update_whose_write_fails_under_way_is_never_acknowledged() {
    for read_it in [false, true] {
        let file = memfd_create("talea-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let bulk = NvmeMedium::open(path.as_ref(), 8 << 20).unwrap();
        let log = SimMedium::new(8 << 20, Torn::Lines);
        let mut bench = Bench::new();
        bench.target = Target::open(Media::two(Box::new(log), Box::new(bulk)), options()).unwrap().0;
        bench.target.set_map(Arc::new(map(1)));
        bench.target.set_containers([RUN]);
        bench.lease(3_600_000_000_000);
        bench.up(1);
        bench.finish();
        assert_eq!(bench.put(AUTO, View::Latest, b"before", &[1; 9000]), Some(Answer::Done));
        break_device(&file);
        let head = bench.head(Some(AUTO), View::Latest);
        bench.send(head, Body::Update(vec![single(b"k", &[2; 9000], Condition::None)]));
        if read_it {
            // Whose bytes are on their way, so that it waits for them, and is told.
            let head = bench.head(None, View::Latest);
            bench.send(head, Body::Fetch(vec![single(b"k", &[], Condition::None)]));
        }
        assert!(bench.target.finish(bench.now, &mut bench.out).is_err(), "the target stops");
        assert!(bench.out.take().is_empty(), "and acknowledges nothing");
    }
}
