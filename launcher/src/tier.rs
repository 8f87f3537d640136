//! A tier's text as the user gives it: `ram`, `pmem:/path`, `nvme:/path`, each with or without a size for a target, and two of
//! them with a comma between: the first for the log and small values, the second for bulk.

use std::path::Path;

use talea_model::size::Iec;

/// One of the tiers of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part<'a> {
    kind: &'a str,
    path: Option<&'a str>,
    /// Size for a target, if the text has it.
    size: Option<&'a str>,
}

fn part(text: &str) -> Part<'_> {
    let Some((kind, rest)) = text.split_once(':') else { return Part { kind: text, path: None, size: None } };
    let (path, size) = match rest.rsplit_once(':') {
        Some((path, size)) if size.starts_with(|first: char| first.is_ascii_digit()) => (path, Some(size)),
        _ if rest.starts_with(|first: char| first.is_ascii_digit()) => ("", Some(rest)),
        _ => (rest, None),
    };
    Part { kind, path: (!path.is_empty()).then_some(path), size }
}

fn parts(tier: &str) -> Vec<Part<'_>> {
    let second = [",ram", ",pmem:", ",nvme:"].iter().filter_map(|word| tier.find(word)).min();
    match second {
        None => vec![part(tier)],
        Some(comma) => vec![part(&tier[..comma]), part(&tier[comma + 1..])],
    }
}

/// The paths of a tier's text.
pub(crate) fn paths(tier: &str) -> Vec<&Path> {
    parts(tier).into_iter().filter_map(|part| part.path).map(Path::new).filter(|path| path.is_absolute()).collect()
}

/// What a system has of a tier, for people: of one that names its sizes, which are those of a target, those.
pub(crate) fn told(tier: &str, capacity_bytes: u64) -> String {
    match parts(tier).iter().any(|part| part.size.is_some()) {
        true => format!("{tier} a target"),
        false => format!("{} of {tier}", Iec(capacity_bytes)),
    }
}

/// Whether what a server stores outlives its process: the log lies on the first of its tiers.
pub(crate) fn is_durable(tier: &str) -> bool {
    parts(tier).first().is_some_and(|part| part.path.is_some())
}

/// Whether a text names tiers at all.
pub(crate) fn check(tier: &str) -> Result<(), String> {
    let wrong = |why: &str| {
        format!(
            "'{tier}' is not a tier ({why}): write ram, pmem:/path, nvme:/path or pmem:/path,nvme:/path (docs/site.md)"
        )
    };
    for part in parts(tier) {
        match (part.kind, part.path) {
            ("ram", None) => {}
            ("ram", Some(_)) => return Err(wrong("ram has no path")),
            ("pmem" | "nvme", Some(path)) if path.starts_with('/') => {}
            ("pmem" | "nvme", Some(_)) => return Err(wrong("its path does not begin with /")),
            ("pmem" | "nvme", None) => return Err(wrong("its path is missing")),
            (kind, _) => return Err(wrong(&format!("there is no kind '{kind}'"))),
        }
    }
    Ok(())
}

/// The text for one target: its files in `directory` below each path, and its share of the capacity. Of two tiers the first gets
/// an eighth and the second the rest; a tier that names its size keeps it.
pub(crate) fn of_target(tier: &str, share_bytes: u64, directory: Option<&str>) -> String {
    let parts = parts(tier);
    let shares =
        if parts.len() == 1 { vec![share_bytes] } else { vec![share_bytes / 8, share_bytes - share_bytes / 8] };
    let text = |(part, share): (&Part<'_>, u64)| {
        let size = part.size.map_or_else(|| share.to_string(), str::to_owned);
        match (part.path, directory) {
            (None, _) => format!("{}:{size}", part.kind),
            (Some(path), None) => format!("{}:{path}:{size}", part.kind),
            (Some(path), Some(inner)) => format!("{}:{}/{inner}:{size}", part.kind, path.trim_end_matches('/')),
        }
    };
    parts.iter().zip(shares).map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_s_share_is_parted_between_its_tiers() {
        let of = |tier, share| of_target(tier, share, None);
        assert_eq!(of("ram", 800), "ram:800");
        assert_eq!(of("pmem:/dev/shm/a:b", 800), "pmem:/dev/shm/a:b:800");
        assert_eq!(of("pmem:/a,nvme:/b", 800), "pmem:/a:100,nvme:/b:700");
        assert_eq!(of("pmem:/a:4G,nvme:/b", 800), "pmem:/a:4G,nvme:/b:700");
        assert_eq!(of("ram,nvme:/b:9G", 800), "ram:100,nvme:/b:9G");
        assert_eq!(of("ram:9G", 800), "ram:9G");
        assert_eq!(of_target("ram,pmem:/b/", 800, Some("mine")), "ram:100,pmem:/b/mine:700");
    }

    #[test]
    fn a_tier_with_a_size_of_its_own_is_told_with_that() {
        assert_eq!(told("pmem:/a", 8 << 30), "8.00 GiB of pmem:/a");
        assert_eq!(told("pmem:/a:256M", 8 << 30), "pmem:/a:256M a target");
    }

    #[test]
    fn what_is_no_tier_is_told() {
        for good in ["ram", "ram:8G", "pmem:/a", "nvme:/b:4G", "pmem:/a:4G,nvme:/b", "ram,nvme:/b"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("disk:/a", "no kind 'disk'"),
            ("pmem", "missing"),
            ("nvme:4G", "missing"),
            ("pmem:a", "begin"),
            ("", "kind ''"),
        ] {
            assert!(check(bad).is_err_and(|text| text.contains(why)), "{bad}: {:?}", check(bad));
        }
    }

    #[test]
    fn paths_are_found() {
        assert!(paths("ram").is_empty() && paths("ram:8G").is_empty());
        assert!(is_durable("pmem:/a,nvme:/b") && !is_durable("ram,nvme:/b") && !is_durable("ram:8G"));
        assert_eq!(paths("pmem:/a:4G,nvme:/b"), [Path::new("/a"), Path::new("/b")]);
    }
}
