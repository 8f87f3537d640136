//! The part of the command line that is about a container's past: what differs, going back, named snapshots.

use clap::{Args, Subcommand};
use talea_client::SnapshotAt;
use talea_model::Step;

/// A state of a container, as people name one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) SnapshotAt);

/// The state of the present.
const LATEST: &str = "latest";

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let inner = text.strip_prefix("steps/").unwrap_or(text);
        let is_number = !inner.is_empty() && inner.bytes().all(|c| c.is_ascii_digit());
        if is_number {
            let step = inner.parse().map_err(|_| format!("{inner} is no step's number"))?;
            return Ok(Self(SnapshotAt::Step(Step(step))));
        }
        if let Some(name) = text.strip_prefix("snapshots/") {
            return Ok(Self(SnapshotAt::Named(name.to_owned())));
        }
        match text {
            LATEST => Ok(Self(SnapshotAt::Latest)),
            "" => Err("name a step, a snapshot, or `latest`".to_owned()),
            name => Ok(Self(SnapshotAt::Named(name.to_owned()))),
        }
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            SnapshotAt::Latest => f.write_str("the present"),
            SnapshotAt::Step(step) => write!(f, "step {step}"),
            SnapshotAt::Named(name) => write!(f, "snapshot {name}"),
        }
    }
}

/// Checks a name for a new snapshot: one that would be taken for something else is of no use.
fn new_name(text: &str) -> Result<String, String> {
    match text.parse::<Moment>()?.0 {
        SnapshotAt::Named(name) if name == text => Ok(name),
        _ => Err(format!("'{text}' would be taken for a step or the present: take another name")),
    }
}

#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// The container
    pub(crate) container: String,
    /// The earlier state: a step's number, a snapshot's name (`snapshots/NAME` if it looks like a number), or `latest`
    #[arg(value_name = "A")]
    pub(crate) from: Moment,
    /// The later one
    #[arg(value_name = "B", default_value = LATEST)]
    pub(crate) to: Moment,
    /// Each place that was written, too
    #[arg(long, short)]
    pub(crate) long: bool,
    /// As JSON, with each place that was written
    #[arg(long)]
    pub(crate) json: bool,
    /// Which system [default: $TALEA_SYSTEM, or the only one that runs]
    #[arg(long)]
    pub(crate) system: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct RollbackArgs {
    /// The container
    pub(crate) container: String,
    /// Where to: a step's number, or a snapshot's name (`snapshots/NAME` if it looks like a number)
    pub(crate) to: Moment,
    /// Do not ask before
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Attributes of the new step, as followers get them
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) attributes: String,
    /// What came of it as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Which system [default: $TALEA_SYSTEM, or the only one that runs]
    #[arg(long)]
    pub(crate) system: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    pub(crate) action: SnapshotAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotAction {
    /// Name a state of a container. It stays readable at `/talea/CONTAINER/.talea/snapshots/NAME`, whatever becomes of its step.
    Create {
        /// The container
        container: String,
        /// The new name
        #[arg(value_parser = new_name)]
        name: String,
        /// The state of this step, which must still be kept [default: all that is committed now]
        #[arg(long, value_name = "N")]
        step: Option<u64>,
        /// Which system [default: $TALEA_SYSTEM, or the only one that runs]
        #[arg(long)]
        system: Option<String>,
    },
    /// List named snapshots: of one container, or of all.
    #[command(visible_alias = "ls")]
    List {
        /// The container [default: all]
        container: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Which system [default: $TALEA_SYSTEM, or the only one that runs]
        #[arg(long)]
        system: Option<String>,
    },
    /// Give named snapshots up. What only they show goes, and its space comes back.
    Rm {
        /// The container
        container: String,
        /// The names
        #[arg(required = true)]
        names: Vec<String>,
        /// Which system [default: $TALEA_SYSTEM, or the only one that runs]
        #[arg(long)]
        system: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_named_as_in_paths() {
        let of = |text: &str| text.parse::<Moment>().map(|moment| moment.0);
        assert_eq!(of("12"), Ok(SnapshotAt::Step(Step(12))));
        assert_eq!(of("steps/12"), of("12"));
        assert_eq!(of("latest"), Ok(SnapshotAt::Latest));
        for text in ["before", "snapshots/before"] {
            assert_eq!(of(text), Ok(SnapshotAt::Named("before".to_owned())));
        }
        assert_eq!(of("snapshots/12"), Ok(SnapshotAt::Named("12".to_owned())));
        assert!(of("").is_err() && of("99999999999999999999999").is_err());
        assert_eq!(new_name("before"), Ok("before".to_owned()));
        for text in ["12", "latest", "snapshots/x", "steps/3", ""] {
            assert!(new_name(text).is_err(), "{text}");
        }
    }
}
