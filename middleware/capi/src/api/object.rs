//! Objects: update, fetch, punch, list.

use std::ffi::{c_char, c_int, c_void};

use talea_client::{
    ClientError, Condition, Container, EntryFetch, EntryUpdate, EnumerateKind, Punch, ValueKind, Write,
};
use talea_model::{Extent, ObjectClass, Oid, View};
use talea_posix::Fault;
use talea_posix::backing::client::fault;

use super::container::CONTAINERS;
use super::epoch::EPOCHS;
use super::snapshot::SNAPSHOTS;
use super::types::{
    TALEA_IF_ABSENT, TALEA_IF_PRESENT, talea_container_t, talea_epoch_t, talea_extent_t, talea_fetch_t, talea_key_t,
    talea_name_fn, talea_oid_t, talea_snapshot_t, talea_update_t,
};
use crate::boundary::{argument, bytes, public, put, slice, slice_mut, text};
use crate::meter;

/// Names of one round of a list.
const NAMES_A_ROUND: usize = 512;

pub(super) fn oid_of(oid: talea_oid_t) -> Oid {
    Oid((oid.hi as u128) << 64 | oid.lo as u128)
}

/// An object id of the class that the caller names, put where the caller wants it.
///
/// # Safety
/// `class` is null or NUL-terminated, `out` null or valid for writing.
unsafe fn made(
    class: *const c_char,
    out: *mut talea_oid_t,
    make: impl FnOnce(ObjectClass) -> Oid,
) -> Result<(), Fault> {
    // SAFETY: the caller says so.
    let class: ObjectClass = unsafe { text(class, "object class") }?.parse().map_err(|e| argument(format!("{e}")))?;
    if !class.is_supported() {
        return Err(fault(ClientError::UnsupportedClass(class)));
    }
    let Oid(oid) = make(class);
    // SAFETY: the caller says so.
    unsafe { put(out, talea_oid_t { hi: (oid >> 64) as u64, lo: oid as u64 }, "object id") }
}

/// A fresh object id of a class such as "S1" or "SX", unlike any other in the container. Classes with replicas or parity ("RP_2",
/// "EC_4P2") are TALEA_UNSUPPORTED, also for talea_object_id.
///
/// # Safety
/// `class` is NUL-terminated, `out` valid for writing; null pointers are told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_object_new(
    container: *mut talea_container_t,
    class: *const c_char,
    out: *mut talea_oid_t,
) -> c_int {
    public(|| {
        let container = CONTAINERS.get(container)?;
        // SAFETY: the caller's contract.
        unsafe { made(class, out, |class| container.client().new_oid(class)) }
    })
}

/// The id of a class with 96 bits of the program's own choice: the lower 32 of `upper`, and `lower`.
///
/// # Safety
/// `class` is NUL-terminated, `out` valid for writing; null pointers are told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_object_id(class: *const c_char, upper: u32, lower: u64, out: *mut talea_oid_t) -> c_int {
    public(|| {
        // SAFETY: the caller's contract.
        unsafe { made(class, out, |class| Oid::new(class, (upper as u128) << 64 | lower as u128)) }
    })
}

/// The bytes of a pair of keys.
///
/// # Safety
/// Both keys are valid for their lengths for as long as `'a`.
pub(super) unsafe fn keys<'a>(key: &talea_key_t) -> Result<(&'a [u8], &'a [u8]), Fault> {
    // SAFETY: the caller says so.
    unsafe {
        let dkey = bytes(key.dkey.cast(), key.dkey_bytes, "dkey")?;
        Ok((dkey, bytes(key.akey.cast(), key.akey_bytes, "akey")?))
    }
}

/// The extents of each entry of an update or a fetch; a single value has none.
///
/// # Safety
/// Each entry's extents are valid for reading their number.
unsafe fn extents_of_all(
    entries: impl Iterator<Item = (u32, *const talea_extent_t, usize)>,
) -> Result<Vec<Vec<Extent>>, Fault> {
    // SAFETY: the caller says so.
    entries.map(|(record_bytes, extents, count)| unsafe { extents_of_kind(record_bytes, extents, count) }).collect()
}

/// The extents of an entry; a single value (`record_bytes` 0) has none.
///
/// # Safety
/// `extents` is valid for reading `count` extents.
pub(super) unsafe fn extents_of_kind(
    record_bytes: u32,
    extents: *const talea_extent_t,
    count: usize,
) -> Result<Vec<Extent>, Fault> {
    // SAFETY: the caller says so.
    unsafe { extents_of(extents, if record_bytes == 0 { 0 } else { count }) }
}

