//! Tiers as text: `ram:8G`, `pmem:/path:8G`, `nvme:/path:8G`, and two of them, joined by a comma.

use std::fmt;
use std::fs::FileType;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use talea_model::TargetId;

use crate::{Media, Medium, NvmeMedium, PmemMedium, RamMedium, TierError};

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

/// The tiers of a target: the log and small values on the first, bulk on the second if there is one. As text the two are joined by
/// a comma: `pmem:/mnt/pmem0/talea:8G,nvme:/scratch/talea:256G`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TiersConfig {
    /// Holds the log and small values; everything if there is no other.
    pub log: TierConfig,
    /// Holds values above the threshold.
    pub bulk: Option<TierConfig>,
}

impl TiersConfig {
    /// Directory in which what must outlive the process can lie beside the log; `None` if the log is in memory.
    pub fn directory(&self) -> Option<&Path> {
        match &self.log.kind {
            TierKind::Ram => None,
            TierKind::Pmem(path) | TierKind::Nvme(path) => Some(path),
        }
    }

    /// Whether a thread that flushes or reads waits for a device.
    pub fn waits(&self) -> bool {
        let tiers = std::iter::once(&self.log).chain(&self.bulk);
        tiers.into_iter().any(|tier| matches!(tier.kind, TierKind::Nvme(_)))
    }
}

impl FromStr for TiersConfig {
    type Err = TierError;

    fn from_str(text: &str) -> Result<Self, TierError> {
        // A path may hold a comma: only one before the name of a kind parts two tiers.
        let parts = [",ram:", ",pmem:", ",nvme:"].iter().filter_map(|word| text.find(word)).min();
        let Some(comma) = parts else { return Ok(Self { log: text.parse()?, bulk: None }) };
        let config = Self { log: text[..comma].parse()?, bulk: Some(text[comma + 1..].parse()?) };
        if config.log.kind != TierKind::Ram && config.bulk.as_ref().is_some_and(|bulk| bulk.kind == TierKind::Ram) {
            let why = "bulk in memory would not outlive a log that does";
            return Err(TierError::BadConfig { text: text.to_owned(), why });
        }
        Ok(config)
    }
}

impl fmt::Display for TiersConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bulk {
            None => self.log.fmt(f),
            Some(bulk) => write!(f, "{},{bulk}", self.log),
        }
    }
}

/// Opens one target's share of its tiers, making them if they are not there. Files are named after the target.
pub fn open_media(config: &TiersConfig, target: TargetId) -> Result<Media, TierError> {
    if config.bulk.is_some()
        && let TierKind::Pmem(path) | TierKind::Nvme(path) = &config.log.kind
        && is_device(path)
    {
        return Err(TierError::Unsupported(
            "the log on a block device: name a directory for it, and the device for bulk",
        ));
    }
    let log = open_medium(&config.log, target)?;
    match &config.bulk {
        None => Ok(Media::one(log)),
        Some(bulk) => Ok(Media::two(log, open_named(bulk, &format!("target-{target}.bulk"))?)),
    }
}

/// Opens one target's share of a tier, making it if it is not there. Files are named after the target.
pub fn open_medium(config: &TierConfig, target: TargetId) -> Result<Box<dyn Medium>, TierError> {
    open_named(config, &format!("target-{target}"))
}

fn is_device(path: &Path) -> bool {
    let is_device = |kind: FileType| kind.is_block_device() || kind.is_char_device();
    std::fs::metadata(path).is_ok_and(|meta| is_device(meta.file_type()))
}

fn open_named(config: &TierConfig, name: &str) -> Result<Box<dyn Medium>, TierError> {
    let file_in = |path: &Path| {
        let made = std::fs::create_dir_all(path);
        made.map(|()| path.join(name)).map_err(|source| TierError::Path { path: path.to_owned(), source })
    };
    match &config.kind {
        TierKind::Ram => Ok(Box::new(RamMedium::new(config.capacity_bytes)?)),
        TierKind::Pmem(path) => Ok(Box::new(PmemMedium::open(&file_in(path)?, config.capacity_bytes)?)),
        TierKind::Nvme(path) => {
            let file = if is_device(path) { path.clone() } else { file_in(path)? };
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

    #[test]
    fn two_tiers_are_joined_by_a_comma() {
        let two: TiersConfig = "pmem:/dev/shm/a,b:1G,nvme:/scratch:8G".parse().unwrap();
        assert_eq!(two.log.kind, TierKind::Pmem("/dev/shm/a,b".into()));
        assert_eq!(two.bulk.as_ref().unwrap().capacity_bytes, 8 << 30);
        assert_eq!(
            (two.to_string().parse::<TiersConfig>().unwrap(), two.directory().unwrap()),
            (two.clone(), Path::new("/dev/shm/a,b"))
        );
        assert_eq!("ram:1G".parse::<TiersConfig>().unwrap().directory(), None);
        for bad in ["pmem:/a:1G,ram:1G", "ram:1G,nvme:/a", "ram:1G,disk:/a:1G"] {
            assert!(matches!(bad.parse::<TiersConfig>(), Err(TierError::BadConfig { .. })), "{bad}");
        }
    }

    #[test]
    fn both_tiers_of_a_target_may_share_a_directory() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().display();
        let config: TiersConfig = format!("pmem:{path}:1M,nvme:{path}:2M").parse().unwrap();
        let media = open_media(&config, TargetId(3)).unwrap();
        assert_eq!(media.total_bytes(), 3 << 20);
        assert!(dir.path().join("target-3").exists() && dir.path().join("target-3.bulk").exists());
    }
}
