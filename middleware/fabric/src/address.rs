//! Addresses as they stand in the pool map and in the system's file: text, one form a fabric.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Where an endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A Unix socket that hands out same-node rings: `ring:NODE:/path`. Reachable only on the node of that id.
    Ring {
        /// Identity of the node (boot id), so that the same path on another node is not mistaken for it.
        node: String,
        /// Path of the socket.
        path: String,
    },
    /// A Unix stream socket: `unix:NODE:/path`.
    Unix {
        /// Identity of the node.
        node: String,
        /// Path of the socket.
        path: String,
    },
    /// A TCP socket: `tcp:HOST:PORT`.
    Tcp {
        /// Host and port.
        host_port: String,
    },
    /// A libfabric endpoint: `fi:PROVIDER:HEX`, HEX being the bytes of `fi_getname`.
    Libfabric {
        /// Provider name, such as `tcp`.
        provider: String,
        /// Raw address.
        name: Vec<u8>,
    },
    /// libfabric's reliable datagrams, by the socket that proves both sides and tells their datagram addresses:
    /// `rdm:PROVIDER:HOST:PORT`.
    Datagrams {
        /// Provider name, such as `tcp;ofi_rxm`.
        provider: String,
        /// Host and port of the socket.
        host_port: String,
    },
    /// A node of the in-process fabric: `sim:N`.
    Sim(u32),
}

/// An address that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "'{0}' is not a fabric address (ring:NODE:PATH, unix:NODE:PATH, tcp:HOST:PORT, fi:PROVIDER:HEX, rdm:PROVIDER:HOST:PORT)"
)]
pub struct BadAddress(pub String);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ring { node, path } => write!(f, "ring:{node}:{path}"),
            Address::Unix { node, path } => write!(f, "unix:{node}:{path}"),
            Address::Tcp { host_port } => write!(f, "tcp:{host_port}"),
            Address::Libfabric { provider, name } => {
                write!(f, "fi:{provider}:")?;
                name.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Address::Datagrams { provider, host_port } => write!(f, "rdm:{provider}:{host_port}"),
            Address::Sim(node) => write!(f, "sim:{node}"),
        }
    }
}

impl FromStr for Address {
    type Err = BadAddress;
    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(text.to_owned());
        let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
        let pair = || rest.split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).ok_or_else(bad);
        match kind {
            "ring" => pair().map(|(node, path)| Address::Ring { node, path }),
            "unix" => pair().map(|(node, path)| Address::Unix { node, path }),
            "tcp" => Ok(Address::Tcp { host_port: rest.to_owned() }),
            "fi" => {
                let (provider, hex) = pair()?;
                if hex.len() % 2 != 0 || !hex.is_ascii() {
                    return Err(bad());
                }
                let name = (0..hex.len() / 2)
                    .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).map_err(|_| bad()))
                    .collect::<Result<_, _>>()?;
                Ok(Address::Libfabric { provider, name })
            }
            "rdm" => pair().map(|(provider, host_port)| Address::Datagrams { provider, host_port }),
            "sim" => rest.parse().map(Address::Sim).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}
