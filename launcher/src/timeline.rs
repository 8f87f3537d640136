//! What a system did over time, for the job's record and its report: a thread that asks for the counters now and then.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use talea_client::{Client, ConnectOptions};

use crate::failure::Failure;

/// Between two samples.
const PERIOD: Duration = Duration::from_millis(500);
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
        Ok(Self { at_s, servers, containers: containers.collect(), sessions: status.sessions.len() })
    }
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
