//! A container's handle: objects, epochs, snapshots, steps.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use talea_model::{ContainerId, Oid, Order, ServerId, Step, TargetId, View};
use talea_wire::codec;
use talea_wire::control::{ContainerInfo, Reply, Request};
use talea_wire::data::{Body, EnumerateKind, ReplyBody, StoreStat};
use talea_wire::log::{ContainerProperties, ProducerState, SnapshotAt};

use crate::client::{Client, gather};
use crate::core::exchange::{Answer, Question};
use crate::enumerate::{Listing, Page};
use crate::epoch::Epoch;
use crate::error::{ClientError, ErrorKind, Result};
use crate::object::Object;
use crate::snapshot::Snapshot;
use crate::subscription::Subscription;

/// A container of the system. Clones are cheap.
#[derive(Clone)]
pub struct Container {
    pub(crate) client: Client,
    known: Arc<Known>,
}

/// What never changes of a container; also what its blob holds.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    version: u16,
    id: ContainerId,
    name: String,
    properties: ContainerProperties,
}

const BLOB_VERSION: u16 = 2;
/// How often a follower tries to begin with the first step that is retained.
const BEGIN_TRIES: u32 = 64;

/// State of a container and of what it holds on all targets that serve.
#[derive(Clone, Debug)]
pub struct Usage {
    /// What the control plane knows.
    pub info: ContainerInfo,
    /// Servers of the system that have a target that serves.
    pub servers: usize,
    /// Targets that serve.
    pub targets: usize,
    /// Updates of open transactions, over all targets.
    pub pending_updates: u64,
    /// Bytes written since the servers started, over all targets.
    pub bytes_written: u64,
}

impl Container {
    pub(crate) fn new(client: &Client, info: &ContainerInfo) -> Self {
        let (id, name, properties) = (info.container, info.name.clone(), info.properties.clone());
        Self { client: client.clone(), known: Arc::new(Known { version: BLOB_VERSION, id, name, properties }) }
    }

    /// No container: for requests that concern a target as a whole.
    pub(crate) fn none(client: &Client) -> Self {
        let properties = ContainerProperties::default();
        let known = Known { version: BLOB_VERSION, id: ContainerId(0), name: String::new(), properties };
        Self { client: client.clone(), known: Arc::new(known) }
    }

    pub(crate) fn from_blob(client: &Client, blob: &[u8]) -> Result<Self> {
        client.shared.check_process()?;
        let known: Known = codec::decode(blob)
            .map_err(|source| ClientError::Wire { who: "the container's blob".to_owned(), source })?;
        if known.version != BLOB_VERSION {
            let text = format!("the container's blob has version {}, this program knows {BLOB_VERSION}", known.version);
            return Err(ClientError::Argument(text));
        }
        Ok(Self { client: client.clone(), known: Arc::new(known) })
    }

    /// Bytes that make the handle in another process of the system's user ([`Client::container_join`]).
    pub fn blob(&self) -> Vec<u8> {
        codec::encode(&*self.known).unwrap_or_default()
    }

    /// Its number.
    pub fn id(&self) -> ContainerId {
        self.known.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.known.name
    }

    /// Its properties.
    pub fn properties(&self) -> &ContainerProperties {
        &self.known.properties
    }

    /// Its client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The same container with another deadline for the calls made through this handle.
    pub fn with_deadline_ms(&self, deadline_ms: u64) -> Self {
        Self { client: self.client.with_deadline_ms(deadline_ms), known: self.known.clone() }
    }

    /// An object of the container; asks nobody.
    pub fn object(&self, oid: Oid) -> Object {
        Object::new(self.clone(), oid)
    }

    /// Begins a transaction: a collective epoch, whose commit makes a step, or (`collective` false) one of this process.
    pub fn begin(&self, collective: bool) -> Result<Epoch> {
        self.client.block_on(self.begin_async(collective))?
    }

    /// Asynchronous [`begin`](Self::begin).
    pub async fn begin_async(&self, collective: bool) -> Result<Epoch> {
        let what = "beginning an epoch";
        match self.client.control(what, Request::Begin { container: self.id(), collective }).await? {
            Reply::Begun(begun) => Ok(Epoch::new(self.clone(), begun)),
            _ => Err(ClientError::unexpected(what)),
        }
    }

    /// This process's handle of an epoch that another one began, from its [`Epoch::blob`]. Asks nobody yet: the process joins
    /// before its first write.
    pub fn join(&self, blob: &[u8]) -> Result<Epoch> {
        self.client.shared.check_process()?;
        Epoch::from_blob(self.clone(), blob)
    }

    /// Leases a snapshot; the handle's drop ends the lease.
    pub fn snapshot(&self, at: SnapshotAt) -> Result<Snapshot> {
        self.client.block_on(self.snapshot_async(at))?
    }

    /// Asynchronous [`snapshot`](Self::snapshot).
    pub async fn snapshot_async(&self, at: SnapshotAt) -> Result<Snapshot> {
        let what = "opening a snapshot";
        match self.client.control(what, Request::SnapshotOpen { container: self.id(), at }).await? {
            Reply::Snapshot(snapshot) => Ok(Snapshot::new(self.client.clone(), snapshot)),
            _ => Err(ClientError::unexpected(what)),
        }
    }

