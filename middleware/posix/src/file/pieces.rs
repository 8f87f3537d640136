//! List I/O: from pieces of a file to entries of chunks, and back. Pure; must never ask a server.
//!
//! A large piece travels from and to the caller's memory without a copy. Small neighbours of one chunk are gathered into one
//! entry with many extents: an entry's head would cost more than the copy.

use talea_model::Extent;

use crate::backing::{Condition, Fetch, Update, ValueKind};
use crate::inode::DATA;

/// Pieces below this size in bytes are gathered.
const GATHER_BELOW_BYTES: usize = 4096;
/// Extents of one gathered entry.
const MAX_GATHERED: usize = 256;

const BYTES: ValueKind = ValueKind::Array { record_bytes: 1 };

/// One entry: extents of one chunk, ascending and apart, and the memory for each.
struct Item<M> {
    dkey: [u8; 8],
    extents: Vec<Extent>,
    memory: Vec<M>,
    bytes: usize,
}

/// Cuts pieces at chunk borders and gathers small ones.
fn items<M>(
    pieces: impl Iterator<Item = (u64, M)>,
    chunk_bytes: u64,
    length: impl Fn(&M) -> usize,
    split: impl Fn(M, usize) -> (M, M),
) -> Vec<Item<M>> {
    let mut items: Vec<Item<M>> = Vec::new();
    for (offset, memory) in pieces {
        let Some(whole) = Extent::new(offset, length(&memory) as u64) else { continue };
        let mut rest = memory;
        for (chunk, extent) in whole.chunks(chunk_bytes) {
            let (part, after) = split(rest, extent.count as usize);
            rest = after;
            let (dkey, bytes) = (chunk.to_be_bytes(), extent.count as usize);
            let joins = |item: &Item<M>| {
                item.dkey == dkey
                    && bytes < GATHER_BELOW_BYTES
                    && item.bytes / item.extents.len() < GATHER_BELOW_BYTES
                    && item.extents.len() < MAX_GATHERED
                    && item.extents.last().is_some_and(|last| last.end() <= extent.index)
            };
            match items.last_mut() {
                Some(item) if joins(item) => {
                    item.extents.push(extent);
                    item.memory.push(part);
                    item.bytes += bytes;
                }
                _ => items.push(Item { dkey, extents: vec![extent], memory: vec![part], bytes }),
            }
        }
    }
    items
}

