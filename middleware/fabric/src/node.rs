//! Which node this is, so that a path on one node is not mistaken for the same path on another.

use std::fs;

/// Identity of this node: its boot id and its host name, without the characters that addresses use.
///
/// Network namespaces and containers of one machine share the boot id, and a ring between them works if both see the path;
/// the host name tells those apart that an administrator named differently.
pub fn node_id() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let host = rustix::system::uname();
    let text = format!("{}-{}", boot.trim(), host.nodename().to_string_lossy());
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_stable_and_fits_an_address() {
        let id = super::node_id();
        assert!(id.len() > 30);
        assert_eq!(id, super::node_id());
        let address = crate::Address::Ring { node: id, path: "/tmp/x:y".into() };
        assert_eq!(address.to_string().parse(), Ok(address));
    }
}
