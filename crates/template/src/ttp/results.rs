//! Walks sorted matches and builds the results: records, paths, lists and maps.

use serde_json::{Map, Value};

use super::error::TtpError;
use super::functions::Context;
use super::group_functions::{self, Done};
use super::line::{Action, Rule};
use super::template::Single;
use super::value::py_str;

/// One match of a rule, or a default start (`rule` None). `result` None means tests rejected it.
#[derive(Debug)]
pub(crate) struct Match<'t> {
    pub at: u64,
    pub group: usize,
    pub rule: Option<&'t Rule>,
    pub result: Option<Map<String, Value>>,
}

impl Match<'_> {
    fn action(&self) -> Action {
        self.rule.map_or(Action::Start, |r| r.action)
    }

    fn is_line(&self) -> bool {
        self.rule.is_some_and(|r| r.is_line)
    }
}

/// A path item and how many asterisks ended it.
type Item = (String, usize);

struct Record {
    result: Value,
    path: Vec<String>,
    path_id: Option<usize>,
    /// Group whose functions and identity the record has.
    group: Option<usize>,
    defaults: bool,
    merge: bool,
}

impl Record {
    fn empty() -> Self {
        Self {
            result: Value::Object(Map::new()),
            path: Vec::new(),
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
    pub results: Value,
    record: Record,
    started: Vec<usize>,
    counts: Vec<u32>,
    ended: Vec<bool>,
    paths: Map<String, Value>,
    /// The path of the record being saved, formed.
    paths_formed: Vec<Item>,
    /// Records still allowed.
    pub budget: usize,
}

impl<'t, 'c, 'd> Results<'t, 'c, 'd> {
    pub fn new(
        template: &'t Single,
        runs: &'t [Map<String, Value>],
        ctx: &'c mut Context<'d>,
        main: Value,
        budget: usize,
    ) -> Self {
        Self {
            template,
            runs,
            ctx,
            results: main,
            record: Record::empty(),
            started: Vec::new(),
            counts: vec![0; template.ids],
            ended: vec![false; template.ids],
            paths: Map::new(),
            paths_formed: Vec::new(),
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
        for matches in groups {
            let mut iter = matches.into_iter().peekable();
            let mut same: Vec<Match<'t>> = Vec::new();
            while let Some(first) = iter.next() {
                let at = first.at;
                same.clear();
                same.push(first);
                while iter.peek().is_some_and(|m| m.at == at) {
                    same.extend(iter.next());
                }
                let pick = if same.len() == 1 { 0 } else { self.choose(&same) };
                let chosen = same.swap_remove(pick);
                self.take(chosen)?;
            }
        }
        if self.process()? {
            let (record, path) = self.finished();
            self.save(record.0, &path, record.1);
        }
        Ok(())
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
            let valid = || list.iter().copied().filter(|i| same[*i].result.is_some());
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

    fn take(&mut self, mut m: Match<'t>) -> Result<(), TtpError> {
        let id = self.id(m.group);
        let Some(result) = m.result.take() else {
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
            Action::Start => self.start(&m, result),
            Action::StartEmpty => self.start(&m, Map::new()),
            Action::Add => self.add(&m, result),
            Action::Join => self.join(&m, result),
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

    fn start(&mut self, m: &Match<'t>, result: Map<String, Value>) -> Result<(), TtpError> {
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
        if self.process()? {
            let (record, path) = self.finished();
            self.save(record.0, &path, record.1);
        }
        let group = self.template.groups.get(m.group);
        self.record = Record {
            result: Value::Object(result),
            path: group.map(|g| g.path.to_vec()).unwrap_or_default(),
            path_id: group.map(|g| g.path_id),
            group: Some(m.group),
            defaults: true,
            merge: false,
        };
        Ok(())
    }

    /// A match of a group that already started, while another group's record is open.
    fn late(&mut self, m: &Match<'t>, result: Map<String, Value>) -> Result<(), TtpError> {
        if self.is_started(self.id(m.group)) {
            self.start(m, result)?;
            self.record.merge = true;
            self.record.defaults = false;
        }
        Ok(())
    }

    fn add(&mut self, m: &Match<'t>, mut result: Map<String, Value>) -> Result<(), TtpError> {
        if !self.same_path(m.group) {
            return self.late(m, result);
        }
        // New fields come first, what the record has wins.
        if let Value::Object(have) = &mut self.record.result {
            result.extend(std::mem::take(have));
        }
        self.record.result = Value::Object(result);
        Ok(())
    }

    fn join(&mut self, m: &Match<'t>, result: Map<String, Value>) -> Result<(), TtpError> {
        if !self.same_path(m.group) {
            return self.late(m, result);
        }
        let mut with = "\n";
        if let Some(rule) = m.rule {
            for name in result.keys() {
                if let Some(Some(Some(by))) = rule.joins.get(name) {
                    with = by;
                }
            }
        }
        let Value::Object(have) = &mut self.record.result else { return Ok(()) };
        for (k, v) in result {
            match have.get_mut(&k) {
                None => {
                    have.insert(k, v);
                }
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
            self.record = Record { result: Value::Object(result), ..Record::empty() };
            let items: Vec<String> = path.split('.').map(|s| s.trim().to_owned()).collect();
            if let Some(path) = self.form_path(&items)? {
                let result = std::mem::take(&mut self.record.result);
                self.save(result, &path, false);
            }
        }
        self.record = Record::empty();
        Ok(())
    }

    /// The record and its path, after `process` said it is to be saved.
    fn finished(&mut self) -> ((Value, bool), Vec<Item>) {
        let record = std::mem::replace(&mut self.record, Record::empty());
        let path = std::mem::take(&mut self.paths_formed);
        ((record.result, record.merge), path)
    }

    /// Fills path variables; None where one has no value.
    fn form_path(&mut self, path: &[String]) -> Result<Option<Vec<Item>>, TtpError> {
        let mut out = Vec::with_capacity(path.len());
        for item in path {
            let name = item.trim_end_matches('*');
            let stars = item.len() - name.len();
            if !name.contains("{{") {
                out.push((name.to_owned(), stars));
                continue;
            }
            let mut made = String::new();
            let mut rest = name;
            while let Some(open) = rest.find("{{") {
                let Some(close) = rest.get(open..).and_then(|r| r.find("}}")) else { break };
                made.push_str(rest.get(..open).unwrap_or(""));
                let var = rest.get(open + 2..open + close).unwrap_or("").trim();
                rest = rest.get(open + close + 2..).unwrap_or("");
                let own = match &mut self.record.result {
                    Value::Object(m) => m.shift_remove(var),
                    _ => None,
                };
                if let Some(v) = own {
                    made.push_str(&py_str(&v));
                    self.paths.insert(var.to_owned(), v);
                } else if let Some(v) = self.paths.get(var).or_else(|| self.ctx.vars.get(var)) {
                    made.push_str(&py_str(v));
                } else {
                    return Ok(None);
                }
            }
            made.push_str(rest);
            out.push((made, stars));
        }
        Ok(Some(out))
    }

    /// Completes the open record. False where it is to be dropped.
    fn process(&mut self) -> Result<bool, TtpError> {
        self.paths_formed.clear();
        let group = self.record.group.and_then(|g| self.template.groups.get(g));
        let defaults =
            if self.record.defaults { self.record.group.and_then(|g| self.runs.get(g)) } else { None };
        if let (Some(defaults), Value::Object(result)) = (defaults, &mut self.record.result) {
            for (k, v) in defaults {
                if !result.contains_key(k) {
                    result.insert(k.clone(), v.clone());
                }
            }
        }
        if self.record.merge {
            let path = self.record.path.clone();
            if let Some(items) = self.form_path(&path)?
                && !items.is_empty()
            {
                let new = std::mem::take(&mut self.record.result);
                let mut copied = match by_path(&mut self.results, &items) {
                    Some(Value::Array(a)) => a.last().cloned(),
                    Some(v @ Value::Object(_)) => Some(v.clone()),
                    _ => None,
                };
                if let (Some(Value::Object(c)), Value::Object(n)) = (&mut copied, &new) {
                    c.extend(n.clone());
                }
                self.record.result = copied.unwrap_or(new);
            }
        }
        if let Some(group) = group {
            for call in &group.functions {
                let before = match call.name.as_str() {
                    "itemize" => self.record.result.as_object().cloned(),
                    _ => None,
                };
                match group_functions::apply(
                    call,
                    &mut self.record.result,
                    defaults,
                    self.ctx,
                    &self.results,
                )? {
                    Done::Keep => {}
                    Done::Drop => return Ok(false),
                    Done::Item => {
                        self.paths.extend(before.unwrap_or_default());
                        if let Some(last) = self.record.path.last_mut() {
                            *last = format!("{}*", last.trim_end_matches('*'));
                        }
                    }
                    Done::ItemAt(value, path) => {
                        self.paths.extend(before.unwrap_or_default());
                        let mut items: Vec<String> = path.split('.').map(|s| s.trim().to_owned()).collect();
                        if let Some(last) = items.last_mut() {
                            *last = format!("{}*", last.trim_end_matches('*'));
                        }
                        if let Some(items) = self.form_path(&items)? {
                            let merge = self.record.merge;
                            self.save(value, &items, merge);
                        }
                    }
                }
            }
        }
        let path = std::mem::take(&mut self.record.path);
        match self.form_path(&path)? {
            Some(items) if !items.is_empty() => {
                self.paths_formed = items;
                Ok(true)
            }
            _ => Ok(false),
        }
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
                } else if have.is_empty() || null {
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
                if !m.contains_key(name) {
                    m.insert(name.clone(), branch(path.get(i..)?));
                }
                at = m.get_mut(name)?;
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
