//! Starting and stopping a whole system: its directory, its servers, its first container.

use std::path::{Path, PathBuf};
use std::time::Duration;

use talea_client::system::{ProcessMark, RuntimeDir, ServerEntry, System, job_name};
use talea_slurm::launch::{Launch, Say};
use talea_slurm::{Allocation, step};

use crate::config::{NodeConfig, ServerConfig, ServerLine};
use crate::failure::Failure;
use crate::group::Group;
use crate::media::{self, Note, Place};
use crate::metrics::{self, MetricsConfig};
use crate::plan::Plan;
use crate::{interface, locate, names, tier};

/// How long a local server may take to end when its input has ended.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same for a step, whose agents wait for their servers.
const STEP_PATIENCE: Duration = Duration::from_secs(12);

/// A system that this process started.
pub(crate) struct Started {
    pub(crate) system: System,
    pub(crate) plan: Plan,
    pub(crate) groups: Vec<Group>,
    /// Where the servers show their counters, and where each does.
    metrics: Option<MetricsConfig>,
    metrics_at: Vec<(u32, String)>,
    /// Its directory on this node's media, if it has no agents.
    place: Option<Place>,
    /// Its name among the user's jobs.
    _name: Option<names::Registered>,
}

impl Started {
    /// Starts all servers and waits until the pool is ready. On failure nothing is left.
    pub(crate) async fn start(plan: Plan, detached: bool) -> Result<Self, Failure> {
        let runtime = RuntimeDir::from_env()?;
        runtime.gc()?;
        let mut system = runtime.create(&plan.name)?;
        system.file.detached = detached;
        system.file.containers = vec![plan.container.clone()];
        system.file.fabric = plan.policy();
        let deadline_ms = plan.site.ready_deadline_ms;
        let metrics = metrics::config(plan.metrics.as_ref(), &system.directory)?;
        let mut started = Started { metrics, ..Started::bare(plan, system) };
        let mut launch = Launch::begin(started.plan.nodes(), started.plan.servers, started.asks_media());
        let up = started.bring_up(detached, &mut launch);
        let failure = match tokio::time::timeout(Duration::from_millis(deadline_ms), up).await {
            Ok(Ok(())) => return Ok(started),
            Ok(Err(failure)) => failure,
            Err(_) => Failure::NotReady {
                deadline_ms,
                waiting: launch.0.waiting_for(),
                logs: keep_logs(&started.system.directory, &started.plan.name),
            },
        };
        started.stop().await;
        Err(failure)
    }

    fn bare(plan: Plan, system: System) -> Self {
        Self { system, plan, groups: vec![], metrics: None, metrics_at: vec![], place: None, _name: None }
    }

    /// Whether the agents look for what their media keep before anything else.
    fn asks_media(&self) -> bool {
        self.plan.allocation.is_some() && self.plan.persist.is_some()
    }

    async fn bring_up(&mut self, detached: bool, launch: &mut (Launch, Option<Say>)) -> Result<(), Failure> {
        match self.plan.allocation.clone() {
            Some(allocation) => self.bring_up_step(&allocation, launch).await?,
            None => self.bring_up_local(detached, &mut launch.0).await?,
        }
        self.system.write()?;
        metrics::note(&self.system.directory, &self.plan.name, &self.metrics_at)
    }

    /// Server 0 first, for its address; the others at once; then the pool.
    async fn bring_up_local(&mut self, detached: bool, launch: &mut Launch) -> Result<(), Failure> {
        self.take_place(detached)?;
        let program = locate::server()?;
        let arguments = ["serve", "--config", "-"].map(str::to_owned);
        let directory = self.place.as_ref().map(|place| place.directory.as_str());
        let tier = tier::of_target(&self.plan.tier, self.plan.target_bytes(), directory);
        let interface = interface::resolve(self.plan.site.interface.as_deref(), None)?;
        let config = ServerConfig { tier, detached, interface, ..self.config() };
        let mut leader = vec![];
        for server in 0..self.plan.servers {
            let metrics = metrics::of_nth(config.metrics.clone(), server);
            let config = ServerConfig { server, leader: Some(leader.clone()), metrics, ..config.clone() };
            let log = self.system.directory.join(format!("server-{server}.log"));
            let group = Group::start(server.to_string(), &program, &arguments, &config, log).await?;
            self.groups.push(group);
            if server == 0
                && let Some(Say::Leader(addresses)) = self.hear(0, launch).await?
            {
                leader = addresses;
            }
        }
        for group in 1..self.groups.len() {
            self.hear(group, launch).await?;
        }
        while self.hear(0, launch).await? != Some(Say::Ready) {}
        Ok(())
    }

