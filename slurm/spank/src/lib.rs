//! Slurm's SPANK plugin: `#SBATCH --talea=capacity=2T,in=...,out=...` gives a job a system, and plain `srun ./sim` uses it.
//!
//! Owns the option and when `talea` is called. In the batch script's task, as the job's user and before it becomes the script: it
//! starts the system and stages in (`talea up`, `talea cp`), then lets the script go on as a child and itself becomes
//! `talea guard`, which stages out and ends the system when the script has ended. Every other step's tasks get the MPI-IO driver in
//! their preload. Must never fail a job that did not ask for Talea, never run anything as root, and never let a panic into
//! Slurm's processes.

#![allow(non_upper_case_globals)] // Slurm's loader looks for these names

mod cores;
mod spank;

use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int, c_uint};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use spank::{Raw, Spank, say};
use talea_slurm::wish::Wish;
use talea_slurm::{Family, family};

/// Name for Slurm's loader.
#[unsafe(no_mangle)]
pub static plugin_name: [u8; 6] = *b"talea\0";
/// Kind for Slurm's loader.
#[unsafe(no_mangle)]
pub static plugin_type: [u8; 6] = *b"spank\0";
/// Slurm's version that this is for.
#[unsafe(no_mangle)]
pub static plugin_version: c_uint = version();
/// The plugin's own version.
#[unsafe(no_mangle)]
pub static spank_plugin_version: c_uint = 1;

/// Slurm's number of the batch script's step (slurm.h, `SLURM_BATCH_SCRIPT`).
const BATCH_SCRIPT: u32 = 0xffff_fffb;
/// Exit code of a script that was not started, for the reason that its output gives: as `talea run` has it.
const NOT_STARTED: c_int = 125;
/// What the user asked for, in this process.
static ASKED: Mutex<Option<String>> = Mutex::new(None);

const fn version() -> c_uint {
    let text = env!("TALEA_SLURM_VERSION_NUMBER").as_bytes();
    let (mut number, mut at) = (0, 0);
    while at < text.len() {
        number = number * 10 + (text[at] - b'0') as c_uint;
        at += 1;
    }
    number
}

/// Runs a callback; what it panics with stays here.
fn callback(work: impl FnOnce() -> Result<(), String> + std::panic::UnwindSafe) -> c_int {
    match std::panic::catch_unwind(work) {
        Ok(Ok(())) => 0,
        Ok(Err(why)) => {
            say(&why);
            -1
        }
        Err(_) => {
            say("the plugin has a bug; the job goes on without Talea");
            0
        }
    }
}

extern "C" fn heard(_: c_int, value: *const c_char, _: c_int) -> c_int {
    callback(|| {
        if value.is_null() {
            return Ok(());
        }
        // SAFETY: Slurm passes the option's value as a C string.
        let text = unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned();
        Wish::parse(&text)?;
        is_a_place_for_it()?;
        let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
        // Slurm passes the last one on, and what the others asked for would be missed later.
        if let Some(before) = asked.as_ref().filter(|before| **before != text && Spank::is_command()) {
            return Err(format!("--talea is given twice: write one, --talea={before},{text}"));
        }
        *asked = Some(text);
        Ok(())
    })
}

/// A system is started by a job's script. Where there is none, the user hears it at once instead of missing the system later.
fn is_a_place_for_it() -> Result<(), String> {
    if !Spank::is_command() {
        return Ok(());
    }
    let program = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    match program.trim() {
        "salloc" => {
            Err("--talea is for scripts: leave it out here, and use `talea run -- srun ./sim` inside".to_owned())
        }
        // In a job whose script has a system, srun hears of the script's option.
        "srun" if std::env::var_os("SLURM_JOB_ID").is_none() => {
            Err("--talea is for scripts (#SBATCH --talea=...): without \
            one, use `salloc ... talea run -- srun ./sim`"
                .to_owned())
        }
        _ => Ok(()),
    }
}

/// Registers the option.
///
/// # Safety
/// Slurm's loader calls it as spank.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_init(raw: Raw, argc: c_int, argv: *const *const c_char) -> c_int {
    callback(move || {
        // SAFETY: the arguments are Slurm's.
        let spank = unsafe { Spank::new(raw, argc, argv) };
        let usage = c"Start a Talea system with the job: on, or capacity=2T,tier=ram,in=SRC:DST,out=SRC:DST";
        if Spank::has_options() && !spank.register(c"talea", c"settings", usage, heard) {
            return Err("the option --talea cannot be registered".to_owned());
        }
        Ok(())
    })
}

