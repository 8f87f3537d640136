//! What an update of a group is to a store: judged once by the leader, done by all members alike.
//!
//! Must never let a member judge what the leader has judged: its horizon may be another one.

use smallvec::SmallVec;
use talea_model::placement::session_of_group;
use talea_model::{Order, Stamp, TargetId, View};
use talea_vos::{Ask, Caller, EntryUpdate, FetchWhat, LOOKS, ObjectRef, Store, StoreError, Walk};
use talea_wire::WireError;
use talea_wire::data::{self, Body, Request, ValueKind};
use talea_wire::group::Entry;

use super::{HostError, Plant};
use crate::target::write::{condition_of, entry_update, punch_of};

/// Whose update it is; remembered for each group by itself.
pub(super) fn caller_of(request: &Request<'_>, key: &[TargetId], plant: Plant) -> Caller {
    let head = &request.head;
    let session = match plant {
        Plant::SharedSessions => head.session,
        _ => session_of_group(head.session, key),
    };
    Caller { session, sequence: head.sequence, acknowledged_below: head.acknowledged_below }
}

/// Whether an entry's update is in the store.
pub(super) fn is_done(store: &Store, key: &[TargetId], plant: Plant, entry: &Entry) -> bool {
    Request::decode(&entry.request).is_ok_and(|request| store.already_done(&caller_of(&request, key, plant)))
}

/// Does an entry; of a transaction that committed at `commit` as far as the store knows.
pub(super) fn carry_out(
    store: &mut Store,
    key: &[TargetId],
    plant: Plant,
    entry: &Entry,
    commit: Option<Stamp>,
) -> Result<(), HostError> {
    let request = Request::decode(&entry.request)?;
    let at = ObjectRef { container: request.head.container, oid: request.head.oid };
    let (caller, order) = (caller_of(&request, key, plant), request.head.order.unwrap_or(Order::Auto { tied: None }));
    let (stamp, view) = (entry.stamp, View::Latest);
    match &request.body {
        Body::Update(entries) => {
            let entries: SmallVec<[EntryUpdate<'_>; 4]> = entries.iter().map(entry_update).collect();
            match commit {
                Some(commit) => store.update_committed(at, commit, caller, &entries)?,
                None => store.update(at, order, stamp, view, caller, &entries)?,
            }
        }
        Body::Punch { dkey, akey, extent, .. } => {
            let what = punch_of(dkey, akey, *extent);
            match commit {
                Some(commit) => store.punch_committed(at, commit, caller, what)?,
                None => store.punch(at, order, stamp, view, caller, what, talea_vos::Condition::None)?,
            }
        }
        _ => return Err(WireError::Malformed("a read stands in a group's order").into()),
    }
    Ok(())
}

/// Judges a request's conditions where it is ordered, and gives what all members do without judging: `None` if nothing is left.
pub(super) fn resolve(store: &Store, request: &Request<'_>) -> Result<Option<Vec<u8>>, StoreError> {
    let at = ObjectRef { container: request.head.container, oid: request.head.oid };
    let (head, view) = (data::request::Head { view: View::Latest, ..request.head }, request.head.view);
    let body = match &request.body {
        Body::Update(entries) => {
            let updates: SmallVec<[EntryUpdate<'_>; 4]> = entries.iter().map(entry_update).collect();
            let asks: SmallVec<[Ask<'_>; 4]> = updates.iter().map(EntryUpdate::ask).collect();
            judge(store, at, view, &asks)?;
            let mut kept = Vec::with_capacity(entries.len());
            for entry in entries {
                let mut kept_entry = data::Entry { condition: data::Condition::None, ..entry.clone() };
                if entry.kind == ValueKind::SingleMax {
                    let mut there = Vec::new();
                    let found = store.fetch(at, view, entry.dkey, entry.akey, FetchWhat::Single, &mut there)?.found;
                    if found && there.len() != entry.data.len() {
                        return Err(StoreError::Bad(
                            "a value that is kept if larger must have the length of the one before",
                        ));
                    }
                    if found && entry.data <= &there[..] {
                        continue;
                    }
                    kept_entry.kind = ValueKind::Single;
                }
                kept.push(kept_entry);
            }
            if kept.is_empty() {
                return Ok(None);
            }
            Body::Update(kept)
        }
        Body::Punch { dkey, akey, extent, condition } => {
            judge(store, at, view, &[punch_of(dkey, akey, *extent).ask(condition_of(*condition))])?;
            Body::Punch { dkey, akey, extent: *extent, condition: data::Condition::None }
        }
        _ => return Err(StoreError::Bad("a read came as a write")),
    };
    let request = Request { head, body };
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    request.data().for_each(|data| bytes.extend_from_slice(data));
    Ok(Some(bytes))
}

fn judge(store: &Store, at: ObjectRef, view: View, asks: &[Ask<'_>]) -> Result<(), StoreError> {
    if !asks.iter().any(Ask::asks) {
        return Ok(());
    }
    let mut walk = Walk::default();
    while store.judge_some(at, view, asks, LOOKS, &mut walk)?.is_none() {}
    Ok(())
}
