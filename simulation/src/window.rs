//! Windows into simulated media, for clients that read in place (docs/design.md §6, the short way).
//!
//! A window outlives its server's process, as a mapping does: it goes on showing what the memory held.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use talea_client::ShortWay;
use talea_fabric::Memory;
use talea_tier::{Medium, SimMedium};

use crate::plant::Plant;
use crate::stand::{Gate, Point};
use crate::time::lock;

/// All media that were ever shared, by their number.
#[derive(Clone, Default)]
pub(crate) struct Windows {
    media: Arc<Mutex<BTreeMap<u64, SimMedium>>>,
    /// Copies made through windows.
    copies: Arc<AtomicU64>,
    /// Copies whose client stood still in them, and those of which meanwhile other bytes lay there.
    stood: Arc<AtomicU64>,
    overwritten: Arc<AtomicU64>,
    /// Boards show what they showed first: a planted bug.
    stuck: bool,
}

impl Windows {
    /// None yet, with or without the planted bug.
    pub(crate) fn new(plant: Plant) -> Self {
        Self { stuck: plant == Plant::StuckBoard, ..Self::default() }
    }

    /// Copies made through all windows.
    pub(crate) fn copies(&self) -> u64 {
        self.copies.load(Relaxed)
    }

    /// Copies whose client stood still in them, and those of which meanwhile other bytes came to lie there.
    pub(crate) fn stood(&self) -> (u64, u64) {
        (self.stood.load(Relaxed), self.overwritten.load(Relaxed))
    }

    /// Shares a medium under a new number.
    pub(crate) fn share(&self, medium: &SimMedium) {
        let mut media = lock(&self.media);
        let number = media.len() as u64 + 1;
        medium.share_as(number);
        media.insert(number, medium.clone());
    }

    /// How a client opens windows, in which it stands still where its gate says so.
    pub(crate) fn way(&self, gate: &Gate) -> ShortWay {
        let (media, all, gate) = (self.media.clone(), self.clone(), gate.clone());
        ShortWay::Through(Arc::new(move |share| {
            let medium = Mutex::new(lock(&media).get(&share.inode)?.clone());
            let window: Arc<dyn Memory> = match &*share.path {
                SimMedium::BOARD => {
                    Arc::new(Board { first: all.stuck.then(|| lock(&medium).posted()), medium, gate: gate.clone() })
                }
                _ => Arc::new(Window { medium, all: all.clone(), gate: gate.clone() }),
            };
            Some(window)
        }))
    }
}

struct Window {
    medium: Mutex<SimMedium>,
    all: Windows,
    gate: Gate,
}

impl Window {
    fn read(&self, offset: u64, out: &mut [u8]) -> bool {
        lock(&self.medium).read(offset, out).is_ok()
    }

    /// The client may stand still here; what it has to do with are these bytes.
    fn pass(&self, at: Point, offset: u64, bytes: usize) {
        let look = || {
            let mut bytes = vec![0; bytes];
            self.read(offset, &mut bytes);
            bytes
        };
        let before = look();
        if self.gate.pass(at) {
            self.all.stood.fetch_add(1, Relaxed);
            self.all.overwritten.fetch_add(u64::from(look() != before), Relaxed);
        }
    }
}

struct Board {
    medium: Mutex<SimMedium>,
    /// What it goes on showing, if it is stuck.
    first: Option<u64>,
    gate: Gate,
}

impl Memory for Board {
    fn copy(&self, _offset: u64, _out: &mut [u8]) -> bool {
        false
    }
    fn word(&self) -> Option<u64> {
        let shown = self.first.unwrap_or_else(|| lock(&self.medium).posted());
        self.gate.pass(Point::AtBoard);
        Some(shown)
    }
}

impl Memory for Window {
    fn copy(&self, offset: u64, out: &mut [u8]) -> bool {
        self.all.copies.fetch_add(1, Relaxed);
        self.pass(Point::BeforeCopy, offset, out.len());
        let copied = self.read(offset, out);
        self.pass(Point::AfterCopy, offset, out.len());
        copied
    }
}
