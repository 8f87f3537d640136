//! The one form in which a server says no.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Kinds of refusal that a program may want to tell apart. Numbers never change their meaning.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names say it; texts travel with each refusal
pub enum RefusalCode {
    Argument = 1,
    NotFound = 2,
    Exists = 3,
    NoContainer = 4,
    Access = 5,
    NoSpace = 6,
    ServerLost = 7,
    Deadline = 8,
    /// The transaction is closed: aborted, or (a zombie's write) committed without this update.
    Closed = 9,
    Unsupported = 10,
    DataLost = 11,
    TooLong = 12,
    Retention = 13,
    Conflict = 14,
    /// The request names an old pool map; the reply's body is the new one.
    StaleMap = 15,
    /// Not the leader, not ready yet, or over its admission limit: try again.
    Busy = 16,
    /// The session has expired: its requests are never executed again.
    SessionExpired = 17,
    Checksum = 18,
    /// The stamp lies too far ahead of physical time.
    Clock = 19,
    Malformed = 20,
    Internal = 21,
    /// A commit's bound was overtaken by later stamps; the transaction is open still: prepare it again with a higher one.
    Restart = 22,
    /// The server knows nobody who leads the pool's log: nothing was decided, and it may be asked again, here or elsewhere.
    NoLeader = 23,
}

impl RefusalCode {
    /// The code of a number on the wire.
    pub fn from_u16(number: u16) -> Option<Self> {
        use RefusalCode::*;
        const ALL: [RefusalCode; 23] = [
            Argument,
            NotFound,
            Exists,
            NoContainer,
            Access,
            NoSpace,
            ServerLost,
            Deadline,
            Closed,
            Unsupported,
            DataLost,
            TooLong,
            Retention,
            Conflict,
            StaleMap,
            Busy,
            SessionExpired,
            Checksum,
            Clock,
            Malformed,
            Internal,
            Restart,
            NoLeader,
        ];
        ALL.into_iter().find(|code| *code as u16 == number)
    }
}

/// A server's no: what, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{text}")]
pub struct Refusal {
    /// Kind.
    pub code: RefusalCode,
    /// For people: what, where, what to do. At most [`MAX_TEXT_BYTES`] on the wire.
    pub text: String,
}

/// Longest text of a refusal in bytes; longer ones are cut.
pub const MAX_TEXT_BYTES: usize = 1024;

impl Refusal {
    /// A refusal with this text.
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.len() > MAX_TEXT_BYTES {
            let end = (0..=MAX_TEXT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
        }
        Self { code, text }
    }
}
