//! Identifiers: plain numbers with a type each, so that one cannot stand for another.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// One `talead` process of a system.
    ServerId(u32)
);
number!(
    /// One shard of one server; dense over the whole pool, never reused within it.
    TargetId(u32)
);
number!(
    /// A pool; random.
    PoolId(u128)
);
number!(
    /// A container of a pool; dense from 1, never reused.
    ContainerId(u64)
);
number!(
    /// A transaction of a pool; dense from 1, never reused. 0 stands for "none" on the wire.
    TxId(u64)
);
number!(
    /// A client process's session with the pool service; 0 stands for "none" on the wire.
    SessionId(u64)
);
number!(
    /// A leased snapshot.
    LeaseId(u64)
);
number!(
    /// Index of an entry in the pool's log; a *horizon* is the position up to which all fates are known.
    Position(u64)
);
number!(
    /// Dense number of a committed collective epoch of a container; the first is 1, 0 means "before any".
    Step(u64)
);

/// Object id: 128 bits, of which the upper 32 are ours (class) and 96 the user's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Oid(pub u128);

impl Oid {
    /// Combines a class with the user's 96 bits; higher bits of `user` are dropped.
    pub const fn new(class: crate::ObjectClass, user: u128) -> Self {
        Oid(((class.encode() as u128) << 96) | (user & ((1 << 96) - 1)))
    }

    /// Class of the object, if the bits name one.
    pub const fn class(self) -> Option<crate::ObjectClass> {
        crate::ObjectClass::decode((self.0 >> 96) as u32)
    }

    /// The user's 96 bits.
    pub const fn user(self) -> u128 {
        self.0 & ((1 << 96) - 1)
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}.{:024x}", (self.0 >> 96) as u32, self.user())
    }
}
