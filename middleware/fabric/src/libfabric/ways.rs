//! Which way bytes travel between nodes: by provider and size, and over which kind of endpoint.
//!
//! Owns that choice, and nothing of how it is carried out. A provider that is not in [`WAYS`] is not asked for, whatever the
//! machine has: each row needs its measurement (docs/performance.md, "Bulk between nodes").

use std::ffi::CStr;

use crate::endpoint::MAX_MESSAGE_BYTES;

/// What libfabric calls the type of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `FI_EP_MSG`: a connection is an endpoint of the provider.
    Connected,
    /// `FI_EP_RDM`: one endpoint sends to all peers, and a socket of ours says who they are and when they end.
    Datagrams,
}

/// How bytes get to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// One message of the provider, into a buffer that the receiver has posted before and whose bytes stay there until they
    /// were read.
    Message,
}

/// What is chosen for a provider.
#[derive(Debug)]
pub(crate) struct Ways {
    /// As libfabric calls it.
    pub(crate) provider: &'static str,
    /// The kind of endpoint that is used of it.
    pub(crate) kind: Kind,
    /// What the provider reads in its environment while we open it, in place of what the program has there for others (MPI).
    pub(crate) environment: &'static [&'static CStr],
    /// The way of messages of up to so many bytes, the smallest first; the last row is for the largest.
    pub(crate) by_bytes: &'static [(usize, Way)],
    /// Receive buffers of a connection that others have made to us: a target has many of these.
    pub(crate) accepted_receives: usize,
    /// Receive buffers of a connection that we have made: so many answers but one may be read where they arrived.
    pub(crate) connected_receives: usize,
}

impl Ways {
    /// The way of a message.
    pub(crate) fn of(&self, bytes: usize) -> Option<Way> {
        self.by_bytes.iter().find(|(most_bytes, _)| bytes <= *most_bytes).map(|(_, way)| *way)
    }
}

/// The providers that we use.
pub(crate) const WAYS: [Ways; 2] = [TCP, TCP_DATAGRAMS];

/// Connected endpoints over sockets. A one-sided read by the receiver costs a round trip more and saves no copy, for the message
/// itself arrives where it is read: 178 against 190 µs for 1 MiB, 14 against 22 for 4 KiB (`tools/programs/rma.c`).
pub(crate) const TCP: Ways = Ways {
    provider: "tcp",
    kind: Kind::Connected,
    environment: &[],
    by_bytes: &[(MAX_MESSAGE_BYTES, Way::Message)],
    accepted_receives: 2,
    connected_receives: 4,
};

/// libfabric's reliable datagrams over the same sockets: for machines without the networks that have nothing else, and for tests.
///
/// Each message goes eagerly. By default this provider lets the receiver read large ones out of the sender's memory, which it registers for
/// whoever connects to it and guesses a small number, and which it never lets go of if the receiver is killed.
pub(crate) const TCP_DATAGRAMS: Ways = Ways {
    provider: "tcp;ofi_rxm",
    kind: Kind::Datagrams,
    environment: &[c"FI_OFI_RXM_EAGER_LIMIT=1114112", c"FI_OFI_RXM_BUFFER_SIZE=16384", c"FI_OFI_RXM_ENABLE_DYN_RBUF=1"],
    by_bytes: &[(MAX_MESSAGE_BYTES, Way::Message)],
    accepted_receives: 2,
    connected_receives: 4,
};

/// What is chosen for a provider; `None`: this build does not use it.
pub(crate) fn ways(provider: &str) -> Option<&'static Ways> {
    WAYS.iter().find(|ways| ways.provider == provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_a_way_on_every_provider() {
        for row in &WAYS {
            assert!(row.by_bytes.is_sorted_by_key(|(most, _)| *most));
            assert_eq!(row.by_bytes.last().map(|(most, _)| *most), Some(MAX_MESSAGE_BYTES));
            assert!([0, 1, MAX_MESSAGE_BYTES].iter().all(|bytes| row.of(*bytes).is_some()));
            assert!(row.of(MAX_MESSAGE_BYTES + 1).is_none());
            assert!(row.accepted_receives >= 2 && row.connected_receives >= 2, "one of them is never lent");
        }
        assert!(ways("tcp").is_some() && ways("verbs").is_none());
        let eager = TCP_DATAGRAMS.environment[0].to_str().unwrap().rsplit_once('=').unwrap().1.parse();
        assert_eq!(eager, Ok(MAX_MESSAGE_BYTES));
    }
}
