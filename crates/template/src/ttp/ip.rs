//! Addresses, interfaces and networks as Python's `ipaddress` writes them.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value};

/// An address with an optional prefix length, of one version.
#[derive(Debug, Clone, Copy)]
struct Parsed<'t> {
    six: bool,
    /// The zone behind `%`, of version 6.
    scope: Option<&'t str>,
    bits: u128,
    prefix: Option<u8>,
    /// A network prints its address only with the prefix; an interface keeps its host bits.
    max: u8,
}

fn v4(text: &str) -> Option<u128> {
    let mut parts = 0;
    let mut bits: u128 = 0;
    for p in text.split('.') {
        // Leading zeroes are refused, as they may mean octal.
        if p.is_empty()
            || p.len() > 3
            || p.len() > 1 && p.starts_with('0')
            || !p.bytes().all(|b| b.is_ascii_digit())
        {
            return None;
        }
        bits = bits << 8 | u128::from(p.parse::<u8>().ok()?);
        parts += 1;
    }
    (parts == 4).then_some(bits)
}

fn mask_of(bits: u128, max: u8, prefix: u8) -> u128 {
    let all = if max == 128 { u128::MAX } else { (1u128 << max) - 1 };
    if prefix == 0 {
        0
    } else {
        bits & (all ^ ((1u128.checked_shl(u32::from(max - prefix)).unwrap_or(0)).wrapping_sub(1) & all))
    }
}

fn netmask(max: u8, prefix: u8) -> u128 {
    let all = if max == 128 { u128::MAX } else { (1u128 << max) - 1 };
    mask_of(all, max, prefix)
}

fn show(six: bool, bits: u128) -> String {
    // The reference writes an address of version 4 within one of version 6 in hex.
    if six && let Some(four) = Ipv6Addr::from(bits).to_ipv4_mapped() {
        let four = u32::from(four);
        return format!("::ffff:{:x}:{:x}", four >> 16, four & 0xffff);
    }
    if six { Ipv6Addr::from(bits).to_string() } else { Ipv4Addr::from(bits as u32).to_string() }
}

fn exploded(six: bool, bits: u128) -> String {
    if !six {
        return show(false, bits);
    }
    let parts: Vec<String> = Ipv6Addr::from(bits).segments().iter().map(|s| format!("{s:04x}")).collect();
    parts.join(":")
}

fn prefix_of(text: &str, six: bool) -> Option<u8> {
    let max = if six { 128 } else { 32 };
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse::<u8>().ok().filter(|p| *p <= max);
    }
    if six {
        return None;
    }
    let bits = v4(text)? as u32;
    if bits.leading_ones() + bits.trailing_zeros() >= 32 {
        return Some(bits.leading_ones() as u8);
    }
    // A host mask, such as 0.0.0.255.
    (bits.leading_zeros() + bits.trailing_ones() >= 32).then_some(bits.leading_zeros() as u8)
}

fn parse(text: &str) -> Option<Parsed<'_>> {
    let (addr, prefix) = match text.split_once('/') {
        Some((a, p)) => (a, Some(p)),
        None => (text, None),
    };
    let (addr, scope) = match addr.split_once('%') {
        Some((_, scope)) if scope.is_empty() || scope.contains('%') => return None,
        Some((addr, scope)) => (addr, Some(scope)),
        None => (addr, None),
    };
    let (six, bits) = match v4(addr) {
        Some(_) if scope.is_some() => return None,
        Some(b) => (false, b),
        None => (true, u128::from(addr.parse::<Ipv6Addr>().ok()?)),
    };
    let prefix = match prefix {
        Some(p) => Some(prefix_of(p, six)?),
        None => None,
    };
    Some(Parsed { six, scope, bits, prefix, max: if six { 128 } else { 32 } })
}

fn text(p: &Parsed<'_>) -> String {
    let mut out = show(p.six, p.bits);
    if let Some(scope) = p.scope {
        out.push('%');
        out.push_str(scope);
    }
    match p.prefix {
        Some(n) => format!("{out}/{n}"),
        None => out,
    }
}

