//! `talea up` and `talea down`: a system that outlives its launcher, and its end.

use std::io::{BufRead, BufReader, IsTerminal};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use talea_client::system::{ProcessMark, RuntimeDir};
use talea_client::{Client, ConnectOptions, ProducerState, System};

use crate::cli::{DownArgs, SystemArgs};
use crate::failure::Failure;
use crate::job::SESSION;
use crate::locate;
use crate::notice::{count, spinner};
use crate::plan::Plan;
use crate::restart::{Keeper, LaunchNote};
use crate::stop::Stop;
use crate::system::Started;

/// How long servers may take to end orderly.
const GRACE: Duration = Duration::from_secs(5);
/// The same for a system of several nodes.
const HOLDER_GRACE: Duration = Duration::from_secs(20);
/// How long followers may take to hear that a system ends.
const FAREWELL: Duration = Duration::from_secs(2);
/// What a holder says when its system is ready.
const READY: &str = "ready";

/// Starts a detached system.
pub(crate) async fn up(arguments: &SystemArgs) -> Result<u8, Failure> {
    let plan = Plan::new(arguments, "default")?;
    if let Some(warning) = plan.warning() {
        eprintln!("talea: {warning}");
    }
    if plan.allocation.is_some() {
        return up_in_allocation(&plan);
    }
    let began = Instant::now();
    let bar = spinner(false, "starting servers");
    let started = Started::start(plan, true).await;
    bar.finish_and_clear();
    let mut started = started?;
    if let Err(failure) = make_container(&started) {
        started.stop().await;
        return Err(failure);
    }
    tell_of_media(&started.plan);
    std::mem::take(&mut started.groups).into_iter().for_each(crate::group::Group::detach);
    println!("{}", ready_line(&started.plan, began));
    Ok(0)
}

fn ready_line(plan: &Plan, began: Instant) -> String {
    format!(
        "system {} ready: {}, {}, {}, in {:.2} s; stop it with `talea down {}`",
        plan.name,
        count(plan.servers.into(), "server"),
        count(u64::from(plan.servers) * u64::from(plan.targets), "target"),
        crate::tier::told(&plan.tier, plan.capacity_bytes),
        began.elapsed().as_secs_f64(),
        plan.name
    )
}

fn make_container(started: &Started) -> Result<(), Failure> {
    let options = ConnectOptions { system: Some(started.plan.name.clone()), ..ConnectOptions::default() };
    let client = Client::connect(&options)?;
    client.container_create(&started.plan.container, started.plan.container_properties(), true)?;
    crate::degraded::tell(&client, started)
}

/// Data that lie where the user said may be taken to stay there.
fn tell_of_media(plan: &Plan) {
    if plan.persist.is_none() && !crate::tier::paths(&plan.tier).is_empty() {
        eprintln!(
            "talea: `talea down {}` removes its data in {}; --persist NAME would leave them there",
            plan.name, plan.tier
        );
    }
}

/// The step of an allocation ends with the process that started it, so one stays behind: `talea hold`, until `talea down` or the
/// end of the job.
fn up_in_allocation(plan: &Plan) -> Result<u8, Failure> {
    let own = locate::own()?;
    let arguments = std::env::args_os().skip_while(|argument| argument != "up").skip(1);
    let mut holder = std::process::Command::new(&own);
    holder.arg("hold").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    // Not of the terminal's group: Ctrl-C is not for it.
    holder.process_group(0);
    let mut child = holder.spawn().map_err(Failure::io("starting", own))?;
    let bar = spinner(false, "starting servers");
    let mut last = String::new();
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok) {
        if line == READY {
            bar.finish_and_clear();
            println!("{last}");
            return Ok(0);
        }
        last = line;
    }
    bar.finish_and_clear();
    let code = child.wait().ok().and_then(|status| status.code()).unwrap_or(125);
    eprintln!("talea: system {} did not come up", plan.name);
    Ok(u8::try_from(code).unwrap_or(125))
}

