//! Runs the patterns that need no backtracking, without PCRE2.
//!
//! Most rules of a template are a row of literals and runs where each run ends at the first
//! character it cannot hold. For those there is one way to match, and a single walk over the line
//! finds it. A pattern that is only so at its beginning uses that beginning to reject lines.
//! Subjects are ASCII lines without a newline.

use super::analysis::{Bytes, first_of, one_char};
use super::syntax::{Greed, Node, SetItem};

/// No position.
const UNSET: u32 = u32::MAX;

#[derive(Debug)]
enum Op {
    Literal(Vec<u8>),
    /// Every byte up to the end of the line.
    Rest,
    One(Box<Bytes>),
    Run {
        set: Box<Bytes>,
        min: u32,
        max: u32,
    },
    Loop {
        first: Box<Bytes>,
        body: Box<[Op]>,
        min: u32,
        max: u32,
    },
    Alt(Box<[(Bytes, Box<[Op]>)]>),
    Open(u32),
    Close(u32),
    AtStart,
    AtEnd,
}

/// A program without backtracking.
#[derive(Debug)]
pub struct OnePass {
    ops: Box<[Op]>,
    /// The whole pattern, or only its beginning.
    complete: bool,
}

/// The bytes that may come next, and whether the pattern may end here.
type Follow = (Bytes, bool);

impl OnePass {
    /// The program of a pattern; `None` when not even its beginning is free of backtracking.
    pub fn new(root: &Node) -> Option<Self> {
        let mut flat = Vec::new();
        flatten(root, &mut flat);
        let mut follows: Vec<Follow> = vec![(Bytes::NONE, true)];
        for part in flat.iter().rev() {
            let after = *follows.last()?;
            follows.push(match part {
                Part::Node(node) => before(node, after),
                Part::Open(_) | Part::Close(_) => after,
            });
        }
        follows.reverse();
        let mut ops = Vec::new();
        let mut complete = true;
        for (part, after) in flat.iter().zip(follows.iter().skip(1)) {
            let done = match part {
                Part::Open(n) => {
                    ops.push(Op::Open(*n));
                    Some(())
                }
                Part::Close(n) => {
                    ops.push(Op::Close(*n));
                    Some(())
                }
                Part::Node(node) => compile(node, after, &mut ops),
            };
            if done.is_none() {
                complete = false;
                break;
            }
        }
        if !complete
            && !ops.iter().any(|op| matches!(op, Op::Literal(_) | Op::Run { .. } | Op::One(_) | Op::Alt(_)))
        {
            return None;
        }
        Some(Self { ops: ops.into(), complete })
    }

    /// Whether a success is the match itself, with its groups.
    pub const fn complete(&self) -> bool {
        self.complete
    }

    /// Runs the program; `slots` holds begin and end of each group, by number.
    pub fn run(&self, line: &[u8], slots: &mut [u32]) -> Option<usize> {
        let mut pos = 0;
        run(&self.ops, line, &mut pos, slots).then_some(pos)
    }
}

enum Part<'n> {
    Node(&'n Node),
    Open(u32),
    Close(u32),
}

fn flatten<'n>(node: &'n Node, out: &mut Vec<Part<'n>>) {
    match node {
        Node::Seq(items) => items.iter().for_each(|item| flatten(item, out)),
        Node::Group(number, inner) => {
            if let Some(n) = number {
                out.push(Part::Open(*n));
            }
            flatten(inner, out);
            if let Some(n) = number {
                out.push(Part::Close(*n));
            }
        }
        node => out.push(Part::Node(node)),
    }
}

/// What may come before `after` when `node` is put in front of it.
fn before(node: &Node, after: Follow) -> Follow {
    let (mut bytes, empty) = first_of(node, true);
    if empty {
        bytes.join(&after.0);
        (bytes, after.1)
    } else {
        (bytes, false)
    }
}

/// The exact ASCII bytes of a one-character node; `None` when folding makes them inexact.
fn exact(node: &Node) -> Option<Bytes> {
    match node {
        Node::Char(c, true) if !c.is_ascii() => None,
        Node::Set { ignore_case: true, items, .. }
            if items.iter().any(|item| match item {
                SetItem::Char(c) => !c.is_ascii(),
                SetItem::Range(_, b) => !b.is_ascii(),
                SetItem::Class(..) => false,
            }) =>
        {
            None
        }
        node => one_char(node),
    }
}

