//! Lists and maps that templates change: `{% set _ = rows.append(row) %}`, `{% set _ = d.update(x) %}`.
//!
//! minijinja's own never change. Only a template that calls such a method gets these: its literals
//! pass the filter `mutable`, and its context is made of them. Namespaces are always of this kind.
//!
//! Nothing may hold itself, and nesting is bounded, since values are dropped by recursion: every
//! container knows how deep it may be below others, and what is put into it is told so.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use parking_lot::Mutex;

use super::guard::{NESTED, charge};

/// Methods that change what they are called on.
const CHANGES: &[&str] = &[
    ".append(",
    ".extend(",
    ".insert(",
    ".pop(",
    ".remove(",
    ".sort(",
    ".reverse(",
    ".clear(",
    ".update(",
    ".setdefault(",
    ".popitem(",
    ".copy(",
];

/// Whether a template may change a list or a map.
pub fn is_wanted(text: &str) -> bool {
    CHANGES.iter().any(|method| text.contains(method))
}

/// A context whose lists and maps can be changed.
pub fn context(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Array(items) => List::value(items.iter().map(context).collect(), 1),
        serde_json::Value::Object(map) => {
            Dict::value(map.iter().map(|(k, v)| (Value::from(k.as_str()), context(v))), 1)
        }
        other => Value::from(minijinja::value::Serde(other)),
    }
}

/// The filter `mutable`: a literal that can be changed.
pub fn mutable(value: Value) -> Result<Value, Error> {
    let made = match value.kind() {
        // `(1, 2)` is a tuple.
        ValueKind::Seq | ValueKind::Iterable => List::value(value.try_iter()?.collect(), 0),
        ValueKind::Map => {
            let mut entries = Vec::new();
            for key in value.try_iter()? {
                let item = value.get_item(&key)?;
                entries.push((key, item));
            }
            Dict::value(entries.into_iter(), 0)
        }
        _ => return Ok(value),
    };
    charge(made.len().unwrap_or(0))?;
    each_child(&made, |child| settle(child, 1, 0))?;
    Ok(made)
}

/// Calls for everything a value holds.
fn each_child(value: &Value, mut call: impl FnMut(&Value) -> Result<(), Error>) -> Result<(), Error> {
    // Most are plain lists, which need no copies.
    if let Some(items) = value.downcast_object_ref::<Vec<Value>>() {
        return items.iter().try_for_each(call);
    }
    match value.kind() {
        ValueKind::Seq => value.try_iter()?.try_for_each(|item| call(&item)),
        ValueKind::Map => value.try_iter()?.try_for_each(|key| call(&value.get_item(&key)?)),
        _ => Ok(()),
    }
}

/// What a container knows of its place.
#[derive(Debug)]
struct Place {
    id: u64,
    /// How deep it may be below others.
    level: AtomicUsize,
}

impl Place {
    fn new(level: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { id: NEXT.fetch_add(1, Relaxed), level: AtomicUsize::new(level) }
    }

    /// Checks what is to be put in, and tells all of it how deep it is.
    fn admit(&self, value: &Value) -> Result<(), Error> {
        charge(1)?;
        settle(value, self.level.load(Relaxed) + 1, self.id)
    }
}

/// Tells a value and all it holds how deep it is; `above` may not be among them.
fn settle(value: &Value, level: usize, above: u64) -> Result<(), Error> {
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map) {
        return Ok(());
    }
    let known = value
        .downcast_object_ref::<List>()
        .map(|list| &list.place)
        .or_else(|| value.downcast_object_ref::<Dict>().map(|dict| &dict.place))
        .or_else(|| value.downcast_object_ref::<Namespace>().map(|space| &space.0.place));
    if level > NESTED || known.is_some_and(|place| place.id == above) {
        return Err(Error::new(
            ErrorKind::OutOfFuel,
            format!("lists and maps may be nested at most {NESTED} deep, and never hold themselves"),
        ));
    }
    if let Some(place) = known {
        place.level.fetch_max(level, Relaxed);
    }
    charge(1 + value.len().unwrap_or(0) / 16)?;
    each_child(value, |child| settle(child, level + 1, above))
}

