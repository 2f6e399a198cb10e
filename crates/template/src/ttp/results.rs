//! Walks sorted matches and builds the results: records, paths, lists and maps.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::TtpError;
use super::fields::{Field, Fields, Part as Values};
use super::functions::Context;
use super::group_functions::{self, Done};
use super::line::{Action, Rule};
use super::template::{Group, Item, Part, Single, Step};
use super::value::py_str;

/// One match of a rule, or a default start (`rule` None). `fields` None means tests rejected it.
#[derive(Debug)]
pub(crate) struct Match<'t> {
    pub at: u64,
    pub group: usize,
    pub rule: Option<&'t Rule>,
    pub fields: Option<Values>,
}

impl Match<'_> {
    fn action(&self) -> Action {
        self.rule.map_or(Action::Start, |r| r.action)
    }

    fn is_line(&self) -> bool {
        self.rule.is_some_and(|r| r.is_line)
    }
}

/// The data of an open record: fields while lines add to it, one value once functions ran.
enum Data<'t> {
    Fields(VecDeque<Field<'t>>),
    Value(Value),
}

impl Data<'_> {
    fn take(&mut self, name: &str) -> Option<Value> {
        match self {
            Self::Fields(f) => {
                let at = f.iter().position(|(k, _)| k == name)?;
                f.remove(at).map(|(_, v)| v)
            }
            Self::Value(Value::Object(m)) => m.shift_remove(name),
            Self::Value(_) => None,
        }
    }

    fn into_value(self) -> Value {
        match self {
            Self::Fields(f) => {
                let mut map = Map::with_capacity(f.len());
                map.extend(f.into_iter().map(|(k, v)| (k.into_owned(), v)));
                Value::Object(map)
            }
            Self::Value(v) => v,
        }
    }
}

struct Record<'t> {
    data: Data<'t>,
    path: Arc<[Step]>,
    /// The path where no part of it is a variable.
    fixed: Option<Arc<[Item]>>,
    path_id: Option<usize>,
    /// Group whose functions and identity the record has.
    group: Option<usize>,
    defaults: bool,
    merge: bool,
}

impl Record<'_> {
    fn empty() -> Self {
        Self {
            data: Data::Fields(VecDeque::new()),
            path: Arc::default(),
            fixed: None,
            path_id: None,
            group: None,
            defaults: false,
            merge: false,
        }
    }
}

/// Builder of one input's results.
pub(crate) struct Results<'t, 'c, 'd> {
    template: &'t Single,
    runs: &'t [Map<String, Value>],
    ctx: &'c mut Context<'d>,
    fields: &'c mut Fields<'t>,
    pub results: Value,
    record: Record<'t>,
    started: Vec<usize>,
    counts: Vec<u32>,
    ended: Vec<bool>,
    /// Path variables met so far and their last values.
    paths: Vec<(String, Value)>,
    /// Records still allowed.
    pub budget: usize,
}

impl<'t, 'c, 'd> Results<'t, 'c, 'd> {
    pub fn new(
        template: &'t Single,
        runs: &'t [Map<String, Value>],
        ctx: &'c mut Context<'d>,
        fields: &'c mut Fields<'t>,
        main: Value,
        budget: usize,
    ) -> Self {
        Self {
            template,
            runs,
            ctx,
            fields,
            results: main,
            record: Record::empty(),
            started: Vec::new(),
            counts: vec![0; template.ids],
            ended: vec![false; template.ids],
            paths: Vec::new(),
            budget,
        }
    }

    fn id(&self, group: usize) -> usize {
        self.template.groups.get(group).map_or(0, |g| g.id)
    }

    fn parent(&self, group: usize) -> Option<usize> {
        self.template.groups.get(group).and_then(|g| g.parent)
    }

    fn is_started(&self, id: usize) -> bool {
        self.counts.get(id).is_some_and(|c| *c > 0)
    }

    fn push(&mut self, id: usize) {
        self.started.push(id);
        if let Some(c) = self.counts.get_mut(id) {
            *c += 1;
        }
    }

    fn pop(&mut self) {
        if let Some(id) = self.started.pop()
            && let Some(c) = self.counts.get_mut(id)
        {
            *c = c.saturating_sub(1);
        }
    }