/// In each task, as the job's user, before it becomes its program.
///
/// # Safety
/// Slurm calls it as spank.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_task_init(raw: Raw, argc: c_int, argv: *const *const c_char) -> c_int {
    callback(move || {
        let Some(text) = ASKED.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return Ok(()) };
        // SAFETY: the arguments are Slurm's.
        let spank = unsafe { Spank::new(raw, argc, argv) };
        let prefix = spank.argument("prefix").unwrap_or("/usr/local").to_owned();
        if spank.step() == Some(BATCH_SCRIPT) {
            if let Err(why) = begin(&spank, &prefix, &text) {
                say(&why);
                // plugstack.conf may call the plugin optional, and then Slurm would start the script even so.
                // SAFETY: ends this process, which is the script's and has no other thread.
                unsafe { libc::_exit(NOT_STARTED) }
            }
            return Ok(());
        }
        let is_ours = spank.command().first().is_some_and(|program| program.ends_with("/bin/talea"));
        if is_ours {
            return Ok(());
        }
        cores::leave(Wish::parse(&text)?.reserved_cores());
        reach(&spank, &prefix)
    })
}

/// Puts the driver into a task's reach, last in its preload.
fn reach(spank: &Spank, prefix: &str) -> Result<(), String> {
    let environment = spank.environment();
    let variable = |name: &str| {
        environment
            .iter()
            .find_map(|entry| Some(entry.to_str().ok()?.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    };
    let command: Vec<OsString> = spank.command().into_iter().map(OsString::from).collect();
    let path = variable("PATH").unwrap_or_default();
    let family = Family::of(&command, variable(family::VARIABLE).as_deref(), OsStr::new(&path));
    let driver = format!("{prefix}/lib/talea/{}", family.driver());
    let list = match variable("LD_PRELOAD").filter(|list| !list.is_empty()) {
        Some(list) if list.split([':', ' ']).any(|entry| entry == driver) => return Ok(()),
        Some(list) => format!("{list}:{driver}"),
        None => driver,
    };
    let list = CString::new(list).map_err(|_| "LD_PRELOAD holds a zero byte".to_owned())?;
    spank.set(c"LD_PRELOAD", &list);
    Ok(())
}

/// Starts the system and stages in; then the script goes on as a child, and this process becomes its guard.
fn begin(spank: &Spank, prefix: &str, text: &str) -> Result<(), String> {
    let wish = Wish::parse(text)?;
    let talea = format!("{prefix}/bin/talea");
    let environment = spank.environment();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&talea);
        command.env_clear().args(arguments);
        for entry in &environment {
            let bytes = entry.to_bytes();
            if let Some(at) = bytes.iter().position(|byte| *byte == b'=') {
                command.env(OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..]));
            }
        }
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(format!("`talea {}` failed: the job does not start", arguments[0])),
            Err(error) => Err(format!("{talea} cannot be started ({error}): is prefix= in plugstack.conf right?")),
        }
    };
    let mut up = vec!["up"];
    up.extend(wish.up.iter().map(String::as_str));
    run(&up)?;
    for (source, destination) in &wish.bring_in {
        run(&["cp", "-r", source, destination]).inspect_err(|_| _ = run(&["down"]))?;
    }
    let mut words: Vec<String> = vec![talea.clone(), "guard".to_owned(), String::new()];
    words.extend(wish.guard);
    for (source, destination) in &wish.out {
        words.extend(["--out".to_owned(), format!("{source}:{destination}")]);
    }
    guard(words, &environment)
}

/// Forks: the child returns and becomes the script, this process becomes the guard, whose end is the step's.
fn guard(mut words: Vec<String>, environment: &[CString]) -> Result<(), String> {
    // SAFETY: Slurm's task process has one thread; both sides go on with what was set up for the task.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(format!("the script's process cannot be made: {}", std::io::Error::last_os_error())),
        0 => {
            // A script without its guard would be left behind.
            // SAFETY: takes a number, and changes only this process.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
            Ok(())
        }
        child => {
            words[2] = child.to_string();
            let words: Vec<CString> = words.into_iter().filter_map(|word| CString::new(word).ok()).collect();
            let pointers = |list: &[CString]| -> Vec<*const c_char> {
                list.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
            };
            let (argv, envp) = (pointers(&words), pointers(environment));
            let mut status = 0;
            // SAFETY: two lists of C strings that end with null pointers and live as long as this process's program; if the
            // guard cannot be started, this process at least passes the script's status on.
            unsafe {
                libc::execve(argv[0], argv.as_ptr(), envp.as_ptr());
                libc::waitpid(child, &raw mut status, 0);
                libc::_exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 1 })
            }
        }
    }
}
