//! When the target's share of scrubbing is due.
//!
//! Must never keep an idle target awake: it wakes now and then, and rests when all was seen.

use talea_tier::Address;
use talea_vos::Damage;

use super::{Fatal, Now, Target};

/// Bytes that the scrubber verifies at a time, and how long it then rests: 4 MiB a second.
const SCRUB_BYTES: u64 = 256 << 10;
const SCRUB_EVERY_NS: u64 = 62_500_000;
/// How often an idle target is woken for a portion of its own, how large that is (1 MiB a second), and how long it then sleeps after a
/// whole pass over what did not change.
const IDLE_SCRUB_BYTES: u64 = 2 << 20;
const IDLE_SCRUB_EVERY_NS: u64 = 2_000_000_000;
const SCRUB_AGAIN_NS: u64 = 3_600_000_000_000;

impl Target {
    /// Verifies a little more of what is stored: in turns that the target has anyway, and seldom in one of its own.
    pub(super) fn scrub(&mut self, now: Now) -> Result<(), Fatal> {
        if self.dirty {
            self.written_in_pass = self.scrub_passes;
        }
        if now.monotonic_ns < self.scrub_at_ns {
            return Ok(());
        }
        let is_idle = now.monotonic_ns >= self.wake_to_scrub_ns;
        let bytes = if is_idle { IDLE_SCRUB_BYTES } else { SCRUB_BYTES };
        let scrubbed = self.store.scrub(bytes).map_err(|source| self.fatal(source))?;
        self.scrub_passes = scrubbed.passes;
        self.scrub_at_ns = now.monotonic_ns.saturating_add(SCRUB_EVERY_NS);
        // The pass that was under way at the last write has not seen all of it; the one after has.
        let seen = self.scrub_passes >= self.written_in_pass + 2;
        let rest_ns = if seen { SCRUB_AGAIN_NS } else { IDLE_SCRUB_EVERY_NS };
        self.wake_to_scrub_ns = now.monotonic_ns.saturating_add(rest_ns);
        // A damaged log is written anew in the background.
        self.background |= scrubbed.damaged > 0;
        if scrubbed.damaged > 0 || !self.damage_told.is_empty() {
            self.tell_damage();
        }
        Ok(())
    }

    /// A reader has met damage: that counts before the scrubber comes by.
    pub(super) fn met_damage(&mut self, offset: u64) {
        self.store.note_damage(offset);
        self.tell_damage();
    }

    /// Says once in the server's log what is damaged, and again if it was whole in between.
    fn tell_damage(&mut self) {
        let told = std::mem::take(&mut self.damage_told);
        for Damage { kind, offset, bytes } in self.store.damage() {
            if !told.contains(offset) {
                let at = Address(*offset);
                tracing::error!(target_id = %self.id, %at, bytes, "the medium is damaged: {kind}");
            }
            self.damage_told.insert(*offset);
        }
    }
}
