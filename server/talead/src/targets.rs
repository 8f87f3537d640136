//! Starting and stopping the targets of a server.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use talea_engine::{Effect, Hooks, Mailbox, Target, TargetOptions};
use talea_fabric::{Address, Clock, Endpoint, Listen, RealClock, Spin, listen};
use talea_model::{PoolId, Position, ServerId, TargetId, TargetInfo, TargetState};
use talea_tier::open_media;
use talea_vos::StoreOptions;

use crate::config::{FabricChoice, Plant, Settings, SpinChoice};
use crate::directory::Directory;
use crate::failure::Failure;
use crate::incarnation;

/// A target that runs.
pub(crate) struct Running {
    pub(crate) mailbox: Mailbox,
    pub(crate) thread: JoinHandle<()>,
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
    endpoint: Box<dyn Endpoint>,
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
) -> Result<(Box<dyn Endpoint>, Vec<Address>), Failure> {
    let path = directory.path(&format!("target-{number}.ring"));
    // Whoever is on this node has the rings; ports are for others, or for those who ask for them.
    let interface = match settings.config.fabric {
        FabricChoice::Auto => settings.config.interface.clone(),
        FabricChoice::Ring => None,
        FabricChoice::Tcp => Some(settings.config.interface.clone().unwrap_or_else(|| "127.0.0.1".to_owned())),
    };
    let spin = match settings.config.spin {
        SpinChoice::Auto => Spin::Auto,
        SpinChoice::Never => Spin::Never,
        SpinChoice::Briefly => Spin::Briefly,
    };
    let targets = settings.config.targets as usize;
    let how = Listen { ring_path: path.to_string_lossy().into_owned(), interface, spin, targets };
    let (endpoint, mut addresses) =
        listen(&settings.credentials, &how).map_err(|source| Failure::Listen { target: number, source })?;
    directory.own(path);
    if settings.config.fabric == FabricChoice::Tcp {
        addresses.retain(|address| !matches!(address, Address::Ring { .. }));
    }
    Ok((Box::new(endpoint), addresses))
}

impl Ready {
    /// Starts the target's thread. What it wants goes to `want`; when it fails, `directory` is cleaned and the process ends.
    pub(crate) fn run(
        self,
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
        let (mailbox, thread) = talea_engine::spawn(self.target, self.endpoint, clock, hooks)
            .map_err(Failure::system("starting a target's thread"))?;
        Ok(Running { mailbox, thread })
    }
}
