//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use talea_model::size;

/// A storage system that starts with an HPC job.
#[derive(Debug, Parser)]
#[command(name = "talea", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a system, run a command with it, tear everything down.
    ///
    /// The command's exit status passes through (128 + signal if it was killed). 125: talea itself failed, 126: the command
    /// cannot be executed, 127: it was not found.
    Run(RunArgs),
    /// Start a system that stays until `talea down`.
    Up(SystemArgs),
    /// Stop a system and remove what it left on this node.
    Down(Named),
    /// Run a command as part of a running system (sets up the MPI-IO driver for it).
    Exec(ExecArgs),
    /// Show running systems: servers, targets, fill, containers, who has what open.
    Status(StatusArgs),
    /// Print a line for each step that a container commits, until its producer ends.
    Follow(FollowArgs),
    /// List a directory of a container, or all containers.
    Ls(LsArgs),
    /// Copy files into or out of a container, also of one of its steps.
    Cp(CpArgs),
}

/// What a new system is made of. Defaults come from the site file.
#[derive(Args, Debug, Clone)]
pub(crate) struct SystemArgs {
    /// Name of the system [default: run-PID, job-ID in a Slurm job, or `default` for `up`]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Number of servers (in a Slurm allocation: one a node unless this says otherwise)
    #[arg(long)]
    pub(crate) servers: Option<u32>,
    /// Targets a server: threads that serve one share of the data each
    #[arg(long)]
    pub(crate) targets: Option<u32>,
    /// Where data lives: `ram`, `pmem:/path` or `nvme:/path`
    #[arg(long)]
    pub(crate) tier: Option<String>,
    /// Capacity of the whole system, such as 8G
    #[arg(long, value_parser = parse_size)]
    pub(crate) capacity: Option<u64>,
    /// Fabric for programs on a server's own node: auto, ring or tcp
    #[arg(long, value_parser = ["auto", "ring", "tcp"])]
    pub(crate) fabric: Option<String>,
    /// Container to make at the start
    #[arg(long, default_value = "run")]
    pub(crate) container: String,
    /// Site file [default: $TALEA_SITE or /etc/talea/site.yaml]
    #[arg(long)]
    pub(crate) site: Option<PathBuf>,
    /// Planted faults, for tests of the tests
    #[arg(long, hide = true)]
    pub(crate) plant: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) system: SystemArgs,
    /// Use this running system instead of a new one, and leave it running
    #[arg(long = "system", value_name = "NAME", conflicts_with_all = ["name", "servers", "targets", "tier", "capacity"])]
    pub(crate) system_name: Option<String>,
    /// Companion: a shell command that runs beside the command, such as a consumer; may be given several times
    #[arg(long = "with", value_name = "COMMAND")]
    pub(crate) with: Vec<String>,
    /// Write the job's record as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// No word but errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// The command, unmodified
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct ExecArgs {
    /// Which system [default: $TALEA_SYSTEM, or the only one that runs]
    #[arg(long)]
    pub(crate) system: Option<String>,
    /// End with the process that started this one
    #[arg(long, hide = true)]
    pub(crate) die_with_parent: bool,
    /// The command
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct Named {
    /// Which system [default: $TALEA_SYSTEM, or the only one that runs]
    pub(crate) system: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Which system [default: all that run on this node]
    pub(crate) system: Option<String>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct FollowArgs {
    /// The container
    pub(crate) container: String,
    /// Which system [default: $TALEA_SYSTEM, or the only one that runs]
    #[arg(long)]
    pub(crate) system: Option<String>,
    /// Begin after this step
    #[arg(long, default_value_t = 0)]
    pub(crate) after: u64,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    /// `/talea/CONTAINER/PATH`, or `/talea` for the containers
    #[arg(default_value = "/talea")]
    pub(crate) path: String,
    /// Which system [default: $TALEA_SYSTEM, or the only one that runs]
    #[arg(long)]
    pub(crate) system: Option<String>,
    /// Sizes, modes and times
    #[arg(long, short)]
    pub(crate) long: bool,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CpArgs {
    /// Copy directories with all they hold
    #[arg(long, short)]
    pub(crate) recursive: bool,
    /// Which system [default: $TALEA_SYSTEM, or the only one that runs]
    #[arg(long)]
    pub(crate) system: Option<String>,
    /// From where: `/talea/CONTAINER/PATH`, a step's `/talea/CONTAINER/.talea/steps/N/PATH`, or a local path
    pub(crate) source: String,
    /// To where: a local path, or `/talea/CONTAINER/PATH`
    pub(crate) destination: String,
}

fn parse_size(text: &str) -> Result<u64, size::BadSize> {
    size::parse(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn is_consistent() {
        super::Cli::command().debug_assert();
    }
}
