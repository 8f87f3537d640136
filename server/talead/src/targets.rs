//! Starting and stopping the targets of a server.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use talea_engine::{Effect, Hooks, Mailbox, Target, TargetOptions};
use talea_fabric::{Address, Clock, Listen, MuxEndpoint, RealClock, Spin, listen};
use talea_model::{PoolId, Position, ServerId, TargetId, TargetInfo, TargetState};
use talea_tier::open_media;
use talea_vos::StoreOptions;

use crate::config::{FabricChoice, Plant, Settings, SpinChoice};
use crate::directory::Directory;
use crate::failure::Failure;
use crate::incarnation;

/// Targets that share a thread, and run.
pub(crate) struct Running {
    pub(crate) mailboxes: Vec<Mailbox>,
    pub(crate) thread: JoinHandle<()>,
}

/// Threads for the targets. In memory they share half of the cores, which ranks need as well: beyond that a thread more makes each turn
/// smaller. Where a device is waited for each has its own.
pub(crate) fn threads(settings: &Settings) -> usize {
    let targets = settings.config.targets as usize;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = if settings.tier.waits() { targets } else { cores / 2 };
    settings.config.threads.map_or(most, |threads| threads as usize).clamp(1, targets)
}

fn spin(settings: &Settings) -> Spin {
    match settings.config.spin {
        SpinChoice::Auto => Spin::Auto,
        SpinChoice::Never => Spin::Never,
        SpinChoice::Briefly => Spin::Briefly,
        SpinChoice::Sleep => Spin::Sleep,
    }
}

/// Directory of a durable tier: what a restart comes back to.
pub(crate) fn data_directory(settings: &Settings) -> Option<PathBuf> {
    settings.tier.directory().map(PathBuf::from)
}

/// A random number.
pub(crate) fn random() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| Failure::System {
        what: "drawing random bytes",
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(u64::from_le_bytes(bytes))
}

/// Opens all targets and lets them listen. None runs yet: a failure so far needs no cleaning up of threads.
pub(crate) fn open_all(settings: &Settings, directory: &mut Directory) -> Result<Vec<Ready>, Failure> {
    let first = settings.server * settings.config.targets;
    (first..first + settings.config.targets).map(|target| open(settings, directory, target)).collect()
}

/// A target that listens and does not run yet.
pub(crate) struct Ready {
    target: Target,
    endpoint: MuxEndpoint,
    pub(crate) info: TargetInfo,
    /// Horizon that it recovered.
    pub(crate) horizon: Position,
}

fn open(settings: &Settings, directory: &mut Directory, number: u32) -> Result<Ready, Failure> {
    let id = TargetId(number);
    let media = open_media(&settings.tier, id)?;
    let locked_ns = RealClock.monotonic_ns();
    let capacity_bytes = media.total_bytes();
    let mut store =
        StoreOptions { pool: PoolId(settings.system()), target: id, nonce: random()?, ..StoreOptions::default() };
    let is_first = number == settings.server * settings.config.targets;
    if settings.config.plant == Some(Plant::SplitCommit) && is_first {
        tracing::warn!(target = number, "a planted bug: commits are not atomic on this target");
        store.plant = talea_vos::Plant::IgnoreHorizonOnRead;
    }
    let (mut target, recovered) = Target::open(media, TargetOptions { id, store, locked_ns })?;
    if recovered.lost {
        tracing::error!(target = number, "part of this target's log is lost; what it held reads as lost, not as holes");
    }
    let keep = !recovered.fresh && !recovered.lost;
    let data = data_directory(settings);
    let incarnation = incarnation::of(data.as_deref(), number, keep, RealClock.unix_us())?;
    target.set_incarnation(incarnation);
    let (endpoint, addresses) = listen_on(settings, directory, number)?;
    let info = TargetInfo {
        id,
        server: ServerId(settings.server),
        state: TargetState::Up,
        addresses: addresses.iter().map(Address::to_string).collect(),
        capacity_bytes,
        incarnation,
    };
    Ok(Ready { target, endpoint, info, horizon: recovered.horizon })
}

fn listen_on(
    settings: &Settings,
    directory: &mut Directory,
    number: u32,
) -> Result<(MuxEndpoint, Vec<Address>), Failure> {
    let path = directory.path(&format!("target-{number}.ring"));
    // Whoever is on this node has the rings; ports are for others, or for those who ask for them.
    let interface = match settings.config.fabric {
        FabricChoice::Auto => settings.config.interface.clone(),
        FabricChoice::Ring => None,
        FabricChoice::Tcp => Some(settings.config.interface.clone().unwrap_or_else(|| "127.0.0.1".to_owned())),
    };
    let spin = spin(settings);
    // What wants a core beside the clients is a thread.
    let targets = threads(settings);
    // What the default is called is the default.
    let provider = settings.config.provider.clone().filter(|provider| provider != "tcp");
    let how = Listen { ring_path: path.to_string_lossy().into_owned(), interface, provider, spin, targets };
    let (endpoint, mut addresses) =
        listen(&settings.credentials, &how).map_err(|source| Failure::Listen { target: number, source })?;
    directory.own(path);
    if settings.config.fabric == FabricChoice::Tcp {
        addresses.retain(|address| !matches!(address, Address::Ring { .. }));
    }
    Ok((endpoint, addresses))
}

/// Starts the targets' threads. What they want goes to `want`; when one fails, `directory` is cleaned and the process ends.
pub(crate) fn run_all(
    settings: &Settings,
    mut ready: Vec<Ready>,
    want: impl Fn(TargetId, Effect) + Clone + Send + 'static,
    directory: &Directory,
) -> Result<Vec<Running>, Failure> {
    let mut running = Vec::new();
    for left in (1..=threads(settings)).rev() {
        let rest = ready.split_off(ready.len().div_ceil(left));
        let own = std::mem::replace(&mut ready, rest);
        running.push(run(own, settings, want.clone(), directory)?);
    }
    Ok(running)
}

fn run(
    targets: Vec<Ready>,
    settings: &Settings,
    want: impl Fn(TargetId, Effect) + Send + 'static,
    directory: &Directory,
) -> Result<Running, Failure> {
    let (path, sockets, made) = directory.contents();
    let hooks = Hooks {
        want: Box::new(want),
        fatal: Box::new(move |why| {
            eprintln!("talead: {why}: the server ends, because a target that serves wrongly is worse than none");
            Directory::clean(&path, &sockets, made);
            std::process::exit(1);
        }),
    };
    let clock: Arc<dyn Clock> = Arc::new(RealClock);
    let mut targets: Vec<_> = targets.into_iter().map(|ready| (ready.target, ready.endpoint)).collect();
    let (mailboxes, thread) = match targets.pop() {
        Some((target, endpoint)) if targets.is_empty() => {
            let one = talea_engine::spawn(target, Box::new(endpoint), clock, hooks);
            one.map(|(mailbox, thread)| (vec![mailbox], thread))
        }
        last => {
            targets.extend(last);
            talea_engine::spawn_together(targets, spin(settings), clock, hooks)
        }
    }
    .map_err(Failure::system("starting a target's thread"))?;
    Ok(Running { mailboxes, thread })
}