fn compile(node: &Node, after: &Follow, ops: &mut Vec<Op>) -> Option<()> {
    // Most nodes are plain characters: no set is built for them.
    if let Node::Char(c, false) = node
        && c.is_ascii()
    {
        match ops.last_mut() {
            Some(Op::Literal(bytes)) => bytes.push(*c as u8),
            _ => ops.push(Op::Literal(vec![*c as u8])),
        }
        return Some(());
    }
    if let Some(set) = exact(node) {
        ops.push(Op::One(Box::new(set)));
        return Some(());
    }
    match node {
        Node::Empty => {}
        Node::Caret(false) | Node::Start => ops.push(Op::AtStart),
        Node::Dollar(false) | Node::End => ops.push(Op::AtEnd),
        Node::Group(number, inner) => {
            if let Some(n) = number {
                ops.push(Op::Open(*n));
            }
            compile(inner, after, ops)?;
            if let Some(n) = number {
                ops.push(Op::Close(*n));
            }
        }
        Node::Seq(items) => {
            let mut follows = vec![*after];
            for item in items.iter().rev() {
                let next = *follows.last()?;
                follows.push(before(item, next));
            }
            follows.reverse();
            for (item, after) in items.iter().zip(follows.iter().skip(1)) {
                compile(item, after, ops)?;
            }
        }
        Node::Alt(arms) => {
            let mut compiled: Vec<(Bytes, Box<[Op]>)> = Vec::with_capacity(arms.len());
            for arm in arms {
                let (bytes, empty) = first_of(arm, false);
                if empty || compiled.iter().any(|(other, _)| !other.ascii_disjoint(&bytes)) {
                    return None;
                }
                let mut body = Vec::new();
                compile(arm, after, &mut body)?;
                compiled.push((bytes, body.into()));
            }
            ops.push(Op::Alt(compiled.into()));
        }
        Node::Repeat { node, min, max, greed } => {
            repeat(node, *min, *max, *greed, after, ops)?;
        }
        _ => return None,
    }
    Some(())
}

fn repeat(
    node: &Node,
    min: u32,
    max: Option<u32>,
    greed: Greed,
    after: &Follow,
    ops: &mut Vec<Op>,
) -> Option<()> {
    let high = max.unwrap_or(u32::MAX);
    if let Some(set) = exact(node) {
        if min != high {
            if !set.ascii_disjoint(&after.0) && greed != Greed::Possessive {
                return None;
            }
            if greed == Greed::Lazy && after.1 {
                return None;
            }
        }
        let all = Bytes::ALL.0[1] == set.0[1] && set.0[0] | (1 << b'\n') == u64::MAX;
        ops.push(if all && min == 0 && max.is_none() {
            Op::Rest
        } else {
            Op::Run { set: Box::new(set), min, max: high }
        });
        return Some(());
    }
    // A body that fails midway must mean that all fails: nothing else may begin as it does, and
    // the pattern may not end before it.
    let (bytes, empty) = first_of(node, false);
    if empty || greed != Greed::Greedy || after.1 || !bytes.ascii_disjoint(&after.0) {
        return None;
    }
    let mut inner: Follow = *after;
    if high > 1 {
        inner.0.join(&bytes);
    }
    let mut body = Vec::new();
    compile(node, &inner, &mut body)?;
    ops.push(Op::Loop { first: Box::new(bytes), body: body.into(), min, max: high });
    Some(())
}

fn run(ops: &[Op], line: &[u8], pos: &mut usize, slots: &mut [u32]) -> bool {
    for op in ops {
        match op {
            Op::Literal(bytes) => {
                if !line[*pos..].starts_with(bytes.as_slice()) {
                    return false;
                }
                *pos += bytes.len();
            }
            Op::Rest => *pos = line.len(),
            Op::One(set) => match line.get(*pos) {
                Some(b) if set.has(*b) => *pos += 1,
                _ => return false,
            },
            Op::Run { set, min, max } => {
                let rest = &line[*pos..];
                let rest = &rest[..rest.len().min(*max as usize)];
                let taken = rest.iter().position(|b| !set.has(*b)).unwrap_or(rest.len());
                if taken < *min as usize {
                    return false;
                }
                *pos += taken;
            }
            Op::Loop { first, body, min, max } => {
                let mut count = 0;
                while count < *max && line.get(*pos).is_some_and(|b| first.has(*b)) {
                    if !run(body, line, pos, slots) {
                        return false;
                    }
                    count += 1;
                }
                if count < *min {
                    return false;
                }
            }
            Op::Alt(arms) => {
                let Some(byte) = line.get(*pos) else { return false };
                let Some((_, body)) = arms.iter().find(|(first, _)| first.has(*byte)) else {
                    return false;
                };
                if !run(body, line, pos, slots) {
                    return false;
                }
            }
            Op::Open(n) => {
                // The end is cleared on leaving only, as a group keeps its last value until it
                // matches again.
                if let Some(slot) = slots.get_mut(*n as usize * 2) {
                    *slot = *pos as u32;
                }
            }
            Op::Close(n) => {
                if let Some(slot) = slots.get_mut(*n as usize * 2 + 1) {
                    *slot = *pos as u32;
                }
            }
            Op::AtStart => {
                if *pos != 0 {
                    return false;
                }
            }
            Op::AtEnd => {
                if *pos != line.len() {
                    return false;
                }
            }
        }
    }
    true
}

/// Clears the first `groups + 1` pairs.
pub fn clear(slots: &mut Vec<u32>, groups: u32) {
    slots.clear();
    slots.resize((groups as usize + 1) * 2, UNSET);
}

/// Begin and end of a group.
pub fn span(slots: &[u32], group: u32) -> Option<(usize, usize)> {
    let at = group as usize * 2;
    let (start, end) = (*slots.get(at)?, *slots.get(at + 1)?);
    (start != UNSET && end != UNSET).then_some((start as usize, end as usize))
}
