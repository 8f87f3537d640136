//! openraft's way to the other replicas: messages that leave through the node, answers that come back through it.
//!
//! A call without an answer ends with its deadline, never earlier: openraft repeats at once what has failed at once.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex};

use openraft::async_runtime::AsyncOneshotSendExt;
use openraft::error::{InstallSnapshotError, RPCError, RaftError};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{AsyncRuntime, EmptyNode, RaftNetwork, RaftNetworkFactory};
use serde::{Deserialize, Serialize};

use super::runtime::{Runtime, Sender, lock};
use super::{ReplicaId, TypeConfig};

/// What one replica asks another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Call {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<ReplicaId>),
    Snapshot(InstallSnapshotRequest<TypeConfig>),
}

/// What it is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Append(AppendEntriesResponse<ReplicaId>),
    Vote(VoteResponse<ReplicaId>),
    Snapshot(InstallSnapshotResponse<ReplicaId>),
    /// The snapshot's beginning was missed: from the beginning.
    SnapshotMismatch(openraft::error::SnapshotMismatch),
}

/// A call that wants to be sent.
#[derive(Debug)]
pub(in crate::node) struct Outgoing {
    pub(in crate::node) to: ReplicaId,
    pub(in crate::node) call: u64,
    pub(in crate::node) bytes: Vec<u8>,
}

/// Calls under way.
#[derive(Default)]
pub(super) struct Calls {
    last: u64,
    waiting: BTreeMap<u64, Sender<Answer>>,
    pub(super) outgoing: Vec<Outgoing>,
}

impl Calls {
    /// An answer has come. One that came too late, or that nobody asked for, is nobody's.
    pub(super) fn answered(&mut self, call: u64, answer: Answer) {
        if let Some(sender) = self.waiting.remove(&call) {
            let _ = sender.send(answer);
        }
    }

    /// Whether somebody still waits for a call's answer.
    pub(super) fn is_waiting(&self, call: u64) -> bool {
        self.waiting.contains_key(&call)
    }
}

/// Makes clients for openraft.
#[derive(Clone, Default)]
pub(super) struct Network(pub(super) Arc<Mutex<Calls>>);

/// The way to one replica.
pub(super) struct Way {
    calls: Arc<Mutex<Calls>>,
    to: ReplicaId,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Way;
    async fn new_client(&mut self, target: ReplicaId, _node: &EmptyNode) -> Way {
        Way { calls: self.0.clone(), to: target }
    }
}

/// Forgets a call whose asker waits no more.
struct Forget {
    calls: Arc<Mutex<Calls>>,
    call: u64,
}

impl Drop for Forget {
    fn drop(&mut self) {
        lock(&self.calls).waiting.remove(&self.call);
    }
}

impl Way {
    async fn ask(&self, call: &Call) -> Answer {
        // What cannot be encoded is never answered.
        let Ok(bytes) = postcard::to_stdvec(&(self.to, call)) else { return pending().await };
        let (sender, receiver) = Runtime::oneshot();
        let call = {
            let mut calls = lock(&self.calls);
            calls.last += 1;
            let call = calls.last;
            calls.waiting.insert(call, sender);
            calls.outgoing.push(Outgoing { to: self.to, call, bytes });
            call
        };
        let _forget = Forget { calls: self.calls.clone(), call };
        match receiver.await {
            Ok(answer) => answer,
            Err(_) => pending().await,
        }
    }
}

type CallError<E = openraft::error::Infallible> = RPCError<ReplicaId, EmptyNode, RaftError<ReplicaId, E>>;

impl RaftNetwork<TypeConfig> for Way {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<ReplicaId>, CallError> {
        match self.ask(&Call::Append(rpc)).await {
            Answer::Append(answer) => Ok(answer),
            _ => pending().await,
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<ReplicaId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<ReplicaId>, CallError> {
        match self.ask(&Call::Vote(rpc)).await {
            Answer::Vote(answer) => Ok(answer),
            _ => pending().await,
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<ReplicaId>, CallError<InstallSnapshotError>> {
        match self.ask(&Call::Snapshot(rpc)).await {
            Answer::Snapshot(answer) => Ok(answer),
            Answer::SnapshotMismatch(mismatch) => {
                let error = RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch));
                Err(RPCError::RemoteError(openraft::error::RemoteError::new(self.to, error)))
            }
            _ => pending().await,
        }
    }
}
