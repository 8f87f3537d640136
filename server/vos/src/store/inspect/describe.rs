//! Records of a store in words.

use talea_tier::Address;

use super::super::memory::Memory;
use crate::index::version::Place;
use crate::log::bytes::Reader;
use crate::log::record::{BadRecord, Entry, Head, decode_follow, decode_punch, decode_value, kind};
use crate::log::scan::Found as Record;

/// Name of a kind of records, as docs/formats.md has it.
pub(super) fn kind_name(number: u8) -> &'static str {
    match number {
        kind::UPDATE => "UPDATE",
        kind::PUNCH => "PUNCH",
        kind::FOLLOW => "FOLLOW",
        kind::CEILING => "CEILING",
        kind::MARK => "MARK",
        kind::STATE => "STATE",
        kind::OBJECT => "OBJECT",
        kind::DKEY => "DKEY",
        kind::END => "END",
        kind::MORE => "MORE",
        kind::NEXT => "NEXT",
        _ => "UNKNOWN",
    }
}

fn quoted(key: &[u8]) -> String {
    format!("\"{}\"", key.escape_ascii())
}

/// What a record of the log says, and the values that it names.
pub(super) fn describe(found: &Record) -> Result<(String, Vec<Place>), BadRecord> {
    let mut from = Reader::new(found.meta);
    let mut places = Vec::new();
    let head = |head: &Head| {
        let order = match (head.tag.tx.0, head.tag.tied) {
            (0, _) => format!("stamp {}", head.tag.stamp),
            (tx, true) => format!("stamp {} tied to transaction {tx}", head.tag.stamp),
            (tx, false) => format!("transaction {tx}"),
        };
        format!("container {} object {}, {order}", head.at.container, head.at.oid)
    };
    let what = match found.kind {
        kind::NEXT => {
            let (start, len, number) = (from.u64()?, from.u64()?, from.u64()?);
            format!("goes on in segment {number} at {start}, {len} bytes")
        }
        kind::UPDATE => {
            let (update, mut data) = (Head::decode(&mut from, found.lsn)?, found.data);
            let mut what = head(&update);
            for _ in 0..from.u32()? {
                let entry = Entry::decode(&mut from)?;
                what += &format!(", {}.{}", quoted(entry.dkey), quoted(entry.akey));
                for _ in 0..entry.values {
                    let (extent, place) = decode_value(&mut from, &mut data)?;
                    let records = if entry.record_bytes() > 0 {
                        format!(" [{}+{}]", extent.index, extent.count)
                    } else {
                        String::new()
                    };
                    let lies = if place.inline { "here".to_owned() } else { format!("at {}", Address(place.offset)) };
                    what += &format!("{records} {} bytes {lies}", place.len);
                    places.push(place);
                }
            }
            what
        }
        kind::PUNCH => {
            let punch = Head::decode(&mut from, found.lsn)?;
            format!("{}, {:?}", head(&punch), decode_punch(&mut from)?)
        }
        kind::FOLLOW => {
            let (changes, horizon) = decode_follow(&mut from)?;
            format!("horizon {horizon}, {changes:?}")
        }
        kind::CEILING => format!("ceiling {}", from.u64()?),
        kind::MARK => "all before is durable".to_owned(),
        _ => return Err(BadRecord),
    };
    Ok((what, places))
}

impl Memory {
    /// What a checkpoint's state says, shortly.
    pub(super) fn describe(&self) -> String {
        let open = self.ledger.open().count();
        let containers = self.index.containers.len();
        format!(
            "horizon {}, ceiling {}, {open} open transactions, {containers} containers, {} sessions",
            self.ledger.horizon(),
            self.ceiling,
            self.done.len()
        )
    }

    /// What a checkpoint's record of one object or dkey says, replayed into a memory of its own: its keys, and where its values lie.
    pub(super) fn describe_keys(&self, places: &[Place]) -> String {
        let mut what = String::new();
        if let Some(object) = self.index.objects.get(0) {
            what += &format!("container {} object {}, ", object.at.container, object.at.oid);
        }
        if let Some(dkey) = self.index.dkeys.get(0) {
            let akeys: Vec<String> = dkey.akeys.iter().map(|akey| quoted(akey.key.bytes())).collect();
            what += &format!("{}.{}, ", quoted(dkey.key.bytes()), akeys.join("+"));
        }
        what += &format!("{} version{}", places.len(), if places.len() == 1 { "" } else { "s" });
        for place in places.iter().filter(|place| !place.hole) {
            let lies = if place.inline { "here, ".to_owned() } else { String::new() };
            what += &format!(", {} bytes {lies}at {}", place.len, Address(place.offset));
        }
        what
    }
}
