//! `talea follow`: a line for each committed step, or a command.
//!
//! A line that was written is a step that was received: whoever reads it from a pipe may be behind. A command holds its step until it has
//! ended.

use std::io::Write;

use serde::Serialize;
use talea_client::{Container, ProducerState, StepRecord, WaitOutcome};
use talea_model::Step;

use super::{connect, steps};
use crate::cli::FollowArgs;
use crate::failure::Failure;

/// One wait's deadline; waiting goes on after it.
const ROUND_MS: u64 = 10_000;

#[derive(Serialize)]
struct Line {
    step: u64,
    stamp: u64,
    unix_us: u64,
    latest_step: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    attributes: String,
    /// Paths of the files that the step wrote; none if it named none.
    files: Option<Vec<String>>,
}

impl Line {
    fn of(container: &Container, step: &StepRecord, latest: Step, json: bool) -> Self {
        // Who waits for the producer and not for names gets the step in any case.
        let files = if json { steps::files(container, step).unwrap_or_default() } else { None };
        Self {
            step: step.step.0,
            stamp: step.stamp.0,
            unix_us: step.stamp.unix_us(),
            latest_step: latest.0,
            attributes: step.attributes.escape_ascii().to_string(),
            files,
        }
    }
}

/// Follows until the producer has ended, or nobody reads any more. Exit code 0: it ended well; 3: it was lost.
pub(crate) fn follow(arguments: &FollowArgs) -> Result<u8, Failure> {
    let client = connect(arguments.system.as_deref())?;
    let container = client.container_open(&arguments.container)?;
    let mut subscription = container.subscribe(Step(arguments.after))?;
    let before = subscription.position().0;
    if arguments.after == 0 && before > 0 {
        eprintln!(
            "talea: the first {before} steps of '{}' are not kept any more (--keep-steps N of talea run and up): following from step {}",
            arguments.container,
            before + 1
        );
    }
    let state = |info: &talea_client::ContainerInfo| (info.name == arguments.container).then_some(info.producer);
    if client.container_list()?.iter().find_map(state) == Some(ProducerState::Unknown) {
        // A program of `talea exec` can be one of many, so nobody can tell when the last has ended.
        eprintln!(
            "talea: nobody says when '{}' is complete (`talea run` does for its command): following until `talea down`",
            arguments.container
        );
    }
    loop {
        let waited = match arguments.exec {
            Some(_) => subscription.wait_one(ROUND_MS)?,
            None => subscription.wait(ROUND_MS)?,
        };
        match waited {
            WaitOutcome::Steps { steps, latest } => {
                for step in steps {
                    if let Some(command) = &arguments.exec {
                        match run(command, &client_system(arguments)?, step.step)? {
                            0 => continue,
                            code => return Ok(code),
                        }
                    }
                    let line = Line::of(&container, &step, latest, arguments.json);
                    if !print(&line, arguments.json)? {
                        return Ok(0);
                    }
                }
            }
            WaitOutcome::NotReady => {}
            WaitOutcome::End => return Ok(0),
            WaitOutcome::ProducerLost => {
                eprintln!("talea: the producer of '{}' was lost before it said that it had ended", arguments.container);
                return Ok(3);
            }
            WaitOutcome::Gap { through } => {
                let text = format!(
                    "the steps up to {through} of '{}' are not kept any more: begin with `talea follow {} --after {through}`, \
                     or keep more of them (`--keep-steps N` of talea run and up)",
                    arguments.container, arguments.container
                );
                return Err(Failure::Usage(text));
            }
        }
    }
}

fn client_system(arguments: &FollowArgs) -> Result<String, Failure> {
    Ok(talea_client::System::find(arguments.system.as_deref())?.file.name)
}

/// Runs the command for a step; its exit code as a shell shows it.
fn run(command: &str, system: &str, step: Step) -> Result<u8, Failure> {
    let line = command.replace("{step}", &step.0.to_string());
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", &line]).env(talea_client::system::SYSTEM_VARIABLE, system);
    let status = shell.status().map_err(Failure::io("starting", "/bin/sh"))?;
    let code = crate::job::exit_code(status);
    if code != 0 {
        eprintln!("talea: step {step}: `{line}` ended with {code}; `--after {}` goes on with that step", step.0 - 1);
    }
    Ok(code)
}

/// False if nobody reads any more, as in `talea follow run | head -1`.
fn print(line: &Line, json: bool) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    let written = if json {
        writeln!(out, "{}", serde_json::to_string(line).unwrap_or_default())
    } else {
        writeln!(out, "step {} committed ({} behind)", line.step, line.latest_step.saturating_sub(line.step))
    };
    match written.and_then(|()| out.flush()) {
        Err(why) if why.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).map_err(Failure::io("writing", "standard output")),
    }
}
