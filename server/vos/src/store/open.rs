//! Opening: a fresh medium gets a store, an old one gives its store back.

use std::collections::{BTreeMap, HashMap, VecDeque};

use talea_model::{Ledger, Position, Stamp};
use talea_tier::Medium;

use super::Store;
use crate::index::Index;
use crate::log::bytes::Writer;
use crate::log::header::{FIRST_BLOCK, SEGMENT_HEADER_BYTES};
use crate::log::{Log, Resume, Segment, SegmentUse};
use crate::space::{BLOCK_BYTES, Space};
use crate::{Recovered, StoreError, StoreOptions};

impl Store {
    /// Opens the store on a medium, making it if the medium is empty, and replays its log.
    pub fn open(medium: Box<dyn Medium>, options: StoreOptions) -> Result<(Store, Recovered), StoreError> {
        let capacity = medium.capacity_bytes() / BLOCK_BYTES * BLOCK_BYTES;
        let segment_bytes = match options.segment_bytes {
            0 => (capacity / 128).clamp(64 << 10, 4 << 20),
            bytes => bytes,
        };
        let current = Segment { start: FIRST_BLOCK, len: segment_bytes, number: 1 };
        let used = SegmentUse { segment: current, live_bytes: 0, replayed: true };
        let resume = Resume {
            space: Space::without(FIRST_BLOCK, capacity, vec![(FIRST_BLOCK, segment_bytes)])
                .map_err(|_| StoreError::Superblock)?,
            segments: BTreeMap::from([(current.start, used)]),
            current,
            filled: SEGMENT_HEADER_BYTES as u64,
            next_lsn: 1,
            next_segment: 2,
            since_checkpoint_bytes: 0,
        };
        let log = Log::new(medium, options.nonce, segment_bytes, options.plant, resume);
        let store = Store {
            log,
            index: Index::default(),
            ledger: Ledger::default(),
            done: HashMap::new(),
            ceiling: Stamp::ZERO,
            lost: false,
            options,
            closed: VecDeque::new(),
            sweep: Vec::new(),
            sweep_wanted: false,
            scratch: Writer::default(),
        };
        let recovered = Recovered { fresh: true, horizon: Position(0), ceiling: Stamp::ZERO, lost: false };
        Ok((store, recovered))
    }
}
