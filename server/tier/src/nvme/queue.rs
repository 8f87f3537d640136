//! The queue: many writes in flight at once, all waited for before the call returns.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use io_uring::{IoUring, opcode, types};

use super::aligned::Aligned;

/// Writes in flight.
const DEPTH: usize = 32;

/// An io_uring of this target.
pub(super) struct Queue {
    ring: IoUring,
}

impl Queue {
    /// A queue, if the system allows one.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { ring: IoUring::new(DEPTH as u32)? })
    }

    /// Writes all runs. On an error it names the offset; the others are written or not, and none is in flight any more.
    pub(super) fn write_all(&mut self, file: &File, runs: &[(u64, Aligned)]) -> Result<(), (u64, Error)> {
        for batch in runs.chunks(DEPTH) {
            let mut results: [Option<i32>; DEPTH] = [None; DEPTH];
            let mut sent = 0;
            for (number, (offset, buffer)) in batch.iter().enumerate() {
                let bytes = buffer.as_ref();
                let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32)
                    .offset(*offset)
                    .build()
                    .user_data(number as u64);
                // SAFETY: file and buffer outlive the write: the loop below returns only when all pushed are completed.
                if unsafe { self.ring.submission().push(&entry) }.is_err() {
                    break;
                }
                sent += 1;
            }
            self.wait(sent, &mut results);
            for (number, (offset, buffer)) in batch.iter().enumerate() {
                finish(file, *offset, buffer.as_ref(), results[number]).map_err(|error| (*offset, error))?;
            }
        }
        Ok(())
    }

    /// Waits until `sent` writes have completed: the kernel may read their buffers until then.
    fn wait(&mut self, sent: usize, results: &mut [Option<i32>; DEPTH]) {
        let mut done = 0;
        while done < sent {
            if self.ring.submit_and_wait(sent - done).is_err() {
                // Interrupted or short of memory: what was pushed is still in the ring, so try again.
                std::thread::yield_now();
            }
            for completion in self.ring.completion() {
                if let Some(slot) = results.get_mut(completion.user_data() as usize) {
                    *slot = Some(completion.result());
                }
                done += 1;
            }
        }
    }
}

/// Writes what the queue did not.
fn finish(file: &File, offset: u64, bytes: &[u8], result: Option<i32>) -> std::io::Result<()> {
    match result {
        Some(written) if written as usize == bytes.len() => Ok(()),
        Some(error) if error < 0 && Error::from_raw_os_error(-error).kind() != ErrorKind::Interrupted => {
            Err(Error::from_raw_os_error(-error))
        }
        // Short, interrupted or never sent: whole, by a plain call.
        _ => file.write_all_at(bytes, offset),
    }
}
