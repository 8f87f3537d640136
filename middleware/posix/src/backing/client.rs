//! The seam over the real client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use talea_abi::Code;
use talea_client::{Client, ClientError, Container, EntryFetch, EntryUpdate, ErrorKind, QueryKind, Write};
use talea_model::{ObjectClass, Oid, Stamp, Step, Summary, TxId, View};

use super::{
    Backing, Condition, Done, Epoch, Fetch, Names, Punch, Refused, Snapshot, SnapshotAt, System, Update, ValueKind,
};
use crate::Fault;

/// A client's error in this crate's words.
pub fn fault(error: ClientError) -> Fault {
    let code = match error.kind() {
        ErrorKind::Argument => Code::Argument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Exists => Code::Exists,
        ErrorKind::NoContainer => Code::NoContainer,
        ErrorKind::NoSystem => Code::NoSystem,
        ErrorKind::Access => Code::Access,
        ErrorKind::NoSpace => Code::NoSpace,
        ErrorKind::ServerLost => Code::ServerLost,
        ErrorKind::Deadline => Code::Deadline,
        ErrorKind::Aborted => Code::Aborted,
        ErrorKind::Unsupported => Code::Unsupported,
        ErrorKind::DataLost => Code::DataLost,
        ErrorKind::Version => Code::Version,
        ErrorKind::TooLong => Code::TooLong,
        ErrorKind::Retention => Code::Retention,
        ErrorKind::Conflict => Code::Conflict,
        ErrorKind::InFlight => Code::InFlight,
        ErrorKind::Other => Code::Other,
    };
    Fault::new(code, error.to_string())
}

/// The system that a client is connected to.
pub struct ClientSystem {
    client: Client,
    /// Set when a list of names is not whole; `None`: such a list is an error.
    partial: Option<Arc<AtomicBool>>,
}

impl ClientSystem {
    /// The client's system.
    pub fn new(client: Client) -> Self {
        Self { client, partial: None }
    }

    /// The same, where names on lost servers may be missing in a list. The flag says whether any was, so far.
    pub fn partial(client: Client) -> (Self, Arc<AtomicBool>) {
        let flag = Arc::new(AtomicBool::new(false));
        (Self { client, partial: Some(flag.clone()) }, flag)
    }
}

impl System for ClientSystem {
    fn container(&self, name: &str) -> Result<Arc<dyn Backing>, Fault> {
        Ok(Arc::new(Open(self.client.container_open(name).map_err(fault)?, self.partial.clone())))
    }

    fn join(&self, blob: &[u8]) -> Result<Arc<dyn Backing>, Fault> {
        Ok(Arc::new(Open(self.client.container_join(blob).map_err(fault)?, self.partial.clone())))
    }
}

struct Open(Container, Option<Arc<AtomicBool>>);

fn entries_of<'a>(entries: &'a [Update<'a>]) -> Vec<EntryUpdate<'a>> {
    let entry = |entry: &'a Update<'a>| EntryUpdate {
        dkey: entry.dkey,
        akey: entry.akey,
        kind: entry.kind,
        condition: entry.condition,
        extents: &entry.extents,
        data: entry.data,
    };
    entries.iter().map(entry).collect()
}

impl Open {
    fn write(&self, write: Write<'_>, oid: Oid, entries: &[Update<'_>]) -> Result<(), Fault> {
        self.0.object(oid).update(&write, &entries_of(entries)).map_err(fault)
    }

    fn remove(&self, write: Write<'_>, oid: Oid, what: Punch<'_>, condition: Condition) -> Result<(), Fault> {
        let (dkey, akey, extent): (&[u8], &[u8], _) = match what {
            Punch::Object => (&[], &[], None),
            Punch::Dkey(dkey) => (dkey, &[], None),
            Punch::Range { dkey, akey, extent } => (dkey, akey, Some(extent)),
        };
        self.0.object(oid).punch(&write, &talea_client::Punch { dkey, akey, extent, condition }).map_err(fault)
    }
}

impl Backing for Open {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn blob(&self) -> Vec<u8> {
        self.0.blob()
    }

    fn default_class(&self) -> ObjectClass {
        ObjectClass::decode(self.0.properties().class).unwrap_or(ObjectClass::SX)
    }

    fn default_chunk_bytes(&self) -> u64 {
        self.0.properties().chunk_bytes
    }

    fn targets(&self) -> usize {
        self.0.client().map().targets.len()
    }

    fn hlc(&self) -> Stamp {
        self.0.client().hlc()
    }

    fn observe(&self, stamp: Stamp) {
        self.0.client().observe(stamp);
    }

    fn manifest_slot(&self, oid: Oid, dkey: &[u8]) -> Result<u32, Fault> {
        self.0.manifest_slot(oid, dkey).map_err(fault)
    }

