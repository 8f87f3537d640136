//! What outlives a simulated server's process.

use talea_control::node::{Joined, Note, Stored};
use talea_tier::{SimMedium, Torn};

/// What outlives a server's process.
pub(super) struct Media {
    pub(super) targets: Vec<SimMedium>,
    /// The replica of the pool's log.
    pub(super) log: Stored,
    /// Drawn when that began.
    pub(super) life: u64,
    /// What the server noted of its clients; none if it has begun anew.
    pub(super) joined: Option<Joined>,
    /// Grows when they are lost.
    pub(super) incarnation: u64,
}

impl Media {
    pub(super) fn note(&mut self, notes: Vec<Note>) {
        let joined = self.joined.get_or_insert_default();
        for note in notes {
            match note {
                Note::Join { session, tx } => _ = joined.entry(session).or_default().insert(tx),
                Note::Leave { session, tx } => _ = joined.entry(session).or_default().remove(&tx),
                Note::End { session } => _ = joined.remove(&session),
            }
        }
    }
}

/// Empty media for a server's targets.
pub(super) fn fresh_media(targets: u32, capacity_bytes: u64, memory: bool) -> Vec<SimMedium> {
    let fresh = |_| {
        let medium = SimMedium::new(capacity_bytes, Torn::Lines);
        if memory {
            medium.is_memory();
        }
        medium
    };
    (0..targets).map(fresh).collect()
}
