//! One endpoint of either kind, so that a test runs over both.

use std::ops::{Deref, DerefMut};

use super::super::datagrams::DatagramEndpoint;
use super::super::sends::Spares;
use super::super::ways::{TCP, TCP_DATAGRAMS, Ways};
use super::super::{LibfabricEndpoint, Member, Spin};
use crate::{Address, Credentials};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Connected,
    Datagrams,
}

pub(crate) enum Any {
    Connected(LibfabricEndpoint),
    Datagrams(DatagramEndpoint),
}

impl Kind {
    pub(crate) fn of(address: &Address) -> Kind {
        if matches!(address, Address::Datagrams { .. }) { Kind::Datagrams } else { Kind::Connected }
    }

    pub(crate) fn ways(self) -> &'static Ways {
        if self == Kind::Connected { &TCP } else { &TCP_DATAGRAMS }
    }
}

impl Any {
    pub(crate) fn new(kind: Kind, credentials: &Credentials) -> Any {
        match kind {
            Kind::Connected => Any::Connected(LibfabricEndpoint::new(credentials, Spin::Never).unwrap()),
            Kind::Datagrams => Any::Datagrams(DatagramEndpoint::new(credentials, Spin::Never).unwrap()),
        }
    }

    pub(crate) fn listen(&mut self) -> Address {
        match self {
            Any::Connected(endpoint) => endpoint.listen("127.0.0.1").unwrap(),
            Any::Datagrams(endpoint) => endpoint.listen(TCP_DATAGRAMS.provider, "127.0.0.1").unwrap(),
        }
    }

    pub(crate) fn spares(&self) -> &Spares {
        match self {
            Any::Connected(endpoint) => &endpoint.spares,
            Any::Datagrams(endpoint) => endpoint.spares(),
        }
    }

    pub(crate) fn copied_bytes(&self) -> u64 {
        match self {
            Any::Connected(endpoint) => endpoint.copied_bytes,
            Any::Datagrams(endpoint) => endpoint.copied_bytes(),
        }
    }

    /// Messages that have arrived, and ends that are known, and were not told.
    pub(crate) fn untold(&self) -> usize {
        match self {
            Any::Connected(endpoint) => endpoint.events.len(),
            Any::Datagrams(endpoint) => endpoint.untold(),
        }
    }

    /// Bytes that a peer has not taken.
    pub(crate) fn outbox_bytes(&self, peer: crate::PeerId) -> usize {
        match self {
            Any::Connected(endpoint) => endpoint.peers[&peer.0].sends.bytes,
            Any::Datagrams(endpoint) => endpoint.outbox_bytes(peer),
        }
    }

    /// Whether nothing is left of any connection.
    pub(crate) fn is_bare(&self) -> bool {
        match self {
            Any::Connected(endpoint) => endpoint.peers.is_empty() && endpoint.tokens.is_empty(),
            Any::Datagrams(endpoint) => endpoint.is_bare(),
        }
    }
}

impl Deref for Any {
    type Target = dyn Member;
    fn deref(&self) -> &Self::Target {
        match self {
            Any::Connected(endpoint) => endpoint,
            Any::Datagrams(endpoint) => endpoint,
        }
    }
}

impl DerefMut for Any {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Any::Connected(endpoint) => endpoint,
            Any::Datagrams(endpoint) => endpoint,
        }
    }
}

/// Tests of each kind out of functions that take one.
macro_rules! over_both {
    ($($name:ident),* $(,)?) => {
        mod connected {
            $(#[test]
            fn $name() {
                super::$name(super::Kind::Connected);
            })*
        }
        mod datagrams {
            $(#[test]
            fn $name() {
                super::$name(super::Kind::Datagrams);
            })*
        }
    };
}
pub(crate) use over_both;
