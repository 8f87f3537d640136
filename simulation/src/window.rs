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
use crate::time::lock;

/// All media that were ever shared, by their number.
#[derive(Clone, Default)]
pub(crate) struct Windows {
    media: Arc<Mutex<BTreeMap<u64, SimMedium>>>,
    /// Copies made through windows.
    copies: Arc<AtomicU64>,
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

    /// Shares a medium under a new number.
    pub(crate) fn share(&self, medium: &SimMedium) {
        let mut media = lock(&self.media);
        let number = media.len() as u64 + 1;
        medium.share_as(number);
        media.insert(number, medium.clone());
    }

    /// How a client opens windows.
    pub(crate) fn way(&self) -> ShortWay {
        let (media, copies, stuck) = (self.media.clone(), self.copies.clone(), self.stuck);
        ShortWay::Through(Arc::new(move |share| {
            let medium = Mutex::new(lock(&media).get(&share.inode)?.clone());
            let window: Arc<dyn Memory> = match &*share.path {
                SimMedium::BOARD => Arc::new(Board { first: stuck.then(|| lock(&medium).posted()), medium }),
                _ => Arc::new(Window { medium, copies: copies.clone() }),
            };
            Some(window)
        }))
    }
}

struct Window {
    medium: Mutex<SimMedium>,
    copies: Arc<AtomicU64>,
}

struct Board {
    medium: Mutex<SimMedium>,
    /// What it goes on showing, if it is stuck.
    first: Option<u64>,
}

impl Memory for Board {
    fn copy(&self, _offset: u64, _out: &mut [u8]) -> bool {
        false
    }
    fn word(&self) -> Option<u64> {
        Some(self.first.unwrap_or_else(|| lock(&self.medium).posted()))
    }
}

impl Memory for Window {
    fn copy(&self, offset: u64, out: &mut [u8]) -> bool {
        self.copies.fetch_add(1, Relaxed);
        lock(&self.medium).read(offset, out).is_ok()
    }
}
