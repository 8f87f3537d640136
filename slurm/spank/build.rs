//! Which Slurm the plugin is for: Slurm loads plugins of its own version only, and 2 bytes of that are compared.

use std::path::Path;

/// Slurm 22.05, as Debian 12 has it, where no header says otherwise.
const DEFAULT: u32 = 0x0016_0500;

fn main() {
    println!("cargo:rerun-if-env-changed=TALEA_SLURM_VERSION");
    println!("cargo:rerun-if-env-changed=SLURM_INCLUDE");
    let number = match std::env::var("TALEA_SLURM_VERSION") {
        Ok(text) => of_text(&text).expect("TALEA_SLURM_VERSION is MAJOR.MINOR[.MICRO], such as 23.11.4"),
        Err(_) => of_header().unwrap_or(DEFAULT),
    };
    println!("cargo:rustc-env=TALEA_SLURM_VERSION_NUMBER={number}");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,talea_spank.so");
}

fn of_text(text: &str) -> Option<u32> {
    let mut parts = text.split('.').map(|part| part.parse::<u32>().ok().filter(|n| *n < 256));
    let (major, minor) = (parts.next()??, parts.next()??);
    let micro = parts.next().unwrap_or(Some(0))?;
    Some(major << 16 | minor << 8 | micro)
}

fn of_header() -> Option<u32> {
    let given = std::env::var("SLURM_INCLUDE").ok();
    let places = given.as_deref().into_iter().chain(["/usr/include", "/usr/local/include", "/opt/slurm/include"]);
    let text = places.map(|place| Path::new(place).join("slurm/slurm_version.h"));
    let text = text.filter_map(|path| std::fs::read_to_string(path).ok()).next()?;
    let line = text.lines().find(|line| line.starts_with("#define SLURM_VERSION_NUMBER"))?;
    u32::from_str_radix(line.split_whitespace().nth(2)?.trim_start_matches("0x"), 16).ok()
}
