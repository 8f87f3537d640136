//! Planted bugs: each breaks one rule of docs/design.md §4, and the checker must find it.

use std::str::FromStr;

use talea_vos::Plant as StorePlant;

/// A planted bug.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plant {
    /// None.
    #[default]
    None,
    /// Rule 2: a commit gets a stamp below snapshots that were served before it.
    LateStamp,
    /// Rule 7: a target takes a write of a transaction that it knows as closed.
    Zombie,
    /// Rule 6: a target serves by a table of transactions that lags behind its horizon.
    StaleTable,
    /// I1: pending versions are visible to snapshots.
    SplitCommit,
    /// I4: an update is acknowledged before it is flushed.
    SkipFlush,
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 5] =
        [Plant::LateStamp, Plant::Zombie, Plant::StaleTable, Plant::SplitCommit, Plant::SkipFlush];

    /// The store's part of it.
    pub(crate) fn store(self) -> StorePlant {
        match self {
            Plant::Zombie => StorePlant::KeepZombie,
            Plant::SplitCommit => StorePlant::IgnoreHorizonOnRead,
            Plant::SkipFlush => StorePlant::SkipFlush,
            Plant::None | Plant::LateStamp | Plant::StaleTable => StorePlant::None,
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Plant::None => "none",
            Plant::LateStamp => "late-stamp",
            Plant::Zombie => "zombie",
            Plant::StaleTable => "stale-table",
            Plant::SplitCommit => "split-commit",
            Plant::SkipFlush => "skip-flush",
        }
    }
}

impl FromStr for Plant {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let all = Plant::ALL.into_iter().chain([Plant::None]);
        let names = Plant::ALL.map(Plant::name).join(", ");
        all.into_iter().find(|plant| plant.name() == text).ok_or(format!("'{text}' is none of {names}"))
    }
}