    fn update(&self, oid: Oid, entries: &[Update<'_>]) -> Result<(), Fault> {
        self.write(Write::Auto, oid, entries)
    }

    fn punch(&self, oid: Oid, what: Punch<'_>, condition: Condition) -> Result<(), Fault> {
        self.remove(Write::Auto, oid, what, condition)
    }

    fn fetch(&self, view: View, oid: Oid, entries: &mut [Fetch<'_>]) -> Result<(), Fault> {
        let mut asked: Vec<EntryFetch<'_>> = entries
            .iter_mut()
            .map(|entry| EntryFetch {
                dkey: entry.dkey,
                akey: entry.akey,
                kind: if entry.extents.is_empty() { ValueKind::Single } else { ValueKind::Array { record_bytes: 1 } },
                extents: &entry.extents,
                out: &mut *entry.out,
                found: false,
                filled: false,
                bytes: 0,
            })
            .collect();
        self.0.object(oid).fetch(&view, &mut asked).map_err(fault)?;
        let told: Vec<(bool, usize)> = asked.iter().map(|entry| (entry.found, entry.bytes)).collect();
        for (entry, told) in entries.iter_mut().zip(told) {
            (entry.found, entry.bytes) = told;
        }
        Ok(())
    }

    fn dkeys(&self, view: View, oid: Oid, after: Option<&[u8]>, limit: usize) -> Result<Names, Fault> {
        let (object, after) = (self.0.object(oid), after.unwrap_or_default());
        let page = match &self.1 {
            None => object.dkeys(&view, after, limit).map_err(fault)?,
            Some(partial) => {
                let (page, is_all) = object.dkeys_at_hand(&view, after, limit).map_err(fault)?;
                partial.fetch_or(!is_all, Ordering::Relaxed);
                page
            }
        };
        Ok(Names { names: page.names, more: page.more })
    }

    fn array_end(&self, view: View, oid: Oid, dkey: &[u8], akey: &[u8]) -> Result<u64, Fault> {
        let (_, end) = self.0.object(oid).query(&view, QueryKind::ArrayEnd, dkey, akey).map_err(fault)?;
        Ok(end)
    }

    fn last_array(&self, view: View, oid: Oid, akey: &[u8]) -> Result<Option<(u64, u64)>, Fault> {
        let (dkey, end) = self.0.object(oid).query(&view, QueryKind::MaxDkeyArrayEnd, &[], akey).map_err(fault)?;
        Ok((dkey != u64::MAX).then_some((dkey, end)))
    }

    fn begin(&self, collective: bool) -> Result<Box<dyn Epoch>, Fault> {
        let epoch = self.0.begin(collective).map_err(fault)?;
        Ok(Part::boxed(&self.0, epoch))
    }

    fn tx_open(&self) -> Result<Box<dyn Epoch>, Fault> {
        let transaction = self.0.tx_open().map_err(fault)?;
        Ok(Part::boxed(&self.0, transaction.into_epoch()))
    }

    fn join(&self, blob: &[u8]) -> Result<Box<dyn Epoch>, Fault> {
        let epoch = self.0.join(blob).map_err(fault)?;
        Ok(Part::boxed(&self.0, epoch))
    }

    fn snapshot(&self, at: SnapshotAt) -> Result<Box<dyn Snapshot>, Fault> {
        Ok(Box::new(Lease(self.0.snapshot(at).map_err(fault)?)))
    }
}

struct Lease(talea_client::Snapshot);

impl Snapshot for Lease {
    fn view(&self) -> View {
        self.0.view()
    }

    fn step(&self) -> Step {
        self.0.step()
    }
}

struct Part {
    open: Open,
    epoch: talea_client::Epoch,
}

impl Part {
    fn boxed(container: &Container, epoch: talea_client::Epoch) -> Box<dyn Epoch> {
        Box::new(Part { open: Open(container.clone(), None), epoch })
    }
}

impl Epoch for Part {
    fn tx(&self) -> TxId {
        self.epoch.tx()
    }

    fn view(&self) -> View {
        self.epoch.view()
    }

    fn base_step(&self) -> Step {
        self.epoch.begun().base_step
    }

    fn blob(&self) -> Vec<u8> {
        self.epoch.blob()
    }

    fn update(&self, oid: Oid, entries: &[Update<'_>]) -> Result<(), Fault> {
        self.open.write(Write::Inside(&self.epoch), oid, entries)
    }

    fn update_all(&self, updates: &[(Oid, &[Update<'_>])]) -> Result<(), Fault> {
        let updates: Vec<(Oid, Vec<EntryUpdate<'_>>)> =
            updates.iter().map(|(oid, entries)| (*oid, entries_of(entries))).collect();
        self.open.0.update_all(&Write::Inside(&self.epoch), &updates).map_err(fault)
    }

    fn update_tied(&self, oid: Oid, entries: &[Update<'_>]) -> Result<(), Fault> {
        self.open.write(Write::Tied(&self.epoch), oid, entries)
    }

    fn punch(&self, oid: Oid, what: Punch<'_>) -> Result<(), Fault> {
        self.open.remove(Write::Inside(&self.epoch), oid, what, Condition::None)
    }

    fn summary(&self) -> Result<Summary, Fault> {
        self.epoch.try_summary().map_err(fault)
    }

    fn commit(&self, summary: &Summary, manifest: Option<u32>, next: bool) -> Result<Done, Refused> {
        if self.epoch.is_independent() {
            return match self.epoch.commit_independent() {
                Ok(committed) => Ok(Done { stamp: committed.stamp, step: committed.step, next: None }),
                Err(error) => Err(Refused { fault: fault(error), next: None }),
            };
        }
        let outcome = self.epoch.commit_named(summary, &[], manifest, next);
        let next = outcome.next.map(|epoch| Part::boxed(&self.open.0, epoch));
        match outcome.committed {
            Ok(committed) => Ok(Done { stamp: committed.stamp, step: committed.step, next }),
            Err(error) => Err(Refused { fault: fault(error), next }),
        }
    }

    fn abort(&self, reason: &str) -> Result<(), Fault> {
        self.epoch.abort(reason).map_err(fault)
    }

    fn closed(self: Box<Self>) {
        self.epoch.closed_elsewhere();
    }
}
