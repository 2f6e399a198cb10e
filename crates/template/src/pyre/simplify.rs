//! Rewrites that keep the meaning of a pattern and take away needless backtracking.
//!
//! Templates in the field hold rules such as `^(\s*-*)*\s*$`, which is exponential as written and
//! linear as `^[\s\-]*\s*$`. Groups nobody can ask for stop capturing.

use super::syntax::{Greed, Node, Pattern, SetItem};

/// Simplifies a pattern without references to groups; only named groups go on capturing, and are
/// numbered anew.
pub fn simplify(pattern: Pattern) -> Pattern {
    if pattern.exotic {
        return pattern;
    }
    let old: Vec<u32> = pattern.names.iter().map(|(_, n)| *n).collect();
    let root = walk(pattern.root, &old);
    let names: Vec<(String, u32)> =
        pattern.names.into_iter().zip(1u32..).map(|((name, _), n)| (name, n)).collect();
    Pattern { root, groups: names.len() as u32, names, exotic: false }
}

fn walk(node: Node, named: &[u32]) -> Node {
    match node {
        Node::Group(number, inner) => {
            let inner = Box::new(walk(*inner, named));
            let number =
                number.and_then(|n| named.iter().position(|m| *m == n)).map(|position| position as u32 + 1);
            match (number, *inner) {
                (None, one @ (Node::Char(..) | Node::Set { .. } | Node::Any(_))) => one,
                (number, inner) => Node::Group(number, Box::new(inner)),
            }
        }
        Node::Seq(items) => Node::Seq(items.into_iter().map(|n| walk(n, named)).collect()),
        Node::Alt(arms) => {
            let arms: Vec<Node> = arms.into_iter().map(|n| walk(n, named)).collect();
            union(arms.iter()).unwrap_or(Node::Alt(arms))
        }
        Node::Repeat { node, min, max, greed } => {
            let node = walk(*node, named);
            if max.is_none() && greed == Greed::Greedy && min <= 1 {
                return flat_repeat(node, min);
            }
            Node::Repeat { node: Box::new(node), min, max, greed }
        }
        other => other,
    }
}

/// The repeat without end of a node, with a repeat inside a repeat made one.
fn flat_repeat(node: Node, min: u32) -> Node {
    let inner = match &node {
        Node::Group(None, inner) => inner,
        other => other,
    };
    let runs: Vec<(&Node, u32)> = match inner {
        Node::Seq(items) => items.iter().filter_map(endless).collect(),
        one => endless(one).into_iter().collect(),
    };
    let parts = match inner {
        Node::Seq(items) => items.len(),
        _ => 1,
    };
    let repeat =
        |node: Node, min: u32| Node::Repeat { node: Box::new(node), min, max: None, greed: Greed::Greedy };
    if runs.len() == parts {
        if let [(one, least)] = runs[..] {
            return repeat(one.clone(), min * least);
        }
        if runs.iter().all(|(_, least)| *least == 0)
            && let Some(set) = union(runs.iter().map(|(n, _)| *n))
        {
            return repeat(set, 0);
        }
    }
    repeat(node, min)
}

/// The character of `x*` or `x+`, and how often it must come.
fn endless(node: &Node) -> Option<(&Node, u32)> {
    match node {
        Node::Repeat { node, min: min @ (0 | 1), max: None, greed: Greed::Greedy }
            if matches!(**node, Node::Char(..) | Node::Set { .. } | Node::Any(_)) =>
        {
            Some((node, *min))
        }
        _ => None,
    }
}

/// One set for several characters and sets.
fn union<'n>(nodes: impl Iterator<Item = &'n Node>) -> Option<Node> {
    let mut all: Vec<SetItem> = Vec::new();
    let mut flags: Option<(bool, bool)> = None;
    for node in nodes {
        match node {
            Node::Char(c, false) => all.push(SetItem::Char(*c)),
            Node::Set { negated: false, items, ignore_case: false, ascii } => {
                if flags.is_some_and(|f| f != (false, *ascii)) {
                    return None;
                }
                flags = Some((false, *ascii));
                all.extend(items.iter().cloned());
            }
            _ => return None,
        }
    }
    let (ignore_case, ascii) = flags.unwrap_or((false, false));
    Some(Node::Set { negated: false, items: all, ignore_case, ascii })
}
