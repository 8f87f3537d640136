//! Incarnations of targets: the number that grows when a target comes back without some of its log.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::failure::Failure;

/// Incarnation of a target whose medium is at `directory` (`None`: memory). A fresh or damaged one gets a new number, above all
/// before it as long as the clock of a machine does not go back over a restart.
pub(crate) fn of(directory: Option<&Path>, target: u32, keep: bool, unix_us: u64) -> Result<u64, Failure> {
    let Some(directory) = directory else { return Ok(unix_us) };
    let path = directory.join(format!("target-{target}.incarnation"));
    let failed = |source| Failure::Read { path: path.clone(), source };
    let known = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse::<u64>().ok(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    if let (Some(known), true) = (known, keep) {
        return Ok(known);
    }
    let next = unix_us.max(known.map_or(0, |known| known + 1));
    let temporary = path.with_extension("new");
    let mut file = fs::File::create(&temporary).map_err(failed)?;
    file.write_all(next.to_string().as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&temporary, &path).map_err(failed)?;
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_when_something_was_lost_and_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = of(Some(dir.path()), 3, false, 1000).unwrap();
        assert_eq!(of(Some(dir.path()), 3, true, 2000).unwrap(), first);
        let second = of(Some(dir.path()), 3, false, 500).unwrap();
        assert!(second > first);
        assert_eq!(of(Some(dir.path()), 3, true, 2000).unwrap(), second);
        assert_eq!(of(None, 3, true, 7).unwrap(), 7);
    }
}
