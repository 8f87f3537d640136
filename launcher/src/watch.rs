//! Watches the pool map while a command runs: that a server is lost is told when the pool knows it, not when the command trips over it.
//!
//! Owns a thread that asks now and then, and what was told. Must never end anything: calls that need a lost server fail by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use talea_client::Client;
use talea_model::{PoolMap, ServerId};
use tokio::sync::mpsc;

use crate::failure::Failure;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(2);
/// How long a look may take.
const LOOK_DEADLINE_MS: u64 = 10_000;

/// Looks at a system's map until it is dropped.
pub(crate) struct Watch {
    news: mpsc::UnboundedReceiver<String>,
    told: Arc<Mutex<BTreeSet<ServerId>>>,
    /// Dropped: the thread ends.
    _go_on: std_mpsc::Sender<()>,
}

impl Watch {
    /// Begins to look. Who is not there now is no news.
    pub(crate) fn begin(client: &Client) -> Result<Self, Failure> {
        let client = client.with_deadline_ms(LOOK_DEADLINE_MS);
        let suspected: BTreeSet<ServerId> = down(&client.map()).into_keys().collect();
        let told = Arc::new(Mutex::new(suspected.clone()));
        let (sender, news) = mpsc::unbounded_channel();
        let (go_on, ended) = std_mpsc::channel();
        let mut seen = Seen { told: told.clone(), suspected, is_silent: false };
        let look = move || {
            while let Err(std_mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(PERIOD) {
                let map = client.refresh_map().map_err(|error| error.to_string());
                for line in seen.look(map.as_deref().map_err(String::as_str)) {
                    let _ = sender.send(line);
                }
            }
        };
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(look)
            .map_err(Failure::io("starting", "a thread"))?;
        Ok(Self { news, told, _go_on: go_on })
    }

    /// Something else has told of this server's end.
    pub(crate) fn is_told(&self, server: ServerId) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(server);
    }

    /// The next thing to tell; never resolves if there is none.
    pub(crate) async fn next(&mut self) -> String {
        match self.news.recv().await {
            Some(line) => line,
            None => std::future::pending().await,
        }
    }
}

/// Servers that are lost to the pool, with their hosts.
pub(crate) fn down(map: &PoolMap) -> BTreeMap<ServerId, String> {
    let is_down = |server: ServerId| {
        let mut theirs = map.targets.iter().filter(|target| target.server == server).peekable();
        theirs.peek().is_some() && theirs.all(|target| map.is_lost(target.id))
    };
    let lost = map.servers.iter().filter(|server| is_down(server.id));
    lost.map(|server| (server.id, server.host.clone())).collect()
}

/// What earlier looks found.
struct Seen {
    told: Arc<Mutex<BTreeSet<ServerId>>>,
    /// Lost at the last look: whoever started them may have more to say of it first.
    suspected: BTreeSet<ServerId>,
    is_silent: bool,
}

impl Seen {
    /// Takes a look in; what is to be told.
    fn look(&mut self, map: Result<&PoolMap, &str>) -> Vec<String> {
        let map = match map {
            Ok(map) => map,
            Err(_) if self.is_silent => return vec![],
            Err(error) => {
                self.is_silent = true;
                return vec![format!("no word from the system while the command runs: {error}")];
            }
        };
        let mut lines = vec![];
        if std::mem::take(&mut self.is_silent) {
            lines.push("the system answers again".to_owned());
        }
        let down = down(map);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for server in self.suspected.iter().filter(|server| !down.contains_key(server)) {
            if told.remove(server) {
                lines.push(format!("server {} serves again", server.0));
            }
        }
        for (server, host) in &down {
            if self.suspected.contains(server) && told.insert(*server) {
                lines.push(format!(
                    "server {} on {host} is lost to the system while the command runs: what lies on it alone cannot be read or written, \
                     and calls that need it fail; `talea status` says more",
                    server.0
                ));
            }
        }
        self.suspected = down.into_keys().collect();
        lines
    }
}

#[cfg(test)]
mod tests {
    use talea_model::{MapVersion, PoolId, ServerInfo, Stamp, TargetId, TargetInfo, TargetState};

    use super::*;

    fn map(states: &[TargetState]) -> PoolMap {
        let server =
            |id: u32| ServerInfo { id: ServerId(id), host: format!("n{id}"), node: String::new(), control: vec![] };
        let target = |(id, state): (usize, &TargetState)| TargetInfo {
            id: TargetId(id as u32),
            server: ServerId(id as u32 / 2),
            state: *state,
            addresses: vec![],
            capacity_bytes: 1,
            incarnation: 1,
        };
        PoolMap {
            pool: PoolId::default(),
            version: MapVersion(1),
            stamp: Stamp::ZERO,
            servers: (0..states.len() as u32 / 2).map(server).collect(),
            targets: states.iter().enumerate().map(target).collect(),
        }
    }

    #[test]
    fn each_loss_and_each_return_is_told_once() {
        use TargetState::{Down, Up};
        let mut seen = Seen { told: Arc::default(), suspected: BTreeSet::new(), is_silent: false };
        let (well, half, lost) = (map(&[Up, Up, Up, Up]), map(&[Up, Up, Down, Up]), map(&[Up, Up, Down, Down]));
        assert!(seen.look(Ok(&well)).is_empty() && seen.look(Ok(&half)).is_empty());
        assert!(seen.look(Ok(&lost)).is_empty(), "who started it has the first word");
        let lines = seen.look(Ok(&lost));
        assert!(lines.len() == 1 && lines[0].contains("server 1 on n1 is lost"), "{lines:?}");
        assert!(seen.look(Ok(&lost)).is_empty());
        assert_eq!(seen.look(Err("late")).len(), 1);
        assert!(seen.look(Err("late")).is_empty());
        assert_eq!(seen.look(Ok(&well)), ["the system answers again", "server 1 serves again"]);
        // Who started it told of it.
        assert!(seen.look(Ok(&lost)).is_empty());
        seen.told.lock().unwrap().insert(ServerId(1));
        assert!(seen.look(Ok(&lost)).is_empty());
    }
}
