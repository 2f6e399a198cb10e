//! What can follow each choice of a plain program, what a match begins with and must hold.

use super::plain::{ALL, EVERY, FIRST_FUEL, How, KNOWN, LINE_END, NEWLINE, NONE, NOT_SPACE, Op, Set, lookup};
use super::read::Reader;

impl Reader<'_> {
    /// Fills in what can follow each choice; returns what the whole can begin with.
    pub(super) fn finish(&mut self) -> (Set, bool) {
        for at in 0..self.build.ops.len() {
            match self.build.ops[at] {
                Op::Run { set, min, max, how, .. } => {
                    if min == max {
                        let how = How { once: true, ..how };
                        self.build.ops[at] = Op::Run { set, min, max, next: EVERY, how };
                        continue;
                    }
                    let (next, end) = self.first(at + 1);
                    let own = *lookup(&self.build.sets, set);
                    let once = (own[0] & next[0] | own[1] & next[1]) == 0;
                    if once {
                        let how = How { once, ..how };
                        self.build.ops[at] = Op::Run { set, min, max, next: EVERY, how };
                        continue;
                    }
                    // A set that does not fit its number is not used: everything may follow.
                    let (next, end) = self.fresh(next).map_or((EVERY, true), |number| (number, end));
                    self.build.ops[at] =
                        Op::Run { set, min, max, next, how: How { lazy: how.lazy, once, end } };
                }
                Op::Phrase { many, how, .. } => {
                    let (next, end) = self.first(at + 1);
                    let own = KNOWN[usize::from(NOT_SPACE)];
                    let once = (own[0] & next[0] | own[1] & next[1]) == 0;
                    let (next, end) = self.fresh(next).map_or((EVERY, true), |number| (number, end));
                    self.build.ops[at] = Op::Phrase { many, next, how: How { once, end, ..how } };
                }
                Op::Split { prefer, other, .. } => {
                    let (a, a_end) = self.first(at.wrapping_add_signed(isize::from(prefer)));
                    let (b, b_end) = self.first(at.wrapping_add_signed(isize::from(other)));
                    let (a, b) = (self.fresh(a).unwrap_or(EVERY), self.fresh(b).unwrap_or(EVERY));
                    let ends = u8::from(a_end) | u8::from(b_end) << 1;
                    self.build.ops[at] = Op::Split { prefer, other, a, b, ends };
                }
                _ => {}
            }
        }
        self.first(0)
    }

    /// What follows a newline that begins the program.
    pub(super) fn second(&self) -> Set {
        match self.build.ops.first() {
            Some(Op::Literal { at, len: 1 }) if self.build.text.get(usize::from(*at)) == Some(&b'\n') => {
                let (set, end) = self.first(1);
                if end { ALL } else { set }
            }
            _ => ALL,
        }
    }

    /// The bytes of literals that no choice can pass over.
    pub(super) fn needs(&self) -> Set {
        let mut needs = NONE;
        let mut optional = 0;
        for (at, op) in self.build.ops.iter().enumerate() {
            let mut until = |by: i16| optional = optional.max(at.wrapping_add_signed(isize::from(by)));
            match op {
                // A jump back repeats what was passed once.
                Op::Split { prefer, other, .. } if *prefer > 0 && *other > 0 => until(*prefer.max(other)),
                Op::Jump(by) if *by > 0 => until(*by),
                Op::Look(_, skip) | Op::Behind(_, _, skip) => until(*skip),
                Op::Literal { at: from, len } if at >= optional => {
                    let from = usize::from(*from);
                    for byte in &self.build.text[from..from + usize::from(*len)] {
                        needs[usize::from(byte >> 6)] |= 1 << (byte & 63);
                    }
                }
                Op::Run { set, min, .. } if *min > 0 && at >= optional => {
                    let set = lookup(&self.build.sets, *set);
                    if set[0].count_ones() + set[1].count_ones() == 1 {
                        needs = [needs[0] | set[0], needs[1] | set[1]];
                    }
                }
                _ => {}
            }
        }
        needs
    }

    fn first(&self, at: usize) -> (Set, bool) {
        let mut fuel = FIRST_FUEL;
        let mut out = (NONE, false);
        self.first_into(at, &mut out, &mut fuel);
        if fuel == 0 { (ALL, true) } else { out }
    }

    fn first_into(&self, mut at: usize, out: &mut (Set, bool), fuel: &mut u32) {
        let mut join = |set: &Set, end: bool| {
            out.0[0] |= set[0];
            out.0[1] |= set[1];
            out.1 |= end;
        };
        loop {
            if *fuel == 0 {
                return;
            }
            *fuel -= 1;
            match self.build.ops.get(at) {
                None | Some(Op::Match) => return join(&ALL, true),
                Some(Op::Literal { at: text, .. }) => {
                    let byte = self.build.text[usize::from(*text)];
                    let mut set = NONE;
                    set[usize::from(byte >> 6)] |= 1 << (byte & 63);
                    return join(&set, false);
                }
                Some(Op::One(set)) => return join(lookup(&self.build.sets, *set), false),
                Some(Op::Run { set, min, .. }) => {
                    join(lookup(&self.build.sets, *set), false);
                    if *min > 0 {
                        return;
                    }
                    at += 1;
                }
                Some(Op::Phrase { .. }) => return join(&KNOWN[usize::from(NOT_SPACE)], false),
                Some(Op::LineEnd) => return join(&LINE_END, false),
                Some(Op::Dollar) => return join(&NEWLINE, true),
                Some(Op::End) => return join(&NONE, true),
                Some(Op::Save(_) | Op::Start | Op::Boundary(_)) => at += 1,
                Some(Op::Look(_, skip) | Op::Behind(_, _, skip)) => {
                    at = at.wrapping_add_signed(isize::from(*skip))
                }
                Some(Op::Jump(by)) => at = at.wrapping_add_signed(isize::from(*by)),
                Some(Op::Split { prefer, other, .. }) => {
                    self.first_into(at.wrapping_add_signed(isize::from(*prefer)), out, fuel);
                    at = at.wrapping_add_signed(isize::from(*other));
                    return self.first_into(at, out, fuel);
                }
            }
        }
    }
}
