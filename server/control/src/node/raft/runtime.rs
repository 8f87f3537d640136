//! The executor that openraft runs on: one thread, virtual time, seeded randomness.
//!
//! Owns tasks, timers and the clock of one replica. Nothing here reads a real clock or blocks: whoever runs it says what time it
//! is, and it runs until every task waits for something. So the same replica can be replayed from a seed.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Debug};
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use openraft::OptionalSend;
use openraft::async_runtime::AsyncOneshotSendExt;
use tokio::sync::oneshot;

/// A task as the executor keeps it.
type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// The executor that runs on this thread now.
    static CURRENT: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
}

/// Locks; everything runs on one thread at a time, so a poisoned lock guards nothing half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What tasks reach while they run.
struct Shared {
    now_ns: AtomicU64,
    /// State of the random numbers.
    random: AtomicU64,
    last_id: AtomicU64,
    spawned: Mutex<Vec<Boxed>>,
    ready: Mutex<VecDeque<u64>>,
    timers: Mutex<BTreeMap<(u64, u64), Waker>>,
}

impl Shared {
    fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn current() -> Arc<Shared> {
    let shared = CURRENT.with(|current| current.borrow().clone());
    shared.unwrap_or_else(|| unreachable!("openraft is only called while its executor is entered"))
}

/// Leaves the executor again.
pub(super) struct Entered(Option<Arc<Shared>>);

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.0.take();
        CURRENT.with(|current| *current.borrow_mut() = before);
    }
}

struct Task {
    future: Boxed,
    waker: Waker,
}

struct TaskWaker {
    id: u64,
    shared: Weak<Shared>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(shared) = self.shared.upgrade() {
            let mut ready = lock(&shared.ready);
            if !ready.contains(&self.id) {
                ready.push_back(self.id);
            }
        }
    }
}

/// Runs the tasks of one replica.
pub(super) struct Executor {
    shared: Arc<Shared>,
    tasks: BTreeMap<u64, Task>,
}

impl Executor {
    pub(super) fn new(now_ns: u64, seed: u64) -> Self {
        let shared = Shared {
            now_ns: AtomicU64::new(now_ns),
            random: AtomicU64::new(seed),
            last_id: AtomicU64::new(0),
            spawned: Mutex::default(),
            ready: Mutex::default(),
            timers: Mutex::default(),
        };
        Self { shared: Arc::new(shared), tasks: BTreeMap::new() }
    }

    /// Makes this executor the one that openraft finds, until the answer is dropped.
    pub(super) fn enter(&self) -> Entered {
        let shared = self.shared.clone();
        Entered(CURRENT.with(|current| current.borrow_mut().replace(shared)))
    }

    /// Adds a task; it begins with the next [`Executor::run`].
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        lock(&self.shared.spawned).push(Box::pin(tokio::task::unconstrained(future)));
    }

    /// When the next timer is due, in nanoseconds.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        lock(&self.shared.timers).first_key_value().map(|((at_ns, _), _)| *at_ns)
    }

    /// Runs until all tasks wait, at this moment; says whether any ran.
    pub(super) fn run(&mut self, now_ns: u64) -> bool {
        let _entered = self.enter();
        self.shared.now_ns.store(now_ns, Ordering::Relaxed);
        let mut has_run = false;
        loop {
            self.fire(now_ns);
            for future in std::mem::take(&mut *lock(&self.shared.spawned)) {
                let id = self.shared.next_id();
                let waker = Waker::from(Arc::new(TaskWaker { id, shared: Arc::downgrade(&self.shared) }));
                self.tasks.insert(id, Task { future, waker });
                lock(&self.shared.ready).push_back(id);
            }
            let Some(id) = lock(&self.shared.ready).pop_front() else { return has_run };
            has_run = true;
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            let waker = task.waker.clone();
            if task.future.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Ready(()) {
                self.tasks.remove(&id);
            }
        }
    }

    fn fire(&self, now_ns: u64) {
        loop {
            let mut timers = lock(&self.shared.timers);
            match timers.first_entry() {
                Some(first) if first.key().0 <= now_ns => {
                    let waker = first.remove();
                    drop(timers);
                    waker.wake();
                }
                _ => return,
            }
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // Destructors of tasks may look at the time.
        let _entered = self.enter();
        self.tasks.clear();
        lock(&self.shared.spawned).clear();
    }
}

/// A moment of the executor's time, in nanoseconds. Signed: openraft subtracts timeouts from early moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(i64);

