//! When a command has ended: the last steps and files go out, its processes are heard, and its card is shown. For `talea run` and for the guard
//! of a job's script alike.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use talea_client::{Client, ClientError};

use crate::failure::Failure;
use crate::notice::count;
use crate::record::{JobRecord, Processes};
use crate::save::Saver;
use crate::stage::drain::Draining;
use crate::stop::Stop;

/// How long processes that have ended may take to be heard of.
const LAST_WORDS: Duration = Duration::from_millis(1000);

/// What processes that began since then said of themselves. The last word of a process comes before the end of its session, so those
/// that have just ended are waited for.
pub(crate) fn processes(client: &Client, since_unix_us: u64) -> Result<Processes, ClientError> {
    let until = Instant::now() + LAST_WORDS;
    let ours = |name: &str| name.starts_with("talea");
    while client.status()?.sessions.iter().any(|info| !ours(&info.name)) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Processes::of(client.reports()?, since_unix_us))
}

/// Shows a job's card, and writes its record where one is wanted.
pub(crate) fn show(record: &JobRecord, quiet: bool, path: Option<&Path>) -> Result<(), Failure> {
    if !quiet {
        eprintln!("{record}");
    }
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(record).unwrap_or_default();
    std::fs::write(path, text + "\n").map_err(Failure::io("writing", path))
}

/// Stages out what was not yet. A signal is an answer to a question first, for what is not out is lost with the system.
pub(crate) async fn last_out(saver: &mut Saver, stop: &mut Stop) -> bool {
    let (give_up, mut asked) = (saver.give_up(), false);
    let mut finish = std::pin::pin!(saver.finish());
    loop {
        tokio::select! {
            good = &mut finish => return good,
            _ = stop.next() => {
                if asked {
                    give_up.store(true, Ordering::Relaxed);
                } else {
                    eprintln!("talea: staging out goes on; once more gives up what is not out yet");
                }
                asked = true;
            }
        }
    }
}

/// Waits until the last steps are out. A signal is an answer to a question first, as in [`last_out`]. False: some are not.
pub(crate) async fn drained(draining: Vec<Draining>, saver: &mut Saver, interrupted: bool, stop: &mut Stop) -> bool {
    let (mut given_up, mut asked) = (false, false);
    if interrupted && !draining.iter().all(Draining::is_done) {
        eprintln!("talea: draining goes on; once more gives up the steps that are not out yet");
        asked = true;
    }
    while !given_up && !draining.iter().all(Draining::is_done) {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
            _ = stop.next() => {
                given_up = asked;
                if !asked {
                    eprintln!("talea: draining goes on; once more gives up the steps that are not out yet");
                }
                asked = true;
            }
        }
    }
    let ends = draining.into_iter().map(|draining| tokio::task::spawn_blocking(move || draining.end(given_up)));
    let mut good = true;
    for end in ends.collect::<Vec<_>>() {
        match end.await.unwrap_or_else(|_| Err(Failure::Usage("its thread is gone".to_owned()))) {
            Ok(drained) => {
                good &= drained.left.is_empty();
                saver.receipts.extend(drained.receipts);
                if !drained.left.is_empty() {
                    let list: Vec<String> = drained.left.iter().map(u64::to_string).collect();
                    let steps = count(list.len() as u64, "step");
                    eprintln!("talea: {steps} NOT drained: {}", list.join(", "));
                }
            }
            Err(failure) => {
                eprintln!("talea: a drain broke off: {failure}");
                good = false;
            }
        }
    }
    good
}
