//! Messages between the members of a redundancy group (docs/design.md §4 rule 9).
//!
//! A message is a head in the codec of control messages, and the requests of its entries behind it, as they are: no byte of data
//! goes through the codec.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use talea_model::{MapVersion, Position, Stamp, TargetId, TxId};

use crate::{PROTOCOL_VERSION, WireError};

/// Members of a group at most.
pub const MAX_MEMBERS: usize = 64;
/// Entries of one message at most.
pub const MAX_APPENDED: usize = 1024;

/// A place in the order of a group's updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Dense from 1; 0 is before all of them.
    pub seq: u64,
    /// The version of the pool map under which it was given: a version has one leader of a group, and one process of it. Two places
    /// with the same number and term are one, and so is all that lies before them.
    pub term: MapVersion,
}

/// A mark (T, p): every update stamped ≤ T, or of a transaction closed by position p, is on all members or refused, and no more
/// will come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// T.
    pub stamp: Stamp,
    /// p.
    pub position: Position,
}

impl Mark {
    /// Whether a snapshot at a stamp, issued at a position, may be served under it.
    pub fn covers(&self, asked: Mark) -> bool {
        self.stamp >= asked.stamp && self.position >= asked.position
    }

    /// Both are true: so is this one.
    #[must_use]
    pub fn and(self, other: Mark) -> Mark {
        Mark { stamp: self.stamp.max(other.stamp), position: self.position.max(other.position) }
    }
}

/// An update in a group's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub place: Place,
    /// An autocommit's stamp; zero for a transaction's update.
    pub stamp: Stamp,
    /// The transaction whose fate it shares; 0 for an autocommit.
    pub tx: TxId,
    /// The update or punch as a [`Request`](crate::data::Request), without conditions: the leader has judged them.
    pub request: Arc<[u8]>,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// To all: I lead. What do you hold?
    Lead,
    /// To the leader: everything up to here.
    Holds {
        /// The last.
        last: Place,
    },
    /// To the member that holds most: give me what follows this number.
    Fetch {
        /// The last that the leader has.
        after: u64,
    },
    /// To the leader, who asked for it.
    Found {
        /// What it asked for.
        after: u64,
        /// What follows, or the first part of it.
        entries: Vec<Entry>,
    },
    /// To a member: what comes next. Without entries: a mark alone.
    Append {
        /// Where the entries begin.
        after: Place,
        /// They.
        entries: Vec<Entry>,
        /// The mark.
        mark: Mark,
        /// All members hold everything up to this number.
        settled: u64,
    },
    /// To the leader: everything up to this number is durable here.
    Held {
        /// The number.
        through: u64,
    },
    /// To the leader: a mark that covers this is wanted.
    Ask {
        /// S and n.
        mark: Mark,
    },
    /// To one that leads no more: this is the map.
    Stale {
        /// Its version.
        map: MapVersion,
    },
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Members of the group, in the placement's order.
    pub group: Vec<TargetId>,
    /// Who says it.
    pub from: TargetId,
    /// The sender's clock (rule 1).
    pub hlc: Stamp,
    /// The version of the map whose leader says it, or hears it.
    pub term: MapVersion,
    /// What.
    pub body: Body,
}

/// An entry without its request.
#[derive(Serialize, Deserialize)]
struct EntryHead {
    place: Place,
    stamp: Stamp,
    tx: TxId,
    bytes: u32,
}

#[derive(Serialize, Deserialize)]
enum BodyHead {
    Lead,
    Holds(Place),
    Fetch(u64),
    Found { after: u64, entries: Vec<EntryHead> },
    Append { after: Place, entries: Vec<EntryHead>, mark: Mark, settled: u64 },
    Held(u64),
    Ask(Mark),
    Stale(MapVersion),
}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u16,
    group: Vec<TargetId>,
    from: TargetId,
    hlc: Stamp,
    term: MapVersion,
    body: BodyHead,
}

fn heads(entries: &[Entry]) -> Vec<EntryHead> {
    let head = |entry: &Entry| EntryHead {
        place: entry.place,
        stamp: entry.stamp,
        tx: entry.tx,
        bytes: u32::try_from(entry.request.len()).unwrap_or(u32::MAX),
    };
    entries.iter().map(head).collect()
}

