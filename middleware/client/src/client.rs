//! The client's handle: connecting, the system's state, containers.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use talea_fabric::{Address, Clock, Credentials, Endpoint, RealClock, client_endpoint, node_id};
use talea_model::{ContainerId, ObjectClass, Oid, PoolMap, ServerId, SessionId, TargetId};
use talea_wire::control::{ContainerInfo, Reply, Request, Status};
use talea_wire::data::StoreStat;
use talea_wire::figures::{ProcessFigures, Reports};
use talea_wire::log::{ContainerProperties, ProducerState};

use crate::container::Container;
use crate::core::Shared;
use crate::core::homes::distance;
use crate::core::place::ShortWay;
use crate::error::{ClientError, Result};
use crate::options::{ConnectOptions, Tuning};
use crate::system::{FabricPolicy, ServerEntry, System, SystemError};

const MS: u64 = 1_000_000;

/// This process's client of one system. Clones share it; the session ends with the last one.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    deadline_ms: u64,
}

/// When a call began and must end, in monotonic nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) began_ns: u64,
    pub(crate) deadline_ns: u64,
}

impl Client {
    /// Connects to a system of this node.
    pub fn connect(options: &ConnectOptions) -> Result<Self> {
        let system = System::find(options.system.as_deref())?;
        Self::connect_to(&system, options)
    }

    /// Connects to this system.
    pub fn connect_to(system: &System, options: &ConnectOptions) -> Result<Self> {
        let client = Self::without_session(system, options)?;
        client.open()?;
        Ok(client)
    }