fn ns(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl openraft::Instant for Moment {
    fn now() -> Self {
        Moment(i64::try_from(current().now_ns.load(Ordering::Relaxed)).unwrap_or(i64::MAX))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Moment(self.0.saturating_add(ns(duration)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Moment(self.0.saturating_sub(ns(duration)))
    }
}

impl Sub for Moment {
    type Output = Duration;
    fn sub(self, other: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(other.0)).unwrap_or(0))
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

/// Sleeps until a moment.
#[derive(Debug)]
pub(crate) struct Sleep {
    at_ns: u64,
    id: u64,
}

impl Sleep {
    fn until(at: Moment) -> Self {
        Self { at_ns: u64::try_from(at.0).unwrap_or(0), id: current().next_id() }
    }
}

impl Future for Sleep {
    type Output = ();
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let shared = current();
        if shared.now_ns.load(Ordering::Relaxed) >= self.at_ns {
            return Poll::Ready(());
        }
        lock(&shared.timers).insert((self.at_ns, self.id), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let shared = CURRENT.with(|current| current.borrow().clone());
        if let Some(shared) = shared {
            lock(&shared.timers).remove(&(self.at_ns, self.id));
        }
    }
}

/// A future with a deadline.
pub(crate) struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut self.sleep).poll(context).map(|()| Err(Elapsed))
    }
}

/// The deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the deadline has passed")]
pub(crate) struct Elapsed;

/// A task's result.
pub(crate) struct JoinHandle<T>(oneshot::Receiver<T>);

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Gone>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|result| result.map_err(|_| Gone))
    }
}

/// The task, or the other end of a channel, is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other end is gone")]
pub(crate) struct Gone;

/// Receiving end of a channel for one value.
pub(crate) struct Receiver<T>(oneshot::Receiver<T>);

impl<T> Future for Receiver<T> {
    type Output = Result<T, Gone>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|result| result.map_err(|_| Gone))
    }
}

/// Sending end of a channel for one value.
pub(crate) struct Sender<T>(oneshot::Sender<T>);

impl<T: OptionalSend> AsyncOneshotSendExt<T> for Sender<T> {
    fn send(self, value: T) -> Result<(), T> {
        self.0.send(value)
    }
}

impl<T> Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

/// Random numbers that follow from the executor's seed (splitmix64).
pub(crate) struct Random(Arc<Shared>);

impl rand::RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15_u64;
        let mut z = self.0.random.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let value = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&value[..chunk.len()]);
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

/// The runtime in openraft's words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Runtime;

impl openraft::AsyncRuntime for Runtime {
    type JoinError = Gone;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Moment;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = Random;
    type OneshotSender<T: OptionalSend> = Sender<T>;
    type OneshotReceiverError = Gone;
    type OneshotReceiver<T: OptionalSend> = Receiver<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        // Without tokio's budget: a channel that plays out of breath would be polled again at once, for ever.
        let task = tokio::task::unconstrained(async move { drop(sender.send(future.await)) });
        lock(&current().spawned).push(Box::pin(task));
        JoinHandle(receiver)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Sleep::until(<Moment as openraft::Instant>::now() + duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Sleep::until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep(duration) }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        Timeout { future: Box::pin(future), sleep: Sleep::until(deadline) }
    }

    fn is_panic(_error: &Self::JoinError) -> bool {
        false
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Random(current())
    }

    fn oneshot<T>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>)
    where
        T: OptionalSend,
    {
        let (sender, receiver) = oneshot::channel();
        (Sender(sender), Receiver(receiver))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::AsyncRuntime;
    use rand::RngCore;

    #[test]
    fn sleepers_wake_in_the_order_of_their_time() {
        let mut executor = Executor::new(1_000, 7);
        let seen = Arc::new(Mutex::new(Vec::new()));
        {
            let _entered = executor.enter();
            for ms in [30_u64, 10, 20] {
                let seen = seen.clone();
                drop(Runtime::spawn(async move {
                    Runtime::sleep(Duration::from_millis(ms)).await;
                    lock(&seen).push(ms);
                }));
            }
        }
        assert!(executor.run(1_000));
        assert_eq!(executor.next_deadline(), Some(10_001_000));
        assert!(!executor.run(10_000_000), "not yet");
        executor.run(25_000_000);
        assert_eq!(*lock(&seen), [10, 20]);
        executor.run(40_000_000);
        assert_eq!((&*lock(&seen), executor.next_deadline()), (&vec![10, 20, 30], None));
    }

    #[test]
    fn a_timeout_ends_what_takes_too_long_and_leaves_no_timer() {
        let mut executor = Executor::new(0, 7);
        let ended = Arc::new(Mutex::new(Vec::new()));
        {
            let _entered = executor.enter();
            let (kept, receiver) = Runtime::oneshot::<u32>();
            let told = ended.clone();
            drop(Runtime::spawn(async move {
                let late = Runtime::timeout(Duration::from_millis(5), receiver).await;
                lock(&told).push(late.is_err());
                let in_time = Runtime::timeout(Duration::from_millis(5), async { 3 }).await;
                lock(&told).push(in_time.is_err());
                drop(kept);
            }));
        }
        executor.run(0);
        executor.run(5_000_000);
        assert_eq!((&*lock(&ended), executor.next_deadline()), (&vec![true, false], None));
    }

    #[test]
    fn equal_seeds_draw_equal_numbers() {
        let draw = |seed| {
            let executor = Executor::new(0, seed);
            let _entered = executor.enter();
            (0..4).map(|_| Runtime::thread_rng().next_u64()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