/// Holds a system of an allocation until a signal.
pub(crate) async fn hold(arguments: &SystemArgs) -> Result<u8, Failure> {
    let mut stop = Stop::new()?;
    let plan = Plan::new(arguments, "default")?;
    let began = Instant::now();
    let started = tokio::select! {
        started = Started::start(plan, false) => started?,
        signal = stop.next() => return Err(Failure::Interrupted { signal }),
    };
    if let Err(failure) = make_container(&started) {
        started.stop().await;
        return Err(failure);
    }
    tell_of_media(&started.plan);
    println!("{}\n{READY}", ready_line(&started.plan, began));
    let mut started = started;
    let mut keeper = Keeper::of(&mut started)?;
    let told = async {
        loop {
            let failure = keeper.next_end().await;
            crate::job::tell_of_end(&failure);
            if matches!(failure, Failure::ServerEnded { ref server, .. } if server.starts_with("step")) {
                return;
            }
        }
    };
    tokio::select! {
        () = told => {}
        _ = stop.next() => {}
    }
    started.stop().await;
    Ok(0)
}

/// Stops a system and removes its directory.
pub(crate) async fn down(arguments: &DownArgs) -> Result<u8, Failure> {
    let runtime = RuntimeDir::from_env()?;
    let system = runtime.find(arguments.system.name())?;
    let name = system.file.name.clone();
    if !is_free(&system, arguments.yes)? || !may_go(&system, arguments)? {
        eprintln!("talea: system {name} was left as it is");
        return Ok(1);
    }
    let known = system.clone();
    let _ = tokio::task::spawn_blocking(move || farewell(&known)).await;
    if !system.file.detached {
        end(&system).await?;
        println!("system {name} stopped");
        return Ok(0);
    }
    let send = |signal| {
        let alive = system.file.servers.iter().filter_map(|server| server.process.as_ref());
        let alive = alive.filter(|process| process.is_alive());
        alive
            .filter_map(|process| Pid::from_raw(process.pid as i32))
            .filter(|pid| kill_process(*pid, signal).is_ok())
            .count()
    };
    let asked = Instant::now();
    let mut alive = send(Signal::TERM);
    while alive > 0 && asked.elapsed() < GRACE {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let processes = system.file.servers.iter().filter_map(|server| server.process.as_ref());
        alive = processes.filter(|process| process.is_alive()).count();
    }
    if alive > 0 {
        send(Signal::KILL);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for media in system.file.media.iter().filter(|path| matches!(crate::media::note(path), Ok(Some(_)))) {
        match &arguments.keep {
            Some(kept) => crate::media::keep(media, kept)?,
            None => std::fs::remove_dir_all(media).map_err(Failure::io("removing", media))?,
        }
    }
    if let (Some(kept), Some(note)) = (&arguments.keep, LaunchNote::read(&system.directory)) {
        note.note_kept(kept)?;
        println!("its data are kept as '{kept}': go on with `talea up --persist {kept} --tier {}`", note.tier);
    }
    system.remove()?;
    println!("system {name} stopped");
    Ok(0)
}

/// Whether no `talea run` and no job's script is at work in a system: what they are to stage out would be lost with it.
fn is_free(system: &System, yes: bool) -> Result<bool, Failure> {
    let options = ConnectOptions {
        name: Some("talea down".to_owned()),
        deadline_ms: Some(FAREWELL.as_millis() as u64),
        ..ConnectOptions::default()
    };
    // One that does not answer holds nobody up.
    let status = Client::connect_to(system, &options).and_then(|client| client.status());
    let runs = status.map_or(0, |status| status.sessions.iter().filter(|info| info.name == SESSION).count());
    if yes || runs == 0 {
        return Ok(true);
    }
    let name = &system.file.name;
    let text = format!(
        "system {name} is in use by {}: what is to be staged out when it ends would be lost",
        if runs == 1 { "`talea run` or a job's script".to_owned() } else { format!("{runs} of `talea run`") }
    );
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return Err(Failure::Usage(format!("{text}. It ends with that; `talea down --yes {name}` ends it now")));
    }
    eprintln!("talea: {text}");
    crate::notice::confirmed("end the system all the same?")
}

