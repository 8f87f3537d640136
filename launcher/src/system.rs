//! Starting and stopping a whole system: its directory, its servers, its first container.

use std::path::{Path, PathBuf};
use std::time::Duration;

use talea_client::system::{FabricPolicy, ProcessMark, RuntimeDir, ServerEntry, System};
use talea_slurm::site::Fabric;
use talea_slurm::{Allocation, Site};

use crate::cli::SystemArgs;
use crate::config::{ServerConfig, ServerLine};
use crate::failure::Failure;
use crate::group::Group;
use crate::locate;

/// A system that this process started.
pub(crate) struct Started {
    pub(crate) system: System,
    pub(crate) plan: Plan,
    pub(crate) groups: Vec<Group>,
}

/// What to start, after the site's defaults and limits.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) servers: u32,
    pub(crate) targets: u32,
    pub(crate) tier: String,
    pub(crate) capacity_bytes: u64,
    pub(crate) fabric: Fabric,
    pub(crate) container: String,
    pub(crate) allocation: Option<Allocation>,
    pub(crate) site: Site,
    pub(crate) plant: Option<String>,
}

impl Plan {
    /// Combines arguments, site file and allocation.
    pub(crate) fn new(arguments: &SystemArgs, default_name: &str) -> Result<Self, Failure> {
        let named = arguments.site.clone().or_else(|| std::env::var_os("TALEA_SITE").map(PathBuf::from));
        let site = Site::read(named.as_deref())?;
        let allocation = Allocation::detect(|name| std::env::var(name).ok())?;
        let servers = match &allocation {
            Some(allocation) => allocation.nodes * site.servers_per_node,
            None => site.servers,
        };
        let fabric = match arguments.fabric.as_deref() {
            Some("ring") => Fabric::Ring,
            Some("tcp") => Fabric::Tcp,
            Some(_) => Fabric::Auto,
            None => site.fabric,
        };
        let name = match (&arguments.name, &allocation) {
            (Some(name), _) => name.clone(),
            (None, Some(allocation)) => format!("job-{}", allocation.job),
            (None, None) => default_name.to_owned(),
        };
        let plan = Plan {
            name,
            servers: arguments.servers.unwrap_or(servers),
            targets: arguments.targets.unwrap_or(site.targets_per_server),
            tier: arguments.tier.clone().unwrap_or_else(|| site.tier.clone()),
            capacity_bytes: arguments.capacity.unwrap_or(site.capacity.0),
            fabric,
            container: arguments.container.clone(),
            allocation,
            plant: arguments.plant.clone(),
            site,
        };
        let path = named.unwrap_or_else(|| talea_slurm::site::DEFAULT_PATH.into());
        plan.site.admit(plan.servers, plan.targets, plan.capacity_bytes, &path)?;
        if plan.servers > 1 && plan.allocation.is_some() && !plan.servers.is_multiple_of(plan.nodes()) {
            let text = format!("{} servers do not divide over {} nodes: give a multiple", plan.servers, plan.nodes());
            return Err(Failure::Usage(text));
        }
        Ok(plan)
    }

    fn nodes(&self) -> u32 {
        self.allocation.as_ref().map_or(1, |allocation| allocation.nodes)
    }

    /// Tier of one target, with its share of the capacity.
    fn tier_of_target(&self) -> String {
        tier_of_target(&self.tier, self.capacity_bytes / (u64::from(self.servers) * u64::from(self.targets)).max(1))
    }

    fn config(&self, system: &System, detached: bool) -> ServerConfig {
        let secret = system.secret().iter().map(|byte| format!("{byte:02x}")).collect();
        ServerConfig {
            name: self.name.clone(),
            system: system.file.system.clone(),
            secret,
            server: None,
            servers: self.servers,
            targets: self.targets,
            tier: self.tier_of_target(),
            directory: system.directory.clone(),
            leader: None,
            fabric: self.fabric.name().to_owned(),
            interface: self.site.interface.clone(),
            membership_lease_ms: self.site.membership_lease_ms,
            detached,
            plant: self.plant.clone(),
        }
    }
}