impl Message {
    /// The whole message.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let body = match &self.body {
            Body::Lead => BodyHead::Lead,
            Body::Holds { last } => BodyHead::Holds(*last),
            Body::Fetch { after } => BodyHead::Fetch(*after),
            Body::Found { after, entries } => BodyHead::Found { after: *after, entries: heads(entries) },
            Body::Append { after, entries, mark, settled } => {
                BodyHead::Append { after: *after, entries: heads(entries), mark: *mark, settled: *settled }
            }
            Body::Held { through } => BodyHead::Held(*through),
            Body::Ask { mark } => BodyHead::Ask(*mark),
            Body::Stale { map } => BodyHead::Stale(*map),
        };
        let (group, from, hlc, term) = (self.group.clone(), self.from, self.hlc, self.term);
        let head = Head { version: PROTOCOL_VERSION, group, from, hlc, term, body };
        let mut bytes = postcard::to_stdvec(&head).map_err(|_| WireError::Malformed("cannot be encoded"))?;
        if let Body::Found { entries, .. } | Body::Append { entries, .. } = &self.body {
            bytes.reserve(entries.iter().map(|entry| entry.request.len()).sum());
            entries.iter().for_each(|entry| bytes.extend_from_slice(&entry.request));
        }
        Ok(bytes)
    }

    /// Decodes a whole message; every byte must belong to it. What it claims to hold is never allocated before it is there.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (head, mut rest) = postcard::take_from_bytes::<Head>(bytes)
            .map_err(|_| WireError::Malformed("not a message of a redundancy group"))?;
        if head.version != PROTOCOL_VERSION {
            return Err(WireError::Version(head.version));
        }
        over("members of a group", head.group.len(), MAX_MEMBERS)?;
        let mut whole = |heads: Vec<EntryHead>| {
            over("entries", heads.len(), MAX_APPENDED)?;
            let whole = |head: EntryHead| {
                let request = crate::data::take(&mut rest, head.bytes as usize)?;
                Ok(Entry { place: head.place, stamp: head.stamp, tx: head.tx, request: request.into() })
            };
            heads.into_iter().map(whole).collect::<Result<Vec<Entry>, WireError>>()
        };
        let body = match head.body {
            BodyHead::Lead => Body::Lead,
            BodyHead::Holds(last) => Body::Holds { last },
            BodyHead::Fetch(after) => Body::Fetch { after },
            BodyHead::Found { after, entries } => Body::Found { after, entries: whole(entries)? },
            BodyHead::Append { after, entries, mark, settled } => {
                Body::Append { after, entries: whole(entries)?, mark, settled }
            }
            BodyHead::Held(through) => Body::Held { through },
            BodyHead::Ask(mark) => Body::Ask { mark },
            BodyHead::Stale(map) => Body::Stale { map },
        };
        if !rest.is_empty() {
            return Err(WireError::Malformed("bytes left over"));
        }
        Ok(Message { group: head.group, from: head.from, hlc: head.hlc, term: head.term, body })
    }
}

fn over(what: &'static str, found: usize, limit: usize) -> Result<(), WireError> {
    if found > limit { Err(WireError::OverLimit { what, found, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        let term = MapVersion(3);
        let entry = |seq, request: &[u8]| {
            let place = Place { seq, term };
            Entry { place, stamp: Stamp(seq), tx: TxId(0), request: request.into() }
        };
        Message {
            group: vec![TargetId(4), TargetId(1)],
            from: TargetId(4),
            hlc: Stamp(99),
            term,
            body: Body::Append {
                after: Place { seq: 6, term },
                entries: vec![entry(7, b"one"), entry(8, b"")],
                mark: Mark { stamp: Stamp(5), position: Position(2) },
                settled: 5,
            },
        }
    }

    #[test]
    fn what_is_encoded_comes_back() {
        let bytes = message().encode().unwrap();
        assert_eq!(Message::decode(&bytes).unwrap(), message());
        assert!(Message::decode(&bytes[..bytes.len() - 1]).is_err(), "an entry's end is cut");
        assert!(Message::decode(&[&bytes[..], b"x"].concat()).is_err(), "bytes left over");
    }

    #[test]
    fn a_mark_is_two_statements() {
        let mark = |stamp, position| Mark { stamp: Stamp(stamp), position: Position(position) };
        assert!(mark(5, 5).covers(mark(5, 4)) && !mark(5, 5).covers(mark(6, 4)) && !mark(5, 5).covers(mark(4, 6)));
        assert_eq!(mark(5, 2).and(mark(3, 4)), mark(5, 4));
    }
}
