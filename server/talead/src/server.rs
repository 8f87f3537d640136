//! One server's life: everything listens, then everything runs, then nothing happens here until somebody says stop.

use std::io::Read;
use std::time::Duration;

use serde_json::json;
use talea_control::shell::Control;
use talea_engine::Mail;
use talea_model::TargetInfo;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::config::Settings;
use crate::control::{self, Happening};
use crate::directory::Directory;
use crate::failure::Failure;
use crate::metrics;
use crate::stop::Stop;
use crate::targets::{self, Running};

/// How long the control plane and the targets may take to end.
const STOP: Duration = Duration::from_secs(10);

/// Runs the server until it is told to stop. `input`: the launcher's pipe, if its end ends the server.
pub(crate) fn run<R: Read + Send + 'static>(settings: Settings, input: Option<R>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::system("starting a runtime for signals"))?;
    let result = runtime.block_on(serve(&settings, input));
    runtime.shutdown_background();
    result
}

async fn serve<R: Read + Send + 'static>(settings: &Settings, input: Option<R>) -> Result<(), Failure> {
    let mut stop = Stop::new(input, settings.config.detached, settings.config.patient)?;
    // Declared first, dropped last: it is empty by then.
    let mut directory = Directory::open(&settings.config.directory)?;
    let ready = targets::open_all(settings, &mut directory)?;
    let control = control::open(settings, &mut directory)?;
    let (addresses, joint) = (control.addresses(), control.joint());
    let infos: Vec<TargetInfo> = ready.iter().map(|target| target.info.clone()).collect();
    let metrics = metrics::open(settings, &mut directory)?;
    let (horizons, to): (Vec<_>, _) = (ready.iter().map(|target| target.horizon).collect(), joint.clone());
    let running = targets::run_all(settings, ready, move |target, effect| to.heard(target, effect), &directory)?;
    let mailboxes = running.iter().flat_map(|running| &running.mailboxes);
    mailboxes.zip(horizons).for_each(|(mailbox, horizon)| joint.bridge().add(mailbox.clone(), horizon));
    let started = targets::random().and_then(|boot| control.run(settings, infos.clone(), boot));
    let result = match started {
        Ok((control, mut happenings)) => {
            say(&json!({
                "server": settings.server,
                "control": addresses,
                "host": control::host(),
                "pid": std::process::id(),
                "targets": infos.iter().map(target_line).collect::<Vec<_>>(),
                "metrics": metrics.as_ref().map(|metrics| metrics.address()),
                "replicas": control.replicas_at_start().iter().map(|server| server.0).collect::<Vec<_>>(),
            }));
            if let Some(metrics) = metrics {
                tokio::spawn(metrics.serve(joint.clone()));
            }
            tracing::info!(system = settings.config.name, server = settings.server, "listening");
            let result = until_stopped(&mut happenings, &mut stop).await;
            let ended = in_time("the control plane", move || Control::stop(control)).await;
            // What it died of says more than that it died.
            ended.unwrap_or(Ok(())).map_err(Failure::from).and(result)
        }
        Err(failure) => Err(failure),
    };
    in_time("a target", move || stop_targets(running)).await;
    result
}

fn target_line(info: &TargetInfo) -> serde_json::Value {
    json!({ "id": info.id.0, "addresses": info.addresses, "capacity_bytes": info.capacity_bytes })
}

async fn until_stopped(happenings: &mut UnboundedReceiver<Happening>, stop: &mut Stop) -> Result<(), Failure> {
    loop {
        tokio::select! {
            why = stop.wanted() => {
                tracing::info!(why, "stopping");
                return Ok(());
            }
            happening = happenings.recv() => match happening {
                Some(Happening::PoolReady) => say(&json!({ "pool": "ready" })),
                Some(Happening::Ended) | None => return Err(Failure::ControlEnded),
            },
        }
    }
}

/// One line for the launcher. If nobody reads it any more, the end of standard input says so better.
fn say(line: &serde_json::Value) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn stop_targets(targets: Vec<Running>) {
    let mailboxes = targets.iter().flat_map(|target| &target.mailboxes);
    mailboxes.for_each(|mailbox| mailbox.send(Mail::Stop));
    targets.into_iter().for_each(|target| _ = target.thread.join());
}

async fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let joined = tokio::time::timeout(STOP, tokio::task::spawn_blocking(work)).await;
    match joined {
        Ok(Ok(value)) => Some(value),
        _ => {
            tracing::warn!("{what} did not stop in time");
            None
        }
    }
}
