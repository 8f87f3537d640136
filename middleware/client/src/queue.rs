//! Many operations in flight from one thread: started one after another, taken as they end.
//!
//! Owns the operations that were started and not yet taken. There is no thread here either: operations go on while somebody
//! waits in the client, here or elsewhere. An operation that is dropped before its end leaves nothing that could still write
//! into its memory. Must never sleep with the lock held: threads start, count, take and give up side by side.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use smallvec::SmallVec;

use crate::client::Client;
use crate::core::driven::Carried;
use crate::error::Result;

const MS: u64 = 1_000_000;

type Running<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Operations of a client in flight, with results of one type. What they refer to must outlive the queue. Threads may share it.
pub struct Queue<'a, T> {
    client: Client,
    operations: Arc<Operations<'a, T>>,
    /// Started and not taken.
    count: AtomicUsize,
}

struct Operations<'a, T> {
    inside: Mutex<Inside<'a, T>>,
    waiting: Arc<Waiting>,
}

struct Inside<'a, T> {
    running: FuturesUnordered<Running<'a, T>>,
    /// Ended while another one was started.
    ended: VecDeque<T>,
}

/// Whom an operation's progress concerns: all threads that wait for results.
#[derive(Default)]
struct Waiting(Mutex<SmallVec<[Waker; 2]>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, SmallVec<[Waker; 2]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, waker: &Waker) {
        let mut wakers = self.lock();
        if !wakers.iter().any(|other| other.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    fn remove(&self, waker: &Waker) {
        self.lock().retain(|other| !other.will_wake(waker));
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let wakers = std::mem::take(&mut *self.lock());
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<T> Inside<'_, T> {
    /// Polls what can go on; the results of what ends are kept. Returns whether anything has ended.
    fn go_on(&mut self, waker: &Waker) -> bool {
        let (mut context, before) = (Context::from_waker(waker), self.ended.len());
        while let Poll::Ready(Some(result)) = self.running.poll_next_unpin(&mut context) {
            self.ended.push_back(result);
        }
        self.ended.len() > before
    }

    fn is_empty(&self) -> bool {
        self.running.is_empty() && self.ended.is_empty()
    }
}

impl<'a, T> Operations<'a, T> {
    fn lock(&self) -> MutexGuard<'_, Inside<'a, T>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send> Carried for Operations<'static, T> {
    fn go_on(&self, waker: &Waker) {
        self.waiting.add(waker);
        let any = self.lock().go_on(&Waker::from(self.waiting.clone()));
        if any {
            self.waiting.wake_by_ref();
        }
    }

    fn leave(&self, waker: &Waker) {
        self.waiting.remove(waker);
    }
}

impl<T: Send + 'static> Queue<'static, T> {
    /// An empty queue whose operations go on while any thread waits in the client, in whatever call. Those of another queue do while
    /// somebody waits in the queue.
    pub fn carried(client: &Client) -> Self {
        let queue = Self::new(client);
        let operations: Arc<dyn Carried> = queue.operations.clone();
        client.shared.carry(Arc::downgrade(&operations));
        queue
    }
}

impl<'a, T> Queue<'a, T> {
    /// An empty queue.
    pub fn new(client: &Client) -> Self {
        let inside = Mutex::new(Inside { running: FuturesUnordered::new(), ended: VecDeque::new() });
        let operations = Arc::new(Operations { inside, waiting: Arc::default() });
        Queue { client: client.clone(), operations, count: AtomicUsize::new(0) }
    }

    fn add(&self, count: usize) {
        self.count.fetch_add(count, SeqCst);
        self.client.shared.queued(count);
    }

    fn sub(&self, count: usize) {
        self.count.fetch_sub(count, SeqCst);
        self.client.shared.unqueued(count);
    }

    /// Starts an operation, such as [`Object::update_async`](crate::Object::update_async): its request leaves before this
    /// returns, unless as many as may are in flight at its target or there is no connection to it yet.
    ///
    /// Its deadline counts while somebody drives the client: time in which the program is elsewhere is not the server's, but for up to
    /// 0.1 s before each look of a program that does not wait.
    pub fn start(&self, operation: impl Future<Output = T> + Send + 'a) {
        self.add(1);
        let waiting = &self.operations.waiting;
        let mut inside = self.operations.lock();
        inside.running.push(Box::pin(operation));
        let any = inside.go_on(&Waker::from(waiting.clone()));
        drop(inside);
        if any {
            waiting.wake_by_ref();
        }
        self.client.shared.stand();
    }

    /// Operations started whose results were not taken.
    pub fn len(&self) -> usize {
        self.count.load(SeqCst)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives up all operations in flight: what became of updates among them is not known. Who waits for them returns.
    pub fn give_up(&self) {
        let mut inside = self.operations.lock();
        let (running, ended) = (std::mem::take(&mut inside.running), std::mem::take(&mut inside.ended));
        self.sub(running.len() + ended.len());
        drop(inside);
        self.operations.waiting.wake_by_ref();
    }

    /// Takes results in the order in which operations end: up to `most`, waiting for at least `least` of them (or all there
    /// are) for up to `timeout_ms`. With `least` 0 it only looks. Each operation ends by itself at its deadline.
    pub fn take(&self, least: usize, most: usize, timeout_ms: u64) -> Result<Vec<T>> {
        self.take_unless(least, most, timeout_ms, || false)
    }

    /// As [`take`](Self::take), but does not wait while `enough` says so; it is asked anew after [`look_again`](Self::look_again).
    pub fn take_unless(&self, least: usize, most: usize, timeout_ms: u64, enough: impl Fn() -> bool) -> Result<Vec<T>> {
        let shared = self.client.shared.clone();
        shared.check_process()?;
        // A look may find what nobody has received yet.
        match least == 0 || timeout_ms == 0 {
            true => shared.look(),
            false => shared.drive(),
        };
        let until_ns = shared.now_ns().saturating_add(timeout_ms.saturating_mul(MS));
        let least = least.min(most);
        let waiting = &self.operations.waiting;
        let waker = Waker::from(waiting.clone());
        let mut taken = Vec::new();
        self.client.block_on(async {
            let mut pause = pin!(shared.pause(until_ns));
            poll_fn(|context| {
                // Before the look, so that what changes after it is not missed.
                waiting.add(context.waker());
                let is_over = self.take_ended(&waker, &mut taken, most) || taken.len() >= least || enough();
                if is_over || pause.as_mut().poll(context).is_ready() {
                    waiting.remove(context.waker());
                    return Poll::Ready(());
                }
                Poll::Pending
            })
            .await;
        })?;
        Ok(taken)
    }

    /// Takes what has ended, up to `most` in all; whether nothing is left.
    fn take_ended(&self, waker: &Waker, taken: &mut Vec<T>, most: usize) -> bool {
        let mut inside = self.operations.lock();
        inside.go_on(waker);
        let count = inside.ended.len().min(most - taken.len());
        taken.extend(inside.ended.drain(..count));
        self.sub(count);
        let is_empty = inside.is_empty();
        drop(inside);
        if is_empty && count > 0 {
            // Others that wait for what is not there any more.
            self.operations.waiting.wake_by_ref();
        }
        is_empty
    }

    /// Has all threads that wait in this queue look again whether they have to.
    pub fn look_again(&self) {
        self.operations.waiting.wake_by_ref();
    }
}

impl<T> Drop for Queue<'_, T> {
    fn drop(&mut self) {
        // A thread that carries it may hold the operations for a moment longer. In a forked child nothing of it is touched.
        if !self.client.shared.is_foreign() {
            self.give_up();
        }
    }
}

impl<T> std::fmt::Debug for Queue<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} operations)", self.len())
    }
}
