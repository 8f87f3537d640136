//! `SRC:DST`, taken apart.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Access, access};

use crate::failure::Failure;

/// Into a container, or out of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    /// From a file system into a container.
    In,
    /// From a container to a file system.
    Out,
}

/// What to copy, and to where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) direction: Direction,
    pub(crate) source: String,
    pub(crate) destination: String,
}

/// A local side and one in Talea.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct In(pub(crate) Order);

/// The other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Out(pub(crate) Order);

/// An order for each step: its destination has the step's number in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EachStep(pub(crate) Order);

/// Stands for a step's number.
pub(crate) const STEP: &str = "{step}";

impl Order {
    pub(crate) fn bring_in(source: &str, destination: &str) -> Self {
        Self { direction: Direction::In, source: source.to_owned(), destination: whole(destination) }
    }

    pub(crate) fn take_out(source: &str, destination: &str) -> Self {
        Self { direction: Direction::Out, source: whole(source), destination: destination.to_owned() }
    }

    /// Looks at the local side before anything is started for it: what comes in is there, and what goes out has a directory that it can be
    /// written to, or one above that can be made in.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.direction == Direction::In {
            return match std::fs::metadata(&self.source) {
                Ok(_) => Ok(()),
                Err(error) => Err(Failure::io("looking for what is to be staged in", &self.source)(error)),
            };
        }
        let destination = std::path::absolute(&self.destination).unwrap_or_else(|_| PathBuf::from(&self.destination));
        let above = if destination.is_dir() { Some(&*destination) } else { destination.parent() };
        let Some(there) = above.and_then(|above| above.ancestors().find(|path| path.exists())) else { return Ok(()) };
        let why = match access(there, Access::WRITE_OK | Access::EXEC_OK) {
            _ if !there.is_dir() => "is no directory".to_owned(),
            Ok(()) => return Ok(()),
            Err(error) => format!("cannot be written to ({error})"),
        };
        Err(Failure::Usage(format!("nothing can be staged out to {}: {} {why}", self.destination, there.display())))
    }

    /// A file goes into a directory that exists, under its own name; the destination of a `tree` is that tree, whether it exists
    /// or not, so that a second copy finds what the first one made. With a slash at its end it is a directory to go into.
    pub(crate) fn destination_of_out(&self, tree: bool) -> PathBuf {
        let path = PathBuf::from(&self.destination);
        let own = self.source.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let into = self.destination.ends_with('/') || (path.is_dir() && !tree);
        if into && !own.is_empty() { path.join(own) } else { path }
    }
}

/// Looks whether a file can be written before anything is started that it is to tell of.
pub(crate) fn can_be_written(path: &Path) -> Result<(), Failure> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let why = match access(directory, Access::WRITE_OK | Access::EXEC_OK) {
        _ if path.is_dir() => "it is a directory".to_owned(),
        Ok(()) => return Ok(()),
        Err(error) => format!("{}: {error}", directory.display()),
    };
    Err(Failure::Usage(format!("{} cannot be written: {why}", path.display())))
}

/// A path in Talea may be given short: `run/heat.h5` is `/talea/run/heat.h5`.
fn whole(path: &str) -> String {
    if path.starts_with("/talea/") || path.starts_with("talea:") {
        return path.to_owned();
    }
    format!("/talea/{}", path.trim_start_matches('/'))
}

impl FromStr for In {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        // The local side may hold a colon, so the last place that can begin a path in Talea separates.
        let at = text.rfind(":/talea/").or_else(|| text.rfind(":talea:")).or_else(|| text.rfind(':'));
        let (source, destination) = at.map(|at| (&text[..at], &text[at + 1..])).ok_or_else(|| wrong(text))?;
        if source.is_empty() || destination.is_empty() {
            return Err(wrong(text));
        }
        Ok(Self(Order::bring_in(source, destination)))
    }
}

impl FromStr for Out {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let from = if text.starts_with("talea:") { "talea:".len() } else { 0 };
        let at = text[from..].find(':').map(|at| at + from).ok_or_else(|| wrong(text))?;
        let (source, destination) = (&text[..at], &text[at + 1..]);
        if source.len() == from || destination.is_empty() {
            return Err(wrong(text));
        }
        Ok(Self(Order::take_out(source, destination)))
    }
}

impl FromStr for EachStep {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let Out(order) = text.parse()?;
        if !order.destination.contains(STEP) {
            let text = format!(
                "every step would be copied over the one before: write {STEP} where its number belongs, such as {}/{STEP}",
                order.destination.trim_end_matches('/')
            );
            return Err(text);
        }
        Ok(Self(order))
    }
}

fn wrong(text: &str) -> String {
    format!("'{text}' is not SRC:DST, such as /scratch/me/in:/talea/run/in")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_copy_goes_where_the_first_one_went() {
        let there = tempfile::tempdir().unwrap();
        let text = there.path().to_str().unwrap();
        let to = |destination: &str, tree| Order::take_out("run/in", destination).destination_of_out(tree);
        assert_eq!(to(text, false), there.path().join("in"));
        assert_eq!(to(text, true), there.path());
        for tree in [false, true] {
            assert_eq!(to(&format!("{text}/"), tree), there.path().join("in"));
            assert_eq!(to(&format!("{text}/new"), tree), there.path().join("new"));
        }
    }

    #[test]
    fn the_local_side_is_looked_at_first() {
        let there = tempfile::tempdir().unwrap();
        let path = |name: &str| there.path().join(name).display().to_string();
        std::fs::write(path("file"), b"x").unwrap();
        Order::bring_in(&path("file"), "run/x").check().unwrap();
        let refused = Order::bring_in(&path("nothing"), "run/x").check().unwrap_err().to_string();
        assert!(refused.contains(&path("nothing")), "{refused}");
        for good in ["file", "new", "new/and/more/", "."] {
            Order::take_out("run/x", &path(good)).check().unwrap();
        }
        let refused = Order::take_out("run/x", &path("file/below")).check().unwrap_err().to_string();
        assert!(refused.contains("is no directory"), "{refused}");
    }

    #[test]
    fn both_sides_are_found() {
        let order = |text: &str| text.parse::<In>().map(|order| (order.0.source, order.0.destination));
        assert_eq!(order("/a/b:/talea/run/x").unwrap(), ("/a/b".into(), "/talea/run/x".into()));
        assert_eq!(order("/a:b:/talea/run").unwrap(), ("/a:b".into(), "/talea/run".into()));
        assert_eq!(order("in.h5:run/in.h5").unwrap(), ("in.h5".into(), "/talea/run/in.h5".into()));
        assert_eq!(order("/a:talea:run/x").unwrap().1, "talea:run/x");
        assert!(order("/a").is_err() && order(":/talea/run").is_err() && order("/a:").is_err());
        let order = |text: &str| text.parse::<Out>().map(|order| (order.0.source, order.0.destination));
        assert_eq!(order("/talea/run/x:/a:b").unwrap(), ("/talea/run/x".into(), "/a:b".into()));
        assert_eq!(order("talea:run/x:/a").unwrap(), ("talea:run/x".into(), "/a".into()));
        assert_eq!(order("run:/a").unwrap().0, "/talea/run");
        let drain = |text: &str| text.parse::<EachStep>().map(|order| order.0.destination);
        assert_eq!(drain("/talea/run/x:/a/x-{step}").unwrap(), "/a/x-{step}");
        assert!(drain("/talea/run/x:/a/").unwrap_err().contains("such as /a/{step}"));
        assert!(order("talea::/a").is_err() && order("run:").is_err());
    }
}
