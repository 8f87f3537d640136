//! Starting and stopping a whole system: its directory, its servers, its first container.

use std::path::{Path, PathBuf};
use std::time::Duration;

use talea_client::system::{ProcessMark, RuntimeDir, ServerEntry, System, job_name};
use talea_model::size::Iec;
use talea_slurm::launch::{Configuration, Heard, Launch, Say};
use talea_slurm::{Allocation, step};

use crate::config::{NodeConfig, ServerConfig, ServerLine};
use crate::failure::Failure;
use crate::group::Group;
use crate::media::{self, Note, Place};
use crate::metrics::{self, MetricsConfig};
use crate::notice::count;
use crate::plan::Plan;
use crate::restart::LaunchNote;
use crate::{cores, interface, locate, names, tier};

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
    /// Servers of a kept system whose data are on no node here, each with its node's name.
    pub(crate) missing: Vec<(u32, String)>,
    /// Who starts what.
    pub(crate) configuration: Option<Configuration>,
    /// What the nodes' agents had to say.
    notes: Vec<String>,
    /// Its name among the user's jobs.
    _name: Option<names::Registered>,
}

impl Started {
    /// Starts all servers and waits until the pool is ready. On failure nothing is left.
    pub(crate) async fn start(plan: Plan, detached: bool) -> Result<Self, Failure> {
        let runtime = RuntimeDir::from_env()?;
        crate::restart::sweep(&runtime)?;
        // Its name is the only way back to its data.
        if runtime.load(&plan.name).is_ok_and(|system| !system.file.is_running()) {
            let text = format!(
                "system {}: {}; or choose another --name",
                plan.name,
                crate::restart::how_to_come_back(&plan.name)
            );
            return Err(Failure::Usage(text));
        }
        let mut system = runtime.create(&plan.name)?;
        system.file.detached = detached;
        system.file.containers = vec![plan.container.clone()];
        system.file.fabric = plan.policy();
        let deadline_ms = plan.site.ready_deadline_ms;
        let metrics = metrics::config(plan.metrics.as_ref(), &system.directory)?;
        let mut started = Started { metrics, ..Started::bare(plan, system) };
        let (plan, asks_media) = (&started.plan, started.asks_media());
        let mut launch = Launch::begin(plan.nodes(), plan.servers, plan.asked.servers, asks_media);
        let up = started.bring_up(detached, &mut launch);
        let failure = match tokio::time::timeout(Duration::from_millis(deadline_ms), up).await {
            Ok(Ok(())) => {
                started.missing = launch.0.missing();
                started.note_kept();
                return Ok(started);
            }
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
        Self {
            system,
            plan,
            groups: vec![],
            metrics: None,
            metrics_at: vec![],
            place: None,
            missing: vec![],
            configuration: None,
            notes: vec![],
            _name: None,
        }
    }

    /// Whether it is to be known what media keep before anything else.
    fn asks_media(&self) -> bool {
        self.plan.persist.is_some()
    }

    async fn bring_up(&mut self, detached: bool, launch: &mut (Launch, Option<Say>)) -> Result<(), Failure> {
        match self.plan.allocation.clone() {
            Some(allocation) => self.bring_up_step(&allocation, launch).await?,
            None => self.bring_up_local(detached, launch).await?,
        }
        self.system.write()?;
        let (tier, persist) = (self.plan.tier.clone(), self.plan.persist.clone());
        let local = self.plan.allocation.is_none();
        let first = self.configuration.as_ref().and_then(|all| all.first_servers.first().copied().flatten());
        let introducer = self.configuration.as_ref().map_or(0, |all| all.introducer);
        let config = if local { self.local_config(detached, introducer)? } else { self.config() };
        let note = LaunchNote::new(config, tier, persist, first.filter(|_| local).unwrap_or(0));
        note.write(&self.system.directory)?;
        metrics::note(&self.system.directory, &self.plan.name, &self.metrics_at)
    }

    /// The introducer first, for its address; the others at once; then the pool.
    async fn bring_up_local(&mut self, detached: bool, launch: &mut (Launch, Option<Say>)) -> Result<(), Failure> {
        if self.asks_media() {
            let kept = self.plan.persist.as_ref().map(|name| media::kept(&self.plan.tier, name)).transpose()?.flatten();
            launch.1 = launch.0.heard(Heard::Kept { node: 0, host: host(), kept });
        }
        let configuration = match launch.1.take() {
            Some(Say::Configure(configuration)) => self.adopt(configuration)?,
            Some(Say::Fail(why)) => return Err(Failure::Usage(why)),
            _ => return Err(Failure::Usage("the launch does not begin: this is a bug".to_owned())),
        };
        let first = configuration.first_servers.first().copied().flatten().unwrap_or(0);
        self.take_place(detached, first, &configuration)?;
        let launch = &mut launch.0;
        let program = locate::server()?;
        let arguments = ["serve", "--config", "-"].map(str::to_owned);
        let config = self.local_config(detached, configuration.introducer)?;
        let mut leader = vec![];
        for server in first..first + configuration.per_node {
            let metrics = metrics::of_nth(config.metrics.clone(), server - first);
            let config = ServerConfig { server, leader: Some(leader.clone()), metrics, ..config.clone() };
            let log = self.system.directory.join(format!("server-{server}.log"));
            let group = Group::start(server.to_string(), &program, &arguments, &config, log).await?;
            self.groups.push(group);
            if server == configuration.introducer
                && let Some(Say::Leader { control, .. }) = self.hear(0, launch).await?
            {
                leader = control;
            }
        }
        // Each says that it listens, and then that it is part of the pool.
        let rest = (1..self.groups.len()).chain(0..self.groups.len());
        for group in rest {
            self.hear(group, launch).await?;
        }
        Ok(())
    }

    /// What the servers of this node are told, but for their numbers.
    pub(crate) fn local_config(&self, detached: bool, introducer: u32) -> Result<ServerConfig, Failure> {
        let directory = self.place.as_ref().map(|place| place.directory.as_str());
        let tier = tier::of_target(&self.plan.tier, self.plan.target_bytes(), directory);
        let interface = interface::resolve(self.plan.site.interface.as_deref(), None)?;
        let cores = cores::last(self.plan.reserved_cores)?;
        Ok(ServerConfig { tier, detached, interface, introducer, cores, ..self.config() })
    }

    /// Takes over what a kept system is like: its id, its servers, its size.
    fn adopt(&mut self, configuration: Configuration) -> Result<Configuration, Failure> {
        if let Some(kept) = &configuration.kept {
            let plan = &mut self.plan;
            let is_other = plan.asked.targets && plan.targets != kept.targets
                || plan.asked.capacity && plan.capacity_bytes != kept.capacity_bytes;
            (plan.servers, plan.targets, plan.capacity_bytes) = (kept.servers, kept.targets, kept.capacity_bytes);
            if is_other {
                let (targets, capacity) = (count(kept.targets.into(), "target"), Iec(kept.capacity_bytes));
                eprintln!("talea: what is kept stays as large as it was made: {capacity} with {targets} a server");
            }
            self.system.file.system.clone_from(&kept.system);
            self.system.write()?;
        } else {
            self.may_begin_anew(&configuration)?;
        }
        self.configuration = Some(configuration.clone());
        Ok(configuration)
    }

    /// No node here keeps anything of the name. If others are known to, it is theirs.
    fn may_begin_anew(&self, configuration: &Configuration) -> Result<(), Failure> {
        let Some(name) = &self.plan.persist else { return Ok(()) };
        let Some(known) = names::kept_at(name) else { return Ok(()) };
        let elsewhere: Vec<String> =
            known.nodes().into_iter().filter(|node| !configuration.hosts.contains(node)).collect();
        let forget = format!("`talea gc --forget {name}` gives it up, and another name begins anew");
        if !elsewhere.is_empty() {
            let (nodes, list) = (known.nodes(), known.nodes().join(","));
            return Err(Failure::Usage(format!(
                "'{name}' is kept by {} on {list}, and none of {} is here: ask for {} (--nodelist={list}); {forget}",
                count(known.hosts.len() as u64, "server"),
                if nodes.len() == 1 { "that" } else { "those" },
                if nodes.len() == 1 { "that node" } else { "as many of these nodes as there are" },
            )));
        }
        if known.tier != self.plan.tier {
            return Err(Failure::Usage(format!(
                "'{name}' is kept in {}, and this launch looks into {}: give --tier {}; {forget}",
                known.tier, self.plan.tier, known.tier
            )));
        }
        Err(Failure::Usage(format!(
            "what was kept as '{name}' in {} is not there any more: is that mounted? Nothing was changed; {forget}",
            known.tier
        )))
    }

    /// Notes which nodes keep the system from now on.
    fn note_kept(&self) {
        let (Some(name), Some(configuration)) = (&self.plan.persist, &self.configuration) else { return };
        let (system, tier) = (self.system.file.system.clone(), self.plan.tier.clone());
        let kept = names::KeptAt { system, tier, hosts: configuration.hosts.clone() };
        if let Err(error) = names::note_kept(name, &kept) {
            eprintln!("talea: which nodes keep '{name}' could not be noted: {error}");
        }
    }

    /// The system's directory on this node's media, with its own id if something is kept there.
    fn take_place(&mut self, detached: bool, first_server: u32, configuration: &Configuration) -> Result<(), Failure> {
        let note = Note {
            version: 1,
            persist: self.plan.persist.clone(),
            system: self.system.file.system.clone(),
            first_server,
            own_servers: configuration.per_node,
            servers: self.plan.servers,
            targets: self.plan.targets,
            capacity_bytes: self.plan.capacity_bytes,
            hosts: configuration.hosts.clone(),
            job: None,
            // A detached system outlives this process; whoever ends it takes the directory away.
            user: (!detached).then(ProcessMark::of_self),
        };
        self.place = Place::prepare(&self.plan.tier, &note)?;
        self.place.iter().flat_map(Place::notes).for_each(|note| eprintln!("talea: {note}"));
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
                Some(Say::Configure(configuration)) => {
                    let configuration = self.adopt(configuration)?;
                    let config = self.node_config(&configuration);
                    self.tell(&config).await?;
                }
                Some(Say::Leader { control, .. }) => {
                    if let Some(group) = self.groups.first_mut() {
                        group.tell_leader(&control).await?;
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
        let mut line = group.next_line().await?;
        match &mut line {
            ServerLine::Pool { of, .. } if local => *of = group.label.parse().ok(),
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
            // What is true of all nodes is told of the first.
            ServerLine::Note { note, host } if !self.notes.contains(note) => {
                eprintln!("talea: {host}: {note}");
                self.notes.push(note.clone());
            }
            _ => {}
        }
        match line.heard().and_then(|heard| launch.heard(heard)) {
            Some(Say::Fail(why)) => Err(Failure::Usage(why)),
            say => Ok(say),
        }
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
            introducer: 0,
            fabric: self.plan.fabric.name().to_owned(),
            interface: self.plan.site.interface.clone(),
            provider: self.plan.site.provider.clone(),
            membership_lease_ms: self.plan.site.membership_lease_ms,
            detached: false,
            patient: false,
            cores: vec![],
            spin: self.plan.site.spin.map(|spin| spin.name().to_owned()),
            // One a target: more have nothing to do.
            threads: self.plan.site.threads.map(|threads| threads.min(self.plan.targets)),
            slice_us: self.plan.site.slice_us,
            metrics: self.metrics.clone(),
            plant: self.plan.plant.clone(),
        }
    }

    fn node_config(&self, configuration: &Configuration) -> NodeConfig {
        NodeConfig {
            file: self.system.file.clone(),
            server: ServerConfig { introducer: configuration.introducer, ..self.config() },
            first_servers: configuration.first_servers.clone(),
            per_node: configuration.per_node,
            hosts: configuration.hosts.clone(),
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
        let config = started.node_config(&Configuration {
            kept: None,
            first_servers: vec![],
            per_node: 0,
            introducer: 0,
            hosts: vec![],
        });
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
        let mut waits: Vec<_> = groups.iter_mut().map(|group| Box::pin(group.one_ended())).collect();
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

/// This node's name, as people and Slurm know it.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
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
