//! What can be known of a pattern without running it: its width, the bytes it can begin with.

use super::syntax::{Class, Node, SetItem};

/// Least and most characters a node can match; `None` is without bound.
pub fn width(node: &Node) -> (u64, Option<u64>) {
    match node {
        Node::Empty
        | Node::Caret(_)
        | Node::Dollar(_)
        | Node::Start
        | Node::End
        | Node::Boundary(_)
        | Node::Look(..) => (0, Some(0)),
        Node::Char(..) | Node::Any(_) | Node::Set { .. } => (1, Some(1)),
        Node::Group(_, inner) | Node::Atomic(inner) => width(inner),
        Node::Repeat { node, min, max, .. } => {
            let (low, high) = width(node);
            let most = match (high, max) {
                (Some(0), _) | (_, Some(0)) => Some(0),
                (Some(high), Some(max)) => Some(high.saturating_mul(u64::from(*max))),
                _ => None,
            };
            (low.saturating_mul(u64::from(*min)), most)
        }
        Node::Seq(items) => items.iter().map(width).fold((0, Some(0)), |a, b| {
            (a.0.saturating_add(b.0), a.1.zip(b.1).map(|(x, y)| x.saturating_add(y)))
        }),
        Node::Alt(items) => {
            let mut widths = items.iter().map(width);
            let first = widths.next().unwrap_or((0, Some(0)));
            widths.fold(first, |a, b| (a.0.min(b.0), a.1.zip(b.1).map(|(x, y)| x.max(y))))
        }
        Node::Backref(..) => (0, None),
        Node::Cond(_, yes, no) => {
            let (a, b) = (width(yes), width(no));
            (a.0.min(b.0), a.1.zip(b.1).map(|(x, y)| x.max(y)))
        }
    }
}

/// A set of bytes. Bytes from 0x80 stand for "any character beyond ASCII".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub [u64; 4]);

impl Bytes {
    /// No byte.
    pub const NONE: Self = Self([0; 4]);
    /// Every byte.
    pub const ALL: Self = Self([u64::MAX; 4]);

    /// Adds one byte.
    pub const fn add(&mut self, byte: u8) {
        self.0[(byte >> 6) as usize] |= 1 << (byte & 63);
    }

    /// Whether the byte is in.
    #[inline]
    pub const fn has(&self, byte: u8) -> bool {
        self.0[(byte >> 6) as usize] & (1 << (byte & 63)) != 0
    }

    /// Everything that starts a character beyond ASCII.
    pub const fn add_high(&mut self) {
        self.0[2] = u64::MAX;
        self.0[3] = u64::MAX;
    }

    /// Union.
    pub fn join(&mut self, other: &Self) {
        for (a, b) in self.0.iter_mut().zip(other.0) {
            *a |= b;
        }
    }
}

fn class_has(class: Class, byte: u8) -> bool {
    match class {
        Class::Digit => byte.is_ascii_digit(),
        // Python's str.isspace() holds for the four information separators too.
        Class::Space => matches!(byte, b'\t'..=b'\r' | b' ' | 0x1c..=0x1f),
        Class::Word => byte.is_ascii_alphanumeric() || byte == b'_',
    }
}

/// The bytes a one-character node takes; high bytes are set whenever a character beyond ASCII
/// could match. `None` when the node is not one character wide.
pub fn one_char(node: &Node) -> Option<Bytes> {
    let mut bytes = Bytes::NONE;
    match node {
        Node::Char(c, ignore_case) => {
            if c.is_ascii() {
                let b = *c as u8;
                bytes.add(b);
                if *ignore_case && c.is_ascii_alphabetic() {
                    bytes.add(b.to_ascii_lowercase());
                    bytes.add(b.to_ascii_uppercase());
                    // The Kelvin sign and the long s fold to ASCII letters.
                    bytes.add_high();
                }
            } else {
                bytes.add_high();
                if *ignore_case {
                    bytes = Bytes::ALL;
                }
            }
        }
        Node::Any(newline) => {
            bytes = Bytes::ALL;
            if !newline {
                bytes.0[0] &= !(1 << b'\n');
            }
        }
        Node::Set { negated, items, ignore_case, .. } => {
            let mut high = *negated;
            for item in items {
                match item {
                    SetItem::Char(c) => {
                        if c.is_ascii() {
                            bytes.add(*c as u8);
                        } else {
                            high = true;
                        }
                    }
                    SetItem::Range(a, b) => {
                        for byte in 0..128u8 {
                            if (*a..=*b).contains(&char::from(byte)) {
                                bytes.add(byte);
                            }
                        }
                        high |= !b.is_ascii();
                    }
                    SetItem::Class(class, not) => {
                        high = true;
                        for byte in 0..128u8 {
                            if class_has(*class, byte) != *not {
                                bytes.add(byte);
                            }
                        }
                    }
                }
            }
            if *ignore_case {
                for byte in b'a'..=b'z' {
                    let upper = byte.to_ascii_uppercase();
                    if bytes.has(byte) || bytes.has(upper) {
                        bytes.add(byte);
                        bytes.add(upper);
                    }
                }
                high = true;
            }
            if *negated {
                for word in &mut bytes.0[..2] {
                    *word = !*word;
                }
            }
            bytes.0[2] = 0;
            bytes.0[3] = 0;
            if high {
                bytes.add_high();
            }
        }
        _ => return None,
    }
    Some(bytes)
}

/// The bytes a match can begin with, and whether it can be empty.
pub fn first(node: &Node) -> (Bytes, bool) {
    first_of(node, false)
}

/// As [`first`]; with `end_stops`, a node that only matches at the end of the subject counts as
/// one that cannot be passed.
pub fn first_of(node: &Node, end_stops: bool) -> (Bytes, bool) {
    if let Some(bytes) = one_char(node) {
        return (bytes, false);
    }
    match node {
        Node::Group(_, inner) | Node::Atomic(inner) => first_of(inner, end_stops),
        Node::Repeat { node, min, max, .. } => {
            if *max == Some(0) {
                return (Bytes::NONE, true);
            }
            let (bytes, empty) = first_of(node, end_stops);
            (bytes, empty || *min == 0)
        }
        Node::Seq(items) => {
            let mut all = Bytes::NONE;
            for item in items {
                let (bytes, empty) = first_of(item, end_stops);
                all.join(&bytes);
                if !empty {
                    return (all, false);
                }
            }
            (all, true)
        }
        Node::Alt(items) => {
            let (mut all, mut any_empty) = (Bytes::NONE, false);
            for item in items {
                let (bytes, empty) = first_of(item, end_stops);
                all.join(&bytes);
                any_empty |= empty;
            }
            (all, any_empty)
        }
        Node::Backref(..) | Node::Cond(..) => (Bytes::ALL, true),
        Node::Dollar(_) | Node::End => (Bytes::NONE, !end_stops),
        _ => (Bytes::NONE, true),
    }
}
