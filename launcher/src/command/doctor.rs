//! `talea doctor`: looks at everything that has gone wrong for somebody before, and says what to do about it.

use std::fmt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use serde::Serialize;
use talea_client::System;
use talea_client::system::RuntimeDir;
use talea_slurm::{Allocation, Family, Site};

use super::look;
use crate::cli::DoctorArgs;
use crate::failure::Failure;
use crate::notice::count;
use crate::{locate, media};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    Note,
    Bad,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    text: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Good => "ok  ",
            Verdict::Note => "note",
            Verdict::Bad => "BAD ",
        };
        write!(f, "{mark} {:12} {}", self.what, self.text)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n     {:12} -> {remedy}", ""),
            None => Ok(()),
        }
    }
}

fn good(what: &'static str, text: impl Into<String>) -> Finding {
    Finding { what, verdict: Verdict::Good, text: text.into(), remedy: None }
}

fn note(what: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { what, verdict: Verdict::Note, text: text.into(), remedy: Some(remedy.into()) }
}

fn bad(what: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { what, verdict: Verdict::Bad, text: text.into(), remedy: Some(remedy.into()) }
}

/// Looks at everything. Exit code 1 if something is bad.
pub(crate) fn doctor(arguments: &DoctorArgs) -> Result<u8, Failure> {
    let site = arguments.site.clone().or_else(|| std::env::var_os("TALEA_SITE").map(Into::into));
    let mut findings = vec![server(), preload(std::env::var("LD_PRELOAD").ok().as_deref())];
    findings.extend(drivers());
    findings.extend(limits());
    findings.extend(fabric());
    findings.extend(runtime());
    findings.extend(slurm());
    match Site::read(site.as_deref()) {
        Ok(site) => findings.extend(tier(&site)),
        Err(error) => findings.push(bad("site file", error.to_string(), "mend it; docs/site.md lists every key")),
    }
    findings.extend(systems());
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&findings).unwrap_or_default());
    } else {
        findings.iter().for_each(|finding| println!("{finding}"));
    }
    Ok(u8::from(findings.iter().any(|finding| finding.verdict == Verdict::Bad)))
}

fn server() -> Finding {
    let what = "versions";
    let path = match locate::server() {
        Ok(path) => path,
        Err(error) => return bad(what, error.to_string(), "install Talea whole: make install PREFIX=..."),
    };
    let said =
        Command::new(&path).arg("version").output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let own = env!("CARGO_PKG_VERSION");
    match said {
        Ok(said) if said.trim() == format!("talead {own}") => good(what, format!("talea and talead are {own}")),
        Ok(said) => {
            let text = format!("talea is {own}, {} says '{}'", path.display(), said.trim());
            bad(what, text, "install both from the same release")
        }
        Err(error) => bad(what, format!("{}: {error}", path.display()), "mend its permissions, or install it again"),
    }
}

/// Interposers must come before the driver, or they see none of its calls.
fn preload(list: Option<&str>) -> Finding {
    let what = "preload";
    let entries: Vec<&str> = list.unwrap_or_default().split([':', ' ']).filter(|entry| !entry.is_empty()).collect();
    let is_ours =
        |entry: &&str| Path::new(entry).file_name().is_some_and(|n| n.to_string_lossy().starts_with("libtalea_mpiio"));
    let Some(at) = entries.iter().position(is_ours) else {
        return good(what, "the driver is not preloaded here; `talea run` and `talea exec` do that");
    };
    if let Some(missing) = entries.iter().find(|entry| !Path::new(entry).exists()) {
        return bad(
            what,
            format!("LD_PRELOAD names {missing}, which is not there"),
            "unset LD_PRELOAD, or mend the path",
        );
    }
    match entries.get(at + 1) {
        Some(after) => bad(
            what,
            format!("{after} comes after the driver in LD_PRELOAD and sees none of its calls"),
            "let `talea exec` set LD_PRELOAD: it puts the driver last",
        ),
        None => good(what, "the driver is last in LD_PRELOAD"),
    }
}