/// A tier's text with its size. Of two tiers (`pmem:/a,nvme:/b`) the first, for the log and small values, gets an eighth of a
/// target's share and the second, for bulk, the rest; a tier that names its size for each target keeps it.
fn tier_of_target(tier: &str, share_bytes: u64) -> String {
    let sized = |tier: &str, bytes: u64| {
        let last = tier.rsplit(':').next().unwrap_or_default();
        let has_size = tier.contains(':') && last.starts_with(|first: char| first.is_ascii_digit());
        if has_size { tier.to_owned() } else { format!("{tier}:{bytes}") }
    };
    let second = [",ram", ",pmem:", ",nvme:"].iter().filter_map(|word| tier.find(word)).min();
    match second {
        None => sized(tier, share_bytes),
        Some(comma) => {
            let (log, bulk) = (share_bytes / 8, share_bytes - share_bytes / 8);
            format!("{},{}", sized(&tier[..comma], log), sized(&tier[comma + 1..], bulk))
        }
    }
}

impl Started {
    /// Starts all servers and waits until the pool is ready. On failure nothing is left.
    pub(crate) async fn start(plan: Plan, detached: bool) -> Result<Self, Failure> {
        let runtime = RuntimeDir::from_env()?;
        runtime.gc()?;
        let mut system = runtime.create(&plan.name)?;
        system.file.detached = detached;
        system.file.containers = vec![plan.container.clone()];
        system.file.fabric = match plan.fabric {
            Fabric::Auto => FabricPolicy::Auto,
            Fabric::Ring => FabricPolicy::Ring,
            Fabric::Tcp => FabricPolicy::Libfabric,
        };
        let deadline_ms = plan.site.ready_deadline_ms;
        let mut started = Started { system, plan, groups: vec![] };
        let ready = tokio::time::timeout(Duration::from_millis(deadline_ms), started.bring_up(detached)).await;
        let failure = match ready {
            Ok(Ok(())) => return Ok(started),
            Ok(Err(failure)) => failure,
            Err(_) => Failure::NotReady {
                deadline_ms,
                waiting: format!("{} servers", started.plan.servers - started.system.file.servers.len() as u32),
                logs: keep_logs(&started.system.directory, &started.plan.name),
            },
        };
        started.stop().await;
        Err(failure)
    }

    async fn bring_up(&mut self, detached: bool) -> Result<(), Failure> {
        let config = self.plan.config(&self.system, detached);
        if self.plan.allocation.is_some() {
            self.bring_up_step(config).await?;
        } else {
            self.bring_up_local(config).await?;
        }
        self.system.write()?;
        Ok(())
    }

    /// Server 0 first, for its address; the others at once; then the pool.
    async fn bring_up_local(&mut self, config: ServerConfig) -> Result<(), Failure> {
        let program = locate::server()?;
        let arguments = ["serve", "--config", "-"].map(str::to_owned);
        let mut leader = vec![];
        for server in 0..self.plan.servers {
            let config = ServerConfig { server: Some(server), leader: Some(leader.clone()), ..config.clone() };
            let log = self.system.directory.join(format!("server-{server}.log"));
            let group = Group::start(server.to_string(), &program, &arguments, &config, log).await?;
            self.groups.push(group);
            if server == 0 {
                leader = self.listening(0).await?;
            }
        }
        for server in 1..self.groups.len() {
            self.listening(server).await?;
        }
        self.pool_ready().await
    }

