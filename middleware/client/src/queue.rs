//! Many operations in flight from one thread: started one after another, taken as they end.
//!
//! Owns the operations that were started and not yet taken. There is no thread here either: operations go on while somebody
//! waits in the client, here or elsewhere. An operation that is dropped before its end leaves nothing that could still write
//! into its memory.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::client::Client;
use crate::error::Result;

const MS: u64 = 1_000_000;

type Running<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Operations of a client in flight, with results of one type. What they refer to must outlive the queue.
pub struct Queue<'a, T> {
    client: Client,
    running: FuturesUnordered<Running<'a, T>>,
    /// Ended while another one was started.
    ended: Vec<T>,
}

impl<'a, T> Queue<'a, T> {
    /// An empty queue.
    pub fn new(client: &Client) -> Self {
        Queue { client: client.clone(), running: FuturesUnordered::new(), ended: Vec::new() }
    }

    /// Starts an operation, such as [`Object::update_async`](crate::Object::update_async): its request leaves before this
    /// returns, unless as many as may are in flight at its target.
    pub fn start(&mut self, operation: impl Future<Output = T> + Send + 'a) {
        self.running.push(Box::pin(operation));
        // It has to be asked once to begin; who waits for it later asks with a waker of his own.
        if let Poll::Ready(Some(result)) = self.running.poll_next_unpin(&mut Context::from_waker(Waker::noop())) {
            self.ended.push(result);
        }
    }

    /// Operations started whose results were not taken.
    pub fn len(&self) -> usize {
        self.running.len() + self.ended.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives up all operations in flight: what became of updates among them is not known.
    pub fn give_up(&mut self) {
        self.running = FuturesUnordered::new();
        self.ended.clear();
    }

    /// Takes results in the order in which operations end: up to `most`, waiting for at least `least` of them (or all there
    /// are) for up to `timeout_ms`. With `least` 0 it only looks. Each operation ends by itself at its deadline.
    pub fn take(&mut self, least: usize, most: usize, timeout_ms: u64) -> Result<Vec<T>> {
        let shared = self.client.shared.clone();
        shared.check_process()?;
        // A look may find what nobody has received yet.
        shared.drive();
        let until_ns = shared.now_ns().saturating_add(timeout_ms.saturating_mul(MS));
        let (running, ended) = (&mut self.running, &mut self.ended);
        let mut taken: Vec<T> = ended.drain(..ended.len().min(most)).collect();
        self.client.block_on(async {
            let mut pause = pin!(shared.pause(until_ns));
            poll_fn(|context| {
                while taken.len() < most {
                    match running.poll_next_unpin(context) {
                        Poll::Ready(Some(result)) => taken.push(result),
                        Poll::Ready(None) => return Poll::Ready(()),
                        Poll::Pending => break,
                    }
                }
                if taken.len() >= least.min(most) { Poll::Ready(()) } else { pause.as_mut().poll(context) }
            })
            .await;
        })?;
        Ok(taken)
    }
}

impl<T> std::fmt::Debug for Queue<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} operations)", self.len())
    }
}