fn drivers() -> Vec<Finding> {
    let found = Family::ALL.iter().map(|family| (family, locate::driver(*family)));
    found
        .map(|(family, driver)| match driver {
            Ok(path) => good("driver", format!("{}: {}", family.title(), path.display())),
            Err(_) => note(
                "driver",
                format!("there is none for programs of {}", family.title()),
                "build Talea with that MPI installed, if you use it",
            ),
        })
        .collect()
}

fn limits() -> Vec<Finding> {
    use rustix::process::{Resource, getrlimit};
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let mut findings = vec![if files < 4096 {
        note("open files", format!("at most {files} a process"), "ulimit -n 65536, for servers with many clients")
    } else {
        good("open files", format!("at most {files} a process"))
    }];
    let memory = getrlimit(Resource::As).current;
    if let Some(bytes) = memory {
        findings.push(note("memory", format!("a process may have {bytes} bytes of it"), "ulimit -v unlimited"));
    }
    match std::fs::metadata("/dev/shm") {
        Ok(meta) if meta.mode() & 0o1777 == 0o1777 => {
            findings.push(good("/dev/shm", "there, and everybody may use it"))
        }
        _ => findings.push(note("/dev/shm", "missing or closed", "MPI needs it; mount a tmpfs there with mode 1777")),
    }
    findings
}

fn fabric() -> Vec<Finding> {
    let mut findings = vec![];
    let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib", "/opt/cray/libfabric"];
    let library = places.iter().map(|place| Path::new(place).join("libfabric.so.1")).find(|path| path.exists());
    findings.push(match library {
        Some(path) => good("fabric", format!("libfabric: {}", path.display())),
        None => note(
            "fabric",
            "no libfabric in the usual places",
            "install libfabric for several nodes; plain TCP serves else",
        ),
    });
    if let Ok(provider) = std::env::var("FI_PROVIDER") {
        let text = format!("FI_PROVIDER={provider} is meant for MPI");
        findings.push(note("fabric", text, "nothing: Talea chooses its own providers"));
    }
    findings
}

fn runtime() -> Vec<Finding> {
    let runtime = match RuntimeDir::from_env() {
        Ok(runtime) => runtime,
        Err(error) => {
            return vec![bad(
                "runtime",
                error.to_string(),
                "set TALEA_RUNTIME_DIR to a shorter path of your own (it is used before XDG_RUNTIME_DIR)",
            )];
        }
    };
    let shown = runtime.path().display().to_string();
    let mut findings = vec![];
    match std::fs::symlink_metadata(runtime.path()) {
        Err(_) => findings.push(good("runtime", format!("{shown}: not made yet"))),
        Ok(meta) if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() => {
            let remedy = "an administrator has to remove it; until then set TALEA_RUNTIME_DIR";
            findings.push(bad("runtime", format!("{shown} is not a directory of yours"), remedy));
        }
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
            findings.push(bad("runtime", format!("others may enter {shown}"), format!("chmod 700 {shown}")));
        }
        Ok(_) => findings.push(good("runtime", format!("{shown}: only you may enter"))),
    }
    match crate::restart::sweep(&runtime) {
        Ok(dead) if dead.is_empty() => findings.push(good("leftovers", "none of dead systems")),
        Ok(dead) => {
            findings
                .extend(dead.iter().map(|swept| note("leftovers", swept.to_string(), "nothing is left of it here")));
        }
        Err(error) => findings.push(bad("leftovers", error.to_string(), "look at the directory")),
    }
    findings
}

fn slurm() -> Vec<Finding> {
    let srun = Command::new("srun").arg("--version").output().ok();
    let allocation = Allocation::detect(|name| std::env::var(name).ok());
    // Outside of a cluster srun may be there and have nobody to ask.
    if let (Some(output), Ok(None)) = (&srun, &allocation)
        && !output.status.success()
    {
        return vec![good("slurm", "srun is here, but not configured; not in a job")];
    }
    let version = srun.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match (version, allocation) {
        (_, Err(error)) => vec![bad("slurm", error.to_string(), "leave SLURM_* as Slurm sets them")],
        (Some(version), Ok(Some(job))) => {
            vec![good("slurm", format!("{version}, in job {} of {} nodes", job.job, job.nodes))]
        }
        (Some(version), Ok(None)) => vec![good("slurm", format!("{version}, not in a job"))],
        (None, Ok(Some(job))) => {
            let text = format!("in job {}, but there is no srun", job.job);
            vec![bad("slurm", text, "put Slurm's commands into PATH: servers start as a step")]
        }
        (None, Ok(None)) => vec![good("slurm", "not here")],
    }
}

