//! The model: a list of what was done, replayed from the beginning for each view. Slow and obvious.

use std::collections::{BTreeMap, BTreeSet};

use talea_model::{Order, TxId, View};

/// An object (by number) and a dkey of it.
pub(crate) type Place = (u8, u8);

/// Something done, as the model remembers it.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    Versions {
        order: Order,
        stamp: u64,
        parts: Vec<(Place, What)>,
    },
    Begin(TxId, u64),
    Commit(TxId, u64),
    Abort(TxId),
    Keep(u64),
    Release(u64),
    Floor(u64),
    /// The end of the container of object 2.
    Destroy,
    /// A request that changed nothing, and only its number was noted.
    Nothing,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Records { akey: usize, index: u64, records: Vec<Vec<u8>> },
    Value { akey: usize, value: Vec<u8> },
    PunchObject,
    PunchDkey,
    PunchAkey(usize),
    PunchRange { akey: usize, index: u64, count: u64 },
}

/// What a view sees: (object, dkey, akey) → records or value (at index 0).
pub(crate) type Seen = BTreeMap<(u8, u8, usize), BTreeMap<u64, Vec<u8>>>;

fn fate(history: &[Done], tx: TxId) -> Option<Option<u64>> {
    history.iter().find_map(|done| match done {
        Done::Commit(t, stamp) if *t == tx => Some(Some(*stamp)),
        Done::Abort(t) if *t == tx => Some(None),
        _ => None,
    })
}

/// Replays the history as a view sees it.
pub(crate) fn seen(history: &[Done], view: View) -> Seen {
    let (at, own) = match view {
        View::Latest => (u64::MAX, None),
        View::Snapshot { stamp, .. } => (stamp.0, None),
        View::Inside { tx, base, .. } => (base.0, Some(tx)),
    };
    let mut visible = Vec::new();
    for (number, done) in history.iter().enumerate() {
        let Done::Versions { order, stamp, parts } = done else { continue };
        let rank = match *order {
            Order::Auto { tied: None } => (*stamp <= at).then_some((false, *stamp)),
            Order::Auto { tied: Some(tx) } if own == Some(tx) => Some((false, *stamp)),
            Order::Auto { tied: Some(tx) } => match fate(history, tx) {
                None => (view == View::Latest).then_some((false, *stamp)),
                Some(commit) => commit.filter(|c| (*c).max(*stamp) <= at).map(|_| (false, *stamp)),
            },
            Order::Pending(tx) if own == Some(tx) => Some((true, 0)),
            Order::Pending(tx) => fate(history, tx).flatten().filter(|c| *c <= at).map(|c| (false, c)),
        };
        if let Some(rank) = rank {
            visible.extend(parts.iter().map(|(place, what)| (rank, number, place, what)));
        }
    }
    visible.sort_by_key(|(rank, number, ..)| (*rank, *number));
    let mut all = Seen::new();
    for (_, _, (object, dkey), what) in visible {
        let slot = |akey: usize| (*object, *dkey, akey);
        match what {
            What::Records { akey, index, records } => {
                let array = all.entry(slot(*akey)).or_default();
                array.extend((*index..).zip(records.iter().cloned()));
            }
            What::Value { akey, value } => {
                all.insert(slot(*akey), BTreeMap::from([(0, value.clone())]));
            }
            What::PunchObject => all.retain(|(o, ..), _| o != object),
            What::PunchDkey => all.retain(|(o, d, _), _| (o, d) != (object, dkey)),
            What::PunchAkey(akey) => {
                all.remove(&slot(*akey));
            }
            What::PunchRange { akey, index, count } => {
                if let Some(array) = all.get_mut(&slot(*akey)) {
                    array.retain(|at, _| *at < *index || *at >= index + count);
                }
            }
        }
    }
    let destroyed = is_destroyed(history);
    all.retain(|(object, ..), records| !(records.is_empty() || destroyed && *object == 2));
    all
}

/// Whether the container of object 2 is gone.
pub(crate) fn is_destroyed(history: &[Done]) -> bool {
    history.iter().any(|done| matches!(done, Done::Destroy))
}

/// Open transactions with something in an object: in one dkey (or a punch of the whole), or anywhere.
pub(crate) fn pending(history: &[Done], object: u8, dkey: Option<u8>) -> Vec<TxId> {
    if object == 2 && is_destroyed(history) {
        return Vec::new();
    }
    let mut found = BTreeSet::new();
    for done in history {
        let Done::Versions { order, parts, .. } = done else { continue };
        let (Order::Pending(tx) | Order::Auto { tied: Some(tx) }) = *order else { continue };
        let here = |(place, what): &(Place, What)| {
            place.0 == object && (matches!(what, What::PunchObject) || dkey.is_none_or(|dkey| dkey == place.1))
        };
        if fate(history, tx).is_none() && parts.iter().any(here) {
            found.insert(tx);
        }
    }
    found.into_iter().collect()
}
