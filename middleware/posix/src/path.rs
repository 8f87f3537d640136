//! Paths: `/talea/CONTAINER/PATH`, the alias `talea:CONTAINER/PATH`, and views of steps and named snapshots
//! (docs/design.md §7). Pure text; must never ask a server.

use talea_abi::Code;
use talea_model::limit::MAX_CONTAINER_NAME_BYTES;

use crate::Fault;

/// Bytes of one name.
pub const MAX_NAME_BYTES: usize = 255;
/// Bytes of a path.
pub const MAX_PATH_BYTES: usize = 4096;
/// First component that leads to views of the past; no file can be called so in a container's root.
pub const VIEWS: &[u8] = b".talea";

/// Which state of the container a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathView {
    /// The present.
    Live,
    /// A committed step.
    Step(u64),
    /// A named snapshot.
    Snapshot(String),
}

/// A path, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaleaPath {
    /// Container's name.
    pub container: String,
    /// State that the path names.
    pub view: PathView,
    /// Names from the container's root on; empty for the root itself.
    pub names: Vec<Vec<u8>>,
}

impl TaleaPath {
    /// Whether a path is one of ours at all: anything else belongs to the local file system.
    pub fn is_ours(path: &[u8]) -> bool {
        path.starts_with(b"talea:")
            || path.strip_prefix(b"/talea").is_some_and(|rest| rest.first().is_none_or(|c| *c == b'/'))
    }

    /// Takes a path apart. `.` and repeated slashes vanish; `..` goes up by name, never above the container.
    pub fn parse(path: &[u8]) -> Result<Self, Fault> {
        let shown = path.escape_ascii();
        let bad = |why: &str| Fault::new(Code::Path, format!("'{shown}' {why}: use /talea/CONTAINER/PATH"));
        if path.len() > MAX_PATH_BYTES {
            return Err(Fault::new(
                Code::TooLong,
                format!(
                    "a path of {} bytes is over the limit of {MAX_PATH_BYTES} bytes: use a shorter one",
                    path.len()
                ),
            ));
        }
        let inner = path.strip_prefix(b"talea:").unwrap_or(path);
        let inner = match inner.strip_prefix(b"/talea") {
            Some(rest) if rest.is_empty() || rest[0] == b'/' => rest,
            _ if path.starts_with(b"talea:") => inner,
            _ => return Err(bad("is not a path of Talea")),
        };
        let mut parts = inner.split(|c| *c == b'/').filter(|part| !part.is_empty() && *part != b".");
        let container = parts.next().ok_or_else(|| bad("names no container"))?;
        let container = container_name(container).map_err(|fault| fault.at(&shown))?;
        let mut names: Vec<Vec<u8>> = Vec::new();
        for part in parts {
            if part == b".." {
                names.pop().ok_or_else(|| bad("leads out of its container"))?;
                continue;
            }
            check_name(part).map_err(|fault| fault.at(&shown))?;
            names.push(part.to_vec());
        }
        let (view, names) = split_view(names)
            .ok_or_else(|| bad("names no view (there are .talea/steps/NUMBER and .talea/snapshots/NAME)"))?;
        Ok(Self { container, view, names })
    }
}

/// Checks a container's name.
fn container_name(name: &[u8]) -> Result<String, Fault> {
    if name.len() > MAX_CONTAINER_NAME_BYTES {
        return Err(Fault::new(
            Code::TooLong,
            format!("a container's name has at most {MAX_CONTAINER_NAME_BYTES} bytes, this one has {}", name.len()),
        ));
    }
    match std::str::from_utf8(name) {
        Ok(text) if text != ".." && text.as_bytes() != VIEWS && !text.chars().any(char::is_control) => {
            Ok(text.to_owned())
        }
        _ => Err(Fault::new(Code::Path, "this cannot be a container's name: use letters, digits, '-', '_' and '.'")),
    }
}