/// The caller's extents.
///
/// # Safety
/// `extents` is valid for reading `count` extents.
unsafe fn extents_of(extents: *const talea_extent_t, count: usize) -> Result<Vec<Extent>, Fault> {
    // SAFETY: the caller says so.
    let extents = unsafe { slice(extents, count, "extents") }?;
    let checked = |e: &talea_extent_t| {
        Extent::new(e.index, e.count).ok_or_else(|| argument("an extent is empty or ends beyond 2^64"))
    };
    extents.iter().map(checked).collect()
}

pub(super) fn kind_of(record_bytes: u32) -> ValueKind {
    if record_bytes == 0 { ValueKind::Single } else { ValueKind::Array { record_bytes } }
}

pub(super) fn condition_of(condition: u32) -> Result<Condition, Fault> {
    match condition {
        0 => Ok(Condition::None),
        TALEA_IF_ABSENT => Ok(Condition::Insert),
        TALEA_IF_PRESENT => Ok(Condition::Update),
        _ => Err(argument(format!("unknown condition {condition}"))),
    }
}

/// Runs `work` with the way of writing that an epoch handle stands for.
pub(super) fn writing(
    epoch: *mut talea_epoch_t,
    work: impl FnOnce(&Write<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if epoch.is_null() {
        return work(&Write::Auto);
    }
    let epoch = EPOCHS.get(epoch)?;
    work(&Write::Inside(&epoch))
}

/// The view that two optional handles stand for.
pub(super) fn view_of(epoch: *mut talea_epoch_t, snapshot: *mut talea_snapshot_t) -> Result<View, Fault> {
    match (epoch.is_null(), snapshot.is_null()) {
        (true, true) => Ok(View::Latest),
        (false, true) => Ok(EPOCHS.get(epoch)?.view()),
        (true, false) => Ok(SNAPSHOTS.get(snapshot)?.view()),
        (false, false) => Err(argument("a read is either inside an epoch or in a snapshot: give one of them")),
    }
}

/// Writes values and arrays with one fate: inside `epoch`, or (NULL) at once, and then of one dkey only. Returns when the servers
/// hold them durably. A failed update fails the epoch's commit. Of entries that write the same records any may stay.
///
/// A single value or a record has at most 1 MiB, inside an epoch or not. All of an update at once is one message: at most 1 MiB of
/// data, 1024 entries, and some 63 KiB of keys and extents (16 bytes an extent, 24 an entry). More is TALEA_TOO_LONG; in an
/// epoch an update may have any number of them.
///
/// # Safety
/// `entries` is an array of `count`; everything in it is valid for its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_object_update(
    container: *mut talea_container_t,
    epoch: *mut talea_epoch_t,
    oid: talea_oid_t,
    entries: *const talea_update_t,
    count: usize,
) -> c_int {
    public(|| {
        let container = CONTAINERS.get(container)?;
        // SAFETY: the caller's contract.
        let given = unsafe { slice(entries, count, "entries") }?;
        let parts = given.iter().map(|entry| (entry.record_bytes, entry.extents, entry.extent_count));
        // SAFETY: the caller's contract.
        let extents = unsafe { extents_of_all(parts) }?;
        let mut updates = Vec::with_capacity(given.len());
        for (entry, extents) in given.iter().zip(&extents) {
            // SAFETY: the caller's contract.
            let ((dkey, akey), data) =
                unsafe { (keys(&entry.key)?, bytes(entry.data.cast(), entry.data_bytes, "data")?) };
            meter::wrote(data.len());
            let (kind, condition) = (kind_of(entry.record_bytes), condition_of(entry.condition)?);
            updates.push(EntryUpdate { dkey, akey, kind, condition, extents, data });
        }
        writing(epoch, |write| container.object(oid_of(oid)).update(write, &updates).map_err(fault))
    })
}

