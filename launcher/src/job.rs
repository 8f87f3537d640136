//! `talea run`: a system around a command.
//!
//! Order matters at the end: the command's fate is told to the pool first (END or PRODUCER_LOST), then companions and
//! followers get time to take the last steps, then the servers go.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use talea_client::system::{RuntimeDir, job_name};
use talea_client::{Client, ConnectOptions, ProducerState, System};
use tokio::process::{Child, Command};
use tokio::signal::unix::SignalKind;

use crate::cli::RunArgs;
use crate::ending;
use crate::failure::Failure;
use crate::notice::{count, say, spinner};
use crate::outcome::{drained, last_out, processes, show};
use crate::plan::{DEFAULT_CONTAINER, Plan};
use crate::record::{Before, record};
use crate::restart::{Keeper, LaunchNote, News};
use crate::save::Saver;
use crate::stage::drain::{Drain, Draining};
use crate::stage::{Order, can_be_written};
use crate::stop::Stop;
use crate::system::Started;
use crate::timeline::Recorder;

/// Name of this program's sessions, by which runs that share a system know of each other.
pub(crate) const SESSION: &str = "talea run";
/// How long companions may take to end by themselves after an interrupted command: they are told of its end.
const COMPANION_GRACE: Duration = Duration::from_secs(2);

/// How long a companion may take without a word to end after the command.
const SILENT: Duration = Duration::from_secs(1);

/// How long pieces of files may take that are being copied when staging is given up.
const LAST_PIECES: Duration = Duration::from_secs(5);

/// A job as it runs.
struct Job<'a> {
    arguments: &'a RunArgs,
    client: Client,
    began: Instant,
    began_unix_us: u64,
    /// What the system had done by then.
    before: Before,
    name: String,
    /// Cores that the command leaves to the servers.
    avoid_cores: u32,
    writes: Writes,
}

/// Of which containers the command is the producer: its end is theirs.
enum Writes {
    /// All of a system that is its own.
    All,
    /// This one of a shared system.
    One(talea_client::Container),
    /// None: it only follows.
    Nothing,
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
    let staging = &arguments.job.staging;
    let (bring_in, out) = (staging.bring_in.iter().map(|one| &one.0), staging.out.iter().map(|one| &one.0));
    bring_in.chain(out).chain(staging.drain.iter().map(|one| &one.0)).try_for_each(Order::check)?;
    let files = [&arguments.job.record, &staging.events, &staging.receipt];
    files.into_iter().flatten().try_for_each(|path| can_be_written(path))?;
    let system = match &arguments.system_name {
        Some(name) => Some(System::find(Some(name))?),
        None => jobs_own(arguments).await?,
    };
    match system {
        Some(system) => {
            stays_as_it_is(arguments, &system)?;
            let container = arguments.system.container.as_deref().unwrap_or(DEFAULT_CONTAINER);
            attached(arguments, &system, Some(container), &mut stop).await
        }
        None => run_new(arguments, &mut stop).await,
    }
}

/// Says which options change nothing, since the system runs already. To lose what was to be kept is no way of going on.
fn stays_as_it_is(arguments: &RunArgs, system: &System) -> Result<(), Failure> {
    let options = arguments.system.unlike(LaunchNote::read(&system.directory).as_ref());
    if options.is_empty() {
        return Ok(());
    }
    let name = &system.file.name;
    let text = format!(
        "system {name} runs already and stays as it was started: {} can be said to a new one only, after `talea down {name}`",
        options.join(", ")
    );
    if options.contains(&"--persist") {
        return Err(Failure::Usage(format!("{text}. `talea down {name} --keep NAME` keeps what it holds on media")));
    }
    eprintln!("talea: {text}");
    Ok(())
}

/// Runs the job with a system that others started and end; `writes`: the container that it is the producer of.
pub(crate) async fn attached(
    arguments: &RunArgs,
    system: &System,
    writes: Option<&str>,
    stop: &mut Stop,
) -> Result<u8, Failure> {
    let mut job = Job::new(arguments, system, 0)?;
    job.writes = Writes::Nothing;
    if let Some(name) = writes {
        let properties = Plan::new(&arguments.system, &system.file.name)?.container_properties();
        job.client.container_create(name, properties, true)?;
        job.writes = Writes::One(job.client.container_open(name)?);
    }
    job.whole(stop, &mut Keeper::of_nothing(), None).await
}