    /// The system's directory on this node's media, with its own id if something is kept there.
    fn take_place(&mut self, detached: bool) -> Result<(), Failure> {
        if let Some(name) = &self.plan.persist
            && let Some(kept) = media::kept(&self.plan.tier, name)?
        {
            if kept.servers != self.plan.servers {
                let text = format!("'{name}' was kept by {} servers: add --servers {}", kept.servers, kept.servers);
                return Err(Failure::Usage(text));
            }
            self.system.file.system = kept.system;
            self.system.write()?;
        }
        let note = Note {
            version: 1,
            persist: self.plan.persist.clone(),
            system: self.system.file.system.clone(),
            first_server: 0,
            servers: self.plan.servers,
            targets: self.plan.targets,
            capacity_bytes: self.plan.capacity_bytes,
            job: None,
            // A detached system outlives this process; whoever ends it takes the directory away.
            user: (!detached).then(ProcessMark::of_self),
        };
        self.place = Place::prepare(&self.plan.tier, &note)?;
        let goes = self.place.as_ref().filter(|_| self.plan.persist.is_none());
        self.system.file.media = goes.map(|place| place.paths.clone()).unwrap_or_default();
        Ok(())
    }

    /// One step with an agent a node, which starts the node's servers.
    async fn bring_up_step(
        &mut self,
        allocation: &Allocation,
        launch: &mut (Launch, Option<Say>),
    ) -> Result<(), Failure> {
        let own = locate::own()?;
        let mut arguments = step::one_a_node(allocation);
        arguments.extend([own.display().to_string(), "node".to_owned()]);
        if let (true, Some(name)) = (self.asks_media(), &self.plan.persist) {
            arguments.extend(["--persist".to_owned(), name.clone(), "--tier".to_owned(), self.plan.tier.clone()]);
        }
        let log = self.system.directory.join("servers.log");
        let label = format!("step of {} nodes", allocation.nodes);
        self.groups.push(Group::spawn(label, Path::new("srun"), &arguments, log)?);
        let mut say = launch.1.take();
        loop {
            match say {
                Some(Say::Configure { system, first_servers }) => {
                    if let Some(kept) = system {
                        self.system.file.system = kept;
                        self.system.write()?;
                    }
                    let config = self.node_config(first_servers);
                    self.tell(&config).await?;
                }
                Some(Say::Leader(leader)) => {
                    if let Some(group) = self.groups.first_mut() {
                        group.tell_leader(&leader).await?;
                    }
                }
                Some(Say::Ready) => {
                    // Without it only those who know the job's number find the system.
                    let name = self.plan.persist.as_ref().unwrap_or(&self.plan.name);
                    if *name != job_name(allocation.job) {
                        self._name = names::register(name, allocation.job).ok().flatten();
                    }
                    return Ok(());
                }
                Some(Say::Fail(why)) => return Err(Failure::Usage(why)),
                None => {}
            }
            say = self.hear(0, &mut launch.0).await?;
        }
    }

    async fn tell(&mut self, config: &NodeConfig) -> Result<(), Failure> {
        match self.groups.first_mut() {
            Some(group) => group.tell(config).await,
            None => Ok(()),
        }
    }

    /// Takes the next line of a group in.
    async fn hear(&mut self, group: usize, launch: &mut Launch) -> Result<Option<Say>, Failure> {
        let local = self.plan.allocation.is_none();
        let Some(group) = self.groups.get_mut(group) else { return Ok(None) };
        let line = group.next_line().await?;
        match &line {
            ServerLine::Listening { server, control, pid, metrics, .. } => {
                self.metrics_at.extend(metrics.clone().map(|address| (*server, address)));
                let pid = if local { group.pid() } else { *pid };
                let process = pid.filter(|_| local).and_then(ProcessMark::of_pid);
                self.system.file.servers.push(ServerEntry { id: *server, control: control.clone(), process });
                self.system.file.servers.sort_by_key(|server| server.id);
            }
            ServerLine::Ended { ended, host, status, log } => {
                let (server, status) = (format!("{ended} on {host}"), status.clone());
                return Err(Failure::ServerEnded { server, status, log: log.clone() });
            }
            ServerLine::Failed { failed } => return Err(Failure::Usage(failed.clone())),
            _ => {}
        }
        Ok(line.heard().and_then(|heard| launch.heard(heard)))
    }

    /// What all servers are told alike.
    fn config(&self) -> ServerConfig {
        let secret = self.system.secret().iter().map(|byte| format!("{byte:02x}")).collect();
        ServerConfig {
            name: self.plan.name.clone(),
            system: self.system.file.system.clone(),
            secret,
            server: 0,
            servers: self.plan.servers,
            targets: self.plan.targets,
            tier: String::new(),
            directory: self.system.directory.clone(),
            leader: None,
            fabric: self.plan.fabric.name().to_owned(),
            interface: self.plan.site.interface.clone(),
            membership_lease_ms: self.plan.site.membership_lease_ms,
            detached: false,
            patient: false,
            metrics: self.metrics.clone(),
            plant: self.plan.plant.clone(),
        }
    }

