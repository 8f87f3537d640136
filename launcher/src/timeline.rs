//! What a system did over time, for the job's record and its report: a thread that asks for the counters now and then.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use talea_client::{Client, ConnectOptions, Status};
use talea_model::{ContainerId, SessionId, Step};

use crate::failure::Failure;

/// Between two samples.
const PERIOD: Duration = Duration::from_millis(250);
/// When a timeline has that many samples, every second one goes, and the period doubles.
const SAMPLES_MAX: usize = 2_000;

/// Counters of the whole system at one instant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Seconds since the job began.
    pub(crate) at_s: f64,
    pub(crate) servers: Vec<ServerSample>,
    pub(crate) containers: Vec<ContainerSample>,
    pub(crate) sessions: usize,
    /// Programs that hold epochs open.
    #[serde(default)]
    pub(crate) writers: Vec<WriterSample>,
    /// Programs that follow.
    #[serde(default)]
    pub(crate) followers: Vec<FollowerSample>,
}

/// A program that holds epochs of a container open. A collective epoch is the program's that began it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct WriterSample {
    pub(crate) session: u64,
    pub(crate) program: String,
    pub(crate) container: String,
    pub(crate) epochs: u64,
}

/// A program that follows a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct FollowerSample {
    pub(crate) session: u64,
    pub(crate) program: String,
    pub(crate) container: String,
    /// Steps that it has not taken yet; 0: it waits for the next one.
    pub(crate) lag: u64,
}

/// One server's counters since it started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServerSample {
    pub(crate) server: u32,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) used_bytes: u64,
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContainerSample {
    pub(crate) name: String,
    pub(crate) step: u64,
    pub(crate) first_step: u64,
    pub(crate) open_epochs: u64,
    pub(crate) followers: u64,
}

impl Sample {
    /// Asks a system now.
    pub(crate) fn of(client: &Client, at_s: f64) -> Result<Self, Failure> {
        let status = client.status()?;
        let mut servers = Vec::new();
        for server in &status.map.servers {
            let mut sample = ServerSample { server: server.id.0, ..ServerSample::default() };
            for target in status.map.targets.iter().filter(|target| target.server == server.id) {
                let Ok(stat) = client.target_stat(target.id) else { continue };
                sample.bytes_in += stat.bytes_in;
                sample.bytes_out += stat.bytes_out + stat.bytes_in_place;
                sample.used_bytes += stat.used_bytes;
            }
            servers.push(sample);
        }
        let containers = status.containers.iter().map(|info| ContainerSample {
            name: info.name.clone(),
            step: info.step.0,
            first_step: info.first_step.0,
            open_epochs: info.open_transactions,
            followers: info.subscriptions,
        });
        Ok(Self {
            at_s,
            servers,
            containers: containers.collect(),
            sessions: status.sessions.len(),
            writers: writers(&status),
            followers: followers(&status),
        })
    }
}

/// Name of a session's program.
pub(crate) fn program(status: &Status, session: SessionId) -> String {
    let found = status.sessions.iter().find(|info| info.session == session);
    found.map_or_else(|| format!("session {session}"), |info| info.name.clone())
}

fn writers(status: &Status) -> Vec<WriterSample> {
    let mut writers: Vec<WriterSample> = Vec::new();
    for (_, container, session) in &status.transactions {
        let Some(info) = status.containers.iter().find(|info| info.container == *container) else { continue };
        match writers.iter_mut().find(|writer| writer.session == session.0 && writer.container == info.name) {
            Some(writer) => writer.epochs += 1,
            None => writers.push(WriterSample {
                session: session.0,
                program: program(status, *session),
                container: info.name.clone(),
                epochs: 1,
            }),
        }
    }
    writers
}

fn followers(status: &Status) -> Vec<FollowerSample> {
    let of = |(container, session, after): &(ContainerId, SessionId, Step)| {
        let info = status.containers.iter().find(|info| info.container == *container)?;
        let (program, lag) = (program(status, *session), info.step.0.saturating_sub(after.0));
        Some(FollowerSample { session: session.0, program, container: info.name.clone(), lag })
    };
    status.followers.iter().filter_map(of).collect()
}

/// A timeline that is being taken.
pub(crate) struct Recorder {
    stop: mpsc::Sender<()>,
    thread: std::thread::JoinHandle<Vec<Sample>>,
}

impl Recorder {
    /// Begins; the thread has a client of its own.
    pub(crate) fn begin(system: &str, began: Instant) -> Result<Self, Failure> {
        let options = ConnectOptions {
            system: Some(system.to_owned()),
            name: Some("talea record".to_owned()),
            deadline_ms: Some(5_000),
            ..ConnectOptions::default()
        };
        let (stop, stopped) = mpsc::channel();
        let take = move || {
            let Ok(client) = Client::connect(&options) else { return vec![] };
            let mut samples = Vec::new();
            let mut period = PERIOD;
            loop {
                // A system that does not answer for a while leaves a gap, not an end.
                samples.extend(Sample::of(&client, began.elapsed().as_secs_f64()));
                if samples.len() >= SAMPLES_MAX {
                    let mut keep = false;
                    samples.retain(|_| {
                        keep = !keep;
                        keep
                    });
                    period *= 2;
                }
                if !matches!(stopped.recv_timeout(period), Err(mpsc::RecvTimeoutError::Timeout)) {
                    samples.extend(Sample::of(&client, began.elapsed().as_secs_f64()));
                    return samples;
                }
            }
        };
        let thread = std::thread::Builder::new().name("record".to_owned()).spawn(take);
        Ok(Self { stop, thread: thread.map_err(Failure::io("starting", "the recorder's thread"))? })
    }

    /// Ends; the samples in order.
    pub(crate) fn end(self) -> Vec<Sample> {
        let _ = self.stop.send(());
        self.thread.join().unwrap_or_default()
    }
}
