//! What every tier must do. A new tier is one more line at the end, and passes all of it.

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use talea_tier::{
    Address, Media, Medium, NvmeMedium, PmemMedium, RamMedium, Recorder, SimMedium, Tier, TierError, Torn,
};

const CAPACITY_BYTES: u64 = 8 << 20;

/// A kind of tier under test: opens the same medium again and again.
trait Subject {
    /// Opens it; what an earlier handle persisted is there (if the tier persists at all).
    fn open(&mut self) -> Box<dyn Medium>;
}

impl<F: FnMut() -> Box<dyn Medium>> Subject for F {
    fn open(&mut self) -> Box<dyn Medium> {
        self()
    }
}

fn contents(medium: &dyn Medium) -> Vec<u8> {
    let mut out = vec![0xee; medium.capacity_bytes() as usize];
    medium.read(0, &mut out).unwrap();
    out
}

fn fresh_media_read_as_zeros(subject: &mut dyn Subject) {
    let medium = subject.open();
    assert!(medium.capacity_bytes() <= CAPACITY_BYTES && medium.capacity_bytes() >= CAPACITY_BYTES - 4096);
    assert!(contents(&*medium).iter().all(|byte| *byte == 0));
}

fn what_lies_outside_is_refused_and_changes_nothing(subject: &mut dyn Subject) {
    let mut medium = subject.open();
    let capacity = medium.capacity_bytes();
    for (offset, len) in [(capacity, 1), (capacity - 1, 2), (u64::MAX, 1), (u64::MAX - 5, 10), (capacity + 1, 0)] {
        let data = vec![1; len];
        let refused = |result| matches!(result, Err(TierError::OutOfRange { .. }));
        assert!(refused(medium.write(offset, &data)), "write of {len} at {offset}");
        assert!(refused(medium.read(offset, &mut data.clone())), "read of {len} at {offset}");
        assert!(medium.bytes(offset, len as u64).is_none_or(|bytes| bytes.is_empty()));
    }
    medium.write(capacity, &[]).unwrap();
    medium.write(capacity - 1, &[7]).unwrap();
    medium.persist().unwrap();
    let found = contents(&*medium);
    assert_eq!((found[found.len() - 2], found[found.len() - 1]), (0, 7));
}

#[derive(Clone, Debug)]
enum Action {
    Write { offset: usize, len: usize, value: u8 },
    Padded { block: usize, len: usize, value: u8 },
    Read { offset: usize, len: usize },
    Persist,
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    let offset = || prop_oneof![0usize..CAPACITY_BYTES as usize, (0usize..40_000).prop_map(|at| at + 100_000)];
    let len = || prop_oneof![4 => 1usize..6000, 1 => 1usize..1_500_000];
    prop_oneof![
        6 => (offset(), len(), any::<u8>()).prop_map(|(offset, len, value)| Action::Write { offset, len, value }),
        3 => (0usize..600, len(), any::<u8>()).prop_map(|(block, len, value)| Action::Padded { block, len, value }),
        4 => (offset(), len()).prop_map(|(offset, len)| Action::Read { offset, len }),
        3 => Just(Action::Persist),
        1 => Just(Action::Reopen),
    ]
}

/// Against an array of bytes: reads see all writes, flushed or not, and a flush keeps them.
fn holds_what_was_written(make: &mut dyn FnMut() -> Box<dyn Subject>) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(24);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let make = std::cell::RefCell::new(make);
    let result = runner.run(&prop::collection::vec(action(), 1..30), |actions| {
        let mut subject = (*make.borrow_mut())();
        let mut medium = subject.open();
        let mut model = vec![0u8; medium.capacity_bytes() as usize];
        for action in actions {
            match action {
                Action::Write { offset, len, value } => {
                    let (offset, len) =
                        (offset.min(model.len() - 1), len.min(model.len() - offset.min(model.len() - 1)));
                    medium.write(offset as u64, &pattern(len, value)).unwrap();
                    model[offset..offset + len].copy_from_slice(&pattern(len, value));
                }
                Action::Padded { block, len, value } => {
                    let offset = block * 4096;
                    medium.write_padded(offset as u64, &pattern(len, value)).unwrap();
                    model[offset..offset + len].copy_from_slice(&pattern(len, value));
                    // The rest of the last block is the medium's choice: read it back.
                    let rest = offset + len..(offset + len).next_multiple_of(4096);
                    let mut seen = vec![0; rest.len()];
                    medium.read(rest.start as u64, &mut seen).unwrap();
                    let kept = seen == model[rest.clone()];
                    prop_assert!(
                        kept || seen.iter().all(|byte| *byte == 0),
                        "padding is neither zeros nor what was there"
                    );
                    model[rest].copy_from_slice(&seen);
                }
                Action::Read { offset, len } => {
                    let (offset, len) =
                        (offset.min(model.len() - 1), len.min(model.len() - offset.min(model.len() - 1)));
                    let mut out = vec![0; len];
                    medium.read(offset as u64, &mut out).unwrap();
                    prop_assert!(out == model[offset..offset + len]);
                    if let Some(bytes) = medium.bytes(offset as u64, len as u64) {
                        prop_assert!(bytes == &model[offset..offset + len]);
                    }
                }
                Action::Persist => medium.persist().unwrap(),
                Action::Reopen if medium.is_persistent() => {
                    medium.persist().unwrap();
                    drop(medium);
                    medium = subject.open();
                }
                Action::Reopen => {}
            }
        }
        prop_assert!(contents(&*medium) == model);
        Ok(())
    });
    result.unwrap();
}

