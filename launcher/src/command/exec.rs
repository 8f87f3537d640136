//! `talea exec`: becomes the command, with the driver in its reach.

use std::os::unix::process::CommandExt;

use talea_client::System;

use crate::cli::ExecArgs;
use crate::failure::Failure;
use crate::family::Family;
use crate::locate;

/// Replaces this process by the command. Only the system's name and the preload travel by environment, never an address or
/// the secret (docs/design.md §9).
pub(crate) fn exec(arguments: &ExecArgs) -> Result<u8, Failure> {
    let system = System::find(arguments.system.as_deref())?;
    if arguments.die_with_parent {
        let parent = rustix::process::getppid();
        let set = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
        set.map_err(|error| Failure::Io { doing: "setting", path: "the death signal".into(), source: error.into() })?;
        // It may have died before the signal was set.
        if rustix::process::getppid() != parent {
            return Err(Failure::Interrupted { signal: 15 });
        }
    }
    crate::node::avoid_last_cores(arguments.avoid_cores)?;
    let Some((program, rest)) = arguments.command.split_first() else {
        return Err(Failure::Usage("name a command after --".to_owned()));
    };
    let mut command = std::process::Command::new(program);
    command.args(rest).env(talea_client::system::SYSTEM_VARIABLE, &system.file.name);
    let driver = locate::driver(Family::of(&arguments.command))?;
    command.env("LD_PRELOAD", locate::preload(std::env::var_os("LD_PRELOAD"), &driver));
    let source = command.exec();
    let command = program.to_string_lossy().into_owned();
    Err(match source.kind() {
        std::io::ErrorKind::NotFound => Failure::CommandNotFound { command },
        _ => Failure::CommandNotExecutable { command, source },
    })
}
