//! Error codes of the C boundary: one number for each kind of trouble a program may want to tell apart.

/// What went wrong, as a number that never changes its meaning. Functions of the table return it negated.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// No error.
    Ok = 0,
    /// Bad argument: null pointer, unknown flag, wrong size or handle.
    Argument = 1,
    /// The path does not name anything that Talea can open (outside a container, malformed).
    Path = 2,
    /// No such file, directory, object, key or step.
    NotFound = 3,
    /// Exists already.
    Exists = 4,
    /// No such container.
    NoContainer = 5,
    /// No system of this user is running here.
    NoSystem = 6,
    /// Wrong secret, wrong user, or no right to do this.
    Access = 7,
    /// Write to a read-only handle, snapshot or step view.
    ReadOnly = 8,
    /// The pool is full.
    NoSpace = 9,
    /// A server is lost; the text names it.
    ServerLost = 10,
    /// The deadline passed.
    Deadline = 11,
    /// The transaction is aborted.
    Aborted = 12,
    /// Not supported yet.
    Unsupported = 13,
    /// Bytes or log did not verify.
    DataLost = 14,
    /// A foreign protocol or table version.
    Version = 15,
    /// A key, name or request beyond its limit.
    TooLong = 16,
    /// The snapshot or step is below retention.
    Retention = 17,
    /// Wait outcome: deadline passed, producer alive.
    NotReady = 18,
    /// Wait outcome: the producer has ended well.
    End = 19,
    /// Wait outcome: the producer has ended otherwise.
    ProducerLost = 20,
    /// A condition of an update did not hold, or a transaction conflicted.
    Conflict = 21,
    /// Is a directory, or is none.
    Kind = 22,
    /// A directory is not empty.
    NotEmpty = 23,
    /// Updates of the epoch are in flight; nothing was done: take their ends, then call again.
    InFlight = 24,
    /// Anything else; the text tells.
    Other = 99,
}

impl Code {
    /// The value that a function of the table returns.
    pub const fn negated(self) -> i32 {
        -(self as i32)
    }

    /// The code in a function's return value; unknown numbers are [`Code::Other`].
    pub fn from_return(value: i32) -> Code {
        const ALL: [Code; 26] = [
            Code::Ok,
            Code::Argument,
            Code::Path,
            Code::NotFound,
            Code::Exists,
            Code::NoContainer,
            Code::NoSystem,
            Code::Access,
            Code::ReadOnly,
            Code::NoSpace,
            Code::ServerLost,
            Code::Deadline,
            Code::Aborted,
            Code::Unsupported,
            Code::DataLost,
            Code::Version,
            Code::TooLong,
            Code::Retention,
            Code::NotReady,
            Code::End,
            Code::ProducerLost,
            Code::Conflict,
            Code::Kind,
            Code::NotEmpty,
            Code::InFlight,
            Code::Other,
        ];
        ALL.into_iter().find(|code| code.negated() == value).unwrap_or(Code::Other)
    }
}
