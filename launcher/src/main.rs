//! The `talea` command: starts systems beside a job, and shows what they hold.
//!
//! Owns the command line and its exit codes. Must never hold data: it is a client like any other.
#![forbid(unsafe_code)]

#[macro_use]
mod print;

mod cli;
mod command;
mod companion;
mod config;
mod cores;
mod degraded;
mod ending;
mod failure;
mod group;
mod guard;
mod interface;
mod job;
mod locate;
mod media;
mod metrics;
mod names;
mod node;
mod notice;
mod outcome;
mod output;
mod plan;
mod record;
mod report;
mod restart;
mod save;
mod stage;
mod stop;
mod svg;
mod system;
mod tier;
mod timeline;
mod watch;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = match cli::Cli::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            // A command's own status is never mistaken for this one.
            return ExitCode::from(if error.use_stderr() { failure::OWN } else { 0 });
        }
    };
    match command::dispatch(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("talea: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
