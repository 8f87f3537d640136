//! The subcommands.

pub(crate) mod copy;
pub(crate) mod exec;
pub(crate) mod follow;
pub(crate) mod list;
pub(crate) mod status;
pub(crate) mod up;

use crate::cli::{Cli, Command};
use crate::failure::Failure;

/// Runs a command and returns its exit code.
pub(crate) fn dispatch(arguments: Cli) -> Result<u8, Failure> {
    match arguments.command {
        Command::Run(arguments) => block_on(crate::job::run(&arguments)),
        Command::Up(arguments) => block_on(up::up(&arguments)),
        Command::Down(arguments) => block_on(up::down(&arguments)),
        Command::Exec(arguments) => exec::exec(&arguments),
        Command::Status(arguments) => status::status(&arguments),
        Command::Follow(arguments) => follow::follow(&arguments),
        Command::Ls(arguments) => list::list(&arguments),
        Command::Cp(arguments) => copy::copy(&arguments),
    }
}

fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Failure::io("starting", "the runtime"))?.block_on(future)
}

/// Connects to a running system as this program.
fn connect(system: Option<&str>) -> Result<talea_client::Client, Failure> {
    let options = talea_client::ConnectOptions {
        system: system.map(str::to_owned),
        name: Some("talea".to_owned()),
        ..talea_client::ConnectOptions::default()
    };
    Ok(talea_client::Client::connect(&options)?)
}