fn failed(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// A method that is not of this file: a callable value of that name, or one of all lists and maps.
fn other(found: Option<Value>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
    match found {
        Some(value) => value.call(state, args),
        None => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// A list.
#[derive(Debug)]
struct List {
    items: Mutex<Vec<Value>>,
    place: Place,
}

impl List {
    fn value(items: Vec<Value>, level: usize) -> Value {
        Value::from_object(Self { items: Mutex::new(items), place: Place::new(level) })
    }
}

/// The position of an index that may count from the end.
fn position(index: i64, length: usize) -> Option<usize> {
    let at = if index < 0 { i64::try_from(length).ok()?.checked_add(index)? } else { index };
    usize::try_from(at).ok()
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let items = self.items.lock();
        items.get(position(key.as_i64()?, items.len())?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items.lock().len())
    }

    fn call_method(
        self: &Arc<Self>,
        state: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        let none = Value::from(());
        match method {
            "append" => {
                let (item,): (Value,) = from_args(args)?;
                self.place.admit(&item)?;
                self.items.lock().push(item);
            }
            "extend" => {
                let (more,): (Value,) = from_args(args)?;
                let more: Vec<Value> = more.try_iter()?.collect();
                charge(more.len() + self.items.lock().len() / 4)?;
                more.iter().try_for_each(|item| self.place.admit(item))?;
                self.items.lock().extend(more);
            }
            "insert" => {
                let (index, item): (i64, Value) = from_args(args)?;
                self.place.admit(&item)?;
                let mut items = self.items.lock();
                charge(items.len() / 8)?;
                let at = position(index, items.len()).unwrap_or(0).min(items.len());
                items.insert(at, item);
            }
            "pop" => {
                let (index,): (Option<i64>,) = from_args(args)?;
                let mut items = self.items.lock();
                charge(items.len() / 8)?;
                let at = position(index.unwrap_or(-1), items.len()).filter(|at| *at < items.len());
                return at.map(|at| items.remove(at)).ok_or_else(|| failed("pop index out of range"));
            }
            "remove" => {
                let (item,): (Value,) = from_args(args)?;
                // Compared without the lock, since the item may be this list.
                let items = self.items.lock().clone();
                charge(items.len())?;
                match items.iter().position(|other| *other == item) {
                    Some(at) => drop(self.items.lock().remove(at)),
                    None => return Err(failed("list.remove(x): x not in list")),
                }
            }
            "sort" => {
                let (named,): (Kwargs,) = from_args(args)?;
                let reverse = named.get::<Option<bool>>("reverse")?.unwrap_or(false);
                named.assert_all_used()?;
                let mut items = self.items.lock();
                charge(items.len() * 4)?;
                items.sort();
                if reverse {
                    items.reverse();
                }
            }
            "reverse" if args.is_empty() => self.items.lock().reverse(),
            "clear" if args.is_empty() => self.items.lock().clear(),
            "copy" if args.is_empty() => {
                let items = self.items.lock().clone();
                charge(items.len())?;
                return Ok(Self::value(items, 0));
            }
            _ => return other(None, state, args),
        }
        Ok(none)
    }
}

/// Whether a value can be a key: it cannot change, and hashing it asks no map that is locked.
fn is_key(value: &Value) -> bool {
    let plain = |v: &Value| !matches!(v.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable);
    plain(value)
        || value.kind() == ValueKind::Seq
            && value.downcast_object_ref::<List>().is_none()
            && value.try_iter().is_ok_and(|mut items| items.all(|item| plain(&item)))
}

#[derive(Debug, Default)]
struct Entries {
    order: Vec<(Value, Value)>,
    index: HashMap<Value, usize>,
}

impl Entries {
    fn set(&mut self, key: Value, value: Value) {
        match self.index.get(&key).and_then(|at| self.order.get_mut(*at)) {
            Some((_, old)) => *old = value,
            None => {
                self.index.insert(key.clone(), self.order.len());
                self.order.push((key, value));
            }
        }
    }

    fn get(&self, key: &Value) -> Option<Value> {
        self.order.get(*self.index.get(key)?).map(|(_, v)| v.clone())
    }

    fn remove(&mut self, key: &Value) -> Option<(Value, Value)> {
        let at = self.index.remove(key)?;
        let gone = self.order.remove(at);
        self.index.values_mut().filter(|i| **i > at).for_each(|i| *i -= 1);
        Some(gone)
    }
}

/// A map.
#[derive(Debug)]
struct Dict {
    entries: Mutex<Entries>,
    place: Place,
}

impl Dict {
    fn value(entries: impl Iterator<Item = (Value, Value)>, level: usize) -> Value {
        let mut all = Entries::default();
        entries.for_each(|(k, v)| all.set(k, v));
        Value::from_object(Self { entries: Mutex::new(all), place: Place::new(level) })
    }

    fn put(&self, key: Value, value: Value) -> Result<(), Error> {
        if !is_key(&key) {
            return Err(failed("a list or map cannot be a key"));
        }
        self.place.admit(&value)?;
        self.entries.lock().set(key, value);
        Ok(())
    }
}

/// What `namespace(...)` makes. `{% set ns.x = v %}` is written as a call of its method
/// [`Namespace::SET`].
#[derive(Debug)]
struct Namespace(Dict);

impl Namespace {
    const SET: &str = "__set__";
}

/// The function `namespace`.
pub fn namespace(of: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let dict = Dict { entries: Mutex::default(), place: Place::new(0) };
    if let Some(of) = of {
        for (key, value) in pairs(&of)? {
            dict.put(key, value)?;
        }
    }
    for name in named.args() {
        dict.put(Value::from(name), named.peek(name)?)?;
    }
    Ok(Value::from_object(Namespace(dict)))
}

impl Object for Namespace {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        if is_key(key) { self.0.entries.lock().get(key) } else { None }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.entries.lock().order.iter().map(|(k, _)| k.clone()).collect())
    }

    fn call_method(
        self: &Arc<Self>,
        state: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        if method != Self::SET {
            return other(self.get_value(&Value::from(method)), state, args);
        }
        let (name, value): (Value, Value) = from_args(args)?;
        let value = if value.kind() == ValueKind::Iterable {
            // A chain of lazy steps would grow with every round of a loop.
            let items: Vec<Value> = value.try_iter()?.collect();
            charge(items.len() / 4)?;
            Value::from(items)
        } else {
            value
        };
        self.0.put(name, value)?;
        Ok(Value::from(()))
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dict: Vec<(Value, Value)> = self.0.entries.lock().order.clone();
        let plain = Dict::value(dict.into_iter(), 0);
        write!(f, "<Namespace {plain}>")
    }
}