    /// Builds from the matches of each top group, sorted by position.
    pub fn build(&mut self, groups: Vec<Vec<Match<'t>>>) -> Result<(), TtpError> {
        if !groups.is_empty() {
            self.save_vars()?;
        }
        for mut matches in groups {
            let mut from = 0;
            while let Some(first) = matches.get(from) {
                let at = first.at;
                let same = matches.get(from..).unwrap_or_default();
                let count = same.iter().take_while(|m| m.at == at).count();
                let same = same.get(..count).unwrap_or_default();
                let pick = from + if count == 1 { 0 } else { self.choose(same) };
                if let Some(chosen) = matches.get_mut(pick) {
                    self.take(chosen)?;
                }
                from += count;
            }
        }
        self.finish()
    }

    /// Which of several matches at one place counts.
    fn choose(&self, same: &[Match<'t>]) -> usize {
        let of = |keep: &dyn Fn(&Match<'t>) -> bool| -> Vec<usize> {
            same.iter().enumerate().filter(|(_, m)| keep(m)).map(|(i, _)| i).collect()
        };
        let record = self.record.group.map(|g| self.id(g));
        let here = |m: &Match<'t>| Some(self.id(m.group)) == record;
        for action in [Action::StartEmpty, Action::Start] {
            let list = of(&|m| !m.is_line() && m.action() == action);
            if list.is_empty() {
                continue;
            }
            let valid = || list.iter().copied().filter(|i| same[*i].fields.is_some());
            if let Some(i) = valid().find(|i| here(&same[*i])) {
                return i;
            }
            let prefix =
                self.record.group.and_then(|g| self.template.groups.get(g)).map(|g| g.id_name.as_str());
            let preferred = valid().find(|i| {
                let m = &same[*i];
                let name = self.template.groups.get(m.group).map_or("", |g| g.id_name.as_str());
                prefix.is_some_and(|p| name.starts_with(p))
                    || self.parent(m.group).is_some_and(|p| self.is_started(p))
            });
            return preferred.or_else(|| list.last().copied()).unwrap_or(0);
        }
        let normal = of(&|m| !m.is_line());
        if !normal.is_empty() {
            return normal
                .iter()
                .copied()
                .find(|i| here(&same[*i]))
                .or_else(|| normal.iter().copied().find(|i| self.is_started(self.id(same[*i].group))))
                .or_else(|| normal.last().copied())
                .unwrap_or(0);
        }
        (0..same.len()).find(|i| here(&same[*i])).unwrap_or(same.len() - 1)
    }

    fn take(&mut self, m: &mut Match<'t>) -> Result<(), TtpError> {
        let id = self.id(m.group);
        let Some(fields) = m.fields.take() else {
            if let Some(e) = self.ended.get_mut(id) {
                *e = true;
            }
            return Ok(());
        };
        if self.parent(m.group).is_some_and(|p| self.ended.get(p).copied().unwrap_or(false)) {
            return Ok(());
        }
        if self.ended.get(id).copied().unwrap_or(false) {
            if !m.action().starts() {
                return Ok(());
            }
            if let Some(e) = self.ended.get_mut(id) {
                *e = false;
            }
        }
        match m.action() {
            Action::Start => self.start(m, fields),
            Action::StartEmpty => self.start(m, 0..0),
            Action::Add => self.add(m, fields),
            Action::Join => self.join(m, fields),
            Action::End => {
                let same = self.same_path(m.group);
                if (same || self.started.last() != Some(&id))
                    && let Some(e) = self.ended.get_mut(id)
                {
                    *e = true;
                }
                Ok(())
            }
        }
    }

    fn same_path(&self, group: usize) -> bool {
        self.record.path_id.is_some()
            && self.record.path_id == self.template.groups.get(group).map(|g| g.path_id)
    }

    fn start(&mut self, m: &Match<'t>, fields: Values) -> Result<(), TtpError> {
        if self.budget == 0 {
            return Err(TtpError::limit("the results have more records than allowed"));
        }
        self.budget -= 1;
        let id = self.id(m.group);
        let parent = self.parent(m.group);
        loop {
            let Some(last) = self.started.last().copied() else {
                self.push(id);
                break;
            };
            if parent == Some(last) || m.is_line() {
                self.push(id);
                break;
            }
            self.pop();
        }
        self.finish()?;
        let group = self.template.groups.get(m.group);
        // Room for the lines that will add to it.
        let mut data = VecDeque::with_capacity(8);
        data.extend(self.fields.take(fields));
        self.record = Record {
            data: Data::Fields(data),
            path: group.map(|g| Arc::clone(&g.steps)).unwrap_or_default(),
            fixed: group.and_then(|g| g.fixed.clone()),
            path_id: group.map(|g| g.path_id),
            group: Some(m.group),
            defaults: true,
            merge: false,
        };
        Ok(())
    }

    /// A match of a group that already started, while another group's record is open.
    fn late(&mut self, m: &Match<'t>, fields: Values) -> Result<(), TtpError> {
        if self.is_started(self.id(m.group)) {
            self.start(m, fields)?;
            self.record.merge = true;
            self.record.defaults = false;
        }
        Ok(())
    }

    fn add(&mut self, m: &Match<'t>, fields: Values) -> Result<(), TtpError> {
        if !self.same_path(m.group) {
            return self.late(m, fields);
        }
        // New fields come first, what the record has wins.
        let Data::Fields(have) = &mut self.record.data else { return Ok(()) };
        for (name, new) in self.fields.take(fields).rev() {
            let value = match have.iter().position(|(k, _)| *k == name) {
                Some(at) => have.remove(at).map_or(new, |(_, old)| old),
                None => new,
            };
            have.push_front((name, value));
        }
        Ok(())
    }

    fn join(&mut self, m: &Match<'t>, fields: Values) -> Result<(), TtpError> {
        if !self.same_path(m.group) {
            return self.late(m, fields);
        }
        let mut with = "\n";
        if let Some(rule) = m.rule {
            for name in self.fields.names(&fields) {
                if let Some((_, by)) = rule.joins.iter().find(|(n, _)| n == name) {
                    with = by;
                }
            }
        }
        let Data::Fields(have) = &mut self.record.data else { return Ok(()) };
        for (k, v) in self.fields.take(fields) {
            match have.iter_mut().find(|(n, _)| *n == k).map(|(_, v)| v) {
                None => have.push_back((k, v)),
                Some(Value::String(s)) => {
                    s.push_str(with);
                    match &v {
                        Value::String(t) => s.push_str(t),
                        other => s.push_str(&py_str(other)),
                    }
                    if s.len() > self.ctx.max_value {
                        return Err(TtpError::limit(format_args!(
                            "joining '{k}' made a value larger than allowed"
                        )));
                    }
                }
                Some(Value::Array(a)) => match v {
                    Value::Array(more) => a.extend(more),
                    one => a.push(one),
                },
                Some(other) => {
                    let first = other.take();
                    *other = Value::Array(vec![first, v]);
                }
            }
        }
        Ok(())
    }

    fn save_vars(&mut self) -> Result<(), TtpError> {
        let mut paths: Vec<&(String, Vec<String>)> = self.template.vars_to_results.iter().collect();
        paths.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, names) in paths {
            if path.is_empty() {
                continue;
            }
            let mut result = Map::new();
            for n in names {
                if let Some(v) = self.ctx.vars.get(n) {
                    result.insert(n.clone(), v.clone());
                }
            }
            self.record = Record { data: Data::Value(Value::Object(result)), ..Record::empty() };
            if let Some(path) = self.form_path(&Step::dotted(path)) {
                let data = std::mem::replace(&mut self.record.data, Data::Value(Value::Null));
                self.save(data.into_value(), &path, false);
            }
        }
        self.record = Record::empty();
        Ok(())
    }

