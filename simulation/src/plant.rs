//! Planted bugs: each breaks one rule of docs/design.md §4, and the checker must find it. They lie in the store's options, which
//! no configuration reaches, and in the simulation's own seams.

use std::str::FromStr;

use talea_engine::group::Plant as GroupPlant;
use talea_vos::Plant as StorePlant;

/// A planted bug.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plant {
    /// None.
    #[default]
    None,
    /// Rule 1: servers do not hear what their askers' clocks say.
    NoClock,
    /// Rule 2: a commit gets a stamp below snapshots that were served before it.
    LateStamp,
    /// Rule 3: a join is acknowledged and not noted.
    NoJoin,
    /// Rule 3: a server that comes back has forgotten who writes in what, and does not say so.
    ForgetJoins,
    /// Rule 4, I4: an update is acknowledged before it is flushed.
    SkipFlush,
    /// Rule 5: some targets take a commit for an abort.
    HalfCommit,
    /// Rule 6: a target serves by a table of transactions that lags behind its horizon.
    StaleTable,
    /// Rule 6, I1: pending versions are visible to snapshots.
    SplitCommit,
    /// Rule 7: a target takes a write of a transaction that it knows as closed.
    Zombie,
    /// Rule 7, I1: a server that passes the log on leaves commits out.
    SkipEntry,
    /// Rule 8: who meets a pending version does not go to the log's end.
    NoCatchUp,
    /// Rule 8: a server that passes the log on makes an end up when it is asked for the log's.
    EarlyEnd,
    /// Rule 9: a member serves snapshots without a mark.
    Unmarked,
    /// Rule 9: an update is acknowledged when the leader holds it.
    EarlyDone,
    /// Rule 9: a new leader begins with what it holds itself.
    NoCopy,
    /// Rule 9: a new leader stamps by its own clock alone.
    LowStamp,
    /// Rule 9: members take updates from whoever has led.
    OldLeader,
    /// Rule 9: marks do not wait for updates of closed transactions.
    EarlyPosition,
    /// Rule 9: marks do not wait for stamped updates.
    EarlyStamp,
    /// Rule 9: whoever is there counts as complete.
    Incomplete,
    /// Rules 7 and 9: a member refuses its leader's updates of transactions that it knows as closed.
    OwnFate,
    /// Rule 9: whoever begins to catch up counts as complete.
    EarlyComplete,
    /// Rules 9 and 14: a session's updates of all groups are remembered together.
    SharedSessions,
    /// Rule 10: a target that lost its log does not say so.
    SilentLoss,
    /// Rule 11: a server's targets serve on when its lease is over.
    EndlessLease,
    /// Rule 11: a server that passes the log on confirms the heartbeats of others itself.
    OwnWord,
    /// Rule 12: a server does not notice that its clients die.
    Deaf,
    /// Rule 13: aggregation is not told what is kept.
    NothingKept,
    /// Rule 14: targets do not remember what they have done.
    ForgetSequences,
    /// Rule 14: the log does not remember what it has done.
    Twice,
    /// Rule 14: what a session did before it was taken up again is not remembered.
    ResumeTwice,
    /// Rule 15: what a transaction has read counts as unchanged.
    BlindReads,
    /// Rule 15: open transactions that overlap what was read are not named.
    Nameless,
    /// Rule 16: conditions are not looked at.
    Unconditional,
    /// Rule 17: a subscriber is not given a step.
    SkipStep,
    /// The short way: a board does not show that something was written.
    StuckBoard,
    /// The short way: what is leased is used again at once.
    ForgetLeases,
    /// The short way: a client does not look at the clock after it has copied.
    BlindCopy,
}

