//! `talea attach`: a job of the same user as part of a system that another one runs; and `talea export`, which hands it over.
//!
//! The secret comes through Slurm, from a step in the other job, or out of a 0700 directory; then through our own step's
//! standard input to the nodes of this job (docs/design.md §9).

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use talea_client::system::{RuntimeDir, SystemFile, job_name};
use talea_client::{System, SystemError};

use crate::cli::{AttachArgs, Named};
use crate::failure::Failure;
use crate::plan::Plan;
use crate::stop::Stop;
use crate::system::Started;
use crate::{job, names};

/// How long the other job may take to answer.
const ASK: Duration = Duration::from_secs(30);

/// A system, handed over.
#[derive(Serialize, Deserialize)]
struct Export {
    file: SystemFile,
    secret: String,
}

/// Runs a command as part of another job's system.
pub(crate) async fn attach(arguments: &AttachArgs) -> Result<u8, Failure> {
    let mut stop = Stop::new()?;
    let runtime = RuntimeDir::from_env()?;
    crate::restart::sweep(&runtime)?;
    let mut run = arguments.as_run();
    let (found, is_local) = match locate(&runtime, &arguments.system).await {
        Ok(found) => found,
        Err(failure) => {
            let Some(tier) = kept_in(arguments)? else { return Err(failure) };
            crate::notice::say(
                run.job.quiet,
                format_args!("'{}' does not run, and is kept: starting it", arguments.system),
            );
            run.system.persist = Some(arguments.system.clone());
            run.system.tier = Some(tier);
            return job::run_new(&run, &mut stop).await;
        }
    };
    let plan = Plan { name: found.file.name.clone(), ..Plan::new(&run.system, "attached")? };
    let writes = run.system.container.as_deref();
    if is_local && plan.allocation.is_none() {
        return job::attached(&run, &found, writes, &mut stop).await;
    }
    let (system, made) =
        if is_local { (found, false) } else { runtime.install(found.file.clone(), *found.secret())? };
    let introduced = tokio::select! {
        introduced = Started::introduce(plan, system.clone()) => introduced,
        signal = stop.next() => Err(Failure::Interrupted { signal }),
    };
    let introduced = match introduced {
        Ok(introduced) => introduced,
        Err(failure) => {
            if made {
                let _ = system.remove();
            }
            return Err(failure);
        }
    };
    let result = job::attached(&run, &system, writes, &mut stop).await;
    introduced.leave(made).await;
    result
}

/// The tier in which a system of this name is kept, as far as is known here.
fn kept_in(arguments: &AttachArgs) -> Result<Option<String>, Failure> {
    let name = &arguments.system;
    if !names::is_plain(name) {
        return Ok(None);
    }
    let tier = match (&arguments.tier, names::kept_at(name)) {
        (Some(tier), _) => tier.clone(),
        (None, Some(kept)) => return Ok(Some(kept.tier)),
        (None, None) => Plan::new(&arguments.as_run().system, "attached")?.tier,
    };
    Ok(crate::media::kept(&tier, name)?.map(|_| tier))
}

/// The system of this name, of this job, or in this directory; true if this node knows it already.
async fn locate(runtime: &RuntimeDir, what: &str) -> Result<(System, bool), Failure> {
    if what.starts_with('/') {
        return Ok((System::read(Path::new(what))?, false));
    }
    let job = what.parse::<u32>().ok();
    let here = match job {
        Some(job) => runtime.load(&job_name(job)),
        None => runtime.load(what),
    };
    match here {
        Ok(system) if system.file.is_running() => return Ok((system, true)),
        Ok(_) | Err(SystemError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let Some(job) = job.or_else(|| names::job_of(what)) else {
        let text = format!("no system '{what}' is known here: give the number of the Slurm job that runs it");
        return Err(Failure::Usage(text));
    };
    Ok((of_job(job).await?, false))
}

/// Asks a job of this user for its system, by a step in it.
async fn of_job(job: u32) -> Result<System, Failure> {
    let own = crate::locate::own()?;
    let mut srun = tokio::process::Command::new("srun");
    for (name, _) in std::env::vars_os() {
        // What is said of this job would be taken for the other one's.
        if name.to_string_lossy().starts_with("SLURM_") && name != "SLURM_CONF" {
            srun.env_remove(name);
        }
    }
    srun.args(["--overlap", "--mpi=none", "--mem=0", "--nodes=1", "--ntasks=1", "--quiet", "--immediate=20"]);
    srun.arg(format!("--jobid={job}")).arg(own).arg("export").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(ASK, srun.output()).await;
    let said = match output {
        Ok(output) => output.map_err(Failure::io("starting", "srun"))?,
        Err(_) => return Err(Failure::Usage(format!("job {job} did not hand its system over within {ASK:?}"))),
    };
    let export: Result<Export, _> = serde_json::from_slice(&said.stdout);
    let Ok(export) = export else {
        let words = String::from_utf8_lossy(&said.stderr).trim().to_owned();
        return Err(Failure::Usage(format!("job {job} does not hand a system over: {words}")));
    };
    let secret = crate::node::secret_of(&export.secret)?;
    Ok(System::foreign(export.file, secret))
}

/// Prints a system of this node, secret and all, for [`attach`] in another job.
pub(crate) fn export(arguments: &Named) -> Result<u8, Failure> {
    use std::io::IsTerminal;
    if std::io::stdout().is_terminal() {
        return Err(Failure::Usage("this prints a secret, which is for `talea attach` and not for a terminal".into()));
    }
    let system = System::find(arguments.system.as_deref())?;
    let secret = system.secret().iter().map(|byte| format!("{byte:02x}")).collect();
    let export = Export { file: system.file.clone(), secret };
    println!("{}", serde_json::to_string(&export).unwrap_or_default());
    Ok(0)
}
