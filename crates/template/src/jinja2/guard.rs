//! What bounds a render beside fuel: the depth of expressions, the work of filters, the time.
//!
//! minijinja compiles and drops nested things by recursion, so a long chain of operators or a list
//! wrapped in itself a hundred thousand times would end the process. Both are refused here. Steps
//! that are dear (joining lists, loops over long ones) are charged to a budget.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use minijinja::value::{Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::percent::token;

/// Most operators, filters, attributes and calls in a row, brackets within counted on.
const DEEPEST: usize = 400;
/// How deeply lists, maps and namespaces may be nested in each other that a template fills.
pub const NESTED: usize = 64;
/// List items that filters and joins of one render may touch.
const WORK: u64 = 20_000_000;
/// Loops over more than this are timed at every item.
const LONG: usize = 32;

thread_local! {
    static WORK_LEFT: Cell<u64> = const { Cell::new(WORK) };
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
    static LATE: Cell<bool> = const { Cell::new(false) };
}

/// Begins a render on this thread.
pub fn begin(until: Instant) {
    WORK_LEFT.set(WORK);
    UNTIL.set(Some(until));
    LATE.set(false);
}

/// Whether a loop of the render was cut short because its time was over.
pub fn was_late() -> bool {
    LATE.get()
}

fn in_time() -> bool {
    if UNTIL.get().is_some_and(|until| Instant::now() > until) {
        LATE.set(true);
    }
    !LATE.get()
}

fn too_much() -> Error {
    Error::new(ErrorKind::OutOfFuel, "the template took too many steps")
}

/// Takes work from the budget.
pub fn charge(items: usize) -> Result<(), Error> {
    let left = WORK_LEFT.get().saturating_sub(items as u64);
    WORK_LEFT.set(left);
    if left == 0 || !in_time() { Err(too_much()) } else { Ok(()) }
}

/// How deep an expression is at most: `(line within the code, ...)` of the first that is too deep.
pub fn too_deep(code: &str) -> bool {
    depth(code, &mut 0, 0) > DEEPEST
}

/// Chains of one level add up, what stands in brackets adds its own; commas and colons end a chain.
/// `level` brackets are open.
fn depth(code: &str, at: &mut usize, level: usize) -> usize {
    if level > DEEPEST {
        // Enough is known; counting on would itself go too deep.
        *at = code.len();
        return level;
    }
    let (mut deepest, mut chain, mut inner) = (0, 0usize, 0);
    while *at < code.len() {
        let length = token(&code[*at..]);
        let piece = &code[*at..*at + length];
        *at += length;
        match piece {
            "(" | "[" | "{" => {
                chain += 1;
                inner = inner.max(depth(code, at, level + 1));
            }
            ")" | "]" | "}" => break,
            "," | ":" => {
                deepest = deepest.max(chain + inner);
                (chain, inner) = (0, 0);
            }
            "and" | "or" | "not" | "in" | "is" | "if" => chain += 1,
            "." | "|" | "+" | "-" | "*" | "/" | "%" | "~" | "=" | "<" | ">" | "!" => chain += 1,
            _ => {}
        }
    }
    deepest.max(chain + inner)
}

/// What begins what may be called again and again.
pub fn timed() -> Result<Value, Error> {
    if in_time() { Ok(Value::UNDEFINED) } else { Err(too_much()) }
}

/// What a loop runs over: nothing is no list, as in Python, and a long one is timed.
pub fn looped(value: Value) -> Result<Value, Error> {
    if value.is_none() {
        return Err(Error::new(ErrorKind::InvalidOperation, "'NoneType' object is not iterable"));
    }
    if !in_time() {
        return Err(too_much());
    }
    match value.len() {
        Some(length) if length > LONG && value.kind() != ValueKind::String => {
            Ok(Value::from_object(Timed { of: value, length }))
        }
        _ => Ok(value),
    }
}

/// A long list whose items end when the time is over.
#[derive(Debug)]
struct Timed {
    of: Value,
    length: usize,
}

impl Object for Timed {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.of.get_item(key).ok().filter(|v| !v.is_undefined())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.of.try_iter() {
            Ok(items) => {
                let timed = items.enumerate().take_while(|(i, _)| i % 4 != 0 || in_time());
                Enumerator::Iter(Box::new(timed.map(|(_, item)| item)))
            }
            Err(_) => Enumerator::NonEnumerable,
        }
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_counted() {
        assert!(!too_deep(&format!("1{}", " + 1".repeat(400))));
        assert!(too_deep(&format!("1{}", " + 1".repeat(401))));
        assert!(too_deep(&"-".repeat(500)));
        assert!(too_deep(&format!("f({})", "x.y|z(".repeat(300))));
        assert!(too_deep(&"(".repeat(2_000_000)));
        assert!(!too_deep(&format!("{}1{}", "(".repeat(399), ")".repeat(399))));
        assert!(!too_deep(&format!("[{}]", "{'a': -1, 'b': x.y|z}, ".repeat(5000))));
        assert!(!too_deep(&format!("'{}'", "+-".repeat(500))));
    }
}
