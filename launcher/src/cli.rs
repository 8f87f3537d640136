//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use talea_model::size;

use crate::restart::LaunchNote;
use crate::stage::{EachStep, In, Out};

mod past;

pub(crate) use past::{DiffArgs, Moment, RollbackArgs, SnapshotAction, SnapshotArgs};

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
    /// Stop a system and remove what it left on this node. Data on media that `--tier` named go with it unless it was started
    /// with `--persist`, or `--keep` keeps them now.
    Down(DownArgs),
    /// Start servers of a system again that have ended; their data must lie on media, not in memory.
    Restart(RestartArgs),
    /// End sessions by hand: what their programs have open is aborted, and what they hold is given back.
    Evict(EvictArgs),
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
    /// Remove files, links and trees from a container, each in one transaction. Steps and snapshots keep what they show.
    Rm(RmArgs),
    /// Show what was written between two states of a container: files by name, other objects by their keys.
    ///
    /// What counts is that it was written, not whether the bytes are others.
    Diff(DiffArgs),
    /// Make a new step with the contents of an earlier one or of a named snapshot. Nothing is cut off: the steps between stay.
    Rollback(RollbackArgs),
    /// Name states of a container, so that they stay readable.
    Snapshot(SnapshotArgs),
    /// Run a command as part of a system that another job of yours runs, or that media here keep.
    Attach(AttachArgs),
    /// Take away what crashed jobs left on this node; list what is kept.
    Gc(GcArgs),
    /// A terminal screen of a running system: servers, targets, rates, fill, epochs, who holds what open.
    Top(TopArgs),
    /// Look at everything that can be wrong here, and say what to do about it.
    Doctor(DoctorArgs),
    /// Make one self-contained HTML page of a job's record (`talea run --record`).
    Report(ReportArgs),
    /// Write man pages and shell completions below a directory.
    Manual(ManualArgs),
    /// Text from standard input as a picture, for the documentation.
    #[command(hide = true)]
    Picture(PictureArgs),
    /// Hands a system over to `attach`.
    #[command(hide = true)]
    Export(Named),
    /// A node's part of a system; the launcher's step runs it.
    #[command(hide = true)]
    Node(NodeArgs),
    /// Copies a node's share of what is staged; the launcher's step runs it.
    #[command(hide = true)]
    Carry,
    /// Watches over a job's script for Slurm's SPANK plugin.
    #[command(hide = true)]
    Guard(GuardArgs),
    /// Keeps a system for `up` in an allocation.
    #[command(hide = true)]
    Hold(SystemArgs),
}