/// Says what becomes of a system's data on media, and asks whether they may go if somebody is there to answer.
fn may_go(system: &System, arguments: &DownArgs) -> Result<bool, Failure> {
    let name = &system.file.name;
    let note = LaunchNote::read(&system.directory);
    let on_media = note.filter(|note| !crate::tier::paths(&note.tier).is_empty());
    if let Some(kept) = &arguments.keep {
        return match on_media {
            Some(LaunchNote { persist: Some(persist), .. }) => {
                Err(Failure::Usage(format!("system {name} is kept anyway, as '{persist}': leave --keep out")))
            }
            Some(note) if system.file.detached => crate::media::may_keep(&note.tier, kept).map(|()| true),
            Some(_) => Err(Failure::Usage(format!(
                "the data of system {name} lie on the nodes of a job: give --persist to `talea up`; until `talea down` they can be \
                 copied out with `talea cp`"
            ))),
            None => {
                Err(Failure::Usage(format!("system {name} is in memory: copy out what shall stay with `talea cp`")))
            }
        };
    }
    let Some(note) = on_media else { return Ok(true) };
    if let Some(persist) = &note.persist {
        eprintln!("talea: its data in {} stay, as '{persist}'", note.tier);
        return Ok(true);
    }
    let keep = if system.file.detached { "; --keep NAME leaves them there" } else { "" };
    eprintln!("talea: its data in {} are removed with system {name}: {}{keep}", note.tier, contents(system));
    let is_asked = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if arguments.yes || !is_asked {
        return Ok(true);
    }
    crate::notice::confirmed("remove them?")
}

/// What a system holds, for people.
fn contents(system: &System) -> String {
    let options = ConnectOptions {
        name: Some("talea down".to_owned()),
        deadline_ms: Some(FAREWELL.as_millis() as u64),
        ..ConnectOptions::default()
    };
    let list = Client::connect_to(system, &options).and_then(|client| client.container_list());
    match list {
        Ok(list) if list.is_empty() => "no container".to_owned(),
        Ok(list) => {
            let each: Vec<String> =
                list.iter().map(|info| format!("container {} at step {}", info.name, info.step.0)).collect();
            each.join(", ")
        }
        Err(error) => format!("what that is is not known ({error})"),
    }
}

/// Tells followers that no step will come any more, and leaves them a moment to take the last ones. What is being written is
/// lost with the system, and that is told as well. A system that does not answer ends without.
fn farewell(system: &System) -> Result<(), talea_client::ClientError> {
    let options = ConnectOptions {
        name: Some("talea down".to_owned()),
        deadline_ms: Some(FAREWELL.as_millis() as u64),
        ..ConnectOptions::default()
    };
    let client = Client::connect_to(system, &options)?;
    for info in client.container_list()? {
        if matches!(info.producer, ProducerState::Ended | ProducerState::Lost) {
            continue;
        }
        let state = if info.open_transactions > 0 { ProducerState::Lost } else { ProducerState::Ended };
        client.container_open(&info.name)?.producer(state)?;
    }
    let asked = Instant::now();
    while asked.elapsed() < FAREWELL && client.container_list()?.iter().any(|info| info.subscriptions > 0) {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Asks the process that holds a system to end it.
pub(crate) async fn end(system: &System) -> Result<(), Failure> {
    let name = &system.file.name;
    let here = ProcessMark::of_self();
    let holder = match &system.file.launcher {
        Some(holder) if holder.host == here.host && holder.boot == here.boot => holder,
        Some(holder) => {
            let text = format!("system {name} was started on {}: run `talea down {name}` there", holder.host);
            return Err(Failure::Usage(text));
        }
        None => return Err(Failure::Usage(format!("system {name} says no launcher: end its servers by hand"))),
    };
    if let Some(pid) = Pid::from_raw(holder.pid as i32).filter(|_| holder.is_alive()) {
        kill_process(pid, Signal::TERM).map_err(|error| Failure::io("ending", "the launcher")(error.into()))?;
    }
    let asked = Instant::now();
    while holder.is_alive() {
        if asked.elapsed() > HOLDER_GRACE {
            let text = format!("system {name} does not end: its launcher is process {} on {}", holder.pid, holder.host);
            return Err(Failure::Usage(text));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    crate::restart::sweep(&RuntimeDir::from_env()?)?;
    Ok(())
}
