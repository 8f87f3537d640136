//! Media that lost their end, and starts that are refused: the files are left as they were found.

mod support;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use support::kit::{AUTO, write};
use talea_model::{PoolId, TargetId};
use talea_tier::{ImageMedium, Media, Medium, NvmeMedium, PmemMedium, Tier};
use talea_vos::{Store, StoreError, StoreOptions};

const CAPACITY: u64 = 16 << 20;

type Open = fn(&Path) -> Box<dyn Medium>;

fn pmem(path: &Path) -> Box<dyn Medium> {
    Box::new(PmemMedium::open(path, CAPACITY).unwrap())
}

fn nvme(path: &Path) -> Box<dyn Medium> {
    Box::new(NvmeMedium::open(path, CAPACITY).unwrap())
}

fn options(nonce: u64) -> StoreOptions {
    StoreOptions { pool: PoolId(7), target: TargetId(0), nonce, ..StoreOptions::default() }
}

fn len(path: &Path) -> Option<u64> {
    Some(std::fs::metadata(path).ok()?.len())
}

#[test]
fn a_medium_that_was_cut_is_not_made_longer_again() {
    for (open, cut_tier) in [(pmem as Open, Tier::Log), (nvme, Tier::Log), (pmem, Tier::Bulk), (nvme, Tier::Bulk)] {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (log, bulk) = (dir.path().join("log"), dir.path().join("bulk"));
        let media = || Media::two(open(&log), open(&bulk));
        drop(Store::open(media(), options(1)).unwrap());
        drop(Store::open(media(), options(2)).unwrap());
        let cut = if cut_tier == Tier::Bulk { &bulk } else { &log };
        OpenOptions::new().write(true).open(cut).unwrap().set_len(CAPACITY - 8192).unwrap();
        for _ in 0..2 {
            let error = Store::open(media(), options(3)).err().unwrap();
            assert!(
                matches!(error, StoreError::Cut { tier, made_bytes: CAPACITY, found_bytes } if tier == cut_tier && found_bytes == CAPACITY - 8192),
                "{error:?}"
            );
            assert!(error.to_string().contains("was cut off"), "{error}");
            assert_eq!(len(cut), Some(CAPACITY - 8192));
        }
    }
}

#[test]
fn a_medium_that_lost_its_beginning_is_not_taken_for_an_empty_one() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = dir.path().join("one");
    let mut store = Store::open(Media::one(pmem(&path)), options(1)).unwrap().0;
    write(&mut store, AUTO, 5, 0, b"data").unwrap();
    store.flush().unwrap();
    drop(store);
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.write_all_at(&[0; 8192], 0).unwrap();
    assert!(matches!(Store::open(Media::one(pmem(&path)), options(2)), Err(StoreError::Beheaded)));
    let media = Media::one(Box::new(ImageMedium::open(&path).unwrap()));
    let mut said = String::new();
    let problems = talea_vos::inspect::inspect(&media, |found| said += &format!("{found:?}")).unwrap();
    assert_eq!(problems, 1);
    assert!(said.contains("beginning was overwritten"), "{said}");
}

#[test]
fn a_refused_start_leaves_no_file_that_was_not_there() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (one, log, bulk) = (dir.path().join("one"), dir.path().join("log"), dir.path().join("bulk"));
    drop(Store::open(Media::one(pmem(&one)), options(1)).unwrap());
    drop(Store::open(Media::two(pmem(&log), pmem(&bulk)), options(2)).unwrap());

    // A tier that the store was made without.
    let new = dir.path().join("new");
    assert!(matches!(Store::open(Media::two(pmem(&one), pmem(&new)), options(3)), Err(StoreError::Bulk(_))));
    assert_eq!((len(&new), len(&one)), (None, Some(CAPACITY)));
    // One that is missing.
    std::fs::rename(&bulk, dir.path().join("elsewhere")).unwrap();
    assert!(matches!(Store::open(Media::two(pmem(&log), pmem(&bulk)), options(5)), Err(StoreError::Bulk(_))));
    assert_eq!((len(&bulk), len(&log)), (None, Some(CAPACITY)));
    std::fs::rename(dir.path().join("elsewhere"), &bulk).unwrap();
    Store::open(Media::two(pmem(&log), pmem(&bulk)), options(6)).unwrap();
}
