//! Draining: each committed step goes to the file system while the job runs, and an event says when it is safe there.
//!
//! The subscription keeps the steps that are not out yet, so none is lost by a file system that is slower than the job. What could not be
//! copied is tried again at the end; a step that is not out then is named, and is no success.

use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use talea_client::{Client, ConnectOptions, WaitOutcome};
use talea_model::Step;
use talea_posix::{PathView, TaleaPath};

use super::{Options, Order, Receipt, Stage};
use crate::failure::Failure;

/// One wait's deadline.
const ROUND_MS: u64 = 1_000;

/// An event of a drain.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Event {
    /// `safe`, `missing` (the step does not have the path) or `failed`.
    pub(crate) event: &'static str,
    pub(crate) container: String,
    pub(crate) step: u64,
    pub(crate) destination: String,
    pub(crate) bytes: u64,
    /// When, in microseconds since 1970.
    pub(crate) unix_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// What a drain is told.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    pub(crate) system: String,
    pub(crate) order: Order,
    /// Events are appended here, one JSON object a line.
    pub(crate) events: Option<PathBuf>,
}

/// What came of a drain.
#[derive(Default)]
pub(crate) struct Drained {
    /// Of each step that is safe.
    pub(crate) receipts: Vec<Receipt>,
    /// Steps that are not.
    pub(crate) left: Vec<u64>,
}

/// A drain that runs in a thread of its own.
pub(crate) struct Draining {
    thread: std::thread::JoinHandle<Result<Drained, Failure>>,
    stop: mpsc::Sender<()>,
}

impl Draining {
    /// Begins to drain what is committed from now on.
    pub(crate) fn begin(drain: Drain) -> Result<Self, Failure> {
        let (stop, stopped) = mpsc::channel();
        let (ready, begun) = mpsc::channel();
        let thread = std::thread::Builder::new().name("drain".to_owned()).spawn(move || drain.run(&ready, &stopped));
        // The command must not commit before somebody holds its steps; what fails is told by the thread's end.
        let _ = begun.recv();
        Ok(Self { thread: thread.map_err(Failure::io("starting", "the drain's thread"))?, stop })
    }

    /// Whether all steps are out and no more will come.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end; `now`: after the step that is being copied.
    pub(crate) fn end(self, now: bool) -> Result<Drained, Failure> {
        if now {
            let _ = self.stop.send(());
        }
        self.thread.join().unwrap_or_else(|_| Err(Failure::Usage("the drain broke off".to_owned())))
    }
}

impl Drain {
    fn run(&self, ready: &mpsc::Sender<()>, stopped: &mpsc::Receiver<()>) -> Result<Drained, Failure> {
        // A client of its own: its waits must not hold up others.
        let options = ConnectOptions {
            system: Some(self.system.clone()),
            name: Some("talea drain".to_owned()),
            ..ConnectOptions::default()
        };
        let client = Client::connect(&options)?;
        let parsed = TaleaPath::parse(self.order.source.as_bytes())?;
        if parsed.view != PathView::Live {
            return Err(Failure::Usage(format!("{}: name a path, not a step of it, to drain", self.order.source)));
        }
        let container = client.container_open(&parsed.container)?;
        // What was staged in has made steps already, and older ones may be gone.
        let list = client.container_list()?;
        let now = list.iter().find(|info| info.name == parsed.container).map_or(Step(0), |info| info.step);
        let mut subscription = container.subscribe(now)?;
        let _ = ready.send(());
        let stage = Stage::new(&client, Options { workers: 2, quiet: true, ..Options::default() });
        let mut all = Drained::default();
        loop {
            let given_up = stopped.try_recv().is_ok();
            match subscription.wait_one(ROUND_MS)? {
                WaitOutcome::Steps { steps, latest } if given_up => {
                    let first = steps.first().map_or(latest, |step| step.step).0;
                    all.left.extend(first..=latest.0);
                    (first..=latest.0)
                        .for_each(|step| self.tell(&self.event(&parsed, step, "failed", Some("given up"))));
                    return Ok(all);
                }
                WaitOutcome::Steps { steps, .. } => {
                    steps.iter().for_each(|step| self.step(&stage, &parsed, step.step.0, &mut all));
                }
                WaitOutcome::Gap { .. } => {}
                WaitOutcome::NotReady if given_up => return Ok(all),
                WaitOutcome::NotReady => {}
                WaitOutcome::End | WaitOutcome::ProducerLost => {
                    // As far as they are still kept.
                    for step in std::mem::take(&mut all.left) {
                        self.step(&stage, &parsed, step, &mut all);
                    }
                    return Ok(all);
                }
            }
        }
    }

    fn event(&self, parsed: &TaleaPath, step: u64, event: &'static str, error: Option<&str>) -> Event {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Event {
            event,
            container: parsed.container.clone(),
            step,
            destination: self.order.destination.replace(super::order::STEP, &step.to_string()),
            bytes: 0,
            unix_us: now.map_or(0, |since| since.as_micros() as u64),
            error: error.map(str::to_owned),
        }
    }

    /// Copies one step out.
    fn step(&self, stage: &Stage, parsed: &TaleaPath, step: u64, all: &mut Drained) {
        let names: Vec<String> = parsed.names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let source = format!("/talea/{}/.talea/steps/{step}/{}", parsed.container, names.join("/"));
        let destination = self.order.destination.replace(super::order::STEP, &step.to_string());
        let order = Order { source: source.trim_end_matches('/').to_owned(), destination, ..self.order.clone() };
        let event = |event, error: Option<&str>| self.event(parsed, step, event, error);
        self.tell(&match stage.carry_out(&order) {
            Ok(receipt) if receipt.failed == 0 => {
                let event = Event { bytes: receipt.bytes, ..event("safe", None) };
                all.receipts.push(receipt);
                event
            }
            Ok(receipt) => {
                all.left.push(step);
                event("failed", receipt.first_failure().as_deref())
            }
            // Another file's step: this one's path is not made yet.
            Err(Failure::File(fault)) if fault.code == talea_abi::Code::NotFound => event("missing", None),
            Err(failure) => {
                all.left.push(step);
                event("failed", Some(failure.to_string().as_str()))
            }
        });
    }

    fn tell(&self, event: &Event) {
        if let Some(error) = &event.error {
            eprintln!("talea: step {} of {} could not be drained: {error}", event.step, event.container);
        }
        let Some(path) = &self.events else { return };
        let mut line = serde_json::to_vec(event).unwrap_or_default();
        line.push(b'\n');
        let open = std::fs::OpenOptions::new().create(true).append(true).open(path);
        if let Err(error) = open.and_then(|mut file| file.write_all(&line)) {
            eprintln!("talea: writing {}: {error}", path.display());
        }
    }
}