    /// Names a snapshot: it survives until it is destroyed.
    pub fn snapshot_name(&self, name: &str, at: SnapshotAt) -> Result<()> {
        let request = Request::SnapshotName { container: self.id(), name: name.to_owned(), at };
        self.client.block_on(self.client.control("naming a snapshot", request))?.map(drop)
    }

    /// Destroys a named snapshot.
    pub fn snapshot_destroy(&self, name: &str) -> Result<()> {
        let request = Request::SnapshotDestroy { container: self.id(), name: name.to_owned() };
        self.client.block_on(self.client.control("destroying a snapshot", request))?.map(drop)
    }

    /// Follows the container's steps after `after`, which must all be retained; 0: those that are, and the first one's number tells
    /// since when.
    pub fn subscribe(&self, after: Step) -> Result<Subscription> {
        self.client.block_on(self.subscribe_async(after))?
    }

    /// Asynchronous [`subscribe`](Self::subscribe).
    pub async fn subscribe_async(&self, after: Step) -> Result<Subscription> {
        let mut from = after;
        for _ in 0..BEGIN_TRIES {
            let request = Request::Subscribe { container: self.id(), after: Some(from) };
            match self.client.control("subscribing", request).await {
                Ok(_) => return Ok(Subscription::new(self.clone(), from)),
                // A writer goes on while its follower asks what there is.
                Err(error) if after == Step(0) && error.kind() == ErrorKind::Retention => {
                    let first = self.client.container_info(self.name()).await?.first_step;
                    from = Step(first.0.saturating_sub(1));
                }
                Err(error) => return Err(error),
            }
        }
        Err(ClientError::Argument(format!(
            "steps of '{}' are given up faster than a follower can begin: keep more (--keep-steps N of talea run and up)",
            self.name()
        )))
    }

    /// Says what this process, as the producer of the container's steps, is doing. `Ended` lets followers end.
    pub fn producer(&self, state: ProducerState) -> Result<()> {
        self.client.block_on(self.producer_async(state))?
    }

    /// Asynchronous [`producer`](Self::producer).
    pub async fn producer_async(&self, state: ProducerState) -> Result<()> {
        let request = Request::Producer { container: Some(self.id()), state };
        self.client.control("telling the producer's state", request).await.map(drop)
    }

    /// State of the container, and its counters summed over all targets that serve.
    pub fn query(&self) -> Result<Usage> {
        self.client.block_on(self.query_async())?
    }

    /// Asynchronous [`query`](Self::query).
    pub async fn query_async(&self) -> Result<Usage> {
        let info = self.client.container_info(self.name()).await?;
        let map = self.client.shared.map();
        let serving: Vec<_> = map.targets.iter().filter(|target| map.is_up(target.id)).collect();
        let stats = gather(serving.iter().map(|target| self.stat(target.id)).collect()).await;
        let mut servers: Vec<ServerId> = serving.iter().map(|target| target.server).collect();
        servers.dedup();
        let mut usage =
            Usage { info, servers: servers.len(), targets: serving.len(), pending_updates: 0, bytes_written: 0 };
        for stat in stats {
            let stat = stat?;
            usage.pending_updates += stat.pending_updates;
            usage.bytes_written += stat.container_bytes_in;
        }
        Ok(usage)
    }

    /// Counters of one target.
    pub(crate) async fn stat(&self, target: TargetId) -> Result<StoreStat> {
        let question = self.question("asking for counters", target, Oid(0), None, View::Latest);
        let read = |body: ReplyBody<'_>| match body {
            ReplyBody::Stat(stat) => Ok(stat),
            _ => Err(ClientError::unexpected("asking for counters")),
        };
        let mut request = question.request(Body::Stat { read_in_place: 0 });
        match self.client.shared.exchange(question, &mut request, |_| false, read).await? {
            Answer::Done(stat, _) => Ok(*stat),
            Answer::Moved => Err(ClientError::unexpected("asking for counters")),
        }
    }

    /// The container's objects in order of their ids, after one (or from the first).
    pub fn objects(&self, view: &View, after: Option<Oid>, limit: usize) -> Result<(Vec<Oid>, bool)> {
        self.client.block_on(self.objects_async(view, after, limit))?
    }

    /// Asynchronous [`objects`](Self::objects). Returns the ids and whether there are more.
    pub async fn objects_async(&self, view: &View, after: Option<Oid>, limit: usize) -> Result<(Vec<Oid>, bool)> {
        let targets: Vec<_> = self.client.shared.map().targets.iter().map(|target| target.id).collect();
        let anchor = after.map(|oid| oid.0.to_be_bytes().to_vec()).unwrap_or_default();
        let all = self.object(Oid(0));
        let listing = Listing { kind: EnumerateKind::Objects, dkey: &[], akey: &[], after: &anchor, limit };
        let page = all.enumerate_on(&targets, view, listing);
        let Page { names, more } = page.await?;
        let oid = |name: Vec<u8>| name.try_into().ok().map(|bytes| Oid(u128::from_be_bytes(bytes)));
        Ok((names.into_iter().filter_map(oid).collect(), more))
    }

    pub(crate) fn question(
        &self,
        what: &'static str,
        target: TargetId,
        oid: Oid,
        order: Option<Order>,
        view: View,
    ) -> Question {
        let times = self.client.times();
        let (began_ns, deadline_ns) = (times.began_ns, times.deadline_ns);
        Question { what, target, container: self.id(), oid, order, view, began_ns, deadline_ns }
    }
}
