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
            let medium = lock(&media).get(&share.inode)?.clone();
            Some(Arc::new(Window(Mutex::new(medium))) as Arc<dyn Memory>)
        }))
    }
}

struct Window(Mutex<SimMedium>);

impl Memory for Window {
    fn copy(&self, offset: u64, out: &mut [u8]) -> bool {
        lock(&self.0).read(offset, out).is_ok()
    }
}
