//! Hints: what the program asks for in an info object, and what is in force.
//!
//! Owns the reading and writing of info objects. Must never echo a hint that has no effect.

use std::ffi::{CString, c_char, c_int};

use crate::abi::*;
use crate::error::{Failure, checked, mpi};

/// Hints of the program that begin like this go to libtalea and come back from MPI_File_get_info.
const PREFIX: &str = "talea_";

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
    let ours = asked.iter().filter(|(key, _)| key.starts_with(PREFIX) && !FACTS.iter().any(|(fact, _)| fact == key));
    hints.extend(ours.cloned());
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
