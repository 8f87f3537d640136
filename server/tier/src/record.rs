//! Media that record every write and every flush, and the images that a power loss may leave at any instant.
//!
//! Owns what hardware promises: bytes flushed are there; of those written since, any subset may be, in units that the medium
//! keeps whole (words of 8 bytes or lines of 64 on pmem, sectors of 512 or blocks of 4096 behind a queue). Inside a unit, stores
//! take effect in their order: a unit shows a beginning of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::medium::check_range;
use crate::{Medium, MediumKind, TierError, Torn};

/// Something that happened on recorded media, in one order for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bytes were written.
    Write {
        /// Number of the medium.
        medium: usize,
        /// Where.
        offset: u64,
        /// What.
        data: Vec<u8>,
    },
    /// Everything written to the medium is durable.
    Fence {
        /// Number of the medium.
        medium: usize,
    },
    /// The user of the media said something.
    Mark(u64),
}

struct State {
    contents: Vec<(Vec<u8>, Torn)>,
    steps: Vec<Step>,
}

/// A set of media with one record. Clones are handles to one record.
#[derive(Clone)]
pub struct Recorder {
    state: Arc<Mutex<State>>,
}

impl Recorder {
    /// Media with these contents, numbered from 0.
    pub fn new(contents: Vec<(Vec<u8>, Torn)>) -> Self {
        Self { state: Arc::new(Mutex::new(State { contents, steps: Vec::new() })) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle to a medium.
    pub fn medium(&self, number: usize) -> RecordedMedium {
        RecordedMedium { recorder: self.clone(), number }
    }

    /// Notes something between what was written before and what will be.
    pub fn mark(&self, what: u64) {
        self.lock().steps.push(Step::Mark(what));
    }

    /// Number of steps so far.
    pub fn len(&self) -> usize {
        self.lock().steps.len()
    }

    /// Whether nothing was recorded yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record so far.
    pub fn steps(&self) -> Vec<Step> {
        self.lock().steps.clone()
    }
}

/// A medium of a [`Recorder`].
#[derive(Clone)]
pub struct RecordedMedium {
    recorder: Recorder,
    number: usize,
}

impl Medium for RecordedMedium {
    fn kind(&self) -> MediumKind {
        MediumKind::Sim
    }
    fn capacity_bytes(&self) -> u64 {
        self.recorder.lock().contents[self.number].0.len() as u64
    }
    fn is_persistent(&self) -> bool {
        true
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), TierError> {
        let mut state = self.recorder.lock();
        let contents = &mut state.contents[self.number].0;
        check_range(offset, data.len(), contents.len() as u64)?;
        contents[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        state.steps.push(Step::Write { medium: self.number, offset, data: data.to_vec() });
        Ok(())
    }
    fn write_padded(&mut self, offset: u64, data: &[u8]) -> Result<(), TierError> {
        let torn = self.recorder.lock().contents[self.number].1;
        if torn == Torn::Lines {
            return self.write(offset, data);
        }
        let mut padded = data.to_vec();
        padded.resize(data.len().next_multiple_of(4096), 0);
        self.write(offset, &padded)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), TierError> {
        let state = self.recorder.lock();
        let contents = &state.contents[self.number].0;
        check_range(offset, out.len(), contents.len() as u64)?;
        out.copy_from_slice(&contents[offset as usize..offset as usize + out.len()]);
        Ok(())
    }
    fn persist(&mut self) -> Result<(), TierError> {
        self.recorder.lock().steps.push(Step::Fence { medium: self.number });
        Ok(())
    }
    fn is_persist_costly(&self) -> bool {
        self.recorder.lock().contents[self.number].1 == Torn::Sectors
    }
}

/// How much of what was not flushed survives a power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survives {
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// Each unit in its last form with a probability of this many 256ths, and else in any earlier one.
    Share(u8),
}

/// A record played back, step by step: what is durable, and what may be.
pub struct Playback {
    durable: Vec<(Vec<u8>, Torn)>,
    steps: Vec<Step>,
    at: usize,
    /// Steps whose writes are not flushed.
    pending: Vec<usize>,
}

impl Playback {
    /// Begins with what was on the media when the record began.
    pub fn new(contents: Vec<(Vec<u8>, Torn)>, steps: Vec<Step>) -> Self {
        Self { durable: contents, steps, at: 0, pending: Vec::new() }
    }

    /// Steps taken.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Takes the next step and returns it; `None` at the end.
    pub fn advance(&mut self) -> Option<&Step> {
        let step = self.steps.get(self.at)?;
        match step {
            Step::Write { .. } => self.pending.push(self.at),
            Step::Fence { medium: fenced } => {
                let (steps, durable) = (&self.steps, &mut self.durable);
                self.pending.retain(|number| match &steps[*number] {
                    Step::Write { medium, offset, data } if medium == fenced => {
                        apply(&mut durable[*medium].0, *offset, data);
                        false
                    }
                    _ => true,
                });
            }
            Step::Mark(_) => {}
        }
        self.at += 1;
        Some(step)
    }

    /// What the media may hold if the power fails now. `fine` tears inside what is usually kept whole: words on pmem, sectors of
    /// 512 bytes behind a queue; else lines and blocks.
    pub fn image(&self, survives: Survives, fine: bool, random: &mut dyn FnMut() -> u64) -> Vec<(Vec<u8>, Torn)> {
        let mut image = self.durable.clone();
        if survives == Survives::Nothing {
            return image;
        }
        let mut keep: HashMap<(usize, u64), u32> = HashMap::new();
        if let Survives::Share(share) = survives {
            self.pieces(fine, |medium, unit, _, _| *keep.entry((medium, unit)).or_default() += 1);
            let mut units: Vec<_> = keep.iter_mut().collect();
            units.sort_unstable_by_key(|(unit, _)| **unit);
            for (_, kept) in units {
                let coin = random();
                if coin as u8 >= share {
                    *kept = ((coin >> 8) % u64::from(*kept)) as u32;
                }
            }
        }
        self.pieces(fine, |medium, unit, offset, data| {
            if let Some(kept) = keep.get_mut(&(medium, unit)) {
                if *kept == 0 {
                    return;
                }
                *kept -= 1;
            }
            apply(&mut image[medium].0, offset, data);
        });
        image
    }

    /// Calls for each unit that each pending write touches: medium, unit, and the bytes there.
    fn pieces(&self, fine: bool, mut each: impl FnMut(usize, u64, u64, &[u8])) {
        for number in &self.pending {
            let Step::Write { medium, offset, data } = &self.steps[*number] else { continue };
            let unit_bytes: u64 = match (self.durable[*medium].1, fine) {
                (Torn::Lines, true) => 8,
                (Torn::Lines, false) => 64,
                (Torn::Sectors, true) => 512,
                (Torn::Sectors, false) => 4096,
            };
            let (mut at, mut rest) = (*offset, &data[..]);
            while !rest.is_empty() {
                let len = rest.len().min((unit_bytes - at % unit_bytes) as usize);
                each(*medium, at / unit_bytes, at, &rest[..len]);
                at += len as u64;
                rest = &rest[len..];
            }
        }
    }
}

fn apply(contents: &mut [u8], offset: u64, data: &[u8]) {
    contents[offset as usize..offset as usize + data.len()].copy_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_hold_what_was_flushed_and_beginnings_of_each_unit() {
        let start = vec![(vec![0; 256], Torn::Lines), (vec![0; 8192], Torn::Sectors)];
        let recorder = Recorder::new(start.clone());
        let (mut pmem, mut nvme) = (recorder.medium(0), recorder.medium(1));
        pmem.write(0, &[1; 64]).unwrap();
        nvme.write_padded(4096, &[2; 10]).unwrap();
        pmem.persist().unwrap();
        recorder.mark(7);
        pmem.write(0, &[3; 64]).unwrap();
        pmem.write(8, &[4; 8]).unwrap();
        let mut playback = Playback::new(start, recorder.steps());
        let mut marks = Vec::new();
        while let Some(step) = playback.advance() {
            marks.extend(match step {
                Step::Mark(what) => Some(*what),
                _ => None,
            });
        }
        assert_eq!((marks, playback.position()), (vec![7], 6));
        let none = playback.image(Survives::Nothing, false, &mut || 0);
        assert_eq!((none[0].0[..64].to_vec(), none[1].0[4096]), (vec![1; 64], 0));
        let all = playback.image(Survives::Everything, true, &mut || 0);
        assert_eq!((all[0].0[0], all[0].0[8], all[0].0[16], all[1].0[4096]), (3, 4, 3, 2));
        let mut seed = 1u64;
        for _ in 0..200 {
            let mut random = || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed >> 20
            };
            let lines = &playback.image(Survives::Share(100), false, &mut random)[0].0;
            assert!(matches!((lines[0], lines[8]), (1, 1) | (3, 3) | (3, 4)), "a line shows a beginning of its stores");
            let words = &playback.image(Survives::Share(100), true, &mut random)[0].0;
            assert!(matches!(words[8], 1 | 3 | 4) && matches!(words[16], 1 | 3));
        }
    }
}