    /// Fills path variables; None where one has no value.
    fn form_path(&mut self, path: &[Step]) -> Option<Vec<Item>> {
        let mut out = Vec::with_capacity(path.len());
        for step in path {
            let mut made = String::new();
            for part in &step.parts {
                let name = match part {
                    Part::Text(text) => {
                        made.push_str(text);
                        continue;
                    }
                    Part::Variable(name) => name,
                };
                let known = self.paths.iter().position(|(n, _)| n == name);
                if let Some(v) = self.record.data.take(name) {
                    push_str(&mut made, &v);
                    match known.and_then(|at| self.paths.get_mut(at)) {
                        Some((_, old)) => *old = v,
                        None => self.paths.push((name.clone(), v)),
                    }
                } else if let Some((_, v)) = known.and_then(|at| self.paths.get(at)) {
                    push_str(&mut made, v);
                } else {
                    push_str(&mut made, self.ctx.vars.get(name)?);
                }
            }
            out.push((made, step.stars));
        }
        Some(out)
    }

    /// Remembers a whole record for path variables.
    fn remember(&mut self, record: Option<Map<String, Value>>) {
        for (name, value) in record.into_iter().flatten() {
            match self.paths.iter_mut().find(|(n, _)| *n == name) {
                Some((_, old)) => *old = value,
                None => self.paths.push((name, value)),
            }
        }
    }

