//! A leased snapshot.

use talea_model::{Step, View};
use talea_wire::control;

use crate::client::Client;

/// A snapshot: a view of a container that never changes. Dropping it ends the lease.
pub struct Snapshot {
    client: Client,
    snapshot: control::Snapshot,
}

impl Snapshot {
    pub(crate) fn new(client: Client, snapshot: control::Snapshot) -> Self {
        Self { client, snapshot }
    }

    /// What reads in it see. Any process of the system can use it for as long as this handle lives.
    pub fn view(&self) -> View {
        let control::Snapshot { stamp, position, lease, .. } = self.snapshot;
        View::Snapshot { stamp, position, lease }
    }

    /// Last step that it contains; 0 if none.
    pub fn step(&self) -> Step {
        self.snapshot.step
    }

    /// The control plane's word.
    pub fn info(&self) -> &control::Snapshot {
        &self.snapshot
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if self.snapshot.lease.0 != 0 {
            self.client.shared.tell(control::Request::SnapshotClose { lease: self.snapshot.lease });
        }
    }
}