/// Reads values and arrays: inside `epoch`, in `snapshot`, or (both NULL) the latest committed state.
///
/// # Safety
/// `entries` is an array of `count`; everything in it is valid for its size, `data` for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_object_fetch(
    container: *mut talea_container_t,
    epoch: *mut talea_epoch_t,
    snapshot: *mut talea_snapshot_t,
    oid: talea_oid_t,
    entries: *mut talea_fetch_t,
    count: usize,
) -> c_int {
    public(|| {
        let container = CONTAINERS.get(container)?;
        let view = view_of(epoch, snapshot)?;
        // SAFETY: the caller's contract.
        let given = unsafe { slice_mut(entries, count, "entries") }?;
        let parts = given.iter().map(|entry| (entry.record_bytes, entry.extents, entry.extent_count));
        // SAFETY: the caller's contract.
        let extents = unsafe { extents_of_all(parts) }?;
        let mut fetches = Vec::with_capacity(given.len());
        for (entry, extents) in given.iter().zip(&extents) {
            // SAFETY: the caller's contract.
            let ((dkey, akey), out) =
                unsafe { (keys(&entry.key)?, slice_mut(entry.data.cast(), entry.data_bytes, "place for the data")?) };
            meter::read(out.len());
            let kind = kind_of(entry.record_bytes);
            fetches.push(EntryFetch { dkey, akey, kind, extents, out, found: false, filled: false, bytes: 0 });
        }
        container.object(oid_of(oid)).fetch(&view, &mut fetches).map_err(fault)?;
        let told: Vec<(bool, usize)> = fetches.iter().map(|fetch| (fetch.found, fetch.bytes)).collect();
        for (entry, (found, bytes)) in given.iter_mut().zip(told) {
            (entry.found, entry.value_bytes) = (u32::from(found), bytes);
        }
        Ok(())
    })
}

/// What a punch removes.
///
/// # Safety
/// `key` and its parts, and `extent`, are null or valid for reading for as long as `'a`.
pub(super) unsafe fn punch_of<'a>(key: *const talea_key_t, extent: *const talea_extent_t) -> Result<Punch<'a>, Fault> {
    // SAFETY: the caller says so.
    let (dkey, akey) = match unsafe { slice(key, usize::from(!key.is_null()), "key") }?.first() {
        // SAFETY: the caller says so.
        Some(key) => unsafe { keys(key) }?,
        None => (&[][..], &[][..]),
    };
    // SAFETY: the caller says so.
    let extent = unsafe { extents_of(extent, usize::from(!extent.is_null())) }?.first().copied();
    Ok(Punch { dkey, akey, extent, condition: Condition::None })
}

/// Removes an object (no dkey), a dkey (no akey), an akey (`extent` NULL) or a range of an array: inside `epoch`, or (NULL) at once.
///
/// # Safety
/// `key` and its parts, and `extent`, are null or valid for reading.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_object_punch(
    container: *mut talea_container_t,
    epoch: *mut talea_epoch_t,
    oid: talea_oid_t,
    key: *const talea_key_t,
    extent: *const talea_extent_t,
) -> c_int {
    public(|| {
        let container = CONTAINERS.get(container)?;
        // SAFETY: the caller's contract.
        let punch = unsafe { punch_of(key, extent) }?;
        writing(epoch, |write| container.object(oid_of(oid)).punch(write, &punch).map_err(fault))
    })
}

/// Gives the dkeys of an object (`dkey_bytes` 0), or the akeys of a dkey, to `each`, in order: inside `epoch`, in `snapshot`, or
/// (both NULL) of the latest committed state.
///
/// # Safety
/// `dkey` is valid for its size; `each` is a function that can be called with `context`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn talea_object_list(
    container: *mut talea_container_t,
    epoch: *mut talea_epoch_t,
    snapshot: *mut talea_snapshot_t,
    oid: talea_oid_t,
    dkey: *const c_void,
    dkey_bytes: usize,
    each: talea_name_fn,
    context: *mut c_void,
) -> c_int {
    public(|| {
        let container = CONTAINERS.get(container)?;
        let view = view_of(epoch, snapshot)?;
        let each = each.ok_or_else(|| argument("no function to give the names to"))?;
        // SAFETY: the caller's contract.
        let dkey = unsafe { bytes(dkey.cast(), dkey_bytes, "dkey") }?;
        let take = |name: &[u8]| {
            // SAFETY: the caller's contract; the name lives through the call.
            unsafe { each(context, name.as_ptr().cast(), name.len()) == 0 }
        };
        list(&container, &view, oid_of(oid), dkey, take)
    })
}

fn list(
    container: &Container,
    view: &View,
    oid: Oid,
    dkey: &[u8],
    mut take: impl FnMut(&[u8]) -> bool,
) -> Result<(), Fault> {
    let object = container.object(oid);
    let kind = if dkey.is_empty() { EnumerateKind::Dkeys } else { EnumerateKind::Akeys };
    let mut after = Vec::new();
    loop {
        let page = if kind == EnumerateKind::Dkeys {
            object.dkeys(view, &after, NAMES_A_ROUND)
        } else {
            object.akeys(view, dkey, &after, NAMES_A_ROUND)
        };
        let page = page.map_err(fault)?;
        if !page.names.iter().all(|name| take(name)) || !page.more {
            return Ok(());
        }
        match page.names.into_iter().next_back() {
            Some(last) => after = last,
            None => return Ok(()),
        }
    }
}
