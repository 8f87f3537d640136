//! `talea run`: a system around a command.
//!
//! Order matters at the end: the command's fate is told to the pool first (END or PRODUCER_LOST), then companions and
//! followers get time to take the last steps, then the servers go.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use talea_client::{Client, ConnectOptions, ProducerState, System};
use talea_model::size::Iec;
use tokio::process::{Child, Command};

use crate::cli::RunArgs;
use crate::failure::Failure;
use crate::notice::{say, spinner};
use crate::output::{JobRecord, record};
use crate::stop::Stop;
use crate::system::{Plan, Started};

/// How long a command that was asked to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A job as it runs.
struct Job<'a> {
    arguments: &'a RunArgs,
    client: Client,
    began: Instant,
    name: String,
}

/// How the command and its companions ended.
struct Ended {
    code: u8,
    companions: u8,
    interrupted: bool,
}

/// Runs the job and returns the exit code to pass through.
pub(crate) async fn run(arguments: &RunArgs) -> Result<u8, Failure> {
    let mut stop = Stop::new()?;
    let Some(name) = &arguments.system_name else { return run_new(arguments, &mut stop).await };
    let system = System::find(Some(name))?;
    let job = Job::new(arguments, &system)?;
    let ended = job.command_and_companions(&mut stop, &mut []).await?;
    job.finish(&ended).await
}

async fn run_new(arguments: &RunArgs, stop: &mut Stop) -> Result<u8, Failure> {
    let began = Instant::now();
    let plan = Plan::new(&arguments.system, &format!("run-{}", std::process::id()))?;
    let linger = Duration::from_millis(plan.site.linger_ms);
    let bar = spinner(arguments.quiet, "starting servers");
    let started = tokio::select! {
        started = Started::start(plan, false) => started,
        signal = stop.next() => Err(Failure::Interrupted { signal }),
    };
    bar.finish_and_clear();
    let mut started = match started {
        Ok(started) => started,
        Err(failure) => {
            let _ = talea_client::system::RuntimeDir::from_env().and_then(|runtime| runtime.gc());
            return Err(failure);
        }
    };
    let (plan, file) = (&started.plan, &started.system.file);
    say(
        arguments.quiet,
        format_args!(
            "system {} ready: {} servers, {} targets, {} of {}, in {:.2} s",
            file.name,
            plan.servers,
            plan.servers * plan.targets,
            Iec(plan.capacity_bytes),
            plan.tier,
            began.elapsed().as_secs_f64()
        ),
    );
    let result = run_with(arguments, &mut started, stop, linger).await;
    started.stop().await;
    result
}

async fn run_with(
    arguments: &RunArgs,
    started: &mut Started,
    stop: &mut Stop,
    linger: Duration,
) -> Result<u8, Failure> {
    let job = Job::new(arguments, &started.system)?;
    job.client.container_create(&started.plan.container, Default::default(), true)?;
    let ended = job.command_and_companions(stop, &mut started.groups).await?;
    if !ended.interrupted {
        job.linger(linger, stop).await;
    }
    job.finish(&ended).await
}

impl<'a> Job<'a> {
    fn new(arguments: &'a RunArgs, system: &System) -> Result<Self, Failure> {
        let name = system.file.name.clone();
        let options =
            ConnectOptions { system: Some(name.clone()), name: Some("talea run".to_owned()), ..Default::default() };
        Ok(Self { arguments, client: Client::connect(&options)?, began: Instant::now(), name })
    }