/// Checks one name of a directory.
pub fn check_name(name: &[u8]) -> Result<(), Fault> {
    match name {
        b"" | b"." | b".." => Err(Fault::new(Code::Path, "empty name, '.' and '..' cannot be created")),
        _ if name.len() > MAX_NAME_BYTES => Err(Fault::new(
            Code::TooLong,
            format!("a name of {} bytes is over the limit of {MAX_NAME_BYTES} bytes: use a shorter one", name.len()),
        )),
        _ if name.contains(&0) || name.contains(&b'/') => {
            Err(Fault::new(Code::Path, "a name holds neither '/' nor a NUL byte"))
        }
        _ => Ok(()),
    }
}

/// Splits a view's components off; `None` if they are not complete.
fn split_view(mut names: Vec<Vec<u8>>) -> Option<(PathView, Vec<Vec<u8>>)> {
    if names.first().is_none_or(|first| first != VIEWS) {
        return Some((PathView::Live, names));
    }
    if names.len() < 3 {
        return None;
    }
    let rest = names.split_off(3);
    let text = String::from_utf8(names[2].clone()).ok()?;
    let view = match &names[1][..] {
        b"steps" if text.bytes().all(|c| c.is_ascii_digit()) => PathView::Step(text.parse().ok()?),
        b"snapshots" => PathView::Snapshot(text),
        _ => return None,
    };
    Some((view, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<TaleaPath, Code> {
        TaleaPath::parse(text.as_bytes()).map_err(|fault| fault.code)
    }

    fn names(path: &TaleaPath) -> Vec<String> {
        path.names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn takes_paths_apart() {
        let path = parse("/talea/run/a//./b/../heat.h5").unwrap();
        assert_eq!((path.container.as_str(), &path.view), ("run", &PathView::Live));
        assert_eq!(names(&path), ["a", "heat.h5"]);
        assert_eq!(parse("talea:run/x"), parse("/talea/run/x"));
        assert_eq!(parse("talea:/talea/run/x"), parse("/talea/run/x"));
        let step = parse("/talea/run/.talea/steps/12/d/heat.h5").unwrap();
        assert_eq!((&step.view, names(&step)), (&PathView::Step(12), vec!["d".into(), "heat.h5".into()]));
        let named = parse("/talea/run/.talea/snapshots/before").unwrap();
        assert_eq!((named.view, named.names.len()), (PathView::Snapshot("before".into()), 0));
        assert!(parse("/talea/run").unwrap().names.is_empty());
    }

    #[test]
    fn refuses_what_names_nothing() {
        for text in
            ["/talea", "/talea/", "talea:", "/tmp/x", "/taleax/run/x", "", "/talea/run/..", "/talea/run/a/../../b"]
        {
            assert_eq!(parse(text), Err(Code::Path), "{text}");
        }
        for text in
            ["/talea/run/.talea", "/talea/run/.talea/steps", "/talea/run/.talea/steps/x/f", "/talea/run/.talea/y/1/f"]
        {
            assert_eq!(parse(text), Err(Code::Path), "{text}");
        }
        assert_eq!(parse("/talea/../x"), Err(Code::Path));
        assert_eq!(parse(&format!("/talea/run/{}", "x".repeat(256))), Err(Code::TooLong));
        assert_eq!(parse(&format!("/talea/{}/f", "x".repeat(128))), Err(Code::TooLong));
        assert_eq!(parse(&format!("/talea/run/{}", "x/".repeat(3000))), Err(Code::TooLong));
        assert!(TaleaPath::is_ours(b"/talea/x") && TaleaPath::is_ours(b"talea:x") && !TaleaPath::is_ours(b"/taleax"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..64)) {
            let path = [b"/talea/c/".as_slice(), &bytes].concat();
            if let Ok(parsed) = TaleaPath::parse(&path) {
                for name in &parsed.names {
                    prop_assert!(!name.is_empty() && name != b"." && name != b".." && name.len() <= MAX_NAME_BYTES);
                }
            }
        }
    }
}