    /// One step with a server a node. All tasks read the same input, so each takes its number from its place in the step.
    async fn bring_up_step(&mut self, config: ServerConfig) -> Result<(), Failure> {
        let program = locate::server()?;
        let (nodes, servers) = (self.plan.nodes(), self.plan.servers);
        let mut arguments: Vec<String> =
            ["--overlap", "--mpi=none", "--kill-on-bad-exit=0", "--unbuffered"].map(str::to_owned).to_vec();
        arguments.push(format!("--nodes={nodes}"));
        arguments.push(format!("--ntasks={servers}"));
        arguments.push(format!("--ntasks-per-node={}", servers.div_ceil(nodes)));
        arguments.push(program.display().to_string());
        arguments.extend(["serve", "--config", "-"].map(str::to_owned));
        let log = self.system.directory.join("servers.log");
        let label = format!("0-{}", servers.saturating_sub(1));
        let group = Group::start(label, Path::new("srun"), &arguments, &config, log).await?;
        self.groups.push(group);
        while !self.system.file.servers.iter().any(|server| server.id == 0) {
            self.listening(0).await?;
        }
        let leader = self.system.file.servers.iter().find(|server| server.id == 0).map(|server| server.control.clone());
        if let (Some(group), Some(leader)) = (self.groups.first_mut(), leader) {
            group.tell_leader(&leader).await?;
        }
        self.pool_ready().await
    }

    /// Takes the next line of a group, which must be a server that listens.
    async fn listening(&mut self, group: usize) -> Result<Vec<String>, Failure> {
        let local = self.plan.allocation.is_none();
        let Some(group) = self.groups.get_mut(group) else { return Ok(vec![]) };
        match group.next_line().await? {
            ServerLine::Listening { server, control, pid, .. } => {
                let pid = if local { group.pid() } else { pid };
                let process = pid.filter(|_| local).and_then(ProcessMark::of_pid);
                self.system.file.servers.push(ServerEntry { id: server, control: control.clone(), process });
                self.system.file.servers.sort_by_key(|server| server.id);
                Ok(control)
            }
            ServerLine::Pool { .. } => Ok(vec![]),
        }
    }

    async fn pool_ready(&mut self) -> Result<(), Failure> {
        loop {
            let local = self.plan.allocation.is_none();
            let Some(group) = self.groups.first_mut() else { return Ok(()) };
            match group.next_line().await? {
                ServerLine::Pool { pool } if pool == "ready" => return Ok(()),
                ServerLine::Listening { server, control, .. } if !local => {
                    self.system.file.servers.push(ServerEntry { id: server, control, process: None });
                    self.system.file.servers.sort_by_key(|server| server.id);
                }
                _ => {}
            }
        }
    }

    /// Ends all servers and removes what the system left on this node.
    pub(crate) async fn stop(self) {
        // All at once: they must not wait for each other one by one.
        let mut stops = tokio::task::JoinSet::new();
        for group in self.groups {
            stops.spawn(group.stop());
        }
        while stops.join_next().await.is_some() {}
        if let Err(error) = self.system.remove() {
            eprintln!("talea: {error}");
        }
    }

    /// Resolves when any server ends by itself.
    pub(crate) async fn any_ended(groups: &mut [Group]) -> Failure {
        let mut waits: Vec<_> = groups.iter_mut().map(|group| Box::pin(group.ended())).collect();
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

#[cfg(test)]
mod tests {
    use super::tier_of_target;

    #[test]
    fn a_target_s_share_is_parted_between_its_tiers() {
        assert_eq!(tier_of_target("ram", 800), "ram:800");
        assert_eq!(tier_of_target("pmem:/dev/shm/a:b", 800), "pmem:/dev/shm/a:b:800");
        assert_eq!(tier_of_target("pmem:/a,nvme:/b", 800), "pmem:/a:100,nvme:/b:700");
        assert_eq!(tier_of_target("pmem:/a:4G,nvme:/b", 800), "pmem:/a:4G,nvme:/b:700");
        assert_eq!(tier_of_target("ram,nvme:/b:9G", 800), "ram:100,nvme:/b:9G");
    }
}
