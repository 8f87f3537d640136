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
use crate::error::Result;

const MS: u64 = 1_000_000;

type Running<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Operations of a client in flight, with results of one type. What they refer to must outlive the queue. Threads may share it.
pub struct Queue<'a, T> {
    client: Client,
    inside: Mutex<Inside<'a, T>>,
    /// Started and not taken.
    count: AtomicUsize,
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
    /// Polls what can go on; the results of what ends are kept.
    fn go_on(&mut self, waker: &Waker) {
        let mut context = Context::from_waker(waker);
        while let Poll::Ready(Some(result)) = self.running.poll_next_unpin(&mut context) {
            self.ended.push_back(result);
        }
    }

    fn is_empty(&self) -> bool {
        self.running.is_empty() && self.ended.is_empty()
    }
}

impl<'a, T> Queue<'a, T> {
    /// An empty queue.
    pub fn new(client: &Client) -> Self {
        let inside = Inside { running: FuturesUnordered::new(), ended: VecDeque::new() };
        Queue {
            client: client.clone(),
            inside: Mutex::new(inside),
            count: AtomicUsize::new(0),
            waiting: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside<'a, T>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts an operation, such as [`Object::update_async`](crate::Object::update_async): its request leaves before this
    /// returns, unless as many as may are in flight at its target.
    pub fn start(&self, operation: impl Future<Output = T> + Send + 'a) {
        self.count.fetch_add(1, SeqCst);
        let mut inside = self.lock();
        inside.running.push(Box::pin(operation));
        inside.go_on(&Waker::from(self.waiting.clone()));
        let has_ended = !inside.ended.is_empty();
        drop(inside);
        if has_ended {
            self.waiting.wake_by_ref();
        }
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
        let mut inside = self.lock();
        let (running, ended) = (std::mem::take(&mut inside.running), std::mem::take(&mut inside.ended));
        self.count.fetch_sub(running.len() + ended.len(), SeqCst);
        drop(inside);
        self.waiting.wake_by_ref();
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
        shared.drive();
        let until_ns = shared.now_ns().saturating_add(timeout_ms.saturating_mul(MS));
        let least = least.min(most);
        let waker = Waker::from(self.waiting.clone());
        let mut taken = Vec::new();
        self.client.block_on(async {
            let mut pause = pin!(shared.pause(until_ns));
            poll_fn(|context| {
                // Before the look, so that what changes after it is not missed.
                self.waiting.add(context.waker());
                let is_over = self.take_ended(&waker, &mut taken, most) || taken.len() >= least || enough();
                if is_over || pause.as_mut().poll(context).is_ready() {
                    self.waiting.remove(context.waker());
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
        let mut inside = self.lock();
        inside.go_on(waker);
        let count = inside.ended.len().min(most - taken.len());
        taken.extend(inside.ended.drain(..count));
        self.count.fetch_sub(count, SeqCst);
        let is_empty = inside.is_empty();
        drop(inside);
        if is_empty && count > 0 {
            // Others that wait for what is not there any more.
            self.waiting.wake_by_ref();
        }
        is_empty
    }

    /// Has all threads that wait in this queue look again whether they have to.
    pub fn look_again(&self) {
        self.waiting.wake_by_ref();
    }
}

impl<T> std::fmt::Debug for Queue<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} operations)", self.len())
    }
}
