//! The short way for reads (docs/design.md §6): what targets of this node have said about where bytes lie, as snapshots and the insides
//! of transactions see them.
//!
//! Owns the windows into their media, the leases under which those may be read, and the maps of extents. Must never answer from
//! a map whose lease has ended or, inside of a transaction, that the target's board does not say is still right, or with bytes that
//! were not verified under it. What it cannot answer goes the long way.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use talea_fabric::{Memory, Window};
use talea_model::{ContainerId, Oid, Stamp, TargetId, TxId, View};
use talea_wire::data::{Located, Share, Span};

const MS: u64 = 1_000_000;
/// Spans remembered of one target; at about 100 bytes each. More are asked for anew.
const SPANS_MAX: usize = 1 << 17;

/// Opens a window into a medium, if it can be had.
pub type OpenWindow = Arc<dyn Fn(&Share) -> Option<Arc<dyn Memory>> + Send + Sync>;

/// How windows are opened.
#[derive(Clone, Default)]
pub enum ShortWay {
    /// By mapping the media of servers on this node, where their tier can be mapped.
    #[default]
    Mapped,
    /// By something else that knows the media: a simulation.
    Through(OpenWindow),
    /// Not at all: all reads go through the servers.
    Off,
}

impl std::fmt::Debug for ShortWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ShortWay::Mapped => "Mapped",
            ShortWay::Through(_) => "Through",
            ShortWay::Off => "Off",
        })
    }
}

impl ShortWay {
    fn open(&self, share: &Share) -> Option<Arc<dyn Memory>> {
        match self {
            ShortWay::Mapped => {
                let window = Window::open(&share.path, share.device, share.inode, share.bytes).ok()?;
                Some(Arc::new(window))
            }
            ShortWay::Through(open) => open(share),
            ShortWay::Off => None,
        }
    }
}

/// A view whose places are remembered.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Seen {
    /// A snapshot: for ever.
    At(Stamp),
    /// Inside of a transaction, over its base: until the target's board shows another number.
    Inside(TxId, Stamp),
}

impl Seen {
    /// What a view sees; `None`: what changes with the pool's log.
    pub(crate) fn by(view: View) -> Option<Self> {
        match view {
            View::Snapshot { stamp, .. } => Some(Seen::At(stamp)),
            View::Inside { tx, base, .. } => Some(Seen::Inside(tx, base)),
            View::Latest => None,
        }
    }
}

/// What array is read, in which view.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) container: ContainerId,
    pub(crate) oid: Oid,
    pub(crate) seen: Seen,
    pub(crate) dkey: &'a [u8],
    pub(crate) akey: &'a [u8],
}

/// Where the records from some index up to another lie.
pub(crate) struct ExtentMap {
    pub(crate) from: u64,
    pub(crate) record_bytes: u32,
    pub(crate) end: u64,
    pub(crate) granule_bytes: u32,
    pub(crate) spans: Vec<Placed>,
}

/// A span, and which of its granules were verified since the lease on it began.
pub(crate) struct Placed {
    pub(crate) span: Span,
    verified: Box<[AtomicBool]>,
}

impl Placed {
    pub(crate) fn is_verified(&self, granule: usize) -> bool {
        self.verified[granule].load(Ordering::Relaxed)
    }

    /// Nothing else is published by this: the memory is the server's, and the lease keeps it as it is.
    pub(crate) fn set_verified(&self, granule: usize) {
        self.verified[granule].store(true, Ordering::Relaxed);
    }
}

/// A map that may be used until a time.
#[derive(Clone)]
pub(crate) struct Lent {
    pub(crate) memory: Arc<dyn Memory>,
    pub(crate) map: Arc<ExtentMap>,
    pub(crate) until_ns: u64,
    read: Arc<AtomicU64>,
}