fn pattern(len: usize, value: u8) -> Vec<u8> {
    (0..len).map(|at| value.wrapping_add((at / 7) as u8)).collect()
}

/// A file that is offered for mapping shows the bytes at their offsets, also while they change.
fn another_process_can_map_what_is_shared(subject: &mut dyn Subject) {
    let mut medium = subject.open();
    medium.write(12_345, b"seen from outside").unwrap();
    medium.persist().unwrap();
    let Some(shared) = medium.share() else {
        assert!(medium.bytes(0, 1).is_none(), "what is mapped here can be mapped elsewhere");
        return;
    };
    let mut file = std::fs::File::open(&shared.path).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!((meta.dev(), meta.ino()), (shared.device, shared.inode));
    let mut out = [0; 17];
    file.seek(SeekFrom::Start(12_345)).unwrap();
    file.read_exact(&mut out).unwrap();
    assert_eq!(&out, b"seen from outside");
}

/// A medium, and what lets it lose things.
type Losing = (Box<dyn Medium>, Box<dyn Fn()>);

/// What a device was given and lost fails the flush, and each one after it, whoever was told meanwhile. `lose` lets writes to the upper
/// half fail, once they are under way.
fn what_is_lost_late_fails_every_flush_from_then_on(make: &mut dyn FnMut() -> Losing) {
    const BLOCK: u64 = 4096;
    let half = CAPACITY_BYTES / 2;
    type Meanwhile = fn(&mut dyn Medium);
    let meanwhile: [Meanwhile; 5] = [
        |_| {},
        // They may be told of it, and take nothing away.
        |medium| _ = medium.read(CAPACITY_BYTES / 2, &mut [0; 5000]),
        |medium| _ = (0..40).map(|at| medium.write_padded(at * 70_000 / BLOCK * BLOCK, &[3; 9000]).is_ok()).count(),
        |medium| _ = medium.write(CAPACITY_BYTES / 2 + 100, &[1; 10]),
        |medium| _ = medium.persist(),
    ];
    for (number, meanwhile) in meanwhile.into_iter().enumerate() {
        let (mut medium, lose) = make();
        medium.write(0, &[1; 9000]).unwrap();
        medium.persist().unwrap();
        lose();
        // The device may be quick, and say so at once.
        _ = medium.write_padded(half, &[2; 9000]);
        meanwhile(&mut *medium);
        assert!(medium.persist().is_err(), "{number}: the flush that is to cover it");
        _ = medium.write_padded(2 * BLOCK, &[4; 5000]);
        assert!(medium.persist().is_err(), "{number}: the next one");
        assert!(medium.write_padded(2 * BLOCK, &[4; 5000]).is_err(), "{number}: and nothing more is taken");
    }
}

#[test]
fn simulated_loss() {
    what_is_lost_late_fails_every_flush_from_then_on(&mut || {
        let medium = SimMedium::new(CAPACITY_BYTES, Torn::Sectors);
        let handle = medium.clone();
        (Box::new(medium), Box::new(move || handle.lose_after(0)))
    });
}

/// On memory that cannot grow again, shortened while it is in use.
#[test]
fn nvme_loss() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    what_is_lost_late_fails_every_flush_from_then_on(&mut || {
        let file = memfd_create("talea-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
        let medium = NvmeMedium::open(&path, CAPACITY_BYTES).unwrap();
        let lose = move || {
            ftruncate(&file, CAPACITY_BYTES / 2).unwrap();
            fcntl_add_seals(&file, SealFlags::GROW).unwrap();
        };
        (Box::new(medium), Box::new(lose))
    });
}

struct InDirectory {
    dir: tempfile::TempDir,
    open: fn(&std::path::Path) -> Box<dyn Medium>,
}

impl Subject for InDirectory {
    fn open(&mut self) -> Box<dyn Medium> {
        (self.open)(&self.dir.path().join("target"))
    }
}

fn file(parent: &str, open: fn(&std::path::Path) -> Box<dyn Medium>) -> Box<dyn Subject> {
    let parent: PathBuf = std::env::var_os("TALEA_TEST_DIR").map_or_else(|| parent.into(), PathBuf::from);
    Box::new(InDirectory { dir: tempfile::tempdir_in(parent).unwrap(), open })
}

