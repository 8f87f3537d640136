//! `talea up` and `talea down`: a system that outlives its launcher, and its end.

use std::time::{Duration, Instant};

use talea_client::system::RuntimeDir;
use talea_client::{Client, ConnectOptions};
use talea_model::size::Iec;

use crate::cli::{Named, SystemArgs};
use crate::failure::Failure;
use crate::notice::spinner;
use crate::system::{Plan, Started};

/// How long servers may take to end orderly.
const GRACE: Duration = Duration::from_secs(5);

/// Starts a detached system.
pub(crate) async fn up(arguments: &SystemArgs) -> Result<u8, Failure> {
    let plan = Plan::new(arguments, "default")?;
    if plan.allocation.is_some() {
        let text = "in a Slurm allocation use `talea run`: servers of a step end with the process that started it";
        return Err(Failure::Usage(text.to_owned()));
    }
    let began = Instant::now();
    let bar = spinner(false, "starting servers");
    let started = Started::start(plan, true).await;
    bar.finish_and_clear();
    let Started { system, plan, groups } = started?;
    let options = ConnectOptions { system: Some(plan.name.clone()), ..ConnectOptions::default() };
    let made = Client::connect(&options)
        .and_then(|client| client.container_create(&plan.container, Default::default(), true).map(|_| ()));
    if let Err(error) = made {
        Started { system, plan, groups }.stop().await;
        return Err(error.into());
    }
    groups.into_iter().for_each(crate::group::Group::detach);
    println!(
        "system {} ready: {} servers, {} targets, {} of {}, in {:.2} s; stop it with `talea down {}`",
        plan.name,
        plan.servers,
        plan.servers * plan.targets,
        Iec(plan.capacity_bytes),
        plan.tier,
        began.elapsed().as_secs_f64(),
        plan.name
    );
    Ok(0)
}

/// Stops a system and removes its directory.
pub(crate) async fn down(arguments: &Named) -> Result<u8, Failure> {
    use rustix::process::{Pid, Signal, kill_process};
    let runtime = RuntimeDir::from_env()?;
    let system = runtime.find(arguments.system.as_deref())?;
    let name = system.file.name.clone();
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
    system.remove()?;
    println!("system {name} stopped");
    Ok(0)
}