impl Lent {
    /// So many bytes of the target were read in place.
    pub(crate) fn count(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

type Maps = BTreeMap<u64, Arc<ExtentMap>>;
type Akeys = HashMap<Vec<u8>, Maps>;

/// Reads in a row without a change at the target, from which on more is located than is read inside of transactions: at first, and where
/// changes come too soon after that.
const QUIET_READS: u32 = 2;
const QUIET_READS_MAX: u32 = 4096;
/// How often places must have been of use for the asking to have paid.
const PAYS_AFTER: u32 = 8;

/// What a target's board has shown.
struct Watched {
    share: Option<Share>,
    board: Option<Arc<dyn Memory>>,
    /// It has none.
    blind: bool,
    /// What it showed at the last read, and reads since it showed that.
    last: u64,
    quiet: u32,
    /// How many such reads make it quiet.
    needed: u32,
    /// Reads in place since places were asked for; `None`: nobody has, since the last change.
    used: Option<u32>,
}

impl Default for Watched {
    fn default() -> Self {
        Self { share: None, board: None, blind: false, last: 0, quiet: 0, needed: QUIET_READS, used: None }
    }
}

impl Watched {
    /// What it shows now.
    fn word(&self) -> Option<u64> {
        self.board.as_ref().and_then(|board| board.word())
    }

    /// Looks before a read; whether nothing has changed for some reads.
    fn is_quiet(&mut self) -> bool {
        let now = self.word().unwrap_or(0);
        if now == self.last {
            self.quiet = self.quiet.saturating_add(1);
        } else {
            match self.used.take() {
                Some(used) if used < PAYS_AFTER => self.needed = (4 * self.needed).min(QUIET_READS_MAX),
                Some(_) => self.needed = QUIET_READS,
                None => {}
            }
            (self.last, self.quiet) = (now, 0);
        }
        !self.blind && self.quiet >= self.needed
    }

    fn take(&mut self, way: &ShortWay, share: Option<&Share>) {
        if self.share.as_ref() != share || share.is_none() {
            self.board = share.and_then(|share| way.open(share));
            self.share = share.cloned();
            self.blind = self.word().is_none();
        }
    }
}

/// What is known of one target.
#[derive(Default)]
struct Tier {
    /// It cannot be read in place.
    refused: bool,
    share: Option<Share>,
    memory: Option<Arc<dyn Memory>>,
    until_ns: u64,
    generation: u64,
    spans: usize,
    /// Bytes read in place that the target was not told of yet.
    read: Arc<AtomicU64>,
    maps: HashMap<(ContainerId, Oid, Seen), HashMap<Vec<u8>, Akeys>>,
    watched: Watched,
    /// What the board showed when the maps of transactions were made.
    change: u64,
}

/// What is known of all targets.
#[derive(Default)]
pub(crate) struct Places {
    tiers: Mutex<BTreeMap<TargetId, Tier>>,
    way: ShortWay,
}

impl Places {
    pub(crate) fn new(way: ShortWay) -> Self {
        Self { tiers: Mutex::default(), way }
    }

    pub(crate) fn way(&self) -> &ShortWay {
        &self.way
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TargetId, Tier>> {
        self.tiers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this target can be read in place; `None`: nobody has asked it yet.
    pub(crate) fn is_near(&self, target: TargetId) -> Option<bool> {
        self.lock().get(&target).map(|tier| !tier.refused)
    }

    /// This target cannot be read in place.
    pub(crate) fn refuse(&self, target: TargetId) {
        self.lock().entry(target).or_default().refused = true;
    }

    /// The map that holds a record, if its lease lasts.
    pub(crate) fn find(&self, target: TargetId, subject: &Subject<'_>, index: u64, now_ns: u64) -> Option<Lent> {
        let mut tiers = self.lock();
        let tier = tiers.get_mut(&target).filter(|tier| now_ns < tier.until_ns)?;
        let inside = matches!(subject.seen, Seen::Inside(..));
        // Before anything is copied: what was written until now is in the map, or it is not used.
        if inside && tier.watched.word() != Some(tier.change) {
            return None;
        }
        let dkeys = tier.maps.get(&(subject.container, subject.oid, subject.seen))?;
        let maps = dkeys.get(subject.dkey)?.get(subject.akey)?;
        let map = maps.range(..=index).next_back().map(|(_, map)| map).filter(|map| index < map.end)?;
        let (memory, read, map) = (tier.memory.clone()?, tier.read.clone(), map.clone());
        if inside {
            tier.watched.used = tier.watched.used.map(|used| used.saturating_add(1));
        }
        Some(Lent { memory, map, until_ns: tier.until_ns, read })
    }

    /// Whether it pays to ask where all of an array lies that is read inside of a transaction: a write makes the answer worthless.
    pub(crate) fn is_quiet(&self, target: TargetId) -> bool {
        self.lock().entry(target).or_default().watched.is_quiet()
    }

    /// Takes what targets were not told of yet, of each at least so many bytes read in place.
    pub(crate) fn take_reads(&self, least_bytes: u64) -> Vec<(TargetId, u64)> {
        let tiers = self.lock();
        let read = tiers.iter().filter(|(_, tier)| tier.read.load(Ordering::Relaxed) >= least_bytes.max(1));
        read.map(|(target, tier)| (*target, tier.read.swap(0, Ordering::Relaxed))).collect()
    }

    /// What could not be told counts again.
    pub(crate) fn put_back(&self, target: TargetId, bytes: u64) {
        if let Some(tier) = self.lock().get(&target) {
            tier.read.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// A target's answer to a request that was sent at `asked_ns`, for one use and not to be remembered.
    pub(crate) fn lend(&self, target: TargetId, from: u64, located: Located, asked_ns: u64) -> Option<Lent> {
        let mut tiers = self.lock();
        let tier = tiers.entry(target).or_default();
        self.map_anew(tier, &located.share);
        tier.watched.take(&self.way, located.board.as_ref());
        let until_ns = asked_ns + u64::from(located.lease_ms) * MS;
        let Some(map) = map_of(located, from, tier) else {
            tier.refused = true;
            return None;
        };
        Some(Lent { memory: tier.memory.clone()?, map: Arc::new(map), until_ns, read: tier.read.clone() })
    }

    /// Maps a medium that is another one than before.
    fn map_anew(&self, tier: &mut Tier, share: &Share) {
        if tier.share.as_ref() != Some(share) {
            *tier = Tier {
                memory: self.way.open(share),
                share: Some(share.clone()),
                read: tier.read.clone(),
                ..Tier::default()
            };
            tier.refused = tier.memory.is_none();
        }
    }

    /// A target's answer, to a request that was sent at `asked_ns`; false if it does not help.
    pub(crate) fn learn(
        &self,
        target: TargetId,
        subject: &Subject<'_>,
        from: u64,
        located: Located,
        asked_ns: u64,
    ) -> bool {
        let mut tiers = self.lock();
        let tier = tiers.entry(target).or_default();
        self.map_anew(tier, &located.share);
        tier.watched.take(&self.way, located.board.as_ref());
        let until_ns = asked_ns + u64::from(located.lease_ms) * MS;
        // Overtaken by an answer that knows of blocks given back since: what this one names may be among them.
        if located.generation < tier.generation {
            return false;
        }
        let (generation, change) = (located.generation, located.change);
        if matches!(subject.seen, Seen::Inside(..)) {
            if tier.watched.blind || change < tier.change {
                return false;
            }
            if tier.change < change {
                tier.maps.retain(|(.., seen), _| matches!(seen, Seen::At(_)));
                tier.change = change;
            }
            tier.watched.used.get_or_insert(0);
        }
        let Some(map) = map_of(located, from, tier) else {
            tier.refused = true;
            return false;
        };
        // Blocks were given back since the other maps were made: the lease that this answer brings is not theirs.
        if tier.generation < generation {
            tier.maps.clear();
            (tier.spans, tier.generation) = (0, generation);
        }
        if tier.spans + map.spans.len() > SPANS_MAX {
            tier.maps.clear();
            tier.spans = 0;
        }
        tier.until_ns = tier.until_ns.max(until_ns);
        tier.spans += map.spans.len() + 1;
        let dkeys = tier.maps.entry((subject.container, subject.oid, subject.seen)).or_default();
        let maps = dkeys.entry(subject.dkey.to_vec()).or_default().entry(subject.akey.to_vec()).or_default();
        maps.insert(from, Arc::new(map));
        true
    }
}

/// The map, if it makes sense.
fn map_of(located: Located, from: u64, tier: &Tier) -> Option<ExtentMap> {
    let bytes = tier.share.as_ref().map_or(0, |share| share.bytes);
    let granule_bytes = u64::from(located.granule_bytes);
    let mut at = from;
    let sane = located.end > from
        && granule_bytes > 0
        && located.spans.iter().all(|span| {
            let end = span.index.checked_add(span.count);
            let span_bytes = span.count.checked_mul(located.record_bytes.into());
            let last = span_bytes.and_then(|bytes| bytes.checked_add(span.skip_bytes.into()));
            let ordered = span.count > 0 && span.index >= at && end.is_some_and(|end| end <= located.end);
            at = end.unwrap_or(u64::MAX);
            let inside = span.offset.checked_add(span.bytes.into()).is_some_and(|end| end <= bytes);
            ordered
                && inside
                && last.is_some_and(|last| last <= span.bytes.into() && granules(span, last, granule_bytes))
        });
    if !sane {
        return None;
    }
    let placed = |span: Span| {
        let verified = span.checksums.iter().map(|_| AtomicBool::new(false)).collect();
        Placed { span, verified }
    };
    let Located { record_bytes, end, granule_bytes, spans, .. } = located;
    Some(ExtentMap { from, record_bytes, end, granule_bytes, spans: spans.into_iter().map(placed).collect() })
}

/// Whether there is a checksum for each granule that holds a record.
fn granules(span: &Span, last_byte: u64, granule_bytes: u64) -> bool {
    let count = last_byte.div_ceil(granule_bytes) - u64::from(span.skip_bytes) / granule_bytes;
    count == span.checksums.len() as u64
}
