//! Following a container's steps (docs/design.md §4 rule 17).
//!
//! A wait is a long poll in bounded rounds, so that a lost server is noticed. Steps come gapless and without duplicates, or a
//! gap is told.

use talea_model::Step;
use talea_wire::control::{Reply, Request, StepRecord, Waited};
use talea_wire::log::Lagging;

use crate::container::Container;
use crate::error::{ClientError, Result};

const MS: u64 = 1_000_000;
/// Steps of one answer.
const STEPS_MAX: u32 = 256;
/// After how many steps the servers hear that the earlier ones are not needed any more.
const MOVE_ON_STEPS: u64 = 16;
/// After how long, if there are any: what is held for a follower costs space, and shows how far it is.
const MOVE_ON_MS: u64 = 1_000;
/// How long an answer may take beyond the wait's own deadline.
const GRACE_MS: u64 = 2_000;

/// A follower of a container's steps. Dropping it closes the subscription.
pub struct Subscription {
    container: Container,
    after: Step,
    told: Step,
    told_ns: u64,
}

/// Outcome of a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitOutcome {
    /// Steps in order, and the container's last step now.
    Steps {
        /// The steps, the first being the one after the last received.
        steps: Vec<StepRecord>,
        /// Last step of the container.
        latest: Step,
    },
    /// The deadline passed and the producer may still make steps.
    NotReady,
    /// No step will follow.
    End,
    /// The producer is gone without a word.
    ProducerLost,
    /// The steps up to and including `through` are not retained any more; the next wait goes on after them.
    Gap {
        /// Last step that is missing.
        through: Step,
    },
}

impl Subscription {
    pub(crate) fn new(container: Container, after: Step) -> Self {
        Self { container, after, told: after, told_ns: 0 }
    }

    /// Last step received.
    pub fn position(&self) -> Step {
        self.after
    }

    /// Waits for steps, at most `deadline_ms` (0: only looks). Steps given before may lose their retention now.
    pub fn wait(&mut self, deadline_ms: u64) -> Result<WaitOutcome> {
        let client = self.container.client.clone();
        client.block_on(self.wait_async(deadline_ms, STEPS_MAX))?
    }

    /// Waits for one step, at most `deadline_ms`.
    pub fn wait_one(&mut self, deadline_ms: u64) -> Result<WaitOutcome> {
        let client = self.container.client.clone();
        client.block_on(self.wait_async(deadline_ms, 1))?
    }

    /// Asynchronous [`wait`](Self::wait), for at most `limit` steps.
    pub async fn wait_async(&mut self, deadline_ms: u64, limit: u32) -> Result<WaitOutcome> {
        let shared = &self.container.client.shared.clone();
        shared.check_process()?;
        let container = self.container.id();
        let now_ns = shared.now_ns();
        let is_time = self.after > self.told && now_ns >= self.told_ns.saturating_add(MOVE_ON_MS * MS);
        // A producer may be waiting for this one: it hears at once.
        let at_once = self.container.properties().lagging == Lagging::Block && self.after > self.told;
        if at_once || is_time || self.after.0 >= self.told.0 + MOVE_ON_STEPS {
            shared.tell(Request::Subscribe { container, after: Some(self.after) });
            (self.told, self.told_ns) = (self.after, now_ns);
        }
        let end_ns = shared.now_ns().saturating_add(deadline_ms.saturating_mul(MS));
        loop {
            let began_ns = shared.now_ns();
            let round_ns = end_ns.min(began_ns + shared.tuning.wait_round_ms * MS).max(began_ns);
            let request = Request::Wait { container, after: self.after, limit };
            let times = (round_ns, round_ns + GRACE_MS * MS);
            let waited = match shared.control_within("waiting for a step", request, began_ns, times).await {
                Ok(Reply::Waited(waited)) => waited,
                Ok(_) => return Err(ClientError::unexpected("waiting for a step")),
                Err(error) => return Err(error),
            };
            match waited {
                Waited::Steps { steps, latest } => match self.take(steps)? {
                    steps if steps.is_empty() => {}
                    steps => return Ok(WaitOutcome::Steps { steps, latest }),
                },
                Waited::NotReady => {}
                Waited::End => return Ok(WaitOutcome::End),
                Waited::ProducerLost => return Ok(WaitOutcome::ProducerLost),
                Waited::Gap { through } => {
                    self.after = self.after.max(through);
                    return Ok(WaitOutcome::Gap { through });
                }
            }
            if shared.now_ns() >= end_ns {
                return Ok(WaitOutcome::NotReady);
            }
            if shared.now_ns() < began_ns + MS {
                // Answered at once with nothing: not in a tight loop.
                shared.pause(began_ns + MS).await;
            }
        }
    }

    /// The steps that are new, which must follow one another.
    fn take(&mut self, mut steps: Vec<StepRecord>) -> Result<Vec<StepRecord>> {
        steps.retain(|record| record.step > self.after);
        for (record, number) in steps.iter().zip(self.after.0 + 1..) {
            if record.step.0 != number {
                return Err(ClientError::unexpected("waiting for a step"));
            }
        }
        self.after = steps.last().map_or(self.after, |record| record.step);
        Ok(steps)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.container.client.shared.tell(Request::Subscribe { container: self.container.id(), after: None });
    }
}
