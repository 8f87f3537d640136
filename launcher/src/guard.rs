//! `talea guard`: what a job's script runs under when Slurm's SPANK plugin was asked for Talea (`#SBATCH --talea=...`).
//!
//! The plugin lets the script go on as a child of this process, with a system that `talea up` has started. The guard passes
//! signals and the exit status through, saves when it is time to, stages out, and ends the system. Slurm kills what is left of a
//! step when its first process has ended: so the guard is that process, and the script is not.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, WaitOptions, kill_process, waitpid};
use talea_client::{Client, ConnectOptions, ProducerState, System};
use talea_slurm::Allocation;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::GuardArgs;
use crate::failure::Failure;
use crate::job::SESSION;
use crate::outcome::{drained, processes, show};
use crate::record::{Before, record};
use crate::save::{Due, Saver};
use crate::stage::Order;
use crate::stage::drain::{Drain, Draining};
use crate::stop::Stop;
use crate::watch::Watch;

/// Watches over a script until it ends, and returns its exit code.
pub(crate) async fn guard(arguments: &GuardArgs) -> Result<u8, Failure> {
    let script =
        Pid::from_raw(arguments.pid).ok_or_else(|| Failure::Usage("a script's process is needed".to_owned()))?;
    let mut stop = Stop::new()?;
    // Passed on too: many scripts trap it (`--signal=B:USR2@60`).
    let mut other = signal(SignalKind::user_defined2()).map_err(Failure::io("listening for", "SIGUSR2"))?;
    let mut waiting = tokio::task::spawn_blocking(move || wait(script));
    let system = System::find(arguments.system.as_deref())?;
    let options = ConnectOptions {
        system: Some(system.file.name.clone()),
        name: Some(SESSION.to_owned()),
        ..ConnectOptions::default()
    };
    let client = Client::connect(&options)?;
    client.producer(ProducerState::Active)?;
    let (began, before, since) = (Instant::now(), Before::of(&client)?, SystemTime::now().duration_since(UNIX_EPOCH));
    let mut watch = Watch::begin(&client)?;
    let mut draining = vec![];
    for order in &arguments.staging.drain {
        let (system, order) = (system.file.name.clone(), order.0.clone());
        draining.push(Draining::begin(Drain { system, order, events: arguments.staging.events.clone() })?);
    }
    let allocation = Allocation::detect(|name| std::env::var(name).ok())?;
    let out: Vec<Order> = arguments.staging.out.iter().map(|order| order.0.clone()).collect();
    let save_before = Duration::from_secs(arguments.staging.save_before);
    let mut saver = Saver::new(&client, &system.file.name, out, save_before, allocation.as_ref(), false).await?;
    let mut told_to_stop = false;
    let code = loop {
        tokio::select! {
            code = &mut waiting => break code.unwrap_or(Err(Failure::Usage("the script was lost".to_owned())))?,
            number = stop.next() => {
                // There may be little time: what is committed goes out while the script ends.
                saver.begin();
                told_to_stop = true;
                pass_on(script, number);
            }
            due = saver.due() => {
                saver.begin();
                // It is ours; the script hears of it if it listens, and would die of it if it does not.
                let number = SignalKind::user_defined1().as_raw_value();
                if due == Due::Asked && catches(script, number) {
                    pass_on(script, number);
                }
            }
            line = watch.next() => eprintln!("talea: {line}"),
            _ = other.recv() => pass_on(script, SignalKind::user_defined2().as_raw_value()),
        }
    };
    let state = if code == 0 { ProducerState::Ended } else { ProducerState::Lost };
    if let Err(error) = client.producer(state) {
        eprintln!("talea: the end of the script could not be told to followers: {error}");
    }
    let mut good = drained(draining, &mut saver, told_to_stop, &mut stop).await;
    good &= saver.finish().await;
    if let Some(path) = &arguments.staging.receipt {
        saver.write(path)?;
    }
    match record(&client, &system.file.name, &before, |_| true, began.elapsed(), code) {
        Ok(mut record) => {
            let since = since.map_or(0, |since| since.as_micros() as u64);
            record.complete(processes(&client, since).unwrap_or_default(), &saver.receipts, vec![], true);
            show(&record, false, arguments.record.as_deref())?;
        }
        Err(error) => eprintln!("talea: no record of the job: {error}"),
    }
    drop((saver, watch));
    drop(client);
    crate::command::up::end(&system).await?;
    Ok(if code == 0 && !good { 125 } else { code })
}

/// Whether a process has a handler for a signal (proc(5), `SigCgt`).
fn catches(process: Pid, signal: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// The script may have ended already.
fn pass_on(script: Pid, number: i32) {
    if let Some(signal) = crate::ending::by_number(number) {
        let _ = kill_process(script, signal);
    }
}

fn wait(script: Pid) -> Result<u8, Failure> {
    loop {
        match waitpid(Some(script), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                let signalled = status.terminating_signal().map(|signal| 128 + signal);
                let code = status.exit_status().or(signalled).unwrap_or(1);
                return Ok(u8::try_from(code).unwrap_or(1));
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::io("waiting for", "the script")(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_script_that_traps_it_hears_of_a_signal_that_is_ours() {
        for (script, traps) in [("trap : USR1; read line", true), ("read line", false)] {
            let mut command = std::process::Command::new("/bin/sh");
            let piped = std::process::Stdio::piped;
            let mut child =
                command.args(["-c", &format!("echo; {script}")]).stdin(piped()).stdout(piped()).spawn().unwrap();
            let pid = Pid::from_raw(child.id() as i32).unwrap();
            let until = Instant::now() + Duration::from_secs(10);
            while catches(pid, SignalKind::user_defined1().as_raw_value()) != traps && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(catches(pid, SignalKind::user_defined1().as_raw_value()), traps, "{script}");
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }
}