/// Keys and values of a map or a list of pairs.
fn pairs(value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    let mut out = Vec::new();
    for item in value.try_iter()? {
        if value.kind() == ValueKind::Map {
            let inner = value.get_item(&item)?;
            out.push((item, inner));
        } else {
            let pair: Vec<Value> = item.try_iter()?.take(3).collect();
            match <[Value; 2]>::try_from(pair) {
                Ok([key, inner]) => out.push((key, inner)),
                Err(_) => return Err(failed("update needs a map or a list of pairs")),
            }
        }
    }
    Ok(out)
}

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        if is_key(key) { self.entries.lock().get(key) } else { None }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.entries.lock().order.iter().map(|(k, _)| k.clone()).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.entries.lock().order.len())
    }

    fn call_method(
        self: &Arc<Self>,
        state: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        match method {
            "update" => {
                let (more, named): (Option<Value>, Kwargs) = from_args(args)?;
                if let Some(more) = more {
                    for (key, value) in pairs(&more)? {
                        self.put(key, value)?;
                    }
                }
                for name in named.args() {
                    self.put(Value::from(name), named.peek(name)?)?;
                }
            }
            "pop" => {
                let (key, by): (Value, Option<Value>) = from_args(args)?;
                if !is_key(&key) {
                    return Err(failed("a list or map cannot be a key"));
                }
                let mut entries = self.entries.lock();
                charge(entries.order.len() / 4)?;
                let gone = entries.remove(&key).map(|(_, v)| v).or(by);
                return gone.ok_or_else(|| failed(format!("pop: there is no key {key:?}")));
            }
            "popitem" if args.is_empty() => {
                let mut entries = self.entries.lock();
                let key = entries.order.last().map(|(k, _)| k.clone());
                let gone = key.and_then(|key| entries.remove(&key));
                let (key, value) = gone.ok_or_else(|| failed("popitem: the map is empty"))?;
                return Ok(Value::from(vec![key, value]));
            }
            "setdefault" => {
                let (key, by): (Value, Option<Value>) = from_args(args)?;
                if let Some(known) = self.get_value(&key) {
                    return Ok(known);
                }
                let by = by.unwrap_or_else(|| Value::from(()));
                self.put(key, by.clone())?;
                return Ok(by);
            }
            "clear" if args.is_empty() => *self.entries.lock() = Entries::default(),
            "copy" if args.is_empty() => {
                let entries = self.entries.lock().order.clone();
                charge(entries.len())?;
                return Ok(Self::value(entries.into_iter(), 0));
            }
            _ => return other(self.get_value(&Value::from(method)), state, args),
        }
        Ok(Value::from(()))
    }
}

/// Gives every list and map literal of an expression, and every `dict(...)`, to the filter.
pub fn literals(code: &str, out: &mut String) {
    use super::percent::{closing, token};
    let mut at = 0;
    // Whether an operand stands before, so that a bracket is an index or a call.
    let mut after_operand = false;
    while at < code.len() {
        let length = token(&code[at..]);
        let piece = &code[at..at + length];
        let call = piece == "dict" && !after_operand && code[at + length..].starts_with('(');
        if (matches!(piece, "[" | "{") && !after_operand) || call {
            let open = if call { at + length } else { at };
            let end = closing(code, open);
            if end < code.len() {
                out.push('(');
                out.push_str(&code[at..=open]);
                literals(&code[open + 1..end], out);
                out.push_str(&code[end..=end]);
                out.push_str("|mutable)");
                at = end + 1;
                after_operand = true;
                continue;
            }
        }
        out.push_str(piece);
        at += length;
        if !piece.trim().is_empty() {
            after_operand = match piece {
                "and" | "or" | "not" | "in" | "is" | "if" | "else" | "elif" | "for" | "set" | "return" => {
                    false
                }
                ")" | "]" | "}" => true,
                _ => piece.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '"' | '\'')),
            };
        }
    }
}
