//! The subcommands.

pub(crate) mod attach;
pub(crate) mod copy;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod evict;
pub(crate) mod exec;
pub(crate) mod follow;
pub(crate) mod gc;
pub(crate) mod list;
pub(crate) mod manual;
pub(crate) mod remove;
pub(crate) mod restart;
pub(crate) mod rollback;
pub(crate) mod snapshot;
pub(crate) mod status;
mod steps;
pub(crate) mod top;
pub(crate) mod up;

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::output::SystemView;

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
        Command::Rm(arguments) => remove::remove(&arguments),
        Command::Diff(arguments) => diff::diff(&arguments),
        Command::Rollback(arguments) => rollback::rollback(&arguments),
        Command::Snapshot(arguments) => snapshot::snapshot(&arguments),
        Command::Evict(arguments) => evict::evict(&arguments),
        Command::Restart(arguments) => block_on(restart::restart(&arguments)),
        Command::Attach(arguments) => block_on(attach::attach(&arguments)),
        Command::Gc(arguments) => gc::gc(&arguments),
        Command::Top(arguments) => top::top(&arguments),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::Report(arguments) => crate::report::report(&arguments),
        Command::Manual(arguments) => manual::manual(&arguments),
        Command::Picture(arguments) => picture(&arguments),
        Command::Export(arguments) => attach::export(&arguments),
        Command::Node(arguments) => block_on(crate::node::node(&arguments)),
        Command::Guard(arguments) => block_on(crate::guard::guard(&arguments)),
        Command::Carry => crate::stage::carrier::carry(),
        Command::Hold(arguments) => block_on(up::hold(&arguments)),
    }
}

fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Failure::io("starting", "the runtime"))?.block_on(future)
}

fn picture(arguments: &crate::cli::PictureArgs) -> Result<u8, Failure> {
    let text = std::io::read_to_string(std::io::stdin()).map_err(Failure::io("reading", "standard input"))?;
    std::fs::write(&arguments.output, crate::svg::of_text(&text)).map_err(Failure::io("writing", &arguments.output))?;
    Ok(0)
}

/// How long a look at a system may take, in milliseconds.
const LOOK_MS: u64 = 10_000;

fn options(system: Option<&str>) -> talea_client::ConnectOptions {
    talea_client::ConnectOptions {
        system: system.map(str::to_owned),
        // `talea follow`, say: whoever looks at the system sees who that is.
        name: Some(format!("talea {}", std::env::args().nth(1).unwrap_or_default())),
        ..talea_client::ConnectOptions::default()
    }
}

/// Connects to a running system as this program.
pub(crate) fn connect(system: Option<&str>) -> Result<talea_client::Client, Failure> {
    Ok(talea_client::Client::connect_to(&talea_client::System::find(system)?, &options(system))?)
}

/// How a running system is, also if nobody leads its log.
pub(crate) fn look(name: &str) -> Result<SystemView, Failure> {
    let options = talea_client::ConnectOptions { deadline_ms: Some(LOOK_MS), ..options(Some(name)) };
    let client = talea_client::Client::without_session(&talea_client::System::find(Some(name))?, &options)?;
    let status = client.status_of_anybody()?;
    match status.unled {
        // Without a leader there is no session, and without a session no target says anything.
        Some(_) => Ok(SystemView::from(name, &status, &[])),
        None => Ok(SystemView::of(&client, name)?),
    }
}
