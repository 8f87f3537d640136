//! What a checkpoint holds beside objects: ledger, ceiling, containers, requests done (docs/formats.md).

use talea_model::{ContainerId, Ledger, Position, SessionId, Stamp, TxId};

use super::memory::Memory;
use super::past::Past;
use crate::Plant;
use crate::log::Segment;
use crate::log::bytes::{Reader, Writer};
use crate::log::record::{BadRecord, Done, decode_fate, encode_fate};

impl Memory {
    /// Appends the state.
    pub(super) fn encode_state(&self, plant: Plant, out: &mut Writer) {
        out.u64(self.ceiling.0);
        out.u8(self.lost.into());
        out.u64(self.ledger.horizon().0);
        let (fates, begun_below) = self.ledger.parts();
        let mut fates: Vec<_> = fates.into_iter().collect();
        if plant == Plant::ForgetPending {
            fates.retain(|(_, fate)| *fate != talea_model::Fate::Open);
        }
        out.u64(begun_below.0);
        out.u32(fates.len() as u32);
        for (tx, fate) in fates {
            out.u64(tx.0);
            encode_fate(fate, out);
        }
        out.u32(self.index.destroyed.len() as u32);
        self.index.destroyed.iter().for_each(|container| out.u64(container.0));
        out.u32(self.index.containers.len() as u32);
        for (id, container) in &self.index.containers {
            out.u64(id.0);
            out.u64(container.floor.0);
            out.u32(container.kept.len() as u32);
            for (stamp, count) in &container.kept {
                out.u64(stamp.0);
                out.u32(*count);
            }
        }
        let mut sessions: Vec<_> = self.done.iter().collect();
        sessions.sort_unstable_by_key(|(session, _)| **session);
        out.u32(sessions.len() as u32);
        for (session, done) in sessions {
            out.u64(session.0);
            out.u64(done.acknowledged_below);
            out.u32(done.sequences.len() as u32);
            done.sequences.iter().for_each(|sequence| out.u64(*sequence));
        }
        self.past.encode(out);
    }

    /// Takes a state over.
    pub(super) fn decode_state(&mut self, payload: &[u8]) -> Result<(), BadRecord> {
        let mut from = Reader::new(payload);
        self.ceiling = Stamp(from.u64()?);
        self.lost |= from.u8()? != 0;
        let (horizon, begun_below) = (Position(from.u64()?), TxId(from.u64()?));
        let mut fates = Vec::new();
        for _ in 0..from.count(17)? {
            fates.push((TxId(from.u64()?), decode_fate(&mut from)?));
        }
        self.closed.extend(fates.iter().filter(|(_, fate)| *fate != talea_model::Fate::Open).map(|(tx, _)| *tx));
        self.ledger = Ledger::restore(horizon, fates, begun_below);
        for _ in 0..from.count(8)? {
            self.index.destroyed.insert(ContainerId(from.u64()?));
        }
        for _ in 0..from.count(20)? {
            let container = self.index.containers.entry(ContainerId(from.u64()?)).or_default();
            container.floor = Stamp(from.u64()?);
            for _ in 0..from.count(12)? {
                container.kept.insert(Stamp(from.u64()?), from.u32()?);
            }
        }
        for _ in 0..from.count(20)? {
            let session = SessionId(from.u64()?);
            let mut done = Done { acknowledged_below: from.u64()?, ..Done::default() };
            for _ in 0..from.count(8)? {
                done.sequences.insert(from.u64()?);
            }
            self.done.insert(session, done);
        }
        self.past = Past::decode(&mut from)?;
        Ok(())
    }
}

/// Appends a list of segments.
pub(super) fn encode_segments(segments: &[Segment], out: &mut Writer) {
    out.u32(segments.len() as u32);
    for segment in segments {
        out.u64(segment.start);
        out.u64(segment.len);
        out.u64(segment.number);
    }
}

/// Reads a list of segments.
pub(super) fn decode_segments(payload: &[u8]) -> Result<Vec<Segment>, BadRecord> {
    let mut from = Reader::new(payload);
    (0..from.count(24)?).map(|_| Ok(Segment { start: from.u64()?, len: from.u64()?, number: from.u64()? })).collect()
}