    /// Completes the open record and saves it, where it is not to be dropped.
    fn finish(&mut self) -> Result<(), TtpError> {
        let group = self.record.group.and_then(|g| self.template.groups.get(g));
        let defaults =
            if self.record.defaults { self.record.group.and_then(|g| self.runs.get(g)) } else { None };
        if let (Some(defaults), Data::Fields(fields)) = (defaults, &mut self.record.data) {
            for (k, v) in defaults {
                if !fields.iter().any(|(n, _)| n == k) {
                    fields.push_back((std::borrow::Cow::Borrowed(k), v.clone()));
                }
            }
        }
        if self.record.merge {
            self.with_last();
        }
        if let Some(group) = group
            && !group.functions.is_empty()
            && !self.functions(group, defaults)?
        {
            return Ok(());
        }
        let fixed = self.record.fixed.take();
        let made = match &fixed {
            Some(_) => Vec::new(),
            None => {
                let path = std::mem::take(&mut self.record.path);
                match self.form_path(&path) {
                    Some(items) => items,
                    None => return Ok(()),
                }
            }
        };
        let path = fixed.as_deref().unwrap_or(&made);
        if path.is_empty() {
            return Ok(());
        }
        let record = std::mem::replace(&mut self.record, Record::empty());
        self.save(record.data.into_value(), path, record.merge);
        Ok(())
    }

    /// Puts what the results have at the place of a late record under its data, so that the
    /// group's functions see the whole.
    fn with_last(&mut self) {
        let path = Arc::clone(&self.record.path);
        let Some(items) = self.form_path(&path).filter(|items| !items.is_empty()) else { return };
        let copied = match by_path(&mut self.results, &items) {
            Some(Value::Array(a)) => a.last().cloned(),
            Some(v @ Value::Object(_)) => Some(v.clone()),
            _ => None,
        };
        let Some(mut whole) = copied else { return };
        if let (Value::Object(have), Data::Fields(new)) = (&mut whole, &mut self.record.data) {
            have.extend(std::mem::take(new).into_iter().map(|(k, v)| (k.into_owned(), v)));
        }
        self.record.data = Data::Value(whole);
    }

    /// Runs a group's functions over the record; false where they drop it.
    fn functions(
        &mut self,
        group: &'t Group,
        defaults: Option<&Map<String, Value>>,
    ) -> Result<bool, TtpError> {
        let data = std::mem::replace(&mut self.record.data, Data::Value(Value::Null));
        let mut value = data.into_value();
        for call in &group.functions {
            let before = match call.name.as_str() {
                "itemize" => value.as_object().cloned(),
                _ => None,
            };
            match group_functions::apply(call, &mut value, defaults, self.ctx, &self.results)? {
                Done::Keep => {}
                Done::Drop => return Ok(false),
                Done::Item => {
                    self.remember(before);
                    let mut path = self.record.path.to_vec();
                    if let Some(last) = path.last_mut() {
                        last.stars = 1;
                    }
                    self.record.path = path.into();
                    self.record.fixed = None;
                }
                Done::ItemAt(item, path) => {
                    self.remember(before);
                    let mut steps = Step::dotted(&path);
                    if let Some(last) = steps.last_mut() {
                        last.stars = 1;
                    }
                    self.record.data = Data::Value(value);
                    if let Some(items) = self.form_path(&steps) {
                        let merge = self.record.merge;
                        self.save(item, &items, merge);
                    }
                    let data = std::mem::replace(&mut self.record.data, Data::Value(Value::Null));
                    value = data.into_value();
                }
            }
        }
        self.record.data = Data::Value(value);
        Ok(true)
    }

