//! Which of this node's addresses the servers listen on for other nodes.

use std::net::{IpAddr, UdpSocket};

use crate::failure::Failure;

/// The address to listen on. `setting`: the site's word, an address of one node or the name of an interface that each node has
/// (`ib0`). Without it: the address that this node would talk to the launch node from.
pub(crate) fn resolve(setting: Option<&str>, launch_node: Option<&str>) -> Result<Option<String>, Failure> {
    let Some(setting) = setting else {
        return Ok(launch_node.and_then(towards).map(|address| address.to_string()));
    };
    if setting.parse::<IpAddr>().is_ok() {
        return Ok(Some(setting.to_owned()));
    }
    let interfaces = if_addrs::get_if_addrs().map_err(Failure::io("listing", "this node's network interfaces"))?;
    let named = interfaces.iter().filter(|interface| interface.name == setting).map(if_addrs::Interface::ip);
    // IPv4 first: link-local IPv6 addresses need a scope that an address alone does not carry.
    let address = named.clone().find(IpAddr::is_ipv4).or_else(|| named.clone().next());
    let mut names: Vec<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
    names.dedup();
    address.map(|address| Some(address.to_string())).ok_or_else(|| {
        let text = format!(
            "this node has no interface '{setting}' with an address (it has {}): mend `interface` in the site file",
            names.join(", ")
        );
        Failure::Usage(text)
    })
}

/// This node's end of the route to an address. Nothing is sent.
fn towards(address: &str) -> Option<IpAddr> {
    let address: IpAddr = address.parse().ok()?;
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).ok()?;
    socket.connect((address, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_a_name_or_the_route() {
        assert_eq!(resolve(Some("10.1.2.3"), None).unwrap().as_deref(), Some("10.1.2.3"));
        assert_eq!(resolve(Some("lo"), None).unwrap().as_deref(), Some("127.0.0.1"));
        assert_eq!(resolve(None, Some("127.0.0.1")).unwrap().as_deref(), Some("127.0.0.1"));
        assert_eq!(resolve(None, None).unwrap(), None);
        let error = resolve(Some("ib77"), None).unwrap_err().to_string();
        assert!(error.contains("ib77") && error.contains("lo"), "{error}");
    }
}
