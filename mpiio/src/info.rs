//! Hints: what the program asks for in an info object, and what is in force.
//!
//! Owns the reading and writing of info objects. Must never echo a hint that has no effect.

use std::collections::BTreeSet;
use std::ffi::{CString, c_char, c_int};
use std::sync::{Mutex, PoisonError};

use crate::abi::*;
use crate::error::{Failure, checked, mpi};

/// Hints that begin like this are for Talea, and for nobody else.
const PREFIX: &str = "talea_";
/// Those that there are, beside [`FACTS`]. They come back from MPI_File_get_info.
const KEYS: [&str; 5] = ["talea_epoch", "talea_step", "talea_wait", "talea_class", "talea_chunk_bytes"];
/// Likeness, from 0 to 1, from which on a key is taken for a mistyped one.
const LIKE: f64 = 0.5;

/// What always holds on a Talea file, said in ROMIO's words. `romio_visibility_immediate`: ranks of one epoch see each other's
/// writes at once (HDF5 ≥ 1.13.2 would else sync after each collective write).
const FACTS: [(&str, &str); 5] = [
    ("romio_visibility_immediate", "true"),
    ("romio_filesystem_type", "TALEA:"),
    ("romio_ds_write", "disable"),
    ("romio_no_indep_rw", "false"),
    ("talea_atomicity", "true"),
];

/// All hints of an info object.
pub(crate) fn read(info: MPI_Info) -> Result<Vec<(String, String)>, Failure> {
    if info == MPI_INFO_NULL() {
        return Ok(Vec::new());
    }
    let mpi = mpi()?;
    let mut count = 0;
    // SAFETY: MPI checks the handle and fills the count.
    checked("MPI_Info_get_nkeys", unsafe { (mpi.MPI_Info_get_nkeys)(info, &raw mut count) })?;
    let mut hints = Vec::new();
    for index in 0..count {
        let mut key = [0 as c_char; MPI_MAX_INFO_KEY as usize + 1];
        let mut value = [0 as c_char; MPI_MAX_INFO_VAL as usize + 1];
        let mut found: c_int = 0;
        // SAFETY: buffers of the sizes that MPI asks for; the key is NUL-terminated by the first call.
        unsafe {
            checked("MPI_Info_get_nthkey", (mpi.MPI_Info_get_nthkey)(info, index, key.as_mut_ptr()))?;
            let got = (mpi.MPI_Info_get)(info, key.as_ptr(), MPI_MAX_INFO_VAL, value.as_mut_ptr(), &raw mut found);
            checked("MPI_Info_get", got)?;
        }
        if found != 0 {
            hints.push((text_of(&key), text_of(&value)));
        }
    }
    Ok(hints)
}

/// A NUL-terminated buffer as text, without the line ends that would confuse libtalea's list.
fn text_of(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().take_while(|&&c| c != 0).map(|&c| c.cast_unsigned()).collect();
    String::from_utf8_lossy(&bytes).replace('\n', " ")
}

fn is_fact(key: &str) -> bool {
    FACTS.iter().any(|(fact, _)| *fact == key)
}

/// What to say of a key that begins like Talea's and is none: MPI ignores keys that it does not know (MPI 4.1 §10), which hides a slip.
fn unknown(key: &str) -> Option<String> {
    if !key.starts_with(PREFIX) || KEYS.contains(&key) || is_fact(key) {
        return None;
    }
    let likeness = |known: &&str| strsim::normalized_damerau_levenshtein(&key[PREFIX.len()..], &known[PREFIX.len()..]);
    let nearest = KEYS.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    Some(match nearest.filter(|known| likeness(known) >= LIKE) {
        Some(known) => format!("the info key {key} means nothing here and is ignored: is {known} meant?"),
        None => format!("the info key {key} means nothing here and is ignored: there are {}", KEYS.join(", ")),
    })
}

/// Warns of keys that have no meaning, each once in this process. On rank 0.
pub(crate) fn warn(asked: &[(String, String)]) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    for (key, _) in asked {
        if let Some(text) = unknown(key)
            && TOLD.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone())
        {
            eprintln!("talea: warning: {text}");
        }
    }
}