    /// A client of this system that has asked nobody yet; its first call opens the session.
    pub fn without_session(system: &System, options: &ConnectOptions) -> Result<Self> {
        let fabric = options.fabric.unwrap_or(system.file.fabric);
        let id = system.file.id().unwrap_or_default();
        let credentials = Credentials::new(id, *system.secret());
        // For comparing: reads go through the servers then.
        let short_way = if std::env::var_os("TALEA_SHORT_WAY").is_some_and(|value| value == "off") {
            ShortWay::Off
        } else {
            ShortWay::Mapped
        };
        let policy = match fabric {
            FabricPolicy::Auto => talea_fabric::Policy::Auto,
            FabricPolicy::Ring => talea_fabric::Policy::Ring,
            FabricPolicy::Libfabric => talea_fabric::Policy::Libfabric,
        };
        let endpoint = client_endpoint(&credentials, policy, options.spin.unwrap_or_default())?;
        let mut homes = homes_of(&system.file.servers, &node_id()).into_iter();
        let (server, home) =
            homes.next().ok_or_else(|| SystemError::NotFound { name: system.file.name.clone(), running: vec![] })?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|_| SystemError::Random)?;
        let defaults = Tuning::default();
        let tuning = Tuning {
            name: options.name.clone().unwrap_or_else(program_name),
            home: server,
            others: homes.collect(),
            fabric,
            short_way,
            deadline_ms: options.deadline_ms.unwrap_or(defaults.deadline_ms),
            ..defaults
        };
        let seed = u64::from_le_bytes(seed);
        Ok(Self::with_endpoint(Box::new(endpoint), Arc::new(RealClock), home, seed, tuning))
    }

    /// A client over any endpoint and clock, for simulations and tests. Nothing is sent before the first call.
    pub fn with_endpoint(
        endpoint: Box<dyn Endpoint>,
        clock: Arc<dyn Clock>,
        home: Address,
        seed: u64,
        tuning: Tuning,
    ) -> Self {
        let deadline_ms = tuning.deadline_ms;
        let shared = Arc::new(Shared::new(endpoint, clock, home, seed, tuning, node_id()));
        Self { shared, deadline_ms }
    }

    /// The same client with another deadline for the calls made through this handle (and containers opened through it).
    pub fn with_deadline_ms(&self, deadline_ms: u64) -> Self {
        Self { shared: self.shared.clone(), deadline_ms }
    }

    /// Opens the session, if it is not open.
    pub fn open(&self) -> Result<()> {
        self.block_on(self.open_async())?
    }

    /// Asynchronous [`open`](Self::open).
    pub async fn open_async(&self) -> Result<()> {
        self.shared.check_process()?;
        let times = self.times();
        self.shared.home_peer("connecting", times.began_ns, times.deadline_ns).await.map(drop)
    }

    /// Runs a future of this client to its end in this thread.
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output> {
        self.block_on_pinned(pin!(future))
    }

    /// The same for a future that stays where it is.
    pub(crate) fn block_on_pinned<F: Future>(&self, future: Pin<&mut F>) -> Result<F::Output> {
        self.shared.check_process()?;
        Ok(self.shared.block_on(future))
    }

    /// Receives everything that is ready and wakes who waits for it; for executors of one's own.
    pub fn drive(&self) -> bool {
        !self.shared.is_foreign() && self.shared.drive()
    }

    /// When [`drive`](Self::drive) has something to do at the latest, in the clock's monotonic nanoseconds.
    pub fn next_deadline_ns(&self) -> u64 {
        if self.shared.is_foreign() {
            u64::MAX
        } else {
            self.shared.machine_time_ns(self.shared.lock().next_deadline_ns())
        }
    }

    /// The session's number; 0 before it is open.
    pub fn session(&self) -> SessionId {
        if self.shared.is_foreign() { SessionId(0) } else { self.shared.lock().session() }
    }

    /// The pool map as this client knows it.
    pub fn map(&self) -> Arc<PoolMap> {
        self.shared.map()
    }

    /// The pool map as the pool has it now. Whoever only reads and writes needs not ask: what a call needs to know comes with its replies.
    pub fn refresh_map(&self) -> Result<Arc<PoolMap>> {
        self.block_on(async {
            match self.control("asking for the pool map", Request::Map).await? {
                Reply::Map(map) => {
                    self.shared.take_map(map);
                    Ok(self.map())
                }
                _ => Err(ClientError::unexpected("asking for the pool map")),
            }
        })?
    }

    /// This process's clock: the largest stamp that it gave or saw. Whoever tells another process of something over a channel
    /// that is not Talea's sends it along (docs/design.md §4 rule 1).
    pub fn hlc(&self) -> talea_model::Stamp {
        if self.shared.is_foreign() { talea_model::Stamp::ZERO } else { self.shared.lock().hlc.last() }
    }

    /// Advances this process's clock past a stamp that came over such a channel.
    pub fn observe(&self, stamp: talea_model::Stamp) {
        if !self.shared.is_foreign() {
            self.shared.observe(stamp);
        }
    }

    /// A fresh object id of a class: unique among all sessions of the pool, as far as chance goes within one session.
    pub fn new_oid(&self, class: ObjectClass) -> Oid {
        let unique = (self.session().0 as u128 & 0xffff_ffff) << 64;
        Oid::new(class, unique | self.shared.random_u64() as u128)
    }

    /// All there is to tell of the system.
    pub fn status(&self) -> Result<Status> {
        self.block_on(self.status_async())?
    }

    /// Asynchronous [`status`](Self::status).
    pub async fn status_async(&self) -> Result<Status> {
        match self.control("asking for the status", Request::Status).await? {
            Reply::Status(status) => Ok(*status),
            _ => Err(ClientError::unexpected("asking for the status")),
        }
    }

    /// The same without a session, from the first server that answers: also where no server leads the pool's log, and what is told is
    /// as old as what that server knows ([`Status::unled`]). For a client that has opened no session.
    pub fn status_of_anybody(&self) -> Result<Status> {
        let what = "asking for the status";
        let deadline_ns = self.times().deadline_ns;
        match self.block_on(self.shared.ask_anybody(what, Request::Status, deadline_ns))?? {
            Reply::Status(status) => Ok(*status),
            _ => Err(ClientError::unexpected(what)),
        }
    }

    /// Ends a session, whosever it is, with all that hangs on it.
    pub fn evict(&self, session: SessionId) -> Result<()> {
        self.block_on(self.control("ending a session", Request::Evict { session }))?.map(drop)
    }

    /// Makes a container; with `exist_ok` an existing one is opened.
    pub fn container_create(&self, name: &str, properties: ContainerProperties, exist_ok: bool) -> Result<Container> {
        self.block_on(self.container_create_async(name, properties, exist_ok))?
    }

    /// Asynchronous [`container_create`](Self::container_create).
    pub async fn container_create_async(
        &self,
        name: &str,
        properties: ContainerProperties,
        exist_ok: bool,
    ) -> Result<Container> {
        let what = "creating a container";
        let request = Request::ContainerCreate { name: name.to_owned(), properties, exist_ok };
        match self.control(what, request).await? {
            Reply::Container(info) => Ok(Container::new(self, &info)),
            _ => Err(ClientError::unexpected(what)),
        }
    }

    /// Opens a container by name.
    pub fn container_open(&self, name: &str) -> Result<Container> {
        self.block_on(self.container_open_async(name))?
    }

    /// Asynchronous [`container_open`](Self::container_open).
    pub async fn container_open_async(&self, name: &str) -> Result<Container> {
        Ok(Container::new(self, &self.container_info(name).await?))
    }

    pub(crate) async fn container_info(&self, name: &str) -> Result<ContainerInfo> {
        let what = "opening a container";
        match self.control(what, Request::ContainerOpen { name: name.to_owned() }).await? {
            Reply::Container(info) => Ok(info),
            _ => Err(ClientError::unexpected(what)),
        }
    }

    /// A container from another process's [`Container::blob`]; asks nobody.
    pub fn container_join(&self, blob: &[u8]) -> Result<Container> {
        Container::from_blob(self, blob)
    }

    /// All containers.
    pub fn container_list(&self) -> Result<Vec<ContainerInfo>> {
        self.block_on(self.container_list_async())?
    }

    /// Asynchronous [`container_list`](Self::container_list).
    pub async fn container_list_async(&self) -> Result<Vec<ContainerInfo>> {
        match self.control("listing containers", Request::ContainerList).await? {
            Reply::Containers(all) => Ok(all),
            _ => Err(ClientError::unexpected("listing containers")),
        }
    }

    /// Destroys a container and all it holds.
    pub fn container_destroy(&self, container: ContainerId) -> Result<()> {
        self.block_on(self.container_destroy_async(container))?
    }

    /// Asynchronous [`container_destroy`](Self::container_destroy).
    pub async fn container_destroy_async(&self, container: ContainerId) -> Result<()> {
        self.control("destroying a container", Request::ContainerDestroy { container }).await.map(drop)
    }

    /// Counters of one target, of all containers.
    pub fn target_stat(&self, target: TargetId) -> Result<StoreStat> {
        self.block_on(Container::none(self).stat(target))?
    }

    /// Counters of all targets that the map has up, in the map's order: all servers are asked at once, each answer is waited for so long, and
    /// who does not answer, or is down, has none. A server of which one target does not answer is not asked for the others.
    pub fn target_stats(&self, patience_ms: u64) -> Result<Vec<(TargetId, Option<StoreStat>)>> {
        let each = self.with_deadline_ms(patience_ms.min(self.deadline_ms));
        let map = self.map();
        let of_server = |server: ServerId| {
            let (each, map) = (&each, &map);
            async move {
                let (mut stats, mut answers) = (vec![], true);
                for target in map.targets.iter().filter(|target| target.server == server) {
                    let stat = match answers && map.is_up(target.id) {
                        true => Container::none(each).stat(target.id).await.ok(),
                        false => None,
                    };
                    answers = stat.is_some();
                    stats.push((target.id, stat));
                }
                stats
            }
        };
        let servers = map.servers.iter().map(|server| of_server(server.id)).collect();
        let mut stats: Vec<_> = self.block_on(gather(servers))?.into_iter().flatten().collect();
        stats.sort_by_key(|(target, _)| *target);
        Ok(stats)
    }

    /// What the processes said of themselves that have ended.
    pub fn reports(&self) -> Result<Reports> {
        let what = "asking for the processes' figures";
        match self.block_on(self.control(what, Request::Reports))?? {
            Reply::Reports(reports) => Ok(reports),
            _ => Err(ClientError::unexpected(what)),
        }
    }

    /// Says what this process did, at its end. Waits for nothing, neither an answer nor another thread: it may be called where the
    /// process exits, in whatever state that finds it, and the figures are lost then.
    pub fn report(&self, figures: ProcessFigures) {
        self.shared.tell_if_free(Request::Report(figures));
    }

    /// Says what the producer is doing, for all containers (the launcher's word; see [`Container::producer`]).
    pub fn producer(&self, state: ProducerState) -> Result<()> {
        let request = Request::Producer { container: None, state };
        self.block_on(self.control("telling the producer's state", request))?.map(drop)
    }

    pub(crate) fn times(&self) -> Times {
        let began_ns = self.shared.now_ns();
        Times { began_ns, deadline_ns: began_ns.saturating_add(self.deadline_ms.saturating_mul(MS)) }
    }

    pub(crate) async fn control(&self, what: &'static str, request: Request) -> Result<Reply> {
        self.shared.control(what, request, self.times().deadline_ns).await
    }

    /// As [`control`](Self::control), with at least `least_ms` to answer in.
    pub(crate) async fn control_for(&self, what: &'static str, request: Request, least_ms: u64) -> Result<Reply> {
        let least_ns = self.shared.now_ns().saturating_add(least_ms.saturating_mul(1_000_000));
        self.shared.control(what, request, self.times().deadline_ns.max(least_ns)).await
    }
}

