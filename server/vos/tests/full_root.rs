//! A file system that others fill below a store: an error that says so, at the start or at an update; never a signal, nothing lost.
//!
//! The file systems are made and mounted in a mount namespace of the test's own, which takes root.

mod support;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::kit::*;
use talea_model::{Extent, Position, Stamp, View};
use talea_tier::{Medium, NvmeMedium, PmemMedium, TierError};
use talea_vos::{Change, Condition, EntryUpdate, FetchWhat, Punch, Store, StoreError, StoreOptions};

const CAPACITY: u64 = 16 << 20;
const VALUE: usize = 100_000;
/// Where the test inside of the namespace finds its file system.
const MOUNTED: &str = "TALEA_TEST_MOUNTED";

type Open = fn(&Path, u64) -> Result<Box<dyn Medium>, TierError>;

fn pmem(path: &Path, capacity_bytes: u64) -> Result<Box<dyn Medium>, TierError> {
    Ok(Box::new(PmemMedium::open(path, capacity_bytes)?))
}

fn nvme(path: &Path, capacity_bytes: u64) -> Result<Box<dyn Medium>, TierError> {
    Ok(Box::new(NvmeMedium::open(path, capacity_bytes)?))
}

/// Mounts by a shell line, in which `$1` is a directory, and runs a test of this file there.
fn inside(test: &str, mount: &str) {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let script = format!(r#"set -e; mkdir "$1/on"; {mount}; exec "$2" --exact {test} --ignored --nocapture"#);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    command.arg(dir.path()).arg(std::env::current_exe().unwrap()).env(MOUNTED, dir.path().join("on"));
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
}

fn mounted() -> PathBuf {
    std::env::var_os(MOUNTED).expect("the test that mounts runs this one").into()
}

/// Fills what is left of the file system.
fn ballast(on: &Path) -> PathBuf {
    let path = on.join("ballast");
    let mut file = File::create(&path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    path
}

struct Filled {
    store: Store,
    stamp: u64,
}

impl Filled {
    fn new(medium: Box<dyn Medium>) -> Self {
        let options = StoreOptions { nonce: 4, segment_bytes: 64 << 10, ..StoreOptions::default() };
        Self { store: Store::open(medium, options).unwrap().0, stamp: 10 }
    }

    fn put(&mut self, key: u32) -> Result<(), StoreError> {
        self.stamp += 1;
        let (dkey, data) = (key.to_be_bytes(), vec![key as u8; VALUE]);
        let extents = [Extent { index: 0, count: VALUE as u64 }];
        let entry = EntryUpdate { kind: BYTES, extents: &extents, ..entry(&dkey, b"a", &data) };
        let done = self.store.update(at(1), AUTO, Stamp(self.stamp), View::Latest, NOBODY, &[entry]);
        self.store.flush().unwrap();
        done
    }

    /// As a target does: room that is to come is waited for.
    fn put_patiently(&mut self, key: u32) -> Result<(), StoreError> {
        for _ in 0..1000 {
            match self.put(key) {
                Err(StoreError::RoomToCome { .. }) => _ = self.store.background(256).unwrap(),
                done => return done,
            }
        }
        panic!("room is to come, and never does");
    }

    fn check(&self, keys: u32) {
        for key in 0..keys {
            let (mut out, all) = (Vec::new(), [Extent { index: 0, count: VALUE as u64 }]);
            let dkey = key.to_be_bytes();
            self.store.fetch(at(1), View::Latest, &dkey, b"a", FetchWhat::Array(&all), &mut out).unwrap();
            assert!(out == vec![key as u8; VALUE], "key {key}");
        }
    }

    fn punch(&mut self, key: u32) {
        self.stamp += 1;
        let (dkey, stamp) = (key.to_be_bytes(), Stamp(self.stamp));
        self.store.punch(at(1), AUTO, stamp, View::Latest, NOBODY, Punch::Dkey(&dkey), Condition::None).unwrap();
        self.store.flush().unwrap();
    }

    /// What was punched is given back.
    fn aggregate(&mut self) {
        let floor = Change::Floor(at(1).container, Stamp(self.stamp));
        self.store.follow(&[floor], Position(self.stamp)).unwrap();
        while self.store.background(256).unwrap() {}
        self.store.flush().unwrap();
    }

    /// Writes until something is refused; how many there were.
    fn fill(&mut self) -> (u32, StoreError) {
        for key in 0..1000 {
            if let Err(error) = self.put_patiently(key) {
                return (key, error);
            }
        }
        panic!("16 MiB took 100 MB");
    }
}

#[test]
fn a_tmpfs_that_others_fill_refuses_updates_and_nothing_else_root() {
    inside("memory", r#"mount -t tmpfs -o size=24M talea-test "$1/on""#);
}

#[test]
#[ignore = "run by the test that mounts its file system"]
fn memory() {
    let on = mounted();
    let refused = pmem(&on.join("large"), 64 << 20).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains("configure a smaller tier"), "{refused}");
    let path = on.join("target");
    let mut filled = Filled::new(pmem(&path, CAPACITY).unwrap());
    (0..40).for_each(|key| filled.put(key).unwrap());
    let other = ballast(&on);
    let refusals = (1000..1200).filter_map(|key| filled.put_patiently(key).err()).collect::<Vec<_>>();
    let no_room = |error: &StoreError| matches!(error, StoreError::Tier(TierError::NoRoom { .. }));
    assert!(refusals.len() > 100 && refusals.iter().all(no_room), "{:?}", refusals.first());
    filled.check(40);
    (0..10).for_each(|key| filled.punch(key));
    filled.aggregate();
    // A restart finds it all, on a file system that is still full.
    drop(filled.store);
    filled.store = Store::open(pmem(&path, CAPACITY).unwrap(), StoreOptions::default()).unwrap().0;
    for key in 10..40u32 {
        let (mut out, all) = (Vec::new(), [Extent { index: 0, count: VALUE as u64 }]);
        let dkey = key.to_be_bytes();
        filled.store.fetch(at(1), View::Latest, &dkey, b"a", FetchWhat::Array(&all), &mut out).unwrap();
        assert!(out == vec![key as u8; VALUE], "key {key}");
    }
    (0..10).for_each(|key| filled.put_patiently(key).unwrap());
    std::fs::remove_file(other).unwrap();
    (2000..2040).for_each(|key| filled.put(key).unwrap());
    filled.check(40);
}

#[test]
fn a_disk_that_others_fill_has_the_room_that_its_tiers_were_promised_root() {
    let mount = r#"truncate -s 64M "$1/disk"; mkfs.ext4 -q -F "$1/disk"; mount -o loop "$1/disk" "$1/on""#;
    inside("disk", mount);
}

#[test]
#[ignore = "run by the test that mounts its file system"]
fn disk() {
    let on = mounted();
    for (name, open) in [("pmem", pmem as Open), ("nvme", nvme as Open)] {
        let refused = open(&on.join("large"), 1 << 30).err();
        let text = refused.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(matches!(refused, Some(TierError::TooLarge { .. })), "{name}: {text}");
        assert!(text.contains("1.00 GiB") && text.contains("configure a smaller tier"), "{name}: {text}");
        assert!(!on.join("large").exists(), "{name}: what could not be made is gone");
        let path = on.join(name);
        let mut filled = Filled::new(open(&path, CAPACITY).unwrap());
        let other = ballast(&on);
        let (keys, error) = filled.fill();
        assert!(matches!(error, StoreError::NoSpace { .. }), "{name}: full by its own size: {error}");
        assert!(keys > 100, "{name}: {keys} values of 100 kB in 16 MiB");
        filled.check(keys);
        (keys / 2..keys).for_each(|key| filled.punch(key));
        filled.aggregate();
        (keys / 2..keys - 5).for_each(|key| filled.put(key).unwrap());
        drop(filled.store);
        filled.store = Store::open(open(&path, CAPACITY).unwrap(), StoreOptions::default()).unwrap().0;
        filled.check(keys - 5);
        std::fs::remove_file(other).unwrap();
    }
}
