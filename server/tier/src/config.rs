//! Tiers as text: `ram:8G`, `pmem:/path:8G`, `nvme:/path:8G`.

use std::fmt;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::str::FromStr;

use talea_model::TargetId;

use crate::{Medium, NvmeMedium, PmemMedium, RamMedium, TierError};

/// The smallest share of a tier that a target can work with, in bytes.
pub const MIN_CAPACITY_BYTES: u64 = 1 << 20;

/// What a tier is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TierKind {
    /// Memory of the server.
    Ram,
    /// Files of a directory, mapped (a DAX file system, or tmpfs).
    Pmem(PathBuf),
    /// Files of a directory or a block device, read and written around the page cache.
    Nvme(PathBuf),
}

/// One tier of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierConfig {
    /// What it is made of.
    pub kind: TierKind,
    /// Bytes of it that one target may use.
    pub capacity_bytes: u64,
}

impl FromStr for TierConfig {
    type Err = TierError;

    fn from_str(text: &str) -> Result<Self, TierError> {
        let bad = |why| TierError::BadConfig { text: text.to_owned(), why };
        let (kind, rest) = text.split_once(':').ok_or_else(|| bad("there is no ':'"))?;
        let (path, size) = match kind {
            "ram" => (None, rest),
            "pmem" | "nvme" => {
                let (path, size) = rest.rsplit_once(':').ok_or_else(|| bad("the size is missing"))?;
                (Some(PathBuf::from(path)), size)
            }
            _ => return Err(bad("its kind is none of ram, pmem, nvme")),
        };
        if path.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(bad("the path is not absolute"));
        }
        let capacity_bytes = parse_size(size).ok_or_else(|| bad("the size is not a number with K, M, G or T"))?;
        if capacity_bytes < MIN_CAPACITY_BYTES {
            return Err(bad("the size is below 1M"));
        }
        let kind = match path {
            None => TierKind::Ram,
            Some(path) if kind == "pmem" => TierKind::Pmem(path),
            Some(path) => TierKind::Nvme(path),
        };
        Ok(Self { kind, capacity_bytes })
    }
}

impl fmt::Display for TierConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            TierKind::Ram => write!(f, "ram:{}", self.capacity_bytes),
            TierKind::Pmem(path) => write!(f, "pmem:{}:{}", path.display(), self.capacity_bytes),
            TierKind::Nvme(path) => write!(f, "nvme:{}:{}", path.display(), self.capacity_bytes),
        }
    }
}

/// Bytes of a size with an optional IEC suffix (`K`, `M`, `G`, `T`, each also with `iB`).
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Opens one target's share of a tier, making it if it is not there. Files are named after the target.
pub fn open_medium(config: &TierConfig, target: TargetId) -> Result<Box<dyn Medium>, TierError> {
    match &config.kind {
        TierKind::Ram => Ok(Box::new(RamMedium::new(config.capacity_bytes)?)),
        TierKind::Pmem(path) => {
            std::fs::create_dir_all(path).map_err(|source| TierError::Path { path: path.clone(), source })?;
            let file = path.join(format!("target-{target}"));
            Ok(Box::new(PmemMedium::open(&file, config.capacity_bytes)?))
        }
        TierKind::Nvme(path) => {
            let device = std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device());
            if !device {
                std::fs::create_dir_all(path).map_err(|source| TierError::Path { path: path.clone(), source })?;
            }
            let file = if device { path.clone() } else { path.join(format!("target-{target}")) };
            Ok(Box::new(NvmeMedium::open(&file, config.capacity_bytes)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_tiers_and_back() {
        let ram: TierConfig = "ram:8G".parse().unwrap();
        assert_eq!(ram, TierConfig { kind: TierKind::Ram, capacity_bytes: 8 << 30 });
        let pmem: TierConfig = "pmem:/dev/shm/a:b:512MiB".parse().unwrap();
        assert_eq!(pmem.kind, TierKind::Pmem("/dev/shm/a:b".into()));
        assert_eq!(pmem.to_string().parse::<TierConfig>().unwrap(), pmem);
        for bad in ["", "ram", "ram:", "ram:8X", "ram:1K", "pmem:/a", "pmem:a:8G", "disk:/a:8G", "ram:99999999999T"] {
            let error = bad.parse::<TierConfig>().unwrap_err();
            assert!(matches!(error, TierError::BadConfig { .. }), "{bad}");
        }
    }
}
