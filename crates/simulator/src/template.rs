//! Texts with `{names}` in them.

use std::borrow::Cow;

use chrono::Utc;

/// Replaces `{name}` where `value` knows the name; everything else stays.
pub fn fill<'a>(text: &str, value: &dyn Fn(&str) -> Option<Cow<'a, str>>) -> String {
    fill_with(text, &mut |n| value(n).map(Cow::into_owned))
}

/// As [`fill`], with a closure that may borrow and change what it likes.
pub fn fill_with(text: &str, value: &mut dyn FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len() + 32);
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let name = rest[1..].find('}').map(|end| &rest[1..=end]).filter(|n| {
            !n.is_empty()
                && n.len() < 40
                && n.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:.-".contains(&b))
        });
        match name.and_then(|n| value(n).map(|v| (n.len() + 2, v))) {
            Some((used, v)) => {
                out.push_str(&v);
                rest = &rest[used..];
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Now, as most devices print it.
pub fn date() -> String {
    Utc::now().format("%b %d %H:%M:%S.%3f").to_string()
}

/// `{n}` as uptime in words: weeks, days, hours, minutes.
pub fn uptime(seconds: u64) -> String {
    let (d, h, m) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let s = |n: u64, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    [(d / 7, "week"), (d % 7, "day"), (h, "hour")]
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, w)| s(*n, w))
        .chain([s(m, "minute")])
        .collect::<Vec<_>>()
        .join(", ")
}

/// The n-th made up MAC address, dotted.
pub fn mac(n: u64) -> String {
    format!("0050.56{:02x}.{:04x}", n >> 16 & 0xff, n & 0xffff)
}

/// The n-th made up IPv4 address.
pub fn ip(n: u64) -> String {
    format!("10.{}.{}.{}", n >> 16 & 0xff, n >> 8 & 0xff, n & 0xff)
}
