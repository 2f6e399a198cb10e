//! Writes a pattern that was read by Python's rules as a PCRE2 pattern.

use std::fmt::Write as _;

use super::syntax::{Class, Greed, Node, SetItem};

/// The PCRE2 text of `node`. Groups lose their names (PCRE2 bounds their length) and keep their
/// numbers.
pub fn emit(node: &Node, out: &mut String) {
    match node {
        Node::Empty => {}
        Node::Char(c, ignore_case) => {
            if *ignore_case && c.is_alphabetic() {
                out.push_str("(?i:");
                literal(*c, out);
                out.push(')');
            } else {
                literal(*c, out);
            }
        }
        Node::Any(newline) => out.push_str(if *newline { "(?s:.)" } else { "." }),
        Node::Set { negated, items, ignore_case, ascii } => {
            set(*negated, items, *ignore_case, *ascii, out);
        }
        // At the very end, behind a last newline, Python's `^` matches and PCRE2's does not.
        Node::Caret(multi) => out.push_str(if *multi { "(?<![^\\n])" } else { "^" }),
        Node::Dollar(multi) => out.push_str(if *multi { "(?m:$)" } else { "$" }),
        Node::Start => out.push_str("\\A"),
        Node::End => out.push_str("\\z"),
        // Python's `\B` does not match in an empty text.
        Node::Boundary(not) => out.push_str(if *not { "(?!\\A\\z)\\B" } else { "\\b" }),
        Node::Group(number, inner) => {
            out.push_str(if number.is_some() { "(" } else { "(?:" });
            emit(inner, out);
            out.push(')');
        }
        Node::Repeat { node, min, max, greed } => {
            if matches!(**node, Node::Seq(_) | Node::Alt(_) | Node::Empty | Node::Look(..)) {
                out.push_str("(?:");
                emit(node, out);
                out.push(')');
            } else {
                emit(node, out);
            }
            match (min, max) {
                (0, None) => out.push('*'),
                (1, None) => out.push('+'),
                (0, Some(1)) => out.push('?'),
                (min, None) => {
                    let _ = write!(out, "{{{min},}}");
                }
                (min, Some(max)) => {
                    let _ = write!(out, "{{{min},{max}}}");
                }
            }
            match greed {
                Greed::Greedy => {}
                Greed::Lazy => out.push('?'),
                Greed::Possessive => out.push('+'),
            }
        }
        Node::Seq(items) => {
            for item in items {
                if matches!(item, Node::Alt(_)) {
                    out.push_str("(?:");
                    emit(item, out);
                    out.push(')');
                } else {
                    emit(item, out);
                }
            }
        }
        Node::Alt(items) => {
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push('|');
                }
                emit(item, out);
            }
        }
        Node::Look(behind, negative, inner) => {
            out.push_str(match (behind, negative) {
                (false, false) => "(?=",
                (false, true) => "(?!",
                (true, false) => "(?<=",
                (true, true) => "(?<!",
            });
            emit(inner, out);
            out.push(')');
        }
        Node::Atomic(inner) => {
            out.push_str("(?>");
            emit(inner, out);
            out.push(')');
        }
        Node::Backref(number, ignore_case) => {
            let _ = if *ignore_case {
                write!(out, "(?i:\\g{{{number}}})")
            } else {
                write!(out, "\\g{{{number}}}")
            };
        }
        Node::Cond(number, yes, no) => {
            let _ = write!(out, "(?({number})");
            emit(yes, out);
            out.push('|');
            emit(no, out);
            out.push(')');
        }
    }
}

fn literal(c: char, out: &mut String) {
    if c.is_ascii_alphanumeric() || c == '_' || c == ' ' || (!c.is_ascii() && !c.is_control()) {
        out.push(c);
    } else if c.is_ascii_graphic() {
        out.push('\\');
        out.push(c);
    } else {
        let _ = write!(out, "\\x{{{:x}}}", u32::from(c));
    }
}

fn class(class: Class, negated: bool, ascii: bool, in_set: bool, out: &mut String) {
    let (name, plain) = match class {
        Class::Digit => ('d', "0-9"),
        Class::Word => ('w', "0-9A-Za-z_"),
        Class::Space => ('s', "\\x{9}-\\x{d} "),
    };
    let letter = if negated { name.to_ascii_uppercase() } else { name };
    match (ascii, in_set, negated) {
        // Python counts the information separators as white space.
        (false, false, false) if name == 's' => out.push_str("[\\s\\x{1c}-\\x{1f}]"),
        (false, false, true) if name == 's' => out.push_str("[^\\s\\x{1c}-\\x{1f}]"),
        (false, true, false) if name == 's' => out.push_str("\\s\\x{1c}-\\x{1f}"),
        (false, _, _) => {
            out.push('\\');
            out.push(letter);
        }
        (true, true, false) => out.push_str(plain),
        (true, true, true) => {
            // The complement, spelled out, since a set cannot hold a negated set.
            out.push_str(match name {
                'd' => "\\x{0}-\\x{2f}\\x{3a}-\\x{10ffff}",
                'w' => "\\x{0}-\\x{2f}\\x{3a}-\\x{40}\\x{5b}-\\x{5e}\\x{60}\\x{7b}-\\x{10ffff}",
                _ => "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{10ffff}",
            });
        }
        (true, false, _) => {
            out.push_str(if negated { "[^" } else { "[" });
            out.push_str(plain);
            out.push(']');
        }
    }
}

fn set(negated: bool, items: &[SetItem], ignore_case: bool, ascii: bool, out: &mut String) {
    if let ([SetItem::Class(one, not)], false) = (items, negated) {
        class(*one, *not, ascii, false, out);
        return;
    }
    if ignore_case {
        out.push_str("(?i:");
    }
    out.push_str(if negated { "[^" } else { "[" });
    for item in items {
        match item {
            SetItem::Char(c) => literal(*c, out),
            SetItem::Range(a, b) => {
                literal(*a, out);
                out.push('-');
                literal(*b, out);
            }
            SetItem::Class(one, not) => class(*one, *not, ascii, true, out),
        }
    }
    out.push(']');
    if ignore_case {
        out.push(')');
    }
}
