//! A communicator that waits for a container's steps: rank 0 asks, all are told. Must never let two ranks see different outcomes.

use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::Root;
use talea_client::{Container, Result, Subscription, WaitOutcome};
use talea_model::Step;

/// Outcome of a wait, the same on all ranks (docs/semantics.md, "A program that follows").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// The next step, and the container's last one now.
    Step {
        /// Its number.
        step: u64,
        /// Its stamp.
        stamp: u64,
        /// The container's last step.
        latest: u64,
    },
    /// The deadline passed; the producer may still make steps.
    NotReady,
    /// No step will follow.
    End,
    /// The producer is gone without a word.
    ProducerLost,
    /// Steps up to and including this one are not kept any more; the next wait goes on after it.
    Gap(u64),
    /// Rank 0 could not ask; its own error is in rank 0's [`Follower::error`].
    Failed,
}

/// What travels: kind, step, stamp, last step.
type Told = [u64; 4];

/// See the module.
pub struct Follower {
    comm: SimpleCommunicator,
    /// On rank 0.
    subscription: Option<Subscription>,
    error: Option<talea_client::ClientError>,
}

impl Follower {
    /// Follows a container's steps after `after`. Collective; only rank 0's container is asked, the others may give none.
    pub fn new(comm: &impl Communicator, container: Option<&Container>, after: u64) -> Self {
        let comm = comm.duplicate();
        let asked: Option<Result<Subscription>> =
            container.filter(|_| comm.rank() == 0).map(|container| container.subscribe(Step(after)));
        let (subscription, error) = match asked {
            Some(Ok(subscription)) => (Some(subscription), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        Self { comm, subscription, error }
    }

    /// Why the last wait failed, on rank 0.
    pub fn error(&self) -> Option<&talea_client::ClientError> {
        self.error.as_ref()
    }

    /// Waits for the next step, at most `deadline_ms`. Collective; rank 0's deadline counts.
    pub fn wait(&mut self, deadline_ms: u64) -> Followed {
        let mut told = if self.comm.rank() == 0 { self.ask(deadline_ms) } else { Told::default() };
        self.comm.process_at_rank(0).broadcast_into(&mut told[..]);
        let [kind, step, stamp, latest] = told;
        match kind {
            1 => Followed::Step { step, stamp, latest },
            2 => Followed::NotReady,
            3 => Followed::End,
            4 => Followed::ProducerLost,
            5 => Followed::Gap(step),
            _ => Followed::Failed,
        }
    }

    fn ask(&mut self, deadline_ms: u64) -> Told {
        let Some(subscription) = &mut self.subscription else { return Told::default() };
        match subscription.wait_one(deadline_ms) {
            Ok(WaitOutcome::Steps { steps, latest }) => {
                steps.first().map_or([2, 0, 0, 0], |one| [1, one.step.0, one.stamp.0, latest.0])
            }
            Ok(WaitOutcome::NotReady) => [2, 0, 0, 0],
            Ok(WaitOutcome::End) => [3, 0, 0, 0],
            Ok(WaitOutcome::ProducerLost) => [4, 0, 0, 0],
            Ok(WaitOutcome::Gap { through }) => [5, through.0, 0, 0],
            Err(error) => {
                self.error = Some(error);
                Told::default()
            }
        }
    }
}
