//! Windows into simulated media, for clients that read in place (docs/design.md §6, the short way).
//!
//! A window outlives its server's process, as a mapping does: it goes on showing what the memory held.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use talea_client::ShortWay;
use talea_fabric::Memory;
use talea_tier::{Medium, SimMedium};

use crate::time::lock;

/// All media that were ever shared, by their number.
#[derive(Clone, Default)]
pub(crate) struct Windows {
    media: Arc<Mutex<BTreeMap<u64, SimMedium>>>,
}

impl Windows {
    /// Shares a medium under a new number.
    pub(crate) fn share(&self, medium: &SimMedium) {
        let mut media = lock(&self.media);
        let number = media.len() as u64 + 1;
        medium.share_as(number);
        media.insert(number, medium.clone());
    }

    /// How a client opens windows.
    pub(crate) fn way(&self) -> ShortWay {
        let media = self.media.clone();
        ShortWay::Through(Arc::new(move |share| {
            let medium = Mutex::new(lock(&media).get(&share.inode)?.clone());
            let window: Arc<dyn Memory> = match &*share.path {
                SimMedium::BOARD => Arc::new(Board(medium)),
                _ => Arc::new(Window(medium)),
            };
            Some(window)
        }))
    }
}

struct Window(Mutex<SimMedium>);
struct Board(Mutex<SimMedium>);

impl Memory for Board {
    fn copy(&self, _offset: u64, _out: &mut [u8]) -> bool {
        false
    }
    fn word(&self) -> Option<u64> {
        Some(lock(&self.0).posted())
    }
}

impl Memory for Window {
    fn copy(&self, offset: u64, out: &mut [u8]) -> bool {
        lock(&self.0).read(offset, out).is_ok()
    }
}