/// The hints in force on a file whose objects have chunks of `chunk_bytes`.
pub(crate) fn in_use(asked: &[(String, String)], chunk_bytes: u64) -> Vec<(String, String)> {
    let mut hints: Vec<(String, String)> =
        FACTS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    // Collective buffering is decided call by call, unless the program forbids it.
    for key in ["romio_cb_read", "romio_cb_write"] {
        let forbidden = asked.iter().any(|(name, value)| name == key && value.trim() == "disable");
        hints.push((key.to_owned(), if forbidden { "disable" } else { "automatic" }.to_owned()));
    }
    if chunk_bytes > 0 {
        hints.push(("striping_unit".to_owned(), chunk_bytes.to_string()));
    }
    let asks = |key: &str| asked.iter().any(|(name, _)| name == key);
    for (key, value) in asked.iter().filter(|(key, _)| KEYS.contains(&key.as_str())) {
        match key.as_str() {
            // Of a file that was there the chunks are what they are.
            "talea_chunk_bytes" if chunk_bytes > 0 => hints.push((key.clone(), chunk_bytes.to_string())),
            "talea_wait" if !asks("talea_step") => {}
            _ => hints.push((key.clone(), value.clone())),
        }
    }
    hints
}

/// A new info object with these hints, for the program.
pub(crate) fn write(hints: &[(String, String)]) -> Result<MPI_Info, Failure> {
    let mpi = mpi()?;
    let mut info = MPI_INFO_NULL();
    // SAFETY: fills one handle.
    checked("MPI_Info_create", unsafe { (mpi.MPI_Info_create)(&raw mut info) })?;
    for (key, value) in hints {
        let (Ok(key), Ok(value)) = (CString::new(key.as_str()), CString::new(value.as_str())) else { continue };
        // SAFETY: NUL-terminated strings that MPI copies.
        checked("MPI_Info_set", unsafe { (mpi.MPI_Info_set)(info, key.as_ptr(), value.as_ptr()) })?;
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_key_of_ours_is_not_echoed_and_the_nearest_one_is_named() {
        let mistyped = [("talea_epohc", "close"), ("talea_chunk", "8192"), ("talea_wait", "5"), ("cb_node", "1")];
        let asked: Vec<_> = mistyped.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let echoed = in_use(&asked, 1 << 20);
        assert!(asked.iter().all(|(key, _)| !echoed.iter().any(|(name, _)| name == key)), "{echoed:?}");
        let text = |key: &str| unknown(key).unwrap_or_default();
        assert!(text("talea_epohc").contains("is talea_epoch meant?"), "{}", text("talea_epohc"));
        assert!(text("talea_steps").contains("is talea_step meant?"));
        assert!(text("talea_chunkbytes").contains("is talea_chunk_bytes meant?"));
        assert!(text("talea_zzzzzz").contains("there are talea_epoch, "));
        assert!(text("talea_").contains("there are talea_epoch, "));
        for known in ["talea_epoch", "talea_atomicity", "cb_nodes", "striping_unit"] {
            assert_eq!(unknown(known), None);
        }
        // Chunks are what the file has, not what was asked for.
        let echoed = in_use(&[("talea_chunk_bytes".to_owned(), "8192".to_owned())], 1 << 20);
        assert!(echoed.contains(&("talea_chunk_bytes".to_owned(), "1048576".to_owned())), "{echoed:?}");
    }

    #[test]
    fn hints_in_force_hold_the_facts_and_only_the_programs_hints_that_have_an_effect() {
        let asked = [
            ("cb_nodes", "4"),
            ("talea_class", "S2"),
            ("talea_atomicity", "false"),
            ("romio_visibility_immediate", "false"),
        ];
        let asked: Vec<_> = asked.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let hints = in_use(&asked, 1 << 20);
        let value = |key: &str| {
            let all: Vec<_> = hints.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).collect();
            (all.len(), all.first().copied().unwrap_or_default().to_owned())
        };
        assert_eq!(value("romio_visibility_immediate"), (1, "true".to_owned()));
        assert_eq!(value("talea_atomicity"), (1, "true".to_owned()));
        assert_eq!(value("talea_class"), (1, "S2".to_owned()));
        assert_eq!(value("striping_unit"), (1, "1048576".to_owned()));
        assert_eq!(value("cb_nodes").0, 0);
        assert_eq!(value("romio_cb_write"), (1, "automatic".to_owned()));
        let hints = in_use(&[("romio_cb_write".to_owned(), "disable".to_owned())], 0);
        assert!(hints.contains(&("romio_cb_write".to_owned(), "disable".to_owned())));
    }
}
