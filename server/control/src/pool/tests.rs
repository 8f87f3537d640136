//! The rules of the log, one by one; `model` holds the pool against a tiny model of it.

mod independent;
mod model;
mod retention;
mod rules;
mod states;

use talea_model::{
    ContainerId, MapVersion, PoolMap, Position, ServerId, ServerInfo, SessionId, Stamp, Step, Summary, TargetId,
    TargetInfo, TargetState, TxId,
};
use talea_wire::control::{Begun, Committed, Reply, Snapshot};
use talea_wire::log::{ContainerProperties, Entry, Record, SnapshotAt};
use talea_wire::{Refusal, RefusalCode};

use super::*;

/// A pool with its log's next position, and a session.
#[derive(Clone)]
struct Bench {
    pool: Pool,
    session: SessionId,
    proposed: Stamp,
    last: Applied,
}

fn server(id: u32) -> ServerInfo {
    ServerInfo { id: ServerId(id), host: "host".into(), node: "node".into(), control: vec![format!("sim:{id}")] }
}

fn target(id: u32, server: u32, incarnation: u64) -> TargetInfo {
    TargetInfo {
        id: TargetId(id),
        server: ServerId(server),
        state: TargetState::Up,
        addresses: vec![format!("sim:{id}")],
        capacity_bytes: 1 << 30,
        incarnation,
    }
}

fn properties(kept_steps: u64) -> ContainerProperties {
    ContainerProperties { kept_steps, ..ContainerProperties::default() }
}

impl Bench {
    /// Two servers with two targets each, a session, and container 1 that keeps 3 steps.
    fn new() -> Self {
        let mut bench =
            Bench { pool: Pool::default(), session: SessionId(0), proposed: Stamp(1000), last: Applied::default() };
        let targets = (0..4).map(|id| target(id, id / 2, 1)).collect();
        bench.ok(Entry::PoolCreate { pool: 7, servers: vec![server(0), server(1)], targets, boots: vec![1, 1] });
        bench.session = bench.open_session(0);
        let reply = bench.ok(Entry::ContainerCreate { name: "run".into(), properties: properties(3) });
        assert!(matches!(reply, Reply::Container(info) if info.container == ContainerId(1)));
        bench
    }

    fn record(&mut self, session: SessionId, sequence: u64, entry: Entry) -> Record {
        let position = Position(self.pool.position().0 + 1);
        self.proposed = Stamp(self.proposed.0 + 10);
        Record { position, proposed: self.proposed, session, sequence, entry }
    }

    fn apply(&mut self, record: &Record) -> Outcome {
        self.last = self.pool.apply(record).unwrap();
        self.last.outcome.clone().unwrap()
    }

    fn put(&mut self, entry: Entry) -> Outcome {
        let record = self.record(self.session, 0, entry);
        self.apply(&record)
    }

    fn ok(&mut self, entry: Entry) -> Reply {
        self.put(entry).unwrap()
    }

    fn refused(&mut self, entry: Entry) -> RefusalCode {
        self.put(entry).unwrap_err().code
    }

    fn open_session(&mut self, home: u32) -> SessionId {
        match self.ok_as(
            SessionId(0),
            Entry::SessionOpen { home: ServerId(home), name: "test".into(), secret: home.into(), process: None },
        ) {
            Reply::Session { session, .. } => session,
            other => panic!("{other:?}"),
        }
    }

    fn ok_as(&mut self, session: SessionId, entry: Entry) -> Reply {
        let record = self.record(session, 0, entry);
        self.apply(&record).unwrap()
    }

    fn begin(&mut self) -> Begun {
        match self.ok(Entry::Begin { container: ContainerId(1), collective: true }) {
            Reply::Begun(begun) => begun,
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, tx: TxId, summary: Summary) -> Result<Committed, Refusal> {
        match self.put(commit(tx, summary, false))? {
            Reply::Committed(committed) => Ok(committed),
            other => panic!("{other:?}"),
        }
    }

    /// A whole epoch that touches target 0.
    fn step(&mut self) -> Committed {
        let tx = self.begin().tx;
        let summary = self.touched(&[0]);
        self.commit(tx, summary).unwrap()
    }

    fn touched(&self, targets: &[u32]) -> Summary {
        let mut summary = Summary { map_version: self.pool.map().unwrap().version, ..Summary::default() };
        targets.iter().for_each(|target| summary.touched.insert(TargetId(*target)));
        summary
    }

    fn snapshot(&mut self, at: SnapshotAt) -> Result<Snapshot, Refusal> {
        match self.put(Entry::SnapshotOpen { container: ContainerId(1), at })? {
            Reply::Snapshot(snapshot) => Ok(snapshot),
            other => panic!("{other:?}"),
        }
    }
}

fn commit(tx: TxId, summary: Summary, next: bool) -> Entry {
    Entry::Commit { tx, summary, attributes: b"attributes".to_vec(), manifest: None, next }
}

fn end(session: SessionId, joined: &[TxId]) -> Entry {
    Entry::SessionEnd { session, home: None, joined: joined.to_vec(), orderly: false }
}
