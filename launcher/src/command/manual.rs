//! `talea manual`: man pages and shell completions, generated from the command line itself. `make install` calls it.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::{Cli, ManualArgs};
use crate::failure::Failure;

/// What `talea run` gives to MPI programs, which no command's help tells.
const MPI_PAGE: &str = include_str!("../../../packaging/talea-mpi.7");

/// Writes `man/man1`, `man/man7`, `bash-completion`, `zsh` and `fish` below a directory (a prefix's `share`).
pub(crate) fn manual(arguments: &ManualArgs) -> Result<u8, Failure> {
    let root = &arguments.directory;
    let pages = made(&root.join("man/man1"))?;
    let mut command = Cli::command();
    command.build();
    page(&command, "talea", &pages)?;
    let mpi = made(&root.join("man/man7"))?.join("talea-mpi.7");
    fs::write(&mpi, MPI_PAGE).map_err(Failure::io("writing", &mpi))?;
    for (shell, place) in [
        (Shell::Bash, "bash-completion/completions"),
        (Shell::Zsh, "zsh/site-functions"),
        (Shell::Fish, "fish/vendor_completions.d"),
    ] {
        let place = made(&root.join(place))?;
        clap_complete::generate_to(shell, &mut Cli::command(), "talea", &place)
            .map_err(Failure::io("writing", place))?;
    }
    Ok(0)
}

fn made(path: &Path) -> Result<std::path::PathBuf, Failure> {
    fs::create_dir_all(path).map_err(Failure::io("making", path))?;
    Ok(path.to_owned())
}

fn page(command: &clap::Command, name: &str, directory: &Path) -> Result<(), Failure> {
    let path = directory.join(format!("{name}.1"));
    let mut text = Vec::new();
    let man = clap_mangen::Man::new(command.clone()).title(name.to_uppercase()).source("Talea");
    man.render(&mut text).and_then(|()| fs::write(&path, &text)).map_err(Failure::io("writing", &path))?;
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
        page(inner, &format!("{name}-{}", inner.get_name()), directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_the_shells_know_them() {
        let dir = tempfile::tempdir().unwrap();
        manual(&ManualArgs { directory: dir.path().to_owned() }).unwrap();
        for name in ["talea", "talea-run", "talea-attach", "talea-top", "talea-gc"] {
            let text = fs::read_to_string(dir.path().join(format!("man/man1/{name}.1"))).unwrap();
            assert!(text.contains(".SH"), "{name}");
        }
        let keys = fs::read_to_string(dir.path().join("man/man7/talea-mpi.7")).unwrap();
        for key in
            ["talea_epoch", "TALEA_STEP", "talea_wait", "talea_class", "talea_chunk_bytes", "ROMIO_HINTS", "TALEA_MPI"]
        {
            assert!(keys.contains(key), "{key}");
        }
        assert!(!dir.path().join("man/man1/talea-node.1").exists(), "hidden commands are not for people");
        let bash = fs::read_to_string(dir.path().join("bash-completion/completions/talea.bash")).unwrap();
        assert!(bash.contains("--keep-steps"));
    }
}