fn tier(site: &Site) -> Vec<Finding> {
    let Some(path) = crate::tier::paths(&site.tier).into_iter().next() else {
        return vec![good("tier", format!("{}: memory of the servers' nodes", site.tier))];
    };
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(error) => {
            vec![bad(
                "tier",
                format!("{shown}: {error}"),
                "make it on every node, or name another one in the site file",
            )]
        }
        Ok(meta) if meta.mode() & 0o1000 == 0 && meta.mode() & 0o002 != 0 => {
            vec![bad("tier", format!("{shown}: everybody may remove everybody's files"), format!("chmod +t {shown}"))]
        }
        Ok(_) => {
            let unused = media::unused(path);
            let dead = unused.iter().filter(|(_, note)| note.persist.is_none()).count();
            let kept = unused.len() - dead;
            let mut findings = vec![good("tier", format!("{shown}; {kept} systems are kept there"))];
            if dead > 0 {
                findings.push(note("tier", format!("{dead} directories of crashed jobs"), "talea gc"));
            }
            findings
        }
    }
}

fn systems() -> Vec<Finding> {
    let list = RuntimeDir::from_env().and_then(|runtime| runtime.all()).unwrap_or_default();
    list.iter().flat_map(of_system).collect()
}

fn of_system(system: &System) -> Vec<Finding> {
    let (what, name) = ("system", &*system.file.name);
    if !system.file.is_running() {
        return vec![bad(what, format!("{name}: none of its servers runs"), crate::restart::how_to_come_back(name))];
    }
    let view = match look(name) {
        Ok(view) => view,
        Err(error) => {
            let remedy = format!(
                "`talea restart --system {name}` if servers have ended; `talea down {name}` gives the system up, with its data"
            );
            return vec![bad(what, format!("{name}: {error}"), remedy)];
        }
    };
    if let Some(why) = view.unled() {
        return vec![bad(
            what,
            format!("{name}: nobody leads the pool's log: {why}"),
            format!("talea restart --system {name}"),
        )];
    }
    let text =
        format!("{name}: {}, {}", count(view.servers() as u64, "server"), count(view.sessions() as u64, "session"));
    let mut findings = vec![match view.down() {
        0 => good(what, text),
        n => bad(what, format!("{text}; {n} targets are down"), view.remedy()),
    }];
    findings.extend(view.troubles().iter().map(|it| bad(what, format!("{name}: {}", it.text), it.remedy)));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preload_order_is_judged() {
        let own = std::env::current_exe().unwrap();
        let directory = own.parent().unwrap();
        let driver = directory.join("libtalea_mpiio.so");
        // Any file will do: only names and places count.
        let made = !driver.exists();
        if made {
            std::fs::write(&driver, "").unwrap();
        }
        let (driver_text, other) = (driver.display().to_string(), own.display().to_string());
        assert_eq!(preload(None).verdict, Verdict::Good);
        assert_eq!(preload(Some(&other)).verdict, Verdict::Good);
        assert_eq!(preload(Some(&format!("{other}:{driver_text}"))).verdict, Verdict::Good);
        let wrong = preload(Some(&format!("{driver_text}:{other}")));
        assert_eq!(wrong.verdict, Verdict::Bad);
        assert!(wrong.text.contains(&other) && wrong.remedy.is_some());
        assert_eq!(preload(Some("/nowhere/libtalea_mpiio.so")).verdict, Verdict::Bad);
        if made {
            std::fs::remove_file(driver).unwrap();
        }
    }
}
