//! `talea gc`: takes away what crashed jobs left on this node. Also what a site's epilog calls; it never touches what lives.

use std::path::{Path, PathBuf};

use talea_client::system::RuntimeDir;
use talea_slurm::Site;

use crate::cli::GcArgs;
use crate::failure::Failure;
use crate::{media, tier};

/// Removes leftovers, or lists what is kept.
pub(crate) fn gc(arguments: &GcArgs) -> Result<u8, Failure> {
    let say = |text: String| {
        if !arguments.quiet {
            println!("{text}");
        }
    };
    let runtime = RuntimeDir::from_env()?;
    let mut found = false;
    for swept in crate::restart::sweep(&runtime)? {
        found = true;
        say(format!("{}: {swept}", runtime.path().display()));
    }
    // An empty directory of ours is a leftover too; one that is not empty stays.
    let _ = std::fs::remove_dir(runtime.path());
    let tiers = tiers(arguments)?;
    let mut unknown = arguments.forget.clone();
    for tier in &tiers {
        for (path, note) in media::unused(tier) {
            found = true;
            match &note.persist {
                None => {
                    remove(&path)?;
                    say(format!("removed {}, which nobody uses any more", path.display()));
                }
                Some(name) if arguments.forget.contains(name) => {
                    remove(&path)?;
                    unknown.retain(|other| other != name);
                    let elsewhere = crate::names::forget_kept(name, Some(&crate::system::host()));
                    say(format!("forgot '{name}': removed {}{}", path.display(), rest(&elsewhere)));
                }
                Some(name) => {
                    say(format!("kept '{name}': {} of {}, in {}", servers(&note), note.servers, path.display()))
                }
            }
        }
    }
    unknown.retain(|name| {
        let Some(known) = crate::names::kept_at(name) else { return true };
        let nodes = known.nodes().into_iter().filter(|node| *node != crate::system::host()).collect::<Vec<_>>();
        let looked = tier::paths(&known.tier).into_iter().all(|path| tiers.iter().any(|tier| tier == path));
        if nodes.is_empty() && !looked {
            return true;
        }
        crate::names::forget_kept(name, None);
        say(format!("forgot '{name}': nothing of it is here{}", rest(&nodes)));
        false
    });
    match unknown.first() {
        Some(name) => Err(Failure::Usage(nothing_kept(name, &tiers))),
        None => {
            if !found && arguments.forget.is_empty() {
                say(format!("nothing is left and nothing is kept{}", looked(&tiers)));
            }
            Ok(0)
        }
    }
}

/// Which servers' data lie here.
fn servers(note: &media::Note) -> String {
    match note.own_servers {
        0 | 1 => format!("server {}", note.first_server),
        own => format!("servers {} to {}", note.first_server, note.first_server + own - 1),
    }
}

/// Where was looked for what is kept.
fn looked(tiers: &[PathBuf]) -> String {
    let places: Vec<String> = tiers.iter().map(|tier| tier.display().to_string()).collect();
    if places.is_empty() { ": no tier is known here (--tier)".to_owned() } else { format!(" in {}", places.join(", ")) }
}

/// What else there is to do about a name.
fn rest(nodes: &[String]) -> String {
    match nodes {
        [] => String::new(),
        nodes => format!("; what {} keep takes its space until this is run there, too", nodes.join(", ")),
    }
}

/// Said of a name that nothing here is kept under: most likely it is kept elsewhere.
fn nothing_kept(name: &str, tiers: &[PathBuf]) -> String {
    if tiers.is_empty() {
        return format!(
            "where '{name}' is kept is not known: add --tier with the tier that it was run with, such as pmem:/path"
        );
    }
    let places: Vec<String> = tiers.iter().map(|tier| tier.display().to_string()).collect();
    format!("nothing that is not in use is kept under '{name}' in {}: name its tier with --tier", places.join(" or "))
}

/// The directories of tiers to look into: those named, the site's, and those that this user's systems are known to be kept on.
fn tiers(arguments: &GcArgs) -> Result<Vec<PathBuf>, Failure> {
    let named = arguments.site.clone().or_else(|| std::env::var_os("TALEA_SITE").map(PathBuf::from));
    let site = Site::read(named.as_deref())?;
    let known = crate::names::kept_tiers();
    let all = arguments.tier.iter().chain([&site.tier]).chain(&known);
    let mut tiers: Vec<PathBuf> = all.flat_map(|tier| places(tier)).collect();
    tiers.sort();
    tiers.dedup();
    Ok(tiers)
}

fn places(text: &str) -> Vec<PathBuf> {
    let path = Path::new(text);
    if path.is_absolute() { vec![path.to_owned()] } else { tier::paths(text).into_iter().map(Path::to_owned).collect() }
}

fn remove(path: &Path) -> Result<(), Failure> {
    std::fs::remove_dir_all(path).map_err(Failure::io("removing", path))
}
