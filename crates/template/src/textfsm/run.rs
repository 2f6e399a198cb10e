//! Runs a compiled template over a text.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use super::table::{Cell, Item, Table};
use super::template::{LineOp, Opt, RecordOp, Rule, Target, Template};
use crate::error::{TemplateError, code};
use crate::pyre::{Held, Scratch};

thread_local! {
    /// Match memory, kept per thread so that a parse does not build it anew.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// How often the clock is read, in lines. A single match is bounded by its own step limit.
const CLOCK_EVERY: usize = 16;
/// From this length on, one line can cost enough that the clock is read after every rule.
const LONG_LINE: usize = 512;

#[derive(Default)]
struct State<'t> {
    now: Option<Cell<'t>>,
    fill: Option<Cell<'t>>,
    list: Vec<Item<'t>>,
}

struct Run<'p, 't> {
    template: &'p Template,
    states: Vec<State<'t>>,
    cells: Vec<Cell<'t>>,
    /// Cells plus list items, for the limit.
    weight: usize,
}

fn limit(message: String) -> TemplateError {
    TemplateError::new("textfsm", code::LIMIT, message)
}

impl Template {
    /// Runs the template over a text (Python's `ParseText`). The table borrows from the text.
    ///
    /// # Errors
    /// `template_parse` when an Error rule hits, `template_limit` when a limit is met; both name
    /// the rule's line where one is to blame.
    pub fn parse<'t>(&self, text: &'t str) -> Result<Table<'t>, TemplateError> {
        SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
            Ok(mut scratch) => self.parse_with(text, &mut scratch),
            Err(_) => self.parse_with(text, &mut Scratch::default()),
        })
    }

    fn parse_with<'t>(&self, text: &'t str, scratch: &mut Scratch) -> Result<Table<'t>, TemplateError> {
        let limits = &self.limits;
        if text.len() > limits.input_bytes {
            return Err(limit(format!(
                "the text has {} bytes, at most {} are parsed",
                text.len(),
                limits.input_bytes
            )));
        }
        let deadline = limits.deadline(text.len());
        let all_ascii = text.is_ascii();
        let mut run = Run {
            template: self,
            states: self.values.iter().map(|_| State::default()).collect(),
            cells: Vec::new(),
            weight: 0,
        };
        let mut state = self.start;
        let mut ended = Target::Stay;
        'lines: for (number, line) in crate::python::lines(text).enumerate() {
            if line.len() > limits.line_bytes {
                return Err(limit(format!(
                    "input line {} has {} bytes, at most {} are parsed",
                    number + 1,
                    line.len(),
                    limits.line_bytes
                )));
            }
            if number % CLOCK_EVERY == 0 && Instant::now() > deadline {
                return Err(overdue(number, None));
            }
            let ascii = all_ascii || line.is_ascii();
            let first = line.as_bytes().first().copied();
            let mut held = None;
            for (rule, lead) in self.states[state].1.iter().zip(&self.leads[state]) {
                if ascii {
                    let fits = lead.fits(first)
                        && (!lead.is_choosy()
                            || lead.is_met(held.get_or_insert_with(|| Held::of(line.as_bytes()))));
                    if !fits {
                        continue;
                    }
                }
                let hit = rule.regex.matches(line, ascii, scratch).map_err(|why| {
                    limit(format!(
                        "rule on line {} gave up on input line {}: {why}. Simplify its pattern",
                        rule.line,
                        number + 1
                    ))
                    .at(rule.line)
                })?;
                if !hit {
                    if (scratch.took_long() || line.len() > LONG_LINE) && Instant::now() > deadline {
                        return Err(overdue(number, Some(rule)));
                    }
                    continue;
                }
                for (group, value) in &rule.assigns {
                    let found = scratch.span(*group).map(|(a, b)| &line[a..b]);
                    run.assign(*value, found)?;
                }
                match rule.record_op {
                    RecordOp::NoRecord => {}
                    RecordOp::Record => run.record()?,
                    RecordOp::Clear => run.clear(),
                    RecordOp::Clearall => run.clear_all(),
                }
                match rule.line_op {
                    LineOp::Continue => {}
                    LineOp::Error => return Err(raised(rule, line)),
                    LineOp::Next => {
                        match rule.target {
                            Target::Stay => {}
                            Target::State(next) => state = next,
                            end => {
                                ended = end;
                                break 'lines;
                            }
                        }
                        break;
                    }
                }
            }
        }
        if ended != Target::End && !self.eof_state {
            run.record()?;
        }
        Ok(Table { header: Arc::clone(&self.header), cells: run.cells })
    }
}