    /// Puts a record into the results at its path.
    fn save(&mut self, result: Value, path: &[Item], merge: bool) {
        let stars = path.last().map_or(0, |p| p.1);
        let null = path.last().is_some_and(|p| p.0 == "_");
        match by_path(&mut self.results, path) {
            Some(Value::Array(a)) => {
                if !super::literal::truthy(&result) {
                    return;
                }
                match (merge, a.last_mut(), result) {
                    (true, Some(Value::Object(last)), Value::Object(new)) => merge_into(last, new),
                    (_, _, result) => a.push(result),
                }
            }
            Some(slot @ Value::Object(_)) => {
                let Value::Object(new) = result else { return };
                let Value::Object(have) = slot else { return };
                if merge {
                    merge_into(have, new);
                } else if stars == 2 {
                    // What is there wins over the new values, new keys are added.
                    let mut new = new;
                    new.extend(have.clone());
                    have.extend(new);
                } else if have.is_empty() {
                    *have = new;
                } else if null {
                    have.extend(new);
                } else {
                    let first = slot.take();
                    *slot = Value::Array(vec![first, Value::Object(new)]);
                }
            }
            _ => {}
        }
    }
}

/// Adds what `str()` makes of a value.
fn push_str(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => out.push_str(text),
        other => out.push_str(&py_str(other)),
    }
}

fn merge_into(have: &mut Map<String, Value>, new: Map<String, Value>) {
    for (k, v) in new {
        match (have.get_mut(&k), v) {
            (Some(Value::Object(h)), Value::Object(n)) if !h.is_empty() => merge_into(h, n),
            (_, v) => {
                have.insert(k, v);
            }
        }
    }
}

/// The branch a path makes where nothing is yet: what stands under its first name.
fn branch(path: &[Item]) -> Value {
    let mut at = Value::Object(Map::new());
    for (i, (name, _)) in path.iter().enumerate().skip(1).rev() {
        let inner = wrap(at, path.get(i).map_or(0, |p| p.1), i + 1 == path.len());
        let mut m = Map::new();
        m.insert(name.clone(), inner);
        at = Value::Object(m);
    }
    wrap(at, path.first().map_or(0, |p| p.1), path.len() == 1)
}

fn wrap(inner: Value, stars: usize, last: bool) -> Value {
    if stars != 1 {
        inner
    } else if last {
        Value::Array(Vec::new())
    } else {
        Value::Array(vec![inner])
    }
}

/// Walks to the element at a path, making what is missing. None where a plain value is in the way.
fn by_path<'v>(mut at: &'v mut Value, path: &[Item]) -> Option<&'v mut Value> {
    let mut i = 0;
    while i < path.len() {
        match at {
            Value::Object(_) => {
                // `_` stands for the place itself.
                if path.get(i)?.0 == "_" {
                    i += 1;
                    if i == path.len() {
                        return Some(at);
                    }
                }
                let Value::Object(m) = at else { return None };
                let name = &path.get(i)?.0;
                // Few names are found faster one by one than by their hash.
                let place = if m.len() <= 8 { m.keys().position(|k| k == name) } else { None };
                at = match place {
                    Some(place) => m.values_mut().nth(place)?,
                    None => {
                        if m.len() <= 8 || !m.contains_key(name) {
                            m.insert(name.clone(), branch(path.get(i..)?));
                        }
                        m.get_mut(name)?
                    }
                };
                i += 1;
            }
            Value::Array(a) => {
                if a.is_empty() {
                    let mut m = Map::new();
                    m.insert(path.get(i)?.0.clone(), branch(path.get(i..)?));
                    a.push(Value::Object(m));
                }
                at = a.last_mut()?;
            }
            _ => return None,
        }
    }
    Some(at)
}
