//! Where a webhook may go: never to this machine or a network's own services unless the site says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An entry of `webhook.allow_private` that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no network (10.0.0.0/8), address or host name")]
pub struct BadAddress(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(most);
        (prefix <= most).then_some(Self { address, prefix })
    }

    fn holds(self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - self.prefix).unwrap_or(0);
                u32::from(mine) & mask == u32::from(other) & mask
            }
            (IpAddr::V6(mine), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - self.prefix).unwrap_or(0);
                u128::from(mine) & mask == u128::from(other) & mask
            }
            _ => false,
        }
    }
}

/// The addresses that receivers may have: public ones, and those that the site allows.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    networks: Vec<Network>,
    hosts: Vec<String>,
}

impl Addresses {
    /// From networks (`10.0.0.0/8`), addresses and host names. A host named here may have any
    /// address.
    ///
    /// # Errors
    /// The entry that is none of them.
    pub fn new(allowed: &[String]) -> Result<Self, BadAddress> {
        let mut addresses = Self::default();
        for entry in allowed.iter().map(|entry| entry.trim().to_ascii_lowercase()) {
            let letters = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            if let Some(network) = Network::parse(&entry) {
                addresses.networks.push(network);
            } else if !entry.is_empty() && entry.chars().all(letters) {
                addresses.hosts.push(entry.trim_end_matches('.').to_owned());
            } else {
                return Err(BadAddress(entry));
            }
        }
        Ok(addresses)
    }

    /// Whether `host`, which has the address `ip`, may be called.
    #[must_use]
    pub fn allow(&self, host: &str, ip: IpAddr) -> bool {
        let inner = embedded(ip);
        is_public(inner)
            || self.networks.iter().any(|network| network.holds(ip) || network.holds(inner))
            || self.allow_host(host)
    }

    fn allow_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }
}

/// The IPv4 address inside an IPv6 one that only carries it.
fn embedded(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let segments = v6.segments();
    let low = || {
        let [.., high, low] = segments;
        Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
    };
    match segments {
        // ::ffff:0:0/96 mapped, 64:ff9b::/96 translated.
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => IpAddr::V4(low()),
        // 2002::/16: 6to4.
        [0x2002, high, low, ..] => IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))),
        _ => ip,
    }
}

/// Reachable by everybody: what the registries of special-purpose addresses (RFC 6890) leave.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_documentation()
                || v4.is_multicast()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (18..20).contains(&b)))
        }
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6 == Ipv6Addr::UNSPECIFIED
                || (first & 0xfe00) == 0xfc00
                || (first & 0xffc0) == 0xfe80
                || (first & 0xffc0) == 0xfec0
                || (first == 0x2001 && second == 0xdb8)
                || (first == 0x0064 && second == 0xff9b)
                || first == 0x0100
                || first == 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(allowed: &[&str], host: &str, ip: &str) -> bool {
        let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
        Addresses::new(&allowed).unwrap().allow(host, ip.parse().unwrap())
    }

    #[test]
    fn only_public_addresses_are_allowed_unless_the_site_says() {
        for ip in ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "172.32.0.1", "100.128.0.1"] {
            assert!(allow(&[], "h", ip), "{ip}");
        }
        for ip in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.9",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::",
            "::7f00:1",
        ] {
            assert!(!allow(&[], "h", ip), "{ip}");
        }
    }

    #[test]
    fn networks_addresses_and_hosts_are_allowed_by_name() {
        assert!(allow(&["10.0.0.0/8"], "h", "10.255.0.1"));
        assert!(!allow(&["10.1.0.0/16"], "h", "10.2.0.1"));
        assert!(allow(&["10.0.0.0/8"], "h", "::ffff:10.0.0.1"), "mapped addresses count as what they carry");
        assert!(allow(&["127.0.0.1"], "h", "127.0.0.1") && !allow(&["127.0.0.1"], "h", "127.0.0.2"));
        assert!(allow(&["fd00::/8"], "h", "fd12::1") && !allow(&["fd00::/8"], "h", "fc00::1"));
        assert!(allow(&["0.0.0.0/0"], "h", "127.0.0.1") && allow(&["::/0"], "h", "::1"));
        assert!(
            allow(&["hooks.corp"], "Hooks.Corp.", "10.0.0.1")
                && !allow(&["hooks.corp"], "x.hooks.corp", "10.0.0.1")
        );
        for bad in ["10.0.0.0/33", "a b", "", "http://x"] {
            assert!(Addresses::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
