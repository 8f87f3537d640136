//! The programs of the groups' world: writers of autocommits and of epochs, creators, readers, and the audit at the end.
//!
//! They note what they did and saw. Must never look into servers.

use std::cell::{Cell as Slot, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use talea_model::class::Protection;
use talea_model::{
    ContainerId, LeaseId, MapVersion, ObjectClass, Oid, Order, Position, SessionId, Stamp, Step, TargetId, TxId, View,
};
use talea_vos::ObjectRef;
use talea_vos::checksum::crc32c;
use talea_wire::data::{Body, Condition, Entry, Extents, Head, Request, ValueKind};

use super::check::Seen;
use super::net::{Answer, Ask, LOG, LogAsk, LogTell, Net, Node, Packet};
use crate::history::{Cell, History, Insert, Outcome, Read, Told, Value};
use crate::program::CELLS;
use crate::random::Random;

/// Cells of autocommits; each has one writer, which writes growing values.
pub(super) const AUTO: std::ops::Range<Cell> = CELLS..CELLS + 8;
/// Rows that several programs try to create.
pub(super) const ROWS: std::ops::Range<u64> = 100..112;
const MS: u64 = 1_000_000;
/// A call is given up after this time.
const DEADLINE_NS: u64 = 3_000 * MS;
/// A target that does not answer for so long is asked again, or another one.
const PATIENCE_NS: u64 = 60 * MS;

/// Where a key lies in its store.
pub(super) struct Place {
    pub(super) at: ObjectRef,
    pub(super) dkey: [u8; 4],
    pub(super) akey: &'static [u8],
}

pub(super) fn place(key: u32) -> Place {
    let class = ObjectClass { protection: Protection::Replicated(2), groups: 1 };
    let oid = Oid::new(class, 1 + u128::from(key / 8));
    Place { at: ObjectRef { container: ContainerId(1), oid }, dkey: key.to_be_bytes(), akey: b"value" }
}

/// What all programs share with the world.
pub(super) struct Shared {
    pub(super) net: Net,
    pub(super) replies: BTreeMap<(Node, u64), (Stamp, Answer)>,
    pub(super) log_replies: BTreeMap<Node, Vec<LogTell>>,
    pub(super) wakes: BTreeSet<u64>,
    pub(super) history: History,
    pub(super) seen: Vec<Seen>,
    /// The last acknowledged value of each cell of autocommits.
    pub(super) acked: BTreeMap<Cell, Value>,
    /// What somebody was told; everybody hears of it at once, outside of the system.
    pub(super) told: Stamp,
    pub(super) done: bool,
    /// What was acknowledged and what was read.
    pub(super) updates: u64,
    pub(super) refused: u64,
}

#[derive(Clone)]
pub(super) struct Context {
    pub(super) shared: Rc<RefCell<Shared>>,
    pub(super) node: Node,
    pub(super) groups: Arc<Vec<Vec<TargetId>>>,
    random: Rc<RefCell<Random>>,
    hlc: Rc<Slot<Stamp>>,
    next: Rc<Slot<u64>>,
    /// Whom each group's updates are sent to.
    guess: Rc<RefCell<BTreeMap<usize, usize>>>,
}

/// A snapshot, and what was acknowledged before it was asked for.
#[derive(Clone)]
struct Snapshot {
    view: View,
    stamp: Stamp,
    acked: BTreeMap<Cell, Value>,
}

impl Context {
    pub(super) fn new(
        shared: &Rc<RefCell<Shared>>,
        node: Node,
        groups: &Arc<Vec<Vec<TargetId>>>,
        random: Random,
    ) -> Self {
        Context {
            shared: shared.clone(),
            node,
            groups: groups.clone(),
            random: Rc::new(RefCell::new(random)),
            hlc: Rc::default(),
            next: Rc::new(Slot::new(1)),
            guess: Rc::default(),
        }
    }

    fn draw(&self, end: u64) -> u64 {
        self.random.borrow_mut().below(end)
    }

    fn number(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    fn hear(&self, hlc: Stamp) {
        self.hlc.set(self.hlc.get().max(hlc));
    }

    fn group(&self, key: u32) -> usize {
        key as usize % self.groups.len()
    }

    async fn sleep_us(&self, us: u64) {
        let until_ns = self.shared.borrow().net.now_ns + us * 1_000;
        poll_fn(|_| {
            let mut shared = self.shared.borrow_mut();
            if shared.net.now_ns >= until_ns {
                return Poll::Ready(());
            }
            shared.wakes.insert(until_ns);
            Poll::Pending
        })
        .await;
    }

    /// Sends something again and again until something is there, or until a time.
    async fn until<T>(
        &self,
        to: Node,
        packet: Packet,
        patience_ns: u64,
        mut ready: impl FnMut(&mut Shared) -> Option<T>,
    ) -> Option<T> {
        let begun_ns = self.shared.borrow().net.now_ns;
        let (until_ns, mut again_ns) = (begun_ns + patience_ns, begun_ns);
        poll_fn(|_| {
            let mut shared = self.shared.borrow_mut();
            if let Some(found) = ready(&mut shared) {
                return Poll::Ready(Some(found));
            }
            let now_ns = shared.net.now_ns;
            if now_ns >= until_ns {
                return Poll::Ready(None);
            }
            if now_ns >= again_ns {
                again_ns = now_ns + 15 * MS;
                shared.net.send(self.node, to, packet.clone());
            }
            shared.wakes.insert(again_ns.min(until_ns));
            Poll::Pending
        })
        .await
    }

    async fn log(&self, ask: LogAsk, fits: impl Fn(&LogTell) -> bool) -> LogTell {
        loop {
            self.hear(self.shared.borrow().told);
            let packet = Packet::LogAsk { hlc: self.hlc.get(), ask: ask.clone() };
            let told = self.until(LOG, packet, DEADLINE_NS, |shared| {
                let replies = shared.log_replies.entry(self.node).or_default();
                let found = replies.iter().position(&fits).map(|at| replies.swap_remove(at));
                replies.retain(|_| found.is_none());
                found
            });
            if let Some(told) = told.await {
                return told;
            }
        }
    }

    async fn begin(&self) -> TxId {
        self.shared.borrow_mut().history.begins_asked += 1;
        let id = u64::from(self.node) << 32 | self.number();
        match self.log(LogAsk::Begin { id }, |tell| matches!(tell, LogTell::Began { id: of, .. } if *of == id)).await {
            LogTell::Began { tx, .. } => tx,
            _ => TxId(0),
        }
    }

    /// Closes a transaction; what became of it.
    async fn close(&self, tx: TxId, commit: bool) -> Option<Stamp> {
        let ask = if commit { LogAsk::Commit { tx } } else { LogAsk::Abort { tx } };
        match self.log(ask, |tell| matches!(tell, LogTell::Closed { tx: of, .. } if *of == tx)).await {
            LogTell::Closed { commit, .. } => commit,
            _ => None,
        }
    }

    async fn snapshot(&self) -> Snapshot {
        let acked = self.shared.borrow().acked.clone();
        let id = u64::from(self.node) << 32 | self.number();
        let tell =
            self.log(LogAsk::Snapshot { id }, |tell| matches!(tell, LogTell::Snapshot { id: of, .. } if *of == id));
        let (stamp, position) = match tell.await {
            LogTell::Snapshot { stamp, position, .. } => (stamp, position),
            _ => (Stamp::ZERO, Position(0)),
        };
        Snapshot { view: View::Snapshot { stamp, position, lease: LeaseId(0) }, stamp, acked }
    }

    /// The request for a new value of a key; 0 punches it.
    fn request(&self, key: u32, value: Value, order: Order, sequence: u64, condition: Condition) -> Vec<u8> {
        let place = place(key);
        let head = Head {
            id: sequence,
            session: SessionId(self.node.into()),
            sequence,
            acknowledged_below: sequence,
            hlc: self.hlc.get(),
            map_version: MapVersion(0),
            target: TargetId(0),
            deadline_ms: 0,
            container: place.at.container,
            oid: place.at.oid,
            order: Some(order),
            view: View::Latest,
        };
        let bytes = value.to_le_bytes();
        let body = if value == 0 {
            Body::Punch { dkey: &place.dkey, akey: place.akey, extent: None, condition }
        } else {
            Body::Update(vec![Entry {
                dkey: &place.dkey,
                akey: place.akey,
                kind: ValueKind::Single,
                condition,
                extents: Extents::new(),
                checksum: crc32c(&bytes),
                data: &bytes,
                more: Default::default(),
            }])
        };
        let request = Request { head, body };
        let mut encoded = Vec::new();
        request.encode(&mut encoded);
        request.data().for_each(|data| encoded.extend_from_slice(data));
        encoded
    }

    fn packet(&self, group: usize, ask: Ask) -> (u64, Packet) {
        let id = self.number();
        (id, Packet::Request { id, group, hlc: self.hlc.get(), ask })
    }

    /// Asks one member.
    async fn ask(&self, group: usize, member: TargetId, ask: Ask, patience_ns: u64) -> Option<Answer> {
        let (id, packet) = self.packet(group, ask);
        let node = self.node;
        let reply = self.until(member.0, packet, patience_ns, |shared| shared.replies.remove(&(node, id))).await;
        reply.map(|(hlc, answer)| {
            self.hear(hlc);
            answer
        })
    }

    /// Asks whoever leads the group, again and again.
    async fn ask_leader(&self, group: usize, ask: Ask) -> Option<Answer> {
        let until_ns = self.shared.borrow().net.now_ns + DEADLINE_NS;
        while self.shared.borrow().net.now_ns < until_ns {
            let at = *self.guess.borrow_mut().entry(group).or_default();
            let members = &self.groups[group];
            let next = match self.ask(group, members[at], ask.clone(), PATIENCE_NS).await {
                Some(Answer::Elsewhere(Some(leader))) => members.iter().position(|member| *member == leader),
                Some(Answer::Elsewhere(None)) | None => None,
                answer => return answer,
            };
            let next = next.filter(|next| *next != at).unwrap_or((at + 1) % members.len());
            self.guess.borrow_mut().insert(group, next);
            self.sleep_us(1_000 + self.draw(4_000)).await;
        }
        None
    }

    async fn update(&self, key: u32, value: Value, order: Order, condition: Condition) -> Told {
        let sequence = self.number();
        let bytes = self.request(key, value, order, sequence, condition);
        let answer = self.ask_leader(self.group(key), Ask::Update(bytes)).await;
        let mut shared = self.shared.borrow_mut();
        match answer {
            Some(Answer::Done) => {
                shared.told = shared.told.max(self.hlc.get());
                shared.updates += 1;
                Told::Done
            }
            Some(Answer::Refused) => {
                shared.refused += 1;
                Told::Refused
            }
            _ => Told::Nothing,
        }
    }

    /// Sends an update and does not wait for anything.
    fn blurt(&self, key: u32, value: Value, order: Order) {
        let sequence = self.number();
        let bytes = self.request(key, value, order, sequence, Condition::None);
        let group = self.group(key);
        let (_, packet) = self.packet(group, Ask::Update(bytes));
        let at = *self.guess.borrow_mut().entry(group).or_default();
        self.shared.borrow_mut().net.send(self.node, self.groups[group][at].0, packet);
    }

    /// Reads a key in a snapshot at one member, and notes what it saw.
    async fn read(&self, snapshot: &Snapshot, key: u32, member: TargetId, patience_ns: u64) -> Option<Value> {
        let ask = Ask::Read { view: snapshot.view, key };
        let Some(Answer::Value(value)) = self.ask(self.group(key), member, ask, patience_ns).await else { return None };
        let mut shared = self.shared.borrow_mut();
        shared.history.reads.push(Read { reader: member.0, stamp: snapshot.stamp, cell: key, value });
        if let Some(floor) = snapshot.acked.get(&key).copied().or(AUTO.contains(&key).then_some(0)) {
            shared.seen.push(Seen { stamp: Some(snapshot.stamp), cell: key, value, floor, member });
        }
        Some(value)
    }
}

/// Writes autocommits to its own cells, each value larger than the one before.
pub(super) async fn auto_writer(context: Context, cells: Vec<Cell>, rounds: u64) {
    for round in 1..=rounds {
        let cell = cells[context.draw(cells.len() as u64) as usize];
        let told = context.update(cell, round, Order::Auto { tied: None }, Condition::None).await;
        if told == Told::Done {
            context.shared.borrow_mut().acked.insert(cell, round);
        }
        context.sleep_us(context.draw(20_000)).await;
    }
}

/// Writes epochs to its own cells.
pub(super) async fn epoch_writer(context: Context, cells: Vec<Cell>, rounds: u64) {
    for _ in 0..rounds {
        let base = context.snapshot().await;
        let tx = context.begin().await;
        context.shared.borrow_mut().history.transactions.entry(tx).or_default();
        let mut all = true;
        for _ in 0..=context.draw(4) {
            let cell = cells[context.draw(cells.len() as u64) as usize];
            all &= write(&context, &base, tx, cell).await;
        }
        if context.draw(2) == 0 {
            // A program that breaks the rules: it does not wait for what it writes, and commits.
            let cell = cells[context.draw(cells.len() as u64) as usize];
            let mut value = 0;
            note(&context, tx, |transaction| {
                transaction.uncertain.push(cell);
                value = tx.0 << 24 | (1 << 23) | transaction.uncertain.len() as u64;
            });
            context.blurt(cell, value, Order::Pending(tx));
        }
        let commit = context.close(tx, all).await;
        note(&context, tx, |transaction| {
            transaction.outcome = match commit {
                Some(stamp) => Outcome::Committed { stamp, step: Step(0) },
                None => Outcome::Aborted,
            };
        });
        context.sleep_us(context.draw(15_000)).await;
    }
}

fn note(context: &Context, tx: TxId, change: impl FnOnce(&mut crate::history::Transaction)) {
    change(context.shared.borrow_mut().history.transactions.entry(tx).or_default());
}

/// Writes a cell inside of a transaction, and looks whether it is there. Whether it was acknowledged.
async fn write(context: &Context, base: &Snapshot, tx: TxId, cell: Cell) -> bool {
    let value = if context.draw(10) == 0 { 0 } else { tx.0 << 24 | context.draw(1 << 22).max(1) };
    note(context, tx, |transaction| transaction.uncertain.push(cell));
    let told = context.update(cell, value, Order::Pending(tx), Condition::None).await;
    if told != Told::Done {
        return false;
    }
    note(context, tx, |transaction| {
        transaction.writes.insert(cell, value);
        let at = transaction.uncertain.iter().rposition(|uncertain| *uncertain == cell);
        at.map(|at| transaction.uncertain.swap_remove(at));
    });
    if let View::Snapshot { stamp, position, .. } = base.view
        && context.draw(3) == 0
    {
        let view = View::Inside { tx, base: stamp, position };
        let answer = context.ask_leader(context.group(cell), Ask::Read { view, key: cell }).await;
        if let Some(Answer::Value(saw)) = answer {
            context.shared.borrow_mut().history.told.push((value, saw));
        }
    }
    true
}

/// Creates rows that others want to create, too.
pub(super) async fn inserter(context: Context) {
    for row in ROWS {
        context.sleep_us(context.draw(120_000)).await;
        let value = row << 32 | u64::from(context.node);
        let order = Order::Auto { tied: None };
        let told = context.update(row as u32, value, order, Condition::Insert).await;
        context.shared.borrow_mut().history.inserts.push(Insert { row, value, told });
    }
}

/// Reads snapshots at any member, the same ones again later, and the latest state at leaders.
pub(super) async fn reader(context: Context) {
    let mut kept: Vec<Snapshot> = Vec::new();
    while !context.shared.borrow().done {
        if kept.is_empty() || context.draw(4) != 0 {
            kept.push(context.snapshot().await);
        }
        if kept.len() > 6 {
            kept.remove(context.draw(6) as usize);
        }
        let newest = context.draw(2) == 0;
        let at = if newest { kept.len() - 1 } else { context.draw(kept.len() as u64) as usize };
        let snapshot = kept[at].clone();
        for _ in 0..=context.draw(5) {
            let key = context.draw(AUTO.end.into()) as u32;
            let members = context.groups[context.group(key)].clone();
            let some = context.draw(members.len() as u64) as usize;
            // All of them half of the time.
            let read = if context.draw(2) == 0 { &members[..] } else { &members[some..=some] };
            for member in read {
                context.read(&snapshot, key, *member, PATIENCE_NS).await;
            }
        }
        if context.draw(2) == 0 {
            latest(&context).await;
        }
        context.sleep_us(context.draw(8_000)).await;
    }
}

/// The latest state holds what was acknowledged before it was asked for.
async fn latest(context: &Context) {
    let cell = AUTO.start + context.draw(u64::from(AUTO.end - AUTO.start)) as Cell;
    let floor = context.shared.borrow().acked.get(&cell).copied().unwrap_or_default();
    let group = context.group(cell);
    let ask = Ask::Read { view: View::Latest, key: cell };
    // Also of members that do not lead: they must not answer.
    let member = context.groups[group][context.draw(context.groups[group].len() as u64) as usize];
    if let Some(Answer::Value(value)) = context.ask(group, member, ask, PATIENCE_NS).await {
        context.shared.borrow_mut().seen.push(Seen { stamp: None, cell, value, floor, member });
    }
}

/// When all is at rest: every complete member shows the same, and what was acknowledged.
pub(super) async fn audit(context: Context, complete: Vec<Vec<TargetId>>) {
    let snapshot = context.snapshot().await;
    for key in 0..AUTO.end {
        for member in &complete[context.group(key)] {
            if context.read(&snapshot, key, *member, DEADLINE_NS).await.is_none() {
                let what = format!("a read of cell {key} at target {member}, a complete member, when all was at rest");
                context.shared.borrow_mut().history.hanging.push(what);
            }
        }
    }
    for row in ROWS {
        for member in &complete[context.group(row as u32)] {
            if let Some(value) =
                context.read(&snapshot, row as u32, *member, DEADLINE_NS).await.filter(|value| *value > 0)
            {
                context.shared.borrow_mut().history.rows.insert(row, value);
            }
        }
    }
}