fn overdue(number: usize, rule: Option<&Rule>) -> TemplateError {
    let error = limit(format!("the time for parsing was over at input line {}", number + 1));
    match rule {
        Some(rule) => error.at(rule.line),
        None => error,
    }
}

fn raised(rule: &Rule, line: &str) -> TemplateError {
    let shown = match line.char_indices().nth(500) {
        Some((at, _)) => &line[..at],
        None => line,
    };
    let message = match &rule.message {
        Some(message) => {
            format!("Error: {message}. Rule Line: {}. Input Line: {shown}.", rule.line)
        }
        None => format!("State Error raised. Rule Line: {}. Input Line: {shown}", rule.line),
    };
    TemplateError::new("textfsm", code::PARSE, message).at(rule.line)
}

impl<'t> Run<'_, 't> {
    fn weigh(&mut self, more: usize) -> Result<(), TemplateError> {
        self.weight += more;
        let most = self.template.limits.cells;
        if self.weight > most {
            return Err(limit(format!("the result has more than {most} values")));
        }
        Ok(())
    }

    #[inline]
    fn assign(&mut self, index: usize, found: Option<&'t str>) -> Result<(), TemplateError> {
        let template = self.template;
        let value = &template.values[index];
        let state = &mut self.states[index];
        state.now = found.map(Cell::Text);
        if value.plain {
            return Ok(());
        }
        for option in &value.options {
            match option {
                Opt::Filldown => self.states[index].fill = found.map(Cell::Text),
                Opt::Fillup => {
                    let Some(text) = found.filter(|t| !t.is_empty()) else { continue };
                    let width = template.values.len();
                    for row in self.cells.chunks_exact_mut(width).rev() {
                        if row[index].truthy() {
                            break;
                        }
                        row[index] = Cell::Text(text);
                    }
                }
                Opt::List => {
                    let item = match found {
                        None => Item::Null,
                        Some(text) => nested(template, index, text)?.unwrap_or(Item::Text(text)),
                    };
                    self.states[index].list.push(item);
                    self.weigh(1)?;
                }
                Opt::Required | Opt::Key => {}
            }
        }
        Ok(())
    }

    fn record(&mut self) -> Result<(), TemplateError> {
        let template = self.template;
        if template.values.is_empty() {
            return Ok(());
        }
        let mut empty = true;
        for (value, state) in template.values.iter().zip(&mut self.states) {
            if !value.plain {
                for option in &value.options {
                    match option {
                        Opt::Required if !state.now.as_ref().is_some_and(Cell::truthy) => {
                            self.clear();
                            return Ok(());
                        }
                        Opt::List => state.now = Some(Cell::List(state.list.clone())),
                        _ => {}
                    }
                }
            }
            empty &= match &state.now {
                None => true,
                Some(Cell::List(items)) => items.is_empty(),
                Some(Cell::Text(_)) => false,
            };
        }
        if empty {
            return Ok(());
        }
        let mut weight = template.values.len();
        self.cells.reserve(weight);
        for (value, state) in template.values.iter().zip(&mut self.states) {
            let cell = state.now.take().unwrap_or(Cell::Text(""));
            if let Cell::List(items) = &cell {
                weight += items.len();
            }
            self.cells.push(cell);
            if !value.plain {
                clear_value(&value.options, state);
            }
        }
        self.weigh(weight)
    }

    fn clear(&mut self) {
        for (value, state) in self.template.values.iter().zip(&mut self.states) {
            state.now = None;
            if !value.plain {
                clear_value(&value.options, state);
            }
        }
    }

    fn clear_all(&mut self) {
        for state in &mut self.states {
            state.now = None;
            state.fill = None;
            state.list.clear();
        }
    }
}

fn clear_value(options: &[Opt], state: &mut State<'_>) {
    let filldown = options.contains(&Opt::Filldown);
    state.now = if filldown { state.fill.clone() } else { None };
    if !filldown {
        state.list.clear();
    }
}

/// The nested named groups of a List value, when its own pattern has any.
fn nested<'t>(template: &Template, index: usize, text: &'t str) -> Result<Option<Item<'t>>, TemplateError> {
    let value = &template.values[index];
    let Some(regex) = &value.nested else { return Ok(None) };
    let mut scratch = Scratch::default();
    let hit = regex
        .matches(text, text.is_ascii(), &mut scratch)
        .map_err(|why| limit(format!("the pattern of Value '{}' gave up: {why}", value.name)))?;
    Ok(hit.then(|| {
        Item::Map(
            regex
                .names()
                .zip(1u32..)
                .map(|(name, group)| (Arc::from(name), scratch.span(group).map(|(a, b)| &text[a..b])))
                .collect(),
        )
    }))
}
