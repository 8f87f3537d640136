//! What to start: the command line over the site file over the allocation, within the site's limits.

use std::path::PathBuf;

use talea_client::system::{FabricPolicy, job_name};
use talea_model::size::Iec;
use talea_slurm::site::Fabric;
use talea_slurm::{Allocation, Site};

use crate::cli::SystemArgs;
use crate::failure::Failure;
use crate::metrics;

/// Steps that stay readable without anybody's asking: a job's memory is for what is new, and followers hold what they need.
const DEFAULT_KEPT_STEPS: u64 = 4;

/// A target's smallest tier.
const LEAST_TARGET_BYTES: u64 = 1 << 20;

/// Container that a command writes unless it says otherwise.
pub(crate) const DEFAULT_CONTAINER: &str = "run";

/// What the user asked for by name. A kept system is as large as it was, whatever the defaults say now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) servers: bool,
    pub(crate) targets: bool,
    pub(crate) capacity: bool,
}

/// What to start, after the site's defaults and limits.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) servers: u32,
    pub(crate) targets: u32,
    pub(crate) tier: String,
    pub(crate) capacity_bytes: u64,
    /// What the user said of servers, targets and capacity.
    pub(crate) asked: Asked,
    pub(crate) fabric: Fabric,
    pub(crate) container: String,
    pub(crate) kept_steps: Option<u64>,
    pub(crate) lagging: talea_client::Lagging,
    pub(crate) reserved_cores: u32,
    /// Name under which the media keep the system beyond its end.
    pub(crate) persist: Option<String>,
    /// Where the servers show their counters.
    pub(crate) metrics: Option<String>,
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
        let name = match (&arguments.name, &arguments.persist, &allocation) {
            (Some(name), ..) | (None, Some(name), None) => name.clone(),
            (None, _, Some(allocation)) => job_name(allocation.job),
            (None, None, None) => default_name.to_owned(),
        };
        // What is kept under the name says where it is.
        let known_tier = || Some(crate::names::kept_at(arguments.persist.as_deref()?)?.tier);
        let plan = Plan {
            name,
            servers: arguments.servers.unwrap_or(servers),
            targets: arguments.targets.unwrap_or(site.targets_per_server),
            tier: arguments.tier.clone().or_else(known_tier).unwrap_or_else(|| site.tier.clone()),
            capacity_bytes: arguments.capacity.unwrap_or_else(|| site.capacity_bytes()),
            asked: Asked {
                servers: arguments.servers.is_some(),
                targets: arguments.targets.is_some(),
                capacity: arguments.capacity.is_some(),
            },
            fabric,
            container: arguments.container.clone().unwrap_or_else(|| DEFAULT_CONTAINER.to_owned()),
            kept_steps: arguments.keep_steps,
            lagging: match arguments.lagging.as_deref() {
                Some("drop") => talea_client::Lagging::Drop,
                Some("block") => talea_client::Lagging::Block,
                _ => talea_client::Lagging::Keep,
            },
            reserved_cores: arguments.reserve_cores.unwrap_or(site.reserved_cores),
            persist: arguments.persist.clone(),
            metrics: metrics::wish(arguments.metrics.as_deref().or(site.metrics.as_deref()))?,
            allocation,
            plant: arguments.plant.clone(),
            site,
        };
        let path = named.unwrap_or_else(|| talea_slurm::site::DEFAULT_PATH.into());
        let path = if path.exists() { path } else { "talea itself".into() };
        plan.site.admit(plan.servers, plan.targets, plan.capacity_bytes, &path)?;
        plan.check()?;
        if let Some(wanted) = arguments.reserve_cores {
            check_cores(wanted, plan.cores_of_a_node())?;
        }
        Ok(plan)
    }

    fn check(&self) -> Result<(), Failure> {
        crate::tier::check(&self.tier).map_err(Failure::Usage)?;
        if self.target_bytes() < LEAST_TARGET_BYTES {
            let targets = u64::from(self.servers) * u64::from(self.targets);
            let text = format!(
                "a capacity of {} is too small: each target needs {} at least, so give --capacity {}M or more",
                Iec(self.capacity_bytes),
                Iec(LEAST_TARGET_BYTES),
                (targets * LEAST_TARGET_BYTES) >> 20
            );
            return Err(Failure::Usage(text));
        }
        if self.allocation.is_some() && !self.servers.is_multiple_of(self.nodes()) {
            let text = format!("{} servers do not divide over {} nodes: give a multiple", self.servers, self.nodes());
            return Err(Failure::Usage(text));
        }
        if self.persist.is_some() && crate::tier::paths(&self.tier).is_empty() {
            let text = "a system in memory cannot persist: add --tier pmem:/path or nvme:/path of node-local media";
            return Err(Failure::Usage(text.to_owned()));
        }
        Ok(())
    }

    /// What a user should know who asks for more memory than this machine has. The nodes of an allocation say it themselves.
    pub(crate) fn warning(&self) -> Option<String> {
        let here = self.allocation.is_none() && crate::tier::paths(&self.tier).is_empty();
        if here { memory_warning(self.capacity_bytes) } else { None }
    }

    /// Cores that the smallest node has for the job, as far as that can be known here.
    fn cores_of_a_node(&self) -> u64 {
        match &self.allocation {
            Some(_) => std::env::var("SLURM_JOB_CPUS_PER_NODE").ok().and_then(|text| fewest(&text)).unwrap_or(u64::MAX),
            None => std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        }
    }

    pub(crate) fn nodes(&self) -> u32 {
        self.allocation.as_ref().map_or(1, |allocation| allocation.nodes)
    }

    /// Share of one target in bytes.
    pub(crate) fn target_bytes(&self) -> u64 {
        self.capacity_bytes / (u64::from(self.servers) * u64::from(self.targets)).max(1)
    }

    pub(crate) fn policy(&self) -> FabricPolicy {
        match self.fabric {
            Fabric::Auto => FabricPolicy::Auto,
            Fabric::Ring => FabricPolicy::Ring,
            Fabric::Tcp => FabricPolicy::Libfabric,
        }
    }

    /// Properties of the container that is made at the start.
    pub(crate) fn container_properties(&self) -> talea_client::ContainerProperties {
        let kept_steps = self.kept_steps.unwrap_or(DEFAULT_KEPT_STEPS);
        talea_client::ContainerProperties { kept_steps, lagging: self.lagging, ..Default::default() }
    }
}

