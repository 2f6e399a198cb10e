//! Runs the rules of groups over a text and collects their matches.

use std::borrow::Cow;
use std::time::Instant;

use serde_json::{Map, Value};

use super::error::TtpError;
use super::fields::Fields;
use super::functions::{self, Context, Flag};
use super::line::{Rule, Variable};
use super::places::Places;
use super::results::Match;
use super::template::Single;
use crate::pyre::Scratch;

/// Where default starts are placed: behind every real match.
const DEFAULT_AT: u64 = 1 << 40;

/// What is left of the run's allowance.
pub(crate) struct Budget {
    pub until: Instant,
    pub matches: usize,
    ticks: u32,
    scratch: Scratch,
}

impl Budget {
    pub fn new(until: Instant, matches: usize) -> Self {
        Self { until, matches, ticks: 0, scratch: Scratch::reused() }
    }

    /// Ends the run.
    pub fn done(self) {
        self.scratch.leave();
    }

    fn tick(&mut self, rule: &Rule) -> Result<(), TtpError> {
        self.ticks = self.ticks.wrapping_add(1);
        if (self.ticks & 0x3f == 0 || self.scratch.took_long()) && Instant::now() > self.until {
            return Err(TtpError::limit(
                "parsing took longer than allowed: the pattern of this line was running",
            )
            .at(rule.line));
        }
        Ok(())
    }
}

fn gave_up(rule: &Rule, why: &str) -> TtpError {
    TtpError::limit(format_args!(
        "the pattern '{}' backtracks too much on this text ({why}): make it stricter",
        rule.pattern.as_str().escape_debug()
    ))
    .at(rule.line)
}

/// One text and the state of its run.
pub(crate) struct Parser<'t, 'c, 'd> {
    pub template: &'t Single,
    pub text: &'t str,
    pub places: &'c Places,
    pub fields: &'c mut Fields<'t>,
    pub ascii: bool,
    pub ctx: &'c mut Context<'d>,
    pub budget: &'c mut Budget,
}

/// First start, last start and last end of a rule's matches.
#[derive(Clone, Copy)]
struct Span {
    first: usize,
    last: usize,
    last_end: usize,
}

impl<'t> Parser<'t, '_, '_> {
    /// Collects all matches of a top group, sorted by place; at one place in the order found.
    pub fn group(&mut self, group: usize) -> Result<Vec<Match<'t>>, TtpError> {
        let mut out = Vec::new();
        let end = self.text.len().saturating_sub(1);
        self.run(group, &mut out, 0, end)?;
        out.sort_by_key(|m| m.at);
        Ok(out)
    }

    fn run(
        &mut self,
        index: usize,
        out: &mut Vec<Match<'t>>,
        start: usize,
        end: usize,
    ) -> Result<(), TtpError> {
        let template = self.template;
        let Some(group) = template.groups.get(index) else { return Ok(()) };
        // Offsets below are relative to `start`, as the reference compares them.
        let mut first: Option<usize> = None;
        let mut last_start = 0;
        for rule in &group.start {
            let Some(span) = self.rule(rule, index, out, start, end)? else { continue };
            if first.is_none_or(|f| f > span.first - start) {
                first = Some(span.first - start);
            }
            if last_start < span.last - start && !rule.is_line {
                last_start = span.last_end;
            }
        }
        let Some(first) = first else {
            if group.starts_by_default {
                let mut at = DEFAULT_AT;
                while out.iter().any(|m| m.at == at) {
                    at += 1;
                }
                out.push(Match { at, group: index, rule: group.start.first(), fields: Some(0..0) });
            }
            for child in &group.children {
                if group.start.is_empty() || template.groups.get(*child).is_some_and(|c| c.starts_by_default)
                {
                    self.run(*child, out, start, end)?;
                }
            }
            return Ok(());
        };
        let start = start + first;
        let mut stop: Option<usize> = None;
        for rule in &group.end {
            let Some(span) = self.rule(rule, index, out, start, end)? else { continue };
            let relative = span.last_end - start;
            if stop.is_none_or(|s| s < relative) && relative > last_start {
                stop = Some(relative);
            }
        }
        let mut end = end;
        if let Some(stop) = stop {
            end = start + stop;
            out.retain(|m| m.group != index || m.at <= end as u64);
        }
        for rule in &group.rules {
            self.rule(rule, index, out, start, end)?;
        }
        for child in &group.children {
            self.run(*child, out, start, end)?;
        }
        Ok(())
    }

    /// All matches of one rule within `start..end`.
    fn rule(
        &mut self,
        rule: &'t Rule,
        group: usize,
        out: &mut Vec<Match<'t>>,
        start: usize,
        end: usize,
    ) -> Result<Option<Span>, TtpError> {
        if start >= end {
            return Ok(None);
        }
        let bytes = self.text.as_bytes().get(..end).unwrap_or(&[]);
        let mut walk = self.places.from(start);
        let mut span: Option<Span> = None;
        loop {
            let Some(candidate) = walk.next(&rule.wanted, bytes) else { return Ok(span) };
            self.budget.tick(rule)?;
            let hit = rule
                .pattern
                .matches_at(bytes, candidate, self.ascii, &mut self.budget.scratch)
                .map_err(|why| gave_up(rule, &why))?;
            let whole = if hit { self.budget.scratch.span(0) } else { None };
            let Some((from, to)) = whole else { continue };
            if self.budget.matches == 0 {
                return Err(TtpError::limit(
                    "the text gives more matches than allowed: this line was matching",
                )
                .at(rule.line));
            }
            self.budget.matches -= 1;
            let span = span.get_or_insert(Span { first: from, last: from, last_end: to });
            span.last = from;
            span.last_end = to;
            let begin = self.fields.begin();
            let mut passed = true;
            for (i, variable) in &rule.captures {
                let value = match self.budget.scratch.span(*i).and_then(|(s, e)| self.text.get(s..e)) {
                    Some(s) => Value::String(s.to_owned()),
                    None => Value::Null,
                };
                passed = self.variable(variable, value, begin).map_err(|e| e.at(rule.line))?;
                if !passed {
                    break;
                }
            }
            if rule.captures.is_empty() {
                for variable in &rule.whole {
                    let value = Value::from(self.text.get(from..to).unwrap_or(""));
                    passed = self.variable(variable, value, begin).map_err(|e| e.at(rule.line))?;
                    if !passed {
                        break;
                    }
                }
            }
            if !passed {
                self.fields.forget(begin);
            }
            if passed || rule.action.starts() {
                let fields = passed.then(|| self.fields.part(begin));
                out.push(Match { at: from as u64, group, rule: Some(rule), fields });
            }
            walk.skip(to.max(candidate + 1));
        }
    }

    /// Runs a variable's functions; false where they reject the match, whose values begin at `begin`.
    fn variable(&mut self, v: &'t Variable, value: Value, begin: usize) -> Result<bool, TtpError> {
        let mut value = value;
        let mut fields: Option<Map<String, Value>> = None;
        for call in &v.functions {
            let (made, flag) = functions::apply(call, value, self.ctx)?;
            value = made;
            match flag {
                Flag::None => {}
                Flag::Reject => return Ok(false),
                Flag::Fields(more) => fields.get_or_insert_default().extend(more),
            }
        }
        self.fields.set(begin, Cow::Borrowed(&v.name), value);
        for (name, value) in fields.into_iter().flatten() {
            self.fields.set(begin, Cow::Owned(name), value);
        }
        Ok(true)
    }
}