    fn node_config(&self, first_servers: Vec<u32>) -> NodeConfig {
        NodeConfig {
            file: self.system.file.clone(),
            server: self.config(),
            first_servers,
            per_node: self.plan.servers / self.plan.nodes().max(1),
            reserved_cores: self.plan.reserved_cores,
            tier: self.plan.tier.clone(),
            target_bytes: self.plan.target_bytes(),
            persist: self.plan.persist.clone(),
            capacity_bytes: self.plan.capacity_bytes,
            job: self.plan.allocation.as_ref().map(|allocation| allocation.job),
        }
    }

    /// Lets the programs of an allocation reach a system that runs elsewhere: an agent a node, without servers.
    pub(crate) async fn introduce(plan: Plan, system: System) -> Result<Self, Failure> {
        let nodes = plan.nodes();
        let Some(allocation) = plan.allocation.clone() else {
            return Ok(Started::bare(plan, system));
        };
        let deadline_ms = plan.site.ready_deadline_ms;
        let mut started = Started::bare(plan, system);
        let mut arguments = step::one_a_node(&allocation);
        arguments.extend([locate::own()?.display().to_string(), "node".to_owned()]);
        let log = started.system.directory.join("introduction.log");
        started.groups.push(Group::spawn(format!("step of {nodes} nodes"), Path::new("srun"), &arguments, log)?);
        let config = started.node_config(vec![]);
        let mut installed = 0;
        let all = async {
            started.tell(&config).await?;
            while installed < nodes {
                let Some(group) = started.groups.first_mut() else { break };
                match group.next_line().await? {
                    ServerLine::Installed { .. } => installed += 1,
                    ServerLine::Failed { failed } => return Err(Failure::Usage(failed)),
                    _ => {}
                }
            }
            Ok(())
        };
        let failure = match tokio::time::timeout(Duration::from_millis(deadline_ms), all).await {
            Ok(Ok(())) => return Ok(started),
            Ok(Err(failure)) => failure,
            Err(_) => Failure::NotReady {
                deadline_ms,
                waiting: format!("{} of {nodes} nodes", nodes - installed),
                logs: keep_logs(&started.system.directory, &started.plan.name),
            },
        };
        started.leave(false).await;
        Err(failure)
    }

    /// Ends the agents of [`introduce`](Self::introduce); the directory of this node goes too if we made it.
    pub(crate) async fn leave(self, made: bool) {
        for group in self.groups {
            group.stop(STEP_PATIENCE).await;
        }
        if made {
            let _ = self.system.remove();
        }
    }

    /// Ends all servers and removes what the system left on this node.
    pub(crate) async fn stop(self) {
        let patience = if self.plan.allocation.is_some() { STEP_PATIENCE } else { PATIENCE };
        // All at once: they must not wait for each other one by one.
        let mut stops = tokio::task::JoinSet::new();
        for group in self.groups {
            stops.spawn(group.stop(patience));
        }
        while stops.join_next().await.is_some() {}
        if let Some(place) = &self.place {
            place.release();
        }
        if let Err(error) = self.system.remove() {
            eprintln!("talea: {error}");
        }
    }

    /// Resolves when any server ends by itself.
    pub(crate) async fn any_ended(groups: &mut [Group]) -> Failure {
        let mut waits: Vec<_> = groups.iter_mut().map(|group| Box::pin(one_ended(group))).collect();
        std::future::poll_fn(move |context| {
            waits
                .iter_mut()
                .find_map(|wait| match wait.as_mut().poll(context) {
                    std::task::Poll::Ready(failure) => Some(failure),
                    std::task::Poll::Pending => None,
                })
                .map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }
}

/// A group's end, or an agent's word that one of its servers ended.
async fn one_ended(group: &mut Group) -> Failure {
    loop {
        match group.next_line().await {
            Ok(ServerLine::Ended { ended, host, status, log }) => {
                return Failure::ServerEnded { server: format!("{ended} on {host}"), status, log };
            }
            Ok(_) => {}
            Err(failure) => return failure,
        }
    }
}

/// Moves the logs of a system that did not come up to where they outlive its directory.
fn keep_logs(directory: &Path, name: &str) -> PathBuf {
    let kept = std::env::temp_dir().join(format!("talea-{name}-{}.log", std::process::id()));
    let mut text = String::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            text.push_str(&std::fs::read_to_string(entry.path()).unwrap_or_default());
        }
    }
    let _ = std::fs::write(&kept, text);
    kept
}
