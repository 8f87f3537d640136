//! Who runs a function that the caller gave, so that none is called when its queue is gone.
//!
//! Must never be locked while such a function runs: it may poll, or destroy its own queue.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

/// The functions of one queue.
#[derive(Default)]
pub(super) struct Calling {
    inside: Mutex<Inside>,
    left: Condvar,
}

#[derive(Default)]
struct Inside {
    is_over: bool,
    /// Threads in which functions run, one inside the other's poll as well.
    running: Vec<ThreadId>,
}

impl Calling {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `function`; false, and it is not run, if no more are to be called.
    pub(super) fn call(&self, function: impl FnOnce()) -> bool {
        let thread = std::thread::current().id();
        let mut inside = self.lock();
        if inside.is_over {
            return false;
        }
        inside.running.push(thread);
        drop(inside);
        function();
        let mut inside = self.lock();
        if let Some(at) = inside.running.iter().rposition(|other| *other == thread) {
            inside.running.remove(at);
        }
        drop(inside);
        self.left.notify_all();
        true
    }

    /// No function is called any more, and none runs in another thread when this returns. One that runs in this thread has called it.
    pub(super) fn end(&self) {
        let thread = std::thread::current().id();
        let mut inside = self.lock();
        inside.is_over = true;
        while inside.running.iter().any(|other| *other != thread) {
            inside = self.left.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn an_end_waits_for_other_threads_and_not_for_its_own() {
        let calling = Calling::default();
        assert!(calling.call(|| calling.end()));
        assert!(!calling.call(|| panic!("it is over")));

        let (calling, ended) = (Calling::default(), AtomicBool::new(false));
        let (begun, begins) = mpsc::channel();
        let (go, goes) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let (calling, ended) = (&calling, &ended);
            scope.spawn(move || {
                let function = || {
                    begun.send(()).unwrap();
                    goes.recv().unwrap();
                    assert!(!ended.load(SeqCst), "it has ended while this runs");
                };
                assert!(calling.call(function));
            });
            begins.recv().unwrap();
            scope.spawn(move || {
                calling.end();
                ended.store(true, SeqCst);
            });
            while !calling.is_over() {
                std::thread::yield_now();
            }
            assert!(!calling.call(|| panic!("it is over")));
            go.send(()).unwrap();
        });
        assert!(ended.load(SeqCst));
    }
}
