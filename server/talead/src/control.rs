//! The control plane of this server, started and joined to its targets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use talea_control::TargetChange;
use talea_control::shell::{self, Control, ControlConfig, ControlHandle, Inbox, Listeners, TargetLink};
use talea_engine::Effect;
use talea_fabric::{Address, node_id};
use talea_model::{Position, ServerId, TargetId, TargetInfo};
use talea_wire::Refusal;
use talea_wire::control::Status;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::bridge::{Bridge, Word};
use crate::config::{FabricChoice, Settings};
use crate::directory::Directory;
use crate::failure::Failure;
use crate::port;
use crate::targets::data_directory;

/// How many membership leases a session lasts without a connection: a server has time to come back.
const SESSION_LEASES: u64 = 5;

/// What happens in the control plane that the process has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    /// All expected servers have registered.
    PoolReady,
    /// The control plane's thread ends.
    Ended,
}

/// The bridge, shared by the control plane's thread and the targets'.
#[derive(Clone)]
pub(crate) struct Joint {
    bridge: Arc<Mutex<Bridge>>,
    handle: ControlHandle,
}

impl Joint {
    pub(crate) fn bridge(&self) -> MutexGuard<'_, Bridge> {
        // Nothing in the bridge is ever half changed: a panic elsewhere does not spoil it.
        self.bridge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state as this server knows it.
    pub(crate) async fn status(&self) -> Option<Status> {
        let (answer, told) = tokio::sync::oneshot::channel();
        self.handle.status(answer);
        told.await.ok()
    }

    /// A target wants something.
    pub(crate) fn heard(&self, target: TargetId, effect: Effect) {
        let word = self.bridge().heard(target, effect);
        match word {
            Some(Word::Durable(position)) => self.handle.durable(position),
            Some(Word::LogEnd(token)) => self.handle.log_end(token),
            None => {}
        }
    }
}

struct Link {
    joint: Joint,
    happenings: UnboundedSender<Happening>,
}

impl TargetLink for Link {
    fn deliver(&mut self, changes: Vec<TargetChange>, horizon: Position) {
        self.joint.bridge().deliver(changes, horizon);
    }
    fn lease(&mut self, until_ns: Option<u64>) {
        self.joint.bridge().lease(until_ns);
    }
    fn caught_up(&mut self, token: u64, result: Result<(), Refusal>) {
        match result {
            Ok(()) => self.joint.bridge().caught_up(token),
            Err(refusal) => {
                tracing::debug!(%refusal, "the log's end could not be learned");
                self.joint.bridge().not_caught_up(token);
            }
        }
    }
    fn pool_ready(&mut self) {
        let _ = self.happenings.send(Happening::PoolReady);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.happenings.send(Happening::Ended);
    }
}

/// A control plane that listens and does not run yet.
pub(crate) struct Ready {
    listeners: Listeners,
    joint: Joint,
    inbox: Inbox,
}

/// Binds the control plane's sockets.
pub(crate) fn open(settings: &Settings, directory: &mut Directory) -> Result<Ready, Failure> {
    let path = directory.path(&format!("server-{}.sock", settings.server));
    let unix = Address::Unix { node: node_id().to_owned(), path: path.to_string_lossy().into_owned() };
    let listeners = if settings.config.fabric == FabricChoice::Ring {
        Listeners::bind(&[unix])?
    } else {
        bind_with_port(settings, unix)?
    };
    directory.own(path);
    let (handle, inbox) = shell::channel();
    let joint = Joint { bridge: Arc::default(), handle };
    Ok(Ready { listeners, joint, inbox })
}

/// Listens for other nodes too: at the port of the server's last life, where the others look for it, if that is free.
fn bind_with_port(settings: &Settings, unix: Address) -> Result<Listeners, Failure> {
    let (data, server) = (data_directory(settings), settings.server);
    let interface = settings.config.interface.as_deref().unwrap_or("127.0.0.1");
    let bind = |host_port| Listeners::bind(&[unix.clone(), Address::Tcp { host_port }]);
    let at_last = port::remembered(data.as_deref(), server, interface).and_then(|host_port| bind(host_port).ok());
    let listeners = at_last.map_or_else(|| bind(format!("{interface}:0")), Ok)?;
    for address in listeners.addresses() {
        if let Address::Tcp { host_port } = address {
            port::remember(data.as_deref(), server, host_port);
        }
    }
    Ok(listeners)
}

impl Ready {
    /// Where it listens.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.listeners.addresses().iter().map(Address::to_string).collect()
    }

    /// The bridge to fill with targets.
    pub(crate) fn joint(&self) -> Joint {
        self.joint.clone()
    }

    /// Starts the control plane's thread.
    pub(crate) fn run(
        self,
        settings: &Settings,
        targets: Vec<TargetInfo>,
        boot: u64,
    ) -> Result<(Control, UnboundedReceiver<Happening>), Failure> {
        let config = ControlConfig {
            server: ServerId(settings.server),
            host: host(),
            credentials: settings.credentials.clone(),
            seeds: seeds(settings),
            servers_expected: settings.config.servers as usize,
            targets,
            boot,
            pool: settings.system(),
            lease_ms: settings.config.membership_lease_ms,
            log_directory: data_directory(settings),
            horizon: self.joint.bridge().durable(),
            log_bound: settings.log_bound(),
            fan_out: settings.fan_out(),
            session_lease_ms: SESSION_LEASES * settings.config.membership_lease_ms,
        };
        let (happenings, receiver) = unbounded_channel();
        let handle = self.joint.handle.clone();
        let link = Box::new(Link { joint: self.joint, happenings });
        Ok((shell::start(config, self.listeners, link, handle, self.inbox)?, receiver))
    }
}

/// Where other servers may be: the introducer where the launcher said, and all that share this server's directory.
fn seeds(settings: &Settings) -> BTreeMap<ServerId, Vec<Address>> {
    let mut seeds = BTreeMap::new();
    for id in (0..settings.config.servers.min(8)).filter(|id| *id != settings.server) {
        let path = settings.config.directory.join(format!("server-{id}.sock"));
        let unix = Address::Unix { node: node_id().to_owned(), path: path.to_string_lossy().into_owned() };
        seeds.insert(ServerId(id), vec![unix]);
    }
    if settings.server != settings.config.introducer {
        seeds.insert(ServerId(settings.config.introducer), settings.leader.clone());
    }
    seeds
}

/// This machine's name, for people.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