#[derive(Args, Debug)]
pub(crate) struct AttachArgs {
    /// The other system: its name, the number of the Slurm job that runs it, its directory, or the name that it is kept under
    pub(crate) system: String,
    /// Container that the command writes, and whose followers are told of its end [default: none]
    #[arg(long)]
    pub(crate) container: Option<String>,
    /// Of a container that is new: committed steps that stay readable without anybody's asking [default: 4]
    #[arg(long, value_name = "N")]
    pub(crate) keep_steps: Option<u64>,
    /// Of a container that is new: what becomes of followers that are further behind (see `talea run --help`) [default: keep]
    #[arg(long, value_parser = ["keep", "drop", "block"])]
    pub(crate) lagging: Option<String>,
    /// Where a kept system lies, such as `pmem:/path` [default: where it was made]
    #[arg(long)]
    pub(crate) tier: Option<String>,
    /// Site file [default: $TALEA_SITE or /etc/talea/site.yaml]
    #[arg(long)]
    pub(crate) site: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

impl AttachArgs {
    /// As arguments of `talea run`.
    pub(crate) fn as_run(&self) -> RunArgs {
        let system = SystemArgs {
            container: self.container.clone(),
            keep_steps: self.keep_steps,
            lagging: self.lagging.clone(),
            tier: self.tier.clone(),
            site: self.site.clone(),
            ..SystemArgs::default()
        };
        RunArgs { system, system_name: None, job: self.job.clone() }
    }
}

/// A system, by its place or by an option as other commands have it.
#[derive(Args, Debug, Default)]
pub(crate) struct Which {
    /// Which system [default: $TALEA_SYSTEM, or the only one that runs; `status`: all that run on this node]
    #[arg(value_name = "SYSTEM")]
    place: Option<String>,
    /// The same as SYSTEM
    #[arg(long = "system", value_name = "NAME", conflicts_with = "place")]
    option: Option<String>,
}

impl Which {
    /// What was named.
    pub(crate) fn name(&self) -> Option<&str> {
        self.place.as_deref().or(self.option.as_deref())
    }
}

#[derive(Args, Debug)]
pub(crate) struct DownArgs {
    #[command(flatten)]
    pub(crate) system: Which,
    /// Leave the data on the media under this name, as `--persist NAME` at the start would have
    #[arg(long, value_name = "NAME")]
    pub(crate) keep: Option<String>,
    /// Do not ask before data on media are removed, nor mind who uses the system
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RestartArgs {
    /// The servers' numbers, as `talea status` shows them [default: all that have ended]
    pub(crate) servers: Vec<u32>,
    /// Which system [default: $TALEA_SYSTEM, or the only one that runs]
    #[arg(long)]
    pub(crate) system: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct EvictArgs {
    /// The sessions' numbers, as `talea status` shows them
    #[arg(required = true)]
    pub(crate) sessions: Vec<u64>,
    /// Which system [default: $TALEA_SYSTEM, or the only one that runs]
    #[arg(long)]
    pub(crate) system: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// Remove directories with all that is in them
    #[arg(long, short)]
    pub(crate) recursive: bool,
    /// What is not there is no error
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Give the space back now: commit steps that change nothing until no kept step shows what was removed. Followers are told of them. Named
    /// snapshots go on showing it
    #[arg(long)]
    pub(crate) drop_steps: bool,
    /// Which system [default: $TALEA_SYSTEM, or the only one that runs]
    #[arg(long)]
    pub(crate) system: Option<String>,
    /// `/talea/CONTAINER/PATH`
    #[arg(required = true)]
    pub(crate) paths: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) system: Which,
    /// Time between two looks, in milliseconds
    #[arg(long, default_value_t = 1000)]
    pub(crate) period_ms: u64,
    /// One screen as text, then end
    #[arg(long)]
    pub(crate) once: bool,
    /// One screen as an SVG picture, then end
    #[arg(long, value_name = "FILE")]
    pub(crate) picture: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Site file [default: $TALEA_SITE or /etc/talea/site.yaml]
    #[arg(long)]
    pub(crate) site: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// A record that `talea run --record` wrote
    pub(crate) record: PathBuf,
    /// The page [default: the record's name with .html]
    #[arg(long, short)]
    pub(crate) output: Option<PathBuf>,
    /// The page's timelines as one SVG picture, too
    #[arg(long, value_name = "FILE")]
    pub(crate) picture: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ManualArgs {
    /// Where: a prefix's `share`
    pub(crate) directory: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct PictureArgs {
    /// The picture
    pub(crate) output: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct GcArgs {
    /// Look into this tier too, such as pmem:/path, or a path; may be given several times
    #[arg(long)]
    pub(crate) tier: Vec<String>,
    /// Remove what is kept under this name; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) forget: Vec<String>,
    /// Site file [default: $TALEA_SITE or /etc/talea/site.yaml]
    #[arg(long)]
    pub(crate) site: Option<PathBuf>,
    /// No word but errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Args, Debug)]
pub(crate) struct GuardArgs {
    /// The script's process, a child of this one
    pub(crate) pid: i32,
    /// Which system [default: the job's]
    #[arg(long)]
    pub(crate) system: Option<String>,
    /// Write the job's record as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) staging: StagingArgs,
}

#[derive(Args, Debug)]
pub(crate) struct NodeArgs {
    /// Look for a system kept under this name first
    #[arg(long)]
    pub(crate) persist: Option<String>,
    /// Where to look
    #[arg(long)]
    pub(crate) tier: Option<String>,
}

/// What a new system is made of. Defaults come from the site file.
#[derive(Args, Debug, Clone, Default)]
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
    /// Keep the last cores of each node for the servers: this many [default: none, all cores are shared]
    #[arg(long, value_name = "N")]
    pub(crate) reserve_cores: Option<u32>,
    /// Leave the data on node-local media under this name when the system ends; a later one of that name goes on with it
    #[arg(long, value_name = "NAME")]
    pub(crate) persist: Option<String>,
    /// Committed steps that stay readable without anybody's asking [default: 4]
    #[arg(long, value_name = "N")]
    pub(crate) keep_steps: Option<u64>,
    /// When a follower is further behind than those: keep what it needs, drop it (the follower is told of the gap), or block:
    /// the next commit waits for the follower [default: keep]
    #[arg(long, value_parser = ["keep", "drop", "block"])]
    pub(crate) lagging: Option<String>,
    /// Fabric for programs on a server's own node: auto, ring or tcp
    #[arg(long, value_parser = ["auto", "ring", "tcp"])]
    pub(crate) fabric: Option<String>,
    /// Show each server's counters to Prometheus: on a socket in the system's directory (unix), or on ADDRESS:PORT for who has
    /// the token [default: off]
    #[arg(long, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_missing_value = "unix")]
    pub(crate) metrics: Option<String>,
    /// Container to make at the start, which the command writes [default: run; none for `attach`]
    #[arg(long)]
    pub(crate) container: Option<String>,
    /// Site file [default: $TALEA_SITE or /etc/talea/site.yaml]
    #[arg(long)]
    pub(crate) site: Option<PathBuf>,
    /// Planted faults, for tests of the tests
    #[arg(long, hide = true)]
    pub(crate) plant: Option<String>,
}

impl SystemArgs {
    /// What says how a new system is to be made, and is not so in one that was started as `note` has it: that stays as it is.
    pub(crate) fn unlike(&self, note: Option<&LaunchNote>) -> Vec<&'static str> {
        fn other<T: PartialEq>(asked: Option<&T>, has: Option<T>) -> bool {
            asked.is_some_and(|asked| has.as_ref() != Some(asked))
        }
        let all = [
            (other(self.servers.as_ref(), note.map(|note| note.config.servers)), "--servers"),
            (other(self.targets.as_ref(), note.map(|note| note.config.targets)), "--targets"),
            (other(self.tier.as_ref(), note.map(|note| note.tier.clone())), "--tier"),
            (other(self.persist.as_ref(), note.and_then(|note| note.persist.clone())), "--persist"),
            (self.capacity.is_some(), "--capacity"),
            (self.reserve_cores.is_some(), "--reserve-cores"),
            (self.fabric.is_some(), "--fabric"),
            (self.metrics.is_some(), "--metrics"),
        ];
        all.into_iter().filter_map(|(given, name)| given.then_some(name)).collect()
    }
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) system: SystemArgs,
    /// Use this running system instead of a new one, and leave it running
    #[arg(long = "system", value_name = "NAME", conflicts_with_all = ["name", "servers", "targets", "tier", "capacity"])]
    pub(crate) system_name: Option<String>,
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

/// A command, and what goes on around it.
#[derive(Args, Debug, Clone)]
pub(crate) struct JobArgs {
    /// Companion: a shell command that runs beside the command, such as a consumer; may be given several times
    #[arg(long = "with", value_name = "COMMAND")]
    pub(crate) with: Vec<String>,
    #[command(flatten)]
    pub(crate) staging: StagingArgs,
    /// Time that the command has to end after Ctrl-C or SIGTERM; then, or on a second signal, it is told with more emphasis
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) grace: u64,
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

/// What is copied in before the command, out after it, and in between.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct StagingArgs {
    /// Copy a file or tree into a container before the command starts; may be given several times
    #[arg(long = "in", value_name = "SRC:DST")]
    pub(crate) bring_in: Vec<In>,
    /// Copy what is committed of a file or tree out of a container when the command has ended, well or not, or the job is about
    /// to hit its wall time, or on SIGUSR1; may be given several times
    #[arg(long, value_name = "SRC:DST")]
    pub(crate) out: Vec<Out>,
    /// Copy each committed step out while the job runs; `{step}` in DST is its number
    #[arg(long, value_name = "SRC:DST")]
    pub(crate) drain: Vec<EachStep>,
    /// Append an event to this file for each step that is safely drained, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// Write what was staged, with checksums, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,
    /// Begin to stage out this many seconds before the job's wall time
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) save_before: u64,
}

#[derive(Args, Debug)]
pub(crate) struct ExecArgs {
    /// Which system [default: $TALEA_SYSTEM, or the only one that runs]
    #[arg(long)]
    pub(crate) system: Option<String>,
    /// End with the process that started this one
    #[arg(long, hide = true)]
    pub(crate) die_with_parent: bool,
    /// The command is a shell line beside a job's: stay, and end all that it starts
    #[arg(long, hide = true)]
    pub(crate) companion: bool,
    /// Leave the last N cores of this node to the servers
    #[arg(long, hide = true, default_value_t = 0)]
    pub(crate) avoid_cores: u32,
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
    #[command(flatten)]
    pub(crate) system: Which,
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
    /// Run this shell command for each step, with the step's number for {step}; the step is kept until it has ended. A failure ends
    /// it all, with the command's code
    #[arg(long, value_name = "COMMAND")]
    pub(crate) exec: Option<String>,
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
    /// The steps that are kept, and the files that each of them wrote: of the container, or those that wrote PATH
    #[arg(long)]
    pub(crate) steps: bool,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CpArgs {
    /// Copy directories with all they hold
    #[arg(long, short)]
    pub(crate) recursive: bool,
    /// Read back what was written, and compare checksums
    #[arg(long)]
    pub(crate) verify: bool,
    /// Make missing directories above a local destination
    #[arg(long, short)]
    pub(crate) parents: bool,
    /// Copies at a time
    #[arg(long, default_value_t = 4)]
    pub(crate) workers: usize,
    /// Write what was copied, with checksums, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,
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
