//! The crash harness: a store runs on media that record every write and every flush; from each prefix of the record come images
//! of what a power loss may leave, and the store recovered from each must hold I1, I2 and I4 of docs/design.md §3.
//!
//! `make crash SEEDS=n` runs more; a failure prints the command that repeats it. The planted bugs at the end show that the harness
//! sees what it is there for.

mod crash {
    pub(crate) mod operation;
    pub(crate) mod world;
}

use crash::operation::Random;
use crash::world::{Layout, World};
use talea_vos::Plant;

/// Runs that `make test` does for each layout, and the images that they must give at least.
const SEEDS: u64 = 40;
const IMAGES: u64 = 12_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// One run and the images of its whole record, and then on from one of them, twice.
fn run(layout: Layout, seed: u64, plant: Plant) -> Result<u64, String> {
    let mut random = Random::new(seed.wrapping_mul(977) + layout as u64);
    let mut world = World::new(layout, plant, &mut random);
    let mut images = 0;
    for phase in 0..3 {
        let actions = 40 + random.below(60);
        (0..actions).for_each(|_| world.act(&mut random));
        let failed = |text| format!("{layout:?}, seed {seed}, phase {phase}: {text}");
        let (count, next) = world.sweep(&mut random).map_err(failed)?;
        images += count;
        world = next;
    }
    Ok(images)
}

fn all(layout: Layout) {
    let wanted = std::env::var("TALEA_CRASH_LAYOUT").unwrap_or_default();
    if !wanted.is_empty() && wanted != format!("{layout:?}").to_lowercase() {
        return;
    }
    let seeds = number("TALEA_CRASH_SEEDS");
    let from = number("TALEA_CRASH_FROM").unwrap_or(0);
    let mut images = 0;
    for seed in from..from + seeds.unwrap_or(SEEDS) {
        let guard = Replay { layout, seed };
        match run(layout, seed, Plant::None) {
            Ok(count) => images += count,
            Err(text) => panic!("{text}"),
        }
        std::mem::forget(guard);
    }
    println!("{layout:?}: {images} images");
    assert!(seeds.is_some() || images >= IMAGES, "only {images} images: the harness sees less than it should");
}

/// Says how to repeat what failed.
struct Replay {
    layout: Layout,
    seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        let layout = format!("{:?}", self.layout).to_lowercase();
        eprintln!("repeat it: make crash LAYOUT={layout} FROM={} SEEDS=1", self.seed);
    }
}

#[test]
fn pmem() {
    all(Layout::Pmem);
}

#[test]
fn nvme() {
    all(Layout::Nvme);
}

#[test]
fn two_tiers() {
    all(Layout::Two);
}

/// Runs until a planted bug shows.
fn caught(layout: Layout, plant: Plant) {
    match (0..80).find_map(|seed| run(layout, seed, plant).err()) {
        Some(text) => println!("{plant:?}: {text}"),
        None => panic!("{plant:?} on {layout:?} was not seen"),
    }
}

#[test]
fn a_missing_fence_is_caught() {
    caught(Layout::Pmem, Plant::SkipFlush);
    caught(Layout::Nvme, Plant::SkipFlush);
    caught(Layout::Two, Plant::SkipFlush);
}

#[test]
fn a_log_entry_before_its_data_is_caught() {
    caught(Layout::Pmem, Plant::LogBeforeData);
    caught(Layout::Two, Plant::LogBeforeData);
}

#[test]
fn a_checkpoint_that_forgets_a_pending_transaction_is_caught() {
    caught(Layout::Pmem, Plant::ForgetPending);
}

#[test]
fn a_superblock_before_its_checkpoint_is_caught() {
    caught(Layout::Pmem, Plant::EarlySuperblock);
    caught(Layout::Two, Plant::EarlySuperblock);
}

#[test]
fn a_block_used_again_too_early_is_caught() {
    caught(Layout::Pmem, Plant::ReuseEarly);
    caught(Layout::Two, Plant::ReuseEarly);
}

/// What the harness found: a new segment whose header was not flushed before the log led to it showed the header that an earlier
/// life of the store had left in its place.
#[test]
fn a_header_of_an_earlier_life_leads_nowhere() {
    run(Layout::Nvme, 5420, Plant::None).unwrap();
}
