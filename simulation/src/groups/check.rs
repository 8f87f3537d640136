//! What holds for groups beside what the checker of whole clusters looks at: autocommits are where they were told to be, in one
//! order, and complete members hold one order.

use std::collections::BTreeMap;

use talea_model::{Stamp, TargetId};
use talea_wire::group::Place;

use crate::Violation;
use crate::history::{Cell, Value};

/// A read of a cell of autocommits, whose values grow.
#[derive(Clone, Debug)]
pub struct Seen {
    /// S; none: the latest state.
    pub stamp: Option<Stamp>,
    /// Which cell.
    pub cell: Cell,
    /// What it held.
    pub value: Value,
    /// What was acknowledged before the view was asked for.
    pub floor: Value,
    /// Who served it.
    pub member: TargetId,
}

/// What was acknowledged is seen, and nothing goes back.
pub(super) fn seen(all: &[Seen], found: &mut Vec<Violation>) {
    let mut bad = |invariant, what: String| found.push(Violation { invariant, what });
    for read in all.iter().filter(|read| read.value < read.floor) {
        let Seen { stamp, cell, value, floor, member } = read;
        let view = stamp.map_or("the latest state".to_owned(), |stamp| format!("snapshot {stamp}"));
        bad(
            "told",
            format!("{view} shows cell {cell} = {value} on target {member}, and {floor} was acknowledged before"),
        );
    }
    let mut by_cell: BTreeMap<(Cell, Stamp), (Value, TargetId)> = BTreeMap::new();
    for read in all {
        if let Some(stamp) = read.stamp {
            by_cell.insert((read.cell, stamp), (read.value, read.member));
        }
    }
    for (((cell, stamp), (value, member)), ((next_cell, next_stamp), (next_value, next_member))) in
        by_cell.iter().zip(by_cell.iter().skip(1))
    {
        if cell == next_cell && value > next_value {
            bad(
                "order",
                format!(
                    "cell {cell} is {value} at {stamp} (target {member}) and {next_value} at {next_stamp} (target {next_member})"
                ),
            );
        }
    }
}

/// Places with one number are one place on all complete members.
pub(super) fn orders(group: &[(TargetId, Vec<Place>)], found: &mut Vec<Violation>) {
    let mut known: BTreeMap<u64, (Place, TargetId)> = BTreeMap::new();
    for (member, places) in group {
        for place in places {
            let (first, of) = *known.entry(place.seq).or_insert((*place, *member));
            if first != *place {
                let what = format!(
                    "update {} of targets {of} and {member} is of terms {} and {}",
                    place.seq, first.term, place.term
                );
                found.push(Violation { invariant: "order", what });
                return;
            }
        }
    }
}