fn of_version(p: Parsed<'_>, version: Option<u8>) -> Option<Parsed<'_>> {
    match version {
        Some(v) if (v == 6) != p.six => None,
        _ => Some(p),
    }
}

/// An address or an interface; `address mask` is read as `address/mask`.
pub(crate) fn to_ip(s: &str, version: Option<u8>) -> Option<String> {
    let s = s.replace(' ', "/");
    of_version(parse(&s)?, version).map(|p| text(&p))
}

/// A network; host bits must be zero.
pub(crate) fn to_net(s: &str, version: Option<u8>) -> Option<String> {
    let mut p = of_version(parse(s)?, version)?;
    let prefix = p.prefix.unwrap_or(p.max);
    if mask_of(p.bits, p.max, prefix) != p.bits {
        return None;
    }
    p.prefix = Some(prefix);
    Some(text(&p))
}

/// Whether the networks of two texts share addresses.
pub(crate) fn overlap(a: &str, b: &str) -> bool {
    let (Some(a), Some(b)) = (parse(a), parse(b)) else { return false };
    if a.six != b.six {
        return false;
    }
    let n = a.prefix.unwrap_or(a.max).min(b.prefix.unwrap_or(b.max));
    mask_of(a.bits, a.max, n) == mask_of(b.bits, b.max, n)
}

fn inside(p: &Parsed<'_>, nets: &[&str]) -> bool {
    let host = Parsed { prefix: None, ..*p };
    nets.iter().any(|n| overlap(&text(&host), n))
}

const PRIVATE4: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.0.170/31",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "255.255.255.255/32",
];
const PUBLIC4: &[&str] = &["192.0.0.9/32", "192.0.0.10/32"];
const PRIVATE6: &[&str] = &[
    "::1/128",
    "::/128",
    "::ffff:0:0/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "fc00::/7",
    "fe80::/10",
];
const PUBLIC6: &[&str] =
    &["2001:1::1/128", "2001:1::2/128", "2001:3::/32", "2001:4:112::/48", "2001:20::/28", "2001:30::/28"];
const RESERVED6: &[&str] = &[
    "::/8", "100::/8", "200::/7", "400::/6", "800::/5", "1000::/4", "4000::/3", "6000::/3", "8000::/3",
    "a000::/3", "c000::/3", "e000::/4", "f000::/5", "f800::/6", "fe00::/9",
];

