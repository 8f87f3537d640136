//! What the kernel says of sockets, and times as it takes them.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::Timespec;

/// `ns` as the kernel takes timeouts, never more than it takes.
pub(crate) fn timespec(ns: u64) -> Timespec {
    let tv_sec = i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX).min(i64::from(i32::MAX) / 1000);
    Timespec { tv_sec, tv_nsec: (ns % 1_000_000_000) as _ }
}

/// The pid at the other end of a Unix socket if it is of our own user, by the kernel's word.
pub(crate) fn own_peer(socket: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?;
    if peer.uid != rustix::process::geteuid() {
        return Ok(None);
    }
    Ok(Some(peer.pid.as_raw_nonzero().get().unsigned_abs()))
}
