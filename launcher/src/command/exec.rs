//! `talea exec`: becomes the command, with the driver in its reach.

use std::os::unix::process::CommandExt;

use talea_client::System;
use talea_slurm::{Family, family};

use crate::cli::ExecArgs;
use crate::failure::Failure;
use crate::locate;
use crate::restart::LaunchNote;

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
    crate::cores::avoid_last(arguments.avoid_cores)?;
    if let Some(note) = LaunchNote::read(&system.directory) {
        crate::cores::leave(&note.config.cores)?;
    }
    let Some((program, rest)) = arguments.command.split_first() else {
        return Err(Failure::Usage("name a command after --".to_owned()));
    };
    let mut command = std::process::Command::new(program);
    command.args(rest).env(talea_client::system::SYSTEM_VARIABLE, &system.file.name);
    let wished = std::env::var(family::VARIABLE).ok();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let driver = locate::driver(Family::of(&arguments.command, wished.as_deref(), &path))?;
    command.env("LD_PRELOAD", locate::preload(std::env::var_os("LD_PRELOAD"), &driver));
    if let Some(binding) = binding(arguments.avoid_cores, |name| std::env::var_os(name).is_some())? {
        command.env("SLURM_CPU_BIND", binding);
    }
    if arguments.companion {
        return super::block_on(crate::companion::watch_over(command));
    }
    let source = command.exec();
    let command = program.to_string_lossy().into_owned();
    Err(match source.kind() {
        std::io::ErrorKind::NotFound => Failure::CommandNotFound { command },
        _ => Failure::CommandNotExecutable { command, source },
    })
}

/// How srun, if the command is one, keeps its tasks off the servers' cores: they are not children of this process. It holds for
/// nodes whose cores have the same numbers as this one's; a user's own binding stays.
fn binding(avoid_cores: u32, is_set: impl Fn(&str) -> bool) -> Result<Option<String>, Failure> {
    if avoid_cores == 0 || !is_set("SLURM_JOB_ID") || is_set("SLURM_CPU_BIND") {
        return Ok(None);
    }
    Ok(Some(format!("quiet,mask_cpu:{}", mask(&crate::cores::own()?))))
}

/// A set of cores in hexadecimal.
fn mask(cores: &[usize]) -> String {
    let digits = cores.iter().max().map_or(1, |last| last / 4 + 1);
    let digit = |at: usize| cores.iter().filter(|core| *core / 4 == at).fold(0, |bits, core| bits | 1 << (core % 4));
    let text: String = (0..digits).rev().map(|at| format!("{:x}", digit(at))).collect();
    format!("0x{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_as_srun_takes_them() {
        assert_eq!(mask(&[0]), "0x1");
        assert_eq!(mask(&[0, 1, 2, 5]), "0x27");
        assert_eq!(mask(&(0..70).collect::<Vec<_>>()), format!("0x3f{}", "f".repeat(16)));
    }

    #[test]
    fn only_tasks_of_slurm_are_bound_and_a_users_binding_stays() {
        assert_eq!(binding(0, |_| true).unwrap(), None);
        assert_eq!(binding(1, |_| false).unwrap(), None);
        assert_eq!(binding(1, |_| true).unwrap(), None);
        let bound = binding(1, |name| name == "SLURM_JOB_ID").unwrap().unwrap();
        assert!(bound.starts_with("quiet,mask_cpu:0x"), "{bound}");
    }
}