fn all(mut make: impl FnMut() -> Box<dyn Subject>) {
    fresh_media_read_as_zeros(&mut *make());
    what_lies_outside_is_refused_and_changes_nothing(&mut *make());
    another_process_can_map_what_is_shared(&mut *make());
    holds_what_was_written(&mut make);
}

#[test]
fn ram() {
    all(|| {
        let ram: Box<dyn Medium> = Box::new(RamMedium::new(CAPACITY_BYTES).unwrap());
        assert!(!ram.is_persistent(), "it says so");
        let mut once = Some(ram);
        Box::new(move || once.take().expect("memory is opened once"))
    });
}

#[test]
fn pmem_on_tmpfs() {
    all(|| file("/dev/shm", |path| Box::new(PmemMedium::open(path, CAPACITY_BYTES).unwrap())));
}

#[test]
fn pmem_on_a_file_system_with_a_page_cache() {
    all(|| file("/var/tmp", |path| Box::new(PmemMedium::open(path, CAPACITY_BYTES).unwrap())));
}

#[test]
fn nvme_on_a_file() {
    all(|| file("/var/tmp", |path| Box::new(NvmeMedium::open(path, CAPACITY_BYTES).unwrap())));
}

#[test]
fn nvme_where_direct_io_may_be_missing() {
    all(|| file("/dev/shm", |path| Box::new(NvmeMedium::open(path, CAPACITY_BYTES).unwrap())));
}

/// On the namespace that TALEA_TEST_NAMESPACE names (/dev/ng1n1), all of whose data this overwrites.
#[test]
#[ignore = "needs an NVMe namespace of its own: tools/test-guest has one"]
fn nvme_by_commands() {
    let namespace = PathBuf::from(std::env::var_os("TALEA_TEST_NAMESPACE").expect("TALEA_TEST_NAMESPACE"));
    let name = namespace.file_name().unwrap().to_string_lossy().replacen("ng", "nvme", 1);
    let block = namespace.with_file_name(name);
    all(|| {
        let mut zeroed = std::fs::File::options().write(true).open(&block).unwrap();
        std::io::Write::write_all(&mut zeroed, &vec![0; CAPACITY_BYTES as usize]).unwrap();
        zeroed.sync_all().unwrap();
        let namespace = namespace.clone();
        Box::new(move || {
            let medium = NvmeMedium::open(&namespace, CAPACITY_BYTES).unwrap();
            assert!(medium.queue_kind().passthrough);
            Box::new(medium) as Box<dyn Medium>
        })
    });
    let used = std::fs::File::options().read(true).custom_flags(libc::O_EXCL).open(&block).unwrap();
    let refused = NvmeMedium::open(&namespace, CAPACITY_BYTES).err().map(|error| error.to_string());
    assert!(refused.as_ref().is_some_and(|text| text.contains("is in use")), "{refused:?}");
    drop(used);
}

#[test]
fn simulated() {
    for torn in [Torn::Lines, Torn::Sectors] {
        all(|| {
            let medium = SimMedium::new(CAPACITY_BYTES, torn);
            Box::new(move || Box::new(medium.clone()) as Box<dyn Medium>)
        });
    }
}

#[test]
fn recorded() {
    for torn in [Torn::Lines, Torn::Sectors] {
        all(|| {
            let recorder = Recorder::new(vec![(vec![0; CAPACITY_BYTES as usize], torn)]);
            Box::new(move || Box::new(recorder.medium(0)) as Box<dyn Medium>)
        });
    }
}

/// Two tiers at once behave as each does alone: here the second one, seen through addresses.
struct Bulk(Media);

impl Medium for Bulk {
    fn kind(&self) -> talea_tier::MediumKind {
        self.0.kind()
    }
    fn capacity_bytes(&self) -> u64 {
        CAPACITY_BYTES
    }
    fn is_persistent(&self) -> bool {
        self.0.is_persistent()
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), TierError> {
        self.0.write(address(offset)?, data)
    }
    fn write_padded(&mut self, offset: u64, data: &[u8]) -> Result<(), TierError> {
        self.0.write_padded(address(offset)?, data)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), TierError> {
        self.0.read(address(offset)?, out)
    }
    fn persist(&mut self) -> Result<(), TierError> {
        self.0.persist()
    }
}

fn address(offset: u64) -> Result<u64, TierError> {
    let outside = TierError::OutOfRange { offset, len: 0, capacity_bytes: CAPACITY_BYTES };
    if offset > CAPACITY_BYTES { Err(outside) } else { Ok(Address::new(Tier::Bulk, offset).0) }
}

#[test]
fn two_tiers() {
    all(|| {
        let (log, bulk) = (SimMedium::new(1 << 20, Torn::Lines), SimMedium::new(CAPACITY_BYTES, Torn::Sectors));
        Box::new(move || {
            let media = Media::two(Box::new(log.clone()), Box::new(bulk.clone()));
            Box::new(Bulk(media)) as Box<dyn Medium>
        })
    });
}
