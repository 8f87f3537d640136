//! Putting endpoints together for a server's target and for a client.
//!
//! Owns the choice of fabric. Must never choose an address that cannot be reached from this node.

use crate::handshake::Credentials;
use crate::libfabric::LibfabricEndpoint;
use crate::libfabric::datagrams::DatagramEndpoint;
use crate::member::{Member, Spin};
use crate::mux::MuxEndpoint;
use crate::ring::RingEndpoint;
use crate::stream::StreamEndpoint;
use crate::{Address, FabricError};

/// Which fabric to use where there is a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Rings on the same node, libfabric between nodes, TCP where there is no libfabric.
    #[default]
    Auto,
    /// Rings only.
    Ring,
    /// libfabric only, also on the same node.
    Libfabric,
}

/// Where a target listens.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Path of the Unix socket that hands out rings, in a directory that only its owner may enter.
    pub ring_path: String,
    /// Address of the interface that other nodes reach, for libfabric (if it is installed) and TCP; `None`: this node only.
    pub interface: Option<String>,
    /// libfabric's provider between nodes; `None`: connected endpoints of `tcp`, if libfabric is installed.
    pub provider: Option<String>,
    /// Whether waits may spin.
    pub spin: Spin,
    /// Threads that serve the targets of this server: each wants a core.
    pub targets: usize,
}

/// A target's endpoint, and the addresses to publish for it.
pub fn listen(credentials: &Credentials, listen: &Listen) -> Result<(MuxEndpoint, Vec<Address>), FabricError> {
    let mut rings = RingEndpoint::new(credentials, listen.spin)?;
    rings.set_targets(listen.targets);
    let mut addresses = vec![rings.listen(&listen.ring_path)?];
    let mut streams = StreamEndpoint::new(credentials, listen.spin)?;
    let mut members: Vec<Box<dyn Member>> = Vec::new();
    if let (Some(interface), Some(provider)) = (&listen.interface, &listen.provider) {
        // Whoever names a provider wants no other in its place.
        let mut datagrams = DatagramEndpoint::new(credentials, listen.spin)?;
        addresses.push(datagrams.listen(provider, interface)?);
        members.push(Box::new(datagrams));
        addresses.push(streams.listen_tcp(&format!("{interface}:0"))?);
    } else if let Some(interface) = &listen.interface {
        let mut libfabric = LibfabricEndpoint::new(credentials, listen.spin)?;
        match libfabric.listen(interface) {
            Ok(address) => {
                addresses.push(address);
                members.push(Box::new(libfabric));
            }
            // TCP, below, serves where libfabric is not installed.
            Err(FabricError::Unsupported(..)) => {}
            Err(error) => return Err(error),
        }
        addresses.push(streams.listen_tcp(&format!("{interface}:0"))?);
    }
    members.splice(0..0, [Box::new(rings) as Box<dyn Member>, Box::new(streams)]);
    Ok((MuxEndpoint::new(members, listen.spin)?, addresses))
}

/// A client's endpoint, which connects to targets, and over a stream to the control plane whatever the policy.
pub fn client_endpoint(credentials: &Credentials, policy: Policy, spin: Spin) -> Result<MuxEndpoint, FabricError> {
    let mut members: Vec<Box<dyn Member>> =
        vec![Box::new(RingEndpoint::new(credentials, spin)?), Box::new(StreamEndpoint::new(credentials, spin)?)];
    if policy != Policy::Ring {
        members.push(Box::new(LibfabricEndpoint::new(credentials, spin)?));
        members.push(Box::new(DatagramEndpoint::new(credentials, spin)?));
    }
    MuxEndpoint::new(members, spin)
}

/// The addresses that a target published and that can be used from this node, the nearest fabric first. A client tries them
/// in this order: libfabric may be missing where a target has it.
pub fn candidates(addresses: &[Address], node_id: &str, policy: Policy) -> Vec<Address> {
    let rank = |address: &Address| match (address, policy) {
        (Address::Ring { node, .. }, Policy::Auto | Policy::Ring) if node == node_id => Some(0),
        (Address::Libfabric { .. } | Address::Datagrams { .. }, Policy::Auto | Policy::Libfabric) => Some(1),
        (Address::Unix { node, .. }, Policy::Auto) if node == node_id => Some(2),
        (Address::Tcp { .. }, Policy::Auto) => Some(3),
        (Address::Sim(_), _) => Some(4),
        _ => None,
    };
    let mut ranked: Vec<_> = addresses.iter().filter_map(|address| Some((rank(address)?, address))).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, address)| address.clone()).collect()
}

/// The best of [`candidates`], or an error that names what was published.
pub fn choose(addresses: &[Address], node_id: &str, policy: Policy) -> Result<Address, FabricError> {
    candidates(addresses, node_id, policy).into_iter().next().ok_or_else(|| {
        let all: Vec<String> = addresses.iter().map(Address::to_string).collect();
        let why = format!("no address of it fits this node and the fabric policy {policy:?}");
        FabricError::Unreachable(all.join(" "), why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_fabric_that_the_policy_allows_is_chosen() {
        let ring = |node: &str| Address::Ring { node: node.into(), path: "/p".into() };
        let tcp = Address::Tcp { host_port: "127.0.0.1:1".into() };
        let fi = Address::Libfabric { provider: "tcp".into(), name: vec![1] };
        let rdm = Address::Datagrams { provider: "tcp;ofi_rxm".into(), host_port: "127.0.0.1:2".into() };
        assert_eq!(choose(&[tcp.clone(), rdm.clone()], "there", Policy::Auto).unwrap(), rdm);
        assert_eq!(choose(&[tcp.clone(), rdm.clone()], "here", Policy::Libfabric).unwrap(), rdm);
        let all = [tcp.clone(), fi.clone(), ring("here")];
        assert_eq!(choose(&all, "here", Policy::Auto).unwrap(), ring("here"));
        assert_eq!(choose(&all, "there", Policy::Auto).unwrap(), fi);
        assert_eq!(choose(&all, "here", Policy::Libfabric).unwrap(), fi);
        assert_eq!(choose(&all[..1], "here", Policy::Auto).unwrap(), tcp);
        assert!(choose(&all, "there", Policy::Ring).is_err());
        assert_eq!(candidates(&all, "here", Policy::Auto), [ring("here"), fi, tcp]);
    }
}