/// Turns pieces into updates and gives them to `send`.
pub(super) fn write<E>(
    pieces: &[(u64, &[u8])],
    chunk_bytes: u64,
    send: impl FnOnce(&[Update<'_>]) -> Result<(), E>,
) -> Result<(), E> {
    let items = items(pieces.iter().copied(), chunk_bytes, |memory| memory.len(), |memory, at| memory.split_at(at));
    if items.is_empty() {
        return Ok(());
    }
    let gathered: Vec<Option<Vec<u8>>> =
        items.iter().map(|item| (item.memory.len() > 1).then(|| item.memory.concat())).collect();
    let updates: Vec<Update<'_>> = items
        .iter()
        .zip(&gathered)
        .map(|(item, gathered)| Update {
            dkey: &item.dkey,
            akey: DATA,
            kind: BYTES,
            condition: Condition::None,
            extents: item.extents.clone(),
            data: gathered.as_deref().unwrap_or(item.memory[0]),
        })
        .collect();
    send(&updates)
}

/// Turns the parts of pieces that lie below `end` into fetches, gives them to `ask`, and hands out what was gathered.
pub(super) fn read<E>(
    pieces: &mut [(u64, &mut [u8])],
    chunk_bytes: u64,
    end: u64,
    ask: impl FnOnce(&mut [Fetch<'_>]) -> Result<(), E>,
) -> Result<(), E> {
    let clipped = pieces.iter_mut().map(|(offset, memory)| {
        let bytes = (memory.len() as u64).min(end.saturating_sub(*offset)) as usize;
        (*offset, &mut memory[..bytes])
    });
    let mut items = items(clipped, chunk_bytes, |memory| memory.len(), |memory, at| memory.split_at_mut(at));
    if items.is_empty() {
        return Ok(());
    }
    let mut gathered: Vec<Vec<u8>> =
        items.iter().map(|item| vec![0; if item.memory.len() > 1 { item.bytes } else { 0 }]).collect();
    let mut fetches: Vec<Fetch<'_>> = items
        .iter_mut()
        .zip(&mut gathered)
        .map(|(item, gathered)| Fetch {
            dkey: &item.dkey,
            akey: DATA,
            extents: item.extents.clone(),
            out: if item.memory.len() > 1 { gathered } else { &mut *item.memory[0] },
            found: false,
            bytes: 0,
        })
        .collect();
    ask(&mut fetches)?;
    drop(fetches);
    for (item, gathered) in items.iter_mut().zip(&gathered).filter(|(item, _)| item.memory.len() > 1) {
        let mut rest = &gathered[..];
        for memory in &mut item.memory {
            let (part, after) = rest.split_at(memory.len());
            memory.copy_from_slice(part);
            rest = after;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE_BYTES: usize = 40_000;

    fn pieces() -> impl Strategy<Value = Vec<(usize, usize)>> {
        prop::collection::vec((0..FILE_BYTES - 9000, prop_oneof![0usize..40, 0usize..9000]), 0..40)
    }

    proptest! {
        #[test]
        fn agrees_with_plain_memory(pieces in pieces(), chunk_bytes in 4096u64..20_000, end in 0u64..45_000) {
            let mut file = vec![0u8; FILE_BYTES];
            let mut wanted = file.clone();
            let data: Vec<Vec<u8>> = (0u8..).zip(&pieces).map(|(i, (_, bytes))| vec![i + 1; *bytes]).collect();
            let list: Vec<(u64, &[u8])> = pieces.iter().zip(&data).map(|((at, _), d)| (*at as u64, &d[..])).collect();
            list.iter().for_each(|(at, d)| wanted[*at as usize..][..d.len()].copy_from_slice(d));
            let place = |dkey: &[u8]| (u64::from_be_bytes(dkey.try_into().unwrap()) * chunk_bytes) as usize;
            write(&list, chunk_bytes, |updates| {
                for update in updates {
                    let mut data = update.data;
                    for extent in &update.extents {
                        prop_assert!(extent.end() <= chunk_bytes);
                        let (part, rest) = data.split_at(extent.count as usize);
                        file[place(update.dkey) + extent.index as usize..][..part.len()].copy_from_slice(part);
                        data = rest;
                    }
                    prop_assert!(data.is_empty());
                }
                Ok(())
            })?;
            prop_assert_eq!(&file, &wanted);

            let mut out: Vec<Vec<u8>> = pieces.iter().map(|(_, bytes)| vec![0xee; *bytes]).collect();
            let mut list: Vec<(u64, &mut [u8])> =
                pieces.iter().zip(&mut out).map(|((at, _), d)| (*at as u64, &mut d[..])).collect();
            read(&mut list, chunk_bytes, end, |fetches| {
                for fetch in fetches {
                    let mut at = 0;
                    for extent in &fetch.extents {
                        let from = place(fetch.dkey) + extent.index as usize;
                        fetch.out[at..][..extent.count as usize].copy_from_slice(&file[from..][..extent.count as usize]);
                        at += extent.count as usize;
                    }
                }
                Ok::<(), ()>(())
            }).unwrap();
            for ((at, bytes), out) in pieces.iter().zip(&out) {
                let below = (end as usize).saturating_sub(*at).min(*bytes);
                prop_assert_eq!(&out[..below], &file[*at..at + below]);
                prop_assert!(out[below..].iter().all(|byte| *byte == 0xee), "beyond the end nothing is touched");
            }
        }
    }

    #[test]
    fn many_small_pieces_become_few_entries() {
        let data = [7u8; 8];
        let list: Vec<(u64, &[u8])> = (0..1000).map(|i| (i * 64, &data[..])).collect();
        let mut count = 0;
        write(&list, 1 << 20, |updates| {
            count = updates.len();
            Ok::<(), ()>(())
        })
        .unwrap();
        assert_eq!(count, 4);
    }
}
