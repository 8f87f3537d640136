//! `talea rollback`: a new step with the contents of an earlier one.

use std::io::IsTerminal;

use serde::Serialize;
use talea_client::{Client, Container, SnapshotAt};
use talea_model::size::Iec;

use super::{connect, diff};
use crate::cli::{Moment, RollbackArgs};
use crate::failure::Failure;
use crate::notice;

#[derive(Serialize)]
struct Outcome {
    container: String,
    /// The container's last step now.
    step: u64,
    /// False if there was nothing to write back: then that is no new step.
    made_step: bool,
    written_bytes: u64,
}

/// Asks if somebody is there to answer, and rolls back. Exit code 1: the answer was no.
pub(crate) fn rollback(arguments: &RollbackArgs) -> Result<u8, Failure> {
    if arguments.to.0 == SnapshotAt::Latest {
        return Err(Failure::Usage("the present is where the container is: name a step or a snapshot".to_owned()));
    }
    let client = connect(arguments.system.as_deref())?;
    let container = client.container_open(&arguments.container)?;
    let is_terminal = std::io::stderr().is_terminal();
    let is_asked = !arguments.yes && is_terminal && std::io::stdin().is_terminal();
    let mut total = 0;
    if is_terminal {
        let expected = expected(&client, &container, &arguments.to)?;
        if is_asked && !asks(arguments, &expected)? {
            eprintln!("talea: {} was left as it is", arguments.container);
            return Ok(1);
        }
        total = expected.summary.written_bytes;
    }
    let bar = notice::bytes(total, &format!("back to {}", arguments.to));
    let mut written_bytes = 0;
    let told = container.rollback_telling(arguments.to.0.clone(), arguments.attributes.as_bytes(), &mut |bytes| {
        written_bytes += bytes;
        bar.inc(bytes);
    });
    bar.finish_and_clear();
    let committed = told?;
    let outcome = Outcome {
        container: arguments.container.clone(),
        step: committed.step.0,
        made_step: committed.made_step,
        written_bytes,
    };
    tell(arguments, &outcome);
    Ok(0)
}

fn expected(client: &Client, container: &Container, to: &Moment) -> Result<diff::Report, Failure> {
    let spinner = notice::spinner(false, "comparing");
    let report = diff::between(client, container.clone(), Moment(SnapshotAt::Latest), to.clone());
    spinner.finish_and_clear();
    report
}

fn asks(arguments: &RollbackArgs, expected: &diff::Report) -> Result<bool, Failure> {
    if expected.is_empty() {
        return Ok(true);
    }
    let (container, to) = (&arguments.container, &arguments.to);
    crate::print::error(format_args!("{}", expected.text(false)));
    eprintln!("talea: a new step of {container} will hold what {to} holds; the steps before it stay");
    notice::confirmed("go on?")
}

fn tell(arguments: &RollbackArgs, outcome: &Outcome) {
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(outcome).unwrap_or_default());
        return;
    }
    let Outcome { container, step, made_step, written_bytes } = outcome;
    if !made_step {
        println!("{container} holds what {} holds already: no step was made", arguments.to);
        return;
    }
    println!("{} of {container} is step {step} now ({} written back)", arguments.to, Iec(*written_bytes));
}
