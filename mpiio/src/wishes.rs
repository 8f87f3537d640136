//! Wishes for an open that come from outside of the call: `ROMIO_HINTS` files and environment variables, for programs that cannot
//! be changed; and the hints that say which state of a file is meant and when it commits.
//!
//! Looked at by rank 0 alone, whose hints are everybody's. Must never override what the program itself asked for.

use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

use crate::abi::*;
use crate::error::Failure;

/// Hints as they came: key and value.
pub(crate) type Hints = Vec<(String, String)>;

/// Environment variables that stand for hints.
const VARIABLES: [(&str, &str); 5] = [
    ("TALEA_EPOCH", "talea_epoch"),
    ("TALEA_STEP", "talea_step"),
    ("TALEA_WAIT", "talea_wait"),
    ("TALEA_CLASS", "talea_class"),
    ("TALEA_CHUNK_BYTES", "talea_chunk_bytes"),
];
/// How long to wait between two looks for a step.
const PAUSE: Duration = Duration::from_millis(20);
/// Chunk sizes that libtalea takes, in bytes.
const CHUNKS: std::ops::RangeInclusive<u64> = 4096..=1 << 20;

fn value<'a>(hints: &'a Hints, key: &str) -> Option<&'a str> {
    hints.iter().find(|(name, _)| name == key).map(|(_, value)| value.trim())
}

/// The program's hints, then those of the environment and of the site's file, where the program says nothing.
pub(crate) fn complete(asked: Hints) -> Hints {
    let variables = VARIABLES.iter().filter_map(|(name, key)| Some(((*key).to_owned(), std::env::var(name).ok()?)));
    let file = std::env::var_os("ROMIO_HINTS").and_then(|path| std::fs::read_to_string(path).ok());
    let lines = file.as_deref().map(of_file).unwrap_or_default();
    let mut hints = asked;
    for (key, wish) in variables.chain(lines) {
        if value(&hints, &key).is_none() {
            hints.push((key, wish));
        }
    }
    // ROMIO's word for what a chunk is.
    let unit = value(&hints, "striping_unit").and_then(|unit| unit.parse::<u64>().ok());
    if let Some(bytes) = unit.filter(|bytes| CHUNKS.contains(bytes))
        && value(&hints, "talea_chunk_bytes").is_none()
    {
        hints.push(("talea_chunk_bytes".to_owned(), bytes.to_string()));
    }
    hints
}

/// Hints of a ROMIO_HINTS file: a key and a value a line; `#` begins a comment.
fn of_file(text: &str) -> Hints {
    let words = |line: &str| {
        let (key, value) = line.split('#').next()?.trim().split_once(char::is_whitespace)?;
        Some((key.to_owned(), value.trim().to_owned()))
    };
    text.lines().filter_map(words).collect()
}

/// Do syncs commit (`talea_epoch` = `sync`, the default), or the close alone (`close`)? With `none` each write has, and a sync refreshes
/// and tells failures; with `explicit` the file is in an epoch that others commit.
pub(crate) fn sync_commits(hints: &Hints) -> Result<bool, Failure> {
    match value(hints, "talea_epoch") {
        None | Some("sync" | "none" | "explicit") => Ok(true),
        Some("close") => Ok(false),
        Some(other) => {
            let text = format!(
                "talea_epoch={other} is not supported: use sync, close or none, or explicit with an epoch of talea_mpi.h"
            );
            Err(Failure::refused(MPI_ERR_UNSUPPORTED_OPERATION, text))
        }
    }
}

/// Does the file take part in an explicit epoch from its open on?
pub(crate) fn is_explicit(hints: &Hints) -> bool {
    value(hints, "talea_epoch") == Some("explicit")
}

/// Is each write visible to all as soon as it returns?
pub(crate) fn commits_writes(hints: &Hints) -> bool {
    value(hints, "talea_epoch") == Some("none")
}