    /// Starts the companions and the command, and waits for all of them.
    async fn command_and_companions(
        &self,
        stop: &mut Stop,
        groups: &mut [crate::group::Group],
    ) -> Result<Ended, Failure> {
        self.client.producer(ProducerState::Active)?;
        let mut companions = vec![];
        for line in &self.arguments.with {
            companions.push(self.spawn(&["/bin/sh".into(), "-c".into(), format!("exec {line}").into()])?);
        }
        let mut command = self.spawn(&self.arguments.command)?;
        let (status, mut signal) = wait(&mut command, stop, groups).await?;
        let code = exit_code(status);
        let state = if code == 0 && signal.is_none() { ProducerState::Ended } else { ProducerState::Lost };
        if let Err(error) = self.client.producer(state) {
            eprintln!("talea: the end of the command could not be told to followers: {error}");
        }
        let mut worst = 0;
        for mut companion in companions {
            if signal.is_some() {
                end(&mut companion).await;
                continue;
            }
            let (status, late) = wait(&mut companion, stop, groups).await?;
            signal = signal.or(late);
            worst = worst.max(exit_code(status));
        }
        // A command that ended well in spite of the signal has still been interrupted.
        let code = match signal {
            Some(signal) if code == 0 => 128 + signal as u8,
            _ => code,
        };
        Ok(Ended { code, companions: worst, interrupted: signal.is_some() })
    }

    /// Starts a child through `talea exec`, which brings the driver into its reach and ends it if we are killed.
    fn spawn(&self, command: &[OsString]) -> Result<Child, Failure> {
        let own = std::env::current_exe().map_err(Failure::io("finding", "/proc/self/exe"))?;
        let mut child = Command::new(&own);
        child.args(["exec", "--die-with-parent", "--system", &self.name, "--"]).args(command);
        child.spawn().map_err(Failure::io("starting", own))
    }

    /// Waits until nobody follows any more, or the time is over.
    async fn linger(&self, linger: Duration, stop: &mut Stop) {
        let until = Instant::now() + linger;
        let mut told = false;
        while Instant::now() < until {
            match self.client.status() {
                Ok(status) if status.containers.iter().any(|container| container.subscriptions > 0) => {}
                _ => return,
            }
            if !told {
                say(self.arguments.quiet, format_args!("the command has ended; waiting for followers"));
                told = true;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
                _ = stop.next() => return,
            }
        }
    }

    /// Says what the job did, and with which code to exit.
    async fn finish(self, ended: &Ended) -> Result<u8, Failure> {
        let code = if ended.code == 0 { ended.companions } else { ended.code };
        let record = match record(&self.client, &self.name, self.began.elapsed(), code) {
            Ok(record) => record,
            Err(error) => {
                eprintln!("talea: no record of the job: {error}");
                return Ok(code);
            }
        };
        self.report(&record)?;
        Ok(code)
    }

    fn report(&self, record: &JobRecord) -> Result<(), Failure> {
        let quiet = self.arguments.quiet;
        say(quiet, format_args!("{record}"));
        let Some(path) = &self.arguments.record else { return Ok(()) };
        let text = serde_json::to_string_pretty(record).unwrap_or_default();
        std::fs::write(path, text + "\n").map_err(Failure::io("writing", path))
    }
}

/// Waits for a child. A signal to us is passed on, with some grace; a server that ends by itself does not end the child:
/// its calls get errors, and it may have more to say.
async fn wait(
    child: &mut Child,
    stop: &mut Stop,
    groups: &mut [crate::group::Group],
) -> Result<(ExitStatus, Option<i32>), Failure> {
    let failed = Failure::io("waiting for", "the command");
    let waited = {
        let mut lost = !groups.is_empty();
        loop {
            tokio::select! {
                status = child.wait() => break Ok(status),
                signal = stop.next() => break Err(signal),
                failure = Started::any_ended(groups), if lost => {
                    tell_of_end(&failure);
                    lost = false;
                }
            }
        }
    };
    match waited {
        Ok(status) => status.map(|status| (status, None)).map_err(failed),
        Err(signal) => {
            end(child).await;
            child.wait().await.map(|status| (status, Some(signal))).map_err(failed)
        }
    }
}

/// Says that a server ended under the command; calls that need it fail by themselves.
fn tell_of_end(failure: &Failure) {
    match failure {
        Failure::ServerEnded { server, status, log } => {
            eprintln!(
                "talea: server {server} ended while the command runs ({status}); what it held is lost. Its last words:\n{log}"
            );
        }
        other => eprintln!("talea: {other}"),
    }
}

/// Ends a child: SIGTERM, then SIGKILL.
async fn end(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// The status as a shell shows it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