/// What there is to say of servers that take this much of a machine's memory: it is taken as it is used.
pub(crate) fn memory_warning(ram_bytes: u64) -> Option<String> {
    let memory = rustix::system::sysinfo();
    let memory_bytes = (memory.totalram as u64).saturating_mul(memory.mem_unit.into());
    let limit = std::env::var("SLURM_MEM_PER_NODE").ok().and_then(|text| text.parse::<u64>().ok());
    too_much(ram_bytes, memory_bytes, limit.filter(|mib| *mib > 0).map(|mib| mib << 20))
}

fn too_much(ram_bytes: u64, memory_bytes: u64, limit_bytes: Option<u64>) -> Option<String> {
    let most = memory_bytes.min(limit_bytes.unwrap_or(u64::MAX));
    let has = if most < memory_bytes { "the job has" } else { "this machine has" };
    (ram_bytes > most).then(|| {
        format!(
            "warning: a capacity of {} of ram a node, and {has} {} there in all: the kernel ends the servers when they take more; \
             give --capacity",
            Iec(ram_bytes),
            Iec(most)
        )
    })
}

/// What servers keep to is not for the command: something must be left for it.
fn check_cores(wanted: u32, cores: u64) -> Result<(), Failure> {
    if u64::from(wanted) < cores {
        return Ok(());
    }
    let most = match cores - 1 {
        0 => "all cores have to be shared: leave it out".to_owned(),
        most => format!("{most} can be reserved at most, and the command has the rest"),
    };
    Err(Failure::Usage(format!("--reserve-cores {wanted}: a node has {cores} cores here; {most}")))
}

/// The least count of a list such as `4(x2),2`.
fn fewest(list: &str) -> Option<u64> {
    list.split(',')
        .map(|part| part.split('(').next()?.trim().parse().ok())
        .collect::<Option<Vec<u64>>>()?
        .into_iter()
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_memory_than_there_is_is_told() {
        let (gib, mib) = (1 << 30, 1 << 20);
        assert_eq!(too_much(gib, gib, None), None);
        let said = |limit, memory, of: Option<u64>| too_much(limit, memory, of).unwrap_or_default();
        assert!(said(gib + 1, gib, None).contains(&format!("this machine has {}", Iec(gib))));
        assert!(said(gib, 2 * gib, Some(512 * mib)).contains(&format!("the job has {}", Iec(512 * mib))));
    }

    #[test]
    fn the_command_keeps_a_core() {
        assert!(check_cores(0, 1).is_ok() && check_cores(3, 4).is_ok());
        let said = |wanted, cores| check_cores(wanted, cores).unwrap_err().to_string();
        assert!(said(4, 4).contains("3 can be reserved"), "{}", said(4, 4));
        assert!(said(1, 1).contains("shared"), "{}", said(1, 1));
        assert_eq!(fewest("4(x2),2"), Some(2));
        assert_eq!(fewest("16"), Some(16));
        assert_eq!(fewest("many"), None);
    }
}