/// Where a session can be had, in the order in which servers are tried: those on this node first, then those that can be reached at
/// all; of either, those not known to be dead.
fn homes_of(servers: &[ServerEntry], node: &str) -> Vec<(ServerId, Address)> {
    let is_dead = |server: &ServerEntry| server.process.as_ref().is_some_and(|process| !process.is_alive());
    let mut homes = vec![];
    for server in servers {
        let addresses = server.control.iter().filter_map(|text| text.parse::<Address>().ok());
        let ranked = addresses.filter_map(|address| Some((distance(&address, node)?, address)));
        if let Some((rank, address)) = ranked.min_by_key(|(rank, _)| *rank) {
            homes.push(((is_dead(server), rank), ServerId(server.id), address));
        }
    }
    homes.sort_by_key(|(rank, ..)| *rank);
    homes.into_iter().map(|(_, server, address)| (server, address)).collect()
}

fn program_name() -> String {
    let path = std::env::current_exe().ok();
    let name = path.as_ref().and_then(|path| path.file_name()).unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Runs futures together; the results come in any order. One alone costs nothing extra.
pub(crate) async fn gather<F: Future>(mut futures: Vec<F>) -> Vec<F::Output> {
    if futures.len() <= 1 {
        return match futures.pop() {
            Some(future) => vec![future.await],
            None => vec![],
        };
    }
    futures.into_iter().collect::<FuturesUnordered<F>>().collect().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::ProcessMark;

    #[test]
    fn a_server_that_has_ended_is_nobodys_home_if_there_is_another() {
        let living = ProcessMark::of_self();
        let dead = ProcessMark { start_ticks: living.start_ticks + 1, ..living.clone() };
        let entry = |id, address: &str, process: &ProcessMark| ServerEntry {
            id,
            control: vec![address.to_owned()],
            process: Some(process.clone()),
        };
        let home = |servers: &[ServerEntry]| homes_of(servers, "here").first().map(|(id, _)| id.0);
        let (near, far) = ("unix:here:/tmp/a.sock", "tcp:10.0.0.1:7");
        assert_eq!(home(&[entry(0, far, &living), entry(1, near, &living), entry(2, near, &living)]), Some(1));
        assert_eq!(home(&[entry(0, far, &living), entry(1, near, &dead), entry(2, near, &living)]), Some(2));
        assert_eq!(home(&[entry(0, far, &living), entry(1, near, &dead)]), Some(0), "alive elsewhere");
        assert_eq!(home(&[entry(0, far, &dead), entry(1, near, &dead)]), Some(1), "it may be back when it is asked");
        assert_eq!(home(&[]), None);
    }
}