fn property(p: &Parsed<'_>, name: &str) -> Option<Value> {
    let prefix = p.prefix.unwrap_or(p.max);
    let low = mask_of(p.bits, p.max, prefix);
    let wild = netmask(p.max, p.max) ^ netmask(p.max, prefix);
    let is = |four: &[&str], six: &[&str]| Value::Bool(inside(p, if p.six { six } else { four }));
    let interface = p.prefix.is_some();
    Some(match name {
        "version" => Value::from(if p.six { 6 } else { 4 }),
        "reverse_pointer" if p.six => {
            let exploded = exploded(true, p.bits) + &p.prefix.map(|n| format!("/{n}")).unwrap_or_default();
            let digits: Vec<String> =
                exploded.chars().rev().filter(|c| *c != ':').map(String::from).collect();
            Value::from(digits.join(".") + ".ip6.arpa")
        }
        "reverse_pointer" => {
            let text = text(p);
            let octets: Vec<&str> = text.split('.').rev().collect();
            Value::from(octets.join(".") + ".in-addr.arpa")
        }
        "max_prefixlen" => Value::from(p.max),
        "compressed" => Value::from(text(p)),
        "exploded" => Value::from(match p.prefix {
            Some(n) => format!("{}/{n}", exploded(p.six, p.bits)),
            None => exploded(p.six, p.bits),
        }),
        "is_link_local" => is(&["169.254.0.0/16"], &["fe80::/10"]),
        "is_loopback" => is(&["127.0.0.0/8"], &["::1/128"]),
        "is_multicast" => is(&["224.0.0.0/4"], &["ff00::/8"]),
        "is_private" => Value::Bool(if p.six {
            inside(p, PRIVATE6) && !inside(p, PUBLIC6)
        } else {
            inside(p, PRIVATE4) && !inside(p, PUBLIC4)
        }),
        "is_global" => Value::Bool(if p.six {
            !inside(p, PRIVATE6) || inside(p, PUBLIC6)
        } else {
            (!inside(p, PRIVATE4) || inside(p, PUBLIC4)) && !inside(p, &["100.64.0.0/10"])
        }),
        "is_reserved" => is(&["240.0.0.0/4"], RESERVED6),
        "is_unspecified" => is(&["0.0.0.0/32"], &["::/128"]),
        "ip" if interface => super::value::ip_object(show(p.six, p.bits)),
        "netmask" if interface => super::value::ip_object(show(p.six, netmask(p.max, prefix))),
        "hostmask" if interface => super::value::ip_object(show(p.six, wild)),
        "network" if interface => super::value::ip_object(format!("{}/{prefix}", show(p.six, low))),
        "network_address" if interface => super::value::ip_object(show(p.six, low)),
        "broadcast_address" if interface => super::value::ip_object(show(p.six, low | wild)),
        "prefixlen" if interface => Value::from(prefix),
        "with_prefixlen" if interface => Value::from(format!("{}/{prefix}", show(p.six, p.bits))),
        "with_netmask" if interface => {
            Value::from(format!("{}/{}", show(p.six, p.bits), show(p.six, netmask(p.max, prefix))))
        }
        "with_hostmask" if interface => Value::from(format!("{}/{}", show(p.six, p.bits), show(p.six, wild))),
        "num_addresses" if interface => count(p.max - prefix, 0),
        "hosts" if interface => count(p.max - prefix, 2),
        _ => return None,
    })
}

/// 2^bits - less; beyond 64 bits as a float, the nearest JSON has.
fn count(bits: u8, less: u64) -> Value {
    if bits == 0 {
        return Value::from(1 - less as i64);
    }
    let exact = 1u128.checked_shl(u32::from(bits)).and_then(|n| u64::try_from(n - u128::from(less)).ok());
    exact.map_or_else(|| Value::from(2f64.powi(i32::from(bits)) - less as f64), Value::from)
}

/// An attribute of an address object, by Python's name.
pub(crate) fn attribute(s: &str, name: &str) -> Option<Value> {
    if name == "hosts" {
        return None;
    }
    property(&parse(s)?, name)
}

/// What `ip_info` tells.
pub(crate) fn info(s: &str) -> Option<Value> {
    let p = parse(s)?;
    let names: &[&str] = if p.prefix.is_some() {
        &[
            "compressed",
            "exploded",
            "hostmask",
            "ip",
            "is_link_local",
            "is_loopback",
            "is_multicast",
            "is_private",
            "is_reserved",
            "is_unspecified",
            "max_prefixlen",
            "netmask",
            "network",
            "version",
            "with_hostmask",
            "with_netmask",
            "with_prefixlen",
            "broadcast_address",
            "network_address",
            "num_addresses",
            "hosts",
            "prefixlen",
        ]
    } else {
        &[
            "ip",
            "compressed",
            "exploded",
            "is_link_local",
            "is_loopback",
            "is_multicast",
            "is_private",
            "is_reserved",
            "is_unspecified",
            "max_prefixlen",
            "version",
        ]
    };
    let mut out = Map::new();
    for n in names {
        let mut v = match (*n, p.prefix) {
            ("ip", None) => Value::from(text(&p)),
            _ => property(&p, n)?,
        };
        super::value::settle(&mut v);
        out.insert((*n).to_owned(), v);
    }
    Some(Value::Object(out))
}