const NAMES: [(Plant, &str); 39] = [
    (Plant::None, "none"),
    (Plant::NoClock, "no-clock"),
    (Plant::LateStamp, "late-stamp"),
    (Plant::NoJoin, "no-join"),
    (Plant::ForgetJoins, "forget-joins"),
    (Plant::SkipFlush, "skip-flush"),
    (Plant::HalfCommit, "half-commit"),
    (Plant::StaleTable, "stale-table"),
    (Plant::SplitCommit, "split-commit"),
    (Plant::Zombie, "zombie"),
    (Plant::SkipEntry, "skip-entry"),
    (Plant::NoCatchUp, "no-catch-up"),
    (Plant::EarlyEnd, "early-end"),
    (Plant::Unmarked, "unmarked"),
    (Plant::EarlyDone, "early-done"),
    (Plant::NoCopy, "no-copy"),
    (Plant::LowStamp, "low-stamp"),
    (Plant::OldLeader, "old-leader"),
    (Plant::EarlyPosition, "early-position"),
    (Plant::EarlyStamp, "early-stamp"),
    (Plant::Incomplete, "incomplete"),
    (Plant::OwnFate, "own-fate"),
    (Plant::EarlyComplete, "early-complete"),
    (Plant::SharedSessions, "shared-sessions"),
    (Plant::SilentLoss, "silent-loss"),
    (Plant::EndlessLease, "endless-lease"),
    (Plant::OwnWord, "own-word"),
    (Plant::Deaf, "deaf"),
    (Plant::NothingKept, "nothing-kept"),
    (Plant::ForgetSequences, "forget-sequences"),
    (Plant::Twice, "twice"),
    (Plant::ResumeTwice, "resume-twice"),
    (Plant::BlindReads, "blind-reads"),
    (Plant::Nameless, "nameless"),
    (Plant::Unconditional, "unconditional"),
    (Plant::SkipStep, "skip-step"),
    (Plant::StuckBoard, "stuck-board"),
    (Plant::ForgetLeases, "forget-leases"),
    (Plant::BlindCopy, "blind-copy"),
];

impl Plant {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Plant> {
        NAMES.into_iter().map(|(plant, _)| plant).filter(|plant| *plant != Plant::None)
    }

    /// The store's part of it.
    pub(crate) fn store(self) -> StorePlant {
        match self {
            Plant::Zombie => StorePlant::KeepZombie,
            Plant::SplitCommit => StorePlant::IgnoreHorizonOnRead,
            Plant::SkipFlush => StorePlant::SkipFlush,
            Plant::ForgetSequences => StorePlant::ForgetSequences,
            Plant::BlindReads => StorePlant::BlindReads,
            Plant::Nameless => StorePlant::Nameless,
            Plant::Unconditional => StorePlant::Unconditional,
            Plant::ForgetLeases => StorePlant::ForgetLeases,
            _ => StorePlant::None,
        }
    }

    /// The part of it that redundancy groups have: it shows in their own world ([`crate::groups`]).
    pub fn group(self) -> GroupPlant {
        match self {
            Plant::Unmarked => GroupPlant::Unmarked,
            Plant::EarlyDone => GroupPlant::EarlyDone,
            Plant::NoCopy => GroupPlant::NoCopy,
            Plant::LowStamp => GroupPlant::LowStamp,
            Plant::OldLeader => GroupPlant::OldLeader,
            Plant::EarlyPosition => GroupPlant::EarlyPosition,
            Plant::EarlyStamp => GroupPlant::EarlyStamp,
            Plant::Incomplete => GroupPlant::Incomplete,
            Plant::OwnFate => GroupPlant::OwnFate,
            Plant::EarlyComplete => GroupPlant::EarlyComplete,
            Plant::SharedSessions => GroupPlant::SharedSessions,
            _ => GroupPlant::None,
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        NAMES.into_iter().find(|(plant, _)| *plant == self).map_or("", |(_, name)| name)
    }
}

impl FromStr for Plant {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.into_iter().find(|(_, name)| *name == text).map(|(plant, _)| plant);
        found.ok_or_else(|| format!("'{text}' is none of {}", NAMES.map(|(_, name)| name).join(", ")))
    }
}