/// The path that is meant: with `talea_step` that of the step.
pub(crate) fn path(given: &CStr, hints: &Hints, amode: i32) -> Result<CString, Failure> {
    let Some(step) = value(hints, "talea_step") else { return Ok(given.to_owned()) };
    let number: u64 =
        step.parse().map_err(|_| Failure::refused(MPI_ERR_ARG, format!("talea_step={step} is no number of a step")))?;
    if amode & MPI_MODE_RDONLY == 0 {
        let text = "talea_step names a committed state, which never changes: open it with MPI_MODE_RDONLY";
        return Err(Failure::refused(MPI_ERR_READ_ONLY, text));
    }
    let bytes = given.to_bytes();
    let rest = bytes.strip_prefix(b"/talea/").or_else(|| bytes.strip_prefix(b"talea:")).unwrap_or(bytes);
    let (container, name) = match rest.iter().position(|byte| *byte == b'/') {
        Some(at) => rest.split_at(at),
        None => (rest, &[][..]),
    };
    let view = format!("/.talea/steps/{number}");
    CString::new([b"/talea/", container, view.as_bytes(), name].concat())
        .map_err(|_| Failure::refused(MPI_ERR_BAD_FILE, "the path has a NUL byte"))
}

/// Opens, with `talea_wait` (milliseconds) again and again until the step that is meant is there. On rank 0.
pub(crate) fn awaited<T>(hints: &Hints, open: impl Fn() -> Result<T, Failure>) -> Result<T, Failure> {
    let wait = value(hints, "talea_wait").filter(|_| value(hints, "talea_step").is_some());
    let Some(wait) = wait else { return open() };
    let ms: u64 = wait
        .parse()
        .map_err(|_| Failure::refused(MPI_ERR_ARG, format!("talea_wait={wait} is no number of milliseconds")))?;
    let begun = Instant::now();
    loop {
        match open() {
            Err(failure) if failure.class() == MPI_ERR_NO_SUCH_FILE && begun.elapsed() < Duration::from_millis(ms) => {
                std::thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// Hints as lines, for libtalea and for the other ranks.
pub(crate) fn lines(hints: &Hints) -> String {
    hints.iter().map(|(key, value)| format!("{key}={value}\n")).collect()
}

/// The reverse of [`lines`].
pub(crate) fn of_lines(lines: &[u8]) -> Hints {
    let text = String::from_utf8_lossy(lines);
    text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(list: &[(&str, &str)]) -> Hints {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_romio_hints_file_is_read_line_by_line() {
        let file = "# site\nromio_cb_write disable\n  talea_class   S2 # all\nlonely\n\n";
        assert_eq!(of_file(file), hints(&[("romio_cb_write", "disable"), ("talea_class", "S2")]));
    }

    #[test]
    fn a_striping_unit_is_a_chunk_where_it_can_be_and_the_programs_own_word_counts() {
        let chunk = |list: &[(&str, &str)]| value(&complete(hints(list)), "talea_chunk_bytes").map(str::to_owned);
        assert_eq!(chunk(&[("striping_unit", "65536")]), Some("65536".to_owned()));
        assert_eq!(chunk(&[("striping_unit", "1")]), None);
        assert_eq!(chunk(&[("striping_unit", "65536"), ("talea_chunk_bytes", "8192")]), Some("8192".to_owned()));
    }

    #[test]
    fn a_step_is_a_path_of_its_own_for_reading() {
        let meant = |given: &CStr, amode| path(given, &hints(&[("talea_step", "12")]), amode).map_err(|f| f.class());
        assert_eq!(meant(c"/talea/run/a/b", MPI_MODE_RDONLY), Ok(c"/talea/run/.talea/steps/12/a/b".to_owned()));
        assert_eq!(meant(c"talea:run/b", MPI_MODE_RDONLY), Ok(c"/talea/run/.talea/steps/12/b".to_owned()));
        assert_eq!(meant(c"/talea/run/b", MPI_MODE_RDWR), Err(MPI_ERR_READ_ONLY));
        assert_eq!(path(c"/talea/run/b", &Hints::new(), MPI_MODE_RDWR), Ok(c"/talea/run/b".to_owned()));
    }

    #[test]
    fn lines_there_and_back() {
        let some = hints(&[("a", "b=c"), ("talea_epoch", "close")]);
        assert_eq!(of_lines(lines(&some).as_bytes()), some);
        assert_eq!(sync_commits(&some), Ok(false));
        assert!(sync_commits(&hints(&[("talea_epoch", "never")])).is_err());
        assert!(is_explicit(&hints(&[("talea_epoch", "explicit")])) && !is_explicit(&some));
    }
}