/// The system that this Slurm job has already, ready or becoming ready.
async fn jobs_own(arguments: &RunArgs) -> Result<Option<System>, Failure> {
    let allocation = talea_slurm::Allocation::detect(|name| std::env::var(name).ok())?;
    let (Some(allocation), None) = (allocation, &arguments.system.name) else { return Ok(None) };
    let runtime = RuntimeDir::from_env()?;
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match runtime.load(&job_name(allocation.job)) {
            Ok(system) if !system.file.is_running() => return Ok(None),
            Ok(system) if !system.file.servers.is_empty() => return Ok(Some(system)),
            Ok(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(20)).await,
            Ok(_) => return Err(Failure::Usage("the job's system does not become ready: see `talea doctor`".into())),
            Err(_) => return Ok(None),
        }
    }
}

pub(crate) async fn run_new(arguments: &RunArgs, stop: &mut Stop) -> Result<u8, Failure> {
    let began = Instant::now();
    let plan = Plan::new(&arguments.system, &format!("run-{}", std::process::id()))?;
    if let Some(warning) = plan.warning() {
        eprintln!("talea: {warning}");
    }
    let linger = Duration::from_millis(plan.site.linger_ms);
    let bar = spinner(arguments.job.quiet, "starting servers");
    let started = tokio::select! {
        started = Started::start(plan, false) => started,
        signal = stop.next() => Err(Failure::Interrupted { signal }),
    };
    bar.finish_and_clear();
    let mut started = match started {
        Ok(started) => started,
        Err(failure) => {
            if let Ok(runtime) = RuntimeDir::from_env() {
                let _ = crate::restart::sweep(&runtime);
            }
            return Err(failure);
        }
    };
    let (plan, file) = (&started.plan, &started.system.file);
    say(
        arguments.job.quiet,
        format_args!(
            "system {} ready: {}, {}, {}, in {:.2} s",
            file.name,
            count(plan.servers.into(), "server"),
            count(u64::from(plan.servers) * u64::from(plan.targets), "target"),
            crate::tier::told(&plan.tier, plan.capacity_bytes),
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
    let job = Job::new(arguments, &started.system, started.plan.reserved_cores)?;
    job.client.container_create(&started.plan.container, started.plan.container_properties(), true)?;
    crate::degraded::tell(&job.client, started)?;
    job.whole(stop, &mut Keeper::of(started)?, Some(linger)).await
}

impl<'a> Job<'a> {
    fn new(arguments: &'a RunArgs, system: &System, avoid_cores: u32) -> Result<Self, Failure> {
        let name = system.file.name.clone();
        let options =
            ConnectOptions { system: Some(name.clone()), name: Some(SESSION.to_owned()), ..Default::default() };
        let (client, began) = (Client::connect(&options)?, Instant::now());
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let began_unix_us = since.map_or(0, |since| since.as_micros() as u64);
        let (before, writes) = (Before::of(&client)?, Writes::All);
        Ok(Self { arguments, client, began, began_unix_us, before, name, avoid_cores, writes })
    }

    /// Tells followers what becomes of the command.
    fn producer(&self, state: ProducerState) -> Result<(), Failure> {
        match &self.writes {
            Writes::All => self.client.producer(state)?,
            Writes::One(container) => container.producer(state)?,
            Writes::Nothing => {}
        }
        Ok(())
    }

    /// Stages in, runs the command, stages out, and waits for who still needs the system (`linger`: if it ends with us).
    async fn whole(self, stop: &mut Stop, servers: &mut Keeper<'_>, linger: Option<Duration>) -> Result<u8, Failure> {
        let allocation = talea_slurm::Allocation::detect(|name| std::env::var(name).ok())?;
        let out: Vec<Order> = self.arguments.job.staging.out.iter().map(|order| order.0.clone()).collect();
        let before = Duration::from_secs(self.arguments.job.staging.save_before);
        let quiet = self.arguments.job.quiet;
        let mut saver = Saver::new(&self.client, &self.name, out, before, allocation.as_ref(), quiet).await?;
        let orders: Vec<Order> = self.arguments.job.staging.bring_in.iter().map(|order| order.0.clone()).collect();
        let give_up = saver.give_up();
        {
            let mut staging = std::pin::pin!(saver.bring_in(&orders));
            let signal = tokio::select! {
                done = &mut staging => {
                    done?;
                    None
                }
                signal = stop.next() => Some(signal),
            };
            if let Some(signal) = signal {
                give_up.store(true, Ordering::Relaxed);
                eprintln!("talea: interrupted while staging in: the command was not started");
                // What is under way ends while the servers are there: without them it would wait for its deadline.
                tokio::select! {
                    _ = tokio::time::timeout(LAST_PIECES, staging) => {}
                    _ = stop.next() => {}
                }
                return Err(Failure::Interrupted { signal });
            }
        }
        let mut draining = vec![];
        for order in &self.arguments.job.staging.drain {
            let (system, order) = (self.name.clone(), order.0.clone());
            draining.push(Draining::begin(Drain { system, order, events: self.arguments.job.staging.events.clone() })?);
        }
        let recorder = match self.arguments.job.record {
            Some(_) => Some(Recorder::begin(&self.name, self.began)?),
            None => None,
        };
        servers.watch(&self.client)?;
        let ended = self.command_and_companions(stop, servers, &mut saver).await?;
        let timeline = recorder.map(Recorder::end).unwrap_or_default();
        let mut good = drained(draining, &mut saver, ended.interrupted, stop).await;
        good &= last_out(&mut saver, stop).await;
        if let Some(path) = &self.arguments.job.staging.receipt {
            saver.write(path)?;
        }
        if let (Some(linger), false) = (linger, ended.interrupted) {
            self.linger(linger, stop).await;
        }
        // The command's own failure says more.
        let code = if ended.code == 0 { ended.companions } else { ended.code };
        self.finish(if code == 0 && !good { 125 } else { code }, &saver, timeline)
    }

    /// Starts the companions and the command, and waits for all of them.
    async fn command_and_companions(
        &self,
        stop: &mut Stop,
        servers: &mut Keeper<'_>,
        saver: &mut Saver,
    ) -> Result<Ended, Failure> {
        self.producer(ProducerState::Active)?;
        let mut companions = vec![];
        for line in &self.arguments.job.with {
            companions.push((line, self.spawn(&["--companion"], &["/bin/sh".into(), "-c".into(), line.into()])?));
        }
        let mut command = self.spawn(&[], &self.arguments.job.command)?;
        let grace = Duration::from_secs(self.arguments.job.grace);
        let (status, mut signal) = wait(&mut command, stop, servers, saver, grace).await?;
        let code = exit_code(status);
        let state = if code == 0 && signal.is_none() { ProducerState::Ended } else { ProducerState::Lost };
        if let Err(error) = self.producer(state) {
            eprintln!("talea: the end of the command could not be told to followers: {error}");
        }
        let mut worst = 0;
        for (line, mut companion) in companions {
            if signal.is_some() {
                tokio::select! {
                    () = ending::end(&mut companion, COMPANION_GRACE) => continue,
                    _ = stop.next() => {}
                }
                ending::end(&mut companion, Duration::ZERO).await;
                continue;
            }
            if tokio::time::timeout(SILENT, companion.wait()).await.is_err() {
                say(
                    self.arguments.job.quiet,
                    format_args!("the command has ended; waiting for its companion `{line}`"),
                );
            }
            let (status, late) = wait(&mut companion, stop, servers, saver, COMPANION_GRACE).await?;
            signal = signal.or(late);
            let code = exit_code(status);
            if code != 0 {
                eprintln!("talea: the companion `{line}` ended with {code}");
            }
            worst = worst.max(code);
        }
        // A command that ended well in spite of the signal has still been interrupted.
        let code = match signal {
            Some(signal) if code == 0 => 128 + signal as u8,
            _ => code,
        };
        Ok(Ended { code, companions: worst, interrupted: signal.is_some() })
    }

    /// Starts a child through `talea exec`, which brings the driver into its reach and ends it if we are killed.
    fn spawn(&self, how: &[&str], command: &[OsString]) -> Result<Child, Failure> {
        let own = crate::locate::own()?;
        let mut child = Command::new(&own);
        child.args(["exec", "--die-with-parent", "--system", &self.name]).args(how);
        child.arg(format!("--avoid-cores={}", self.avoid_cores)).arg("--").args(command);
        child.spawn().map_err(Failure::io("starting", own))
    }

    /// Waits until nobody follows any more, or the time is over; and as long as it takes for other runs that share the system.
    async fn linger(&self, linger: Duration, stop: &mut Stop) {
        let until = Instant::now() + linger;
        let mut told = false;
        loop {
            let Ok(status) = self.client.status() else { return };
            let runs = status.sessions.iter().filter(|info| info.name == SESSION).count();
            let followed = status.containers.iter().any(|container| container.subscriptions > 0);
            if runs <= 1 && (!followed || Instant::now() >= until) {
                return;
            }
            if !told {
                let whom = if runs > 1 { "other runs of this job" } else { "followers" };
                say(self.arguments.job.quiet, format_args!("the command has ended; waiting for {whom}"));
                told = true;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
                _ = stop.next() => return,
            }
        }
    }

    /// Says what the job did, and passes the exit code on.
    fn finish(&self, code: u8, saver: &Saver, timeline: Vec<crate::timeline::Sample>) -> Result<u8, Failure> {
        let makes_steps = |id| match &self.writes {
            Writes::All => true,
            Writes::One(container) => container.id() == id,
            // It cannot be told which of them were the command's.
            Writes::Nothing => true,
        };
        let mut record = match record(&self.client, &self.name, &self.before, makes_steps, self.began.elapsed(), code) {
            Ok(record) => record,
            Err(error) => {
                eprintln!("talea: no record of the job: {error}");
                return Ok(code);
            }
        };
        let processes = processes(&self.client, self.began_unix_us).unwrap_or_default();
        record.complete(processes, &saver.receipts, timeline, matches!(self.writes, Writes::All));
        show(&record, self.arguments.job.quiet, self.arguments.job.record.as_deref())?;
        Ok(code)
    }
}

/// Waits for a child. A signal to us is passed on, and the child has `grace` to end; a server that ends by itself does not end the child:
/// its calls get errors, and it may have more to say.
async fn wait(
    child: &mut Child,
    stop: &mut Stop,
    servers: &mut Keeper<'_>,
    saver: &mut Saver,
    grace: Duration,
) -> Result<(ExitStatus, Option<i32>), Failure> {
    let failed = Failure::io("waiting for", "the command");
    let waited = {
        loop {
            tokio::select! {
                status = child.wait() => break Ok(status),
                signal = stop.next() => break Err(signal),
                _ = saver.due() => saver.begin(),
                news = servers.next_news() => match news {
                    News::Ended(failure) => tell_of_end(&failure),
                    News::Heard(line) => eprintln!("talea: {line}"),
                },
            }
        }
    };
    match waited {
        Ok(status) => status.map(|status| (status, None)).map_err(failed),
        Err(signal) => {
            // There may be little time: what is committed goes out while the command ends.
            saver.begin();
            if signal == SignalKind::interrupt().as_raw_value() {
                eprintln!("talea: interrupted: the command has {} s to end; Ctrl-C again hurries it", grace.as_secs());
            }
            ending::ask(child, signal, stop, grace).await.map(|status| (status, Some(signal))).map_err(failed)
        }
    }
}

/// Says that a server ended; calls that need it fail by themselves.
pub(crate) fn tell_of_end(failure: &Failure) {
    match failure {
        Failure::ServerEnded { server, status, log } => {
            eprintln!(
                "talea: server {server} ended by itself ({status}). What it held in memory is lost; what it held on \
                 media comes back with `talea restart`, see `talea status`. Its last words:\n{log}"
            );
        }
        other => eprintln!("talea: {other}"),
    }
}

/// The status as a shell shows it.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
