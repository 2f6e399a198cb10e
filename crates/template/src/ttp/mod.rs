//! TTP, the Template Text Parser: device text into structured results by line templates.
//!
//! The language is that of the Python library `ttp`: groups, match variables with patterns and
//! functions, `_start_`/`_end_`/`_line_`/`_headers_`, dynamic and null paths, variables, lookups,
//! inputs, outputs, `<extend>`. What is Python there (`<macro>`, code in `<vars>`) is refused with
//! an error that names the tag. Nothing is read or written but through [`Files`].
//!
//! ```
//! use netpulse_template::ttp::{Options, Template};
//! let template = Template::compile("interface {{ name }}\n description {{ text | ORPHRASE }}", &Options::default())?;
//! let results = template.parse("interface Gi1\n description to core\n")?;
//! assert_eq!(
//!     results,
//!     serde_json::json!({"_root_template_": [{"name": "Gi1", "text": "to core"}]}),
//! );
//! # Ok::<(), netpulse_template::ttp::TtpError>(())
//! ```

mod changes;
mod error;
mod fields;
mod format;
mod functions;
mod getters;
mod group_functions;
mod inputs;
mod ip;
mod line;
mod literal;
mod load;
mod methods;
mod output;
mod parse;
mod places;
mod regex;
mod results;
mod template;
mod text;
mod value;
mod xml;
mod yaml;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

pub use error::TtpError;
use functions::Context;
use template::{Method, Single};

/// Texts a template may name by path: `<extend template=...>`, `include=...`, `<input url=...>`.
pub trait Files: Send + Sync + std::fmt::Debug {
    /// The text at a path, or None where there is none or it may not be read.
    fn read(&self, path: &str) -> Option<String>;
    /// The names of the texts in a folder, or None where it is no folder.
    fn list(&self, path: &str) -> Option<Vec<String>>;
}

/// The outer shape of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Structure {
    /// `[template results, ...]`
    List,
    /// `{template name: template results}`, what `/template/parse` gives.
    #[default]
    Dictionary,
    /// All results in one list.
    FlatList,
}

/// How templates are compiled and how much a run may use.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of a template that has none.
    pub name: String,
    /// Names of the templates to load; empty loads all.
    pub filters: Vec<String>,
    /// Variables added to each template's own.
    pub vars: Map<String, Value>,
    /// Prefix of paths in inputs.
    pub base_path: String,
    /// Shape of what [`Template::parse`] gives.
    pub structure: Structure,
    /// What templates may read; None refuses every path.
    pub files: Option<Arc<dyn Files>>,
    /// Largest template in bytes.
    pub max_template: usize,
    /// Largest text in bytes.
    pub max_text: usize,
    /// Most line matches of a run.
    pub max_matches: usize,
    /// Largest single value in bytes.
    pub max_value: usize,
    /// Longest run.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "_root_template_".into(),
            filters: Vec::new(),
            vars: Map::new(),
            base_path: String::new(),
            structure: Structure::default(),
            files: None,
            max_template: 4 << 20,
            max_text: 64 << 20,
            max_matches: 1_000_000,
            max_value: 16 << 20,
            timeout: Duration::from_millis(900),
        }
    }
}

impl Options {
    fn read(&self, path: &str) -> Option<String> {
        self.files.as_ref().and_then(|f| f.read(path)).filter(|t| t.len() <= self.max_text)
    }

    fn list(&self, path: &str) -> Option<Vec<String>> {
        self.files.as_ref().and_then(|f| f.list(path))
    }
}

/// Texts for one input of one template (or of all).
#[derive(Debug, Clone)]
pub struct Input {
    /// The texts, each parsed alone.
    pub texts: Vec<String>,
    /// The input's name; `Default_Input` where nothing else is meant.
    pub name: String,
    /// The template's name; None means all.
    pub template: Option<String>,
    /// Names of the groups to use; empty means all.
    pub groups: Vec<String>,
}

impl Input {
    /// One text for every template.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { texts: vec![text.into()], name: "Default_Input".into(), template: None, groups: Vec::new() }
    }
}

/// What a run adds to its template.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Variables, over those of the template.
    pub vars: Map<String, Value>,
    /// Lookup tables by name.
    pub lookups: Map<String, Value>,
    /// Shape of the results; None takes the template's option.
    pub structure: Option<Structure>,
    /// Attributes of an output run over each template's results: `format`, `functions`, ...
    pub output: Map<String, Value>,
    /// Names of the templates to give results of; empty gives all.
    pub templates: Vec<String>,
}

/// A compiled template: reusable, and usable from several threads at once.
#[derive(Debug)]
pub struct Template {
    parts: Vec<Single>,
    /// Whether literals of the template hold what JSON cannot.
    marked: bool,
    options: Options,
    searches: regex::Searches,
}

impl Template {
    /// Compiles a template text.
    ///
    /// # Errors
    /// A text that is not a template, Python in it, an invalid pattern or unknown function.
    pub fn compile(text: &str, options: &Options) -> Result<Self, TtpError> {
        value::were_marked();
        let parts = template::compile(text, &options.name, options)?;
        Ok(Self {
            parts,
            marked: value::were_marked(),
            options: options.clone(),
            searches: regex::Searches::default(),
        })
    }

    /// Adds another template text, as `add_template` of the Python library does.
    ///
    /// # Errors
    /// As [`Template::compile`].
    pub fn add(&mut self, text: &str, name: &str) -> Result<(), TtpError> {
        value::were_marked();
        self.parts.extend(template::compile(text, name, &self.options)?);
        self.marked |= value::were_marked();
        Ok(())
    }

    /// Parses one text with every template; an empty text leaves the templates their own inputs.
    ///
    /// # Errors
    /// A limit was reached, or a function met data it cannot work on.
    pub fn parse(&self, text: &str) -> Result<Value, TtpError> {
        if text.is_empty() {
            return self.parse_inputs(&[], &Run::default());
        }
        self.parse_inputs(&[Input::text(text)], &Run::default())
    }

    /// Parses several inputs with variables and lookups of the caller.
    ///
    /// # Errors
    /// As [`Template::parse`].
    pub fn parse_inputs(&self, inputs: &[Input], run: &Run) -> Result<Value, TtpError> {
        let bytes: usize = inputs.iter().flat_map(|i| &i.texts).map(String::len).sum();
        if bytes > self.options.max_text {
            return Err(TtpError::limit(format_args!(
                "the text has {bytes} bytes, more than the allowed {}",
                self.options.max_text
            )));
        }
        let mut budget = parse::Budget::new(Instant::now() + self.options.timeout, self.options.max_matches);
        value::were_marked();
        let mut globals = Map::new();
        let mut done: Vec<(String, Value)> = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let results = self.part(part, inputs, run, &mut budget, &mut globals, &done)?;
            done.push((part.name.clone(), results));
        }
        budget.done();
        // Outputs run once every template has its results.
        let any = self.parts.iter().any(|part| !part.outputs.is_empty());
        let plain = if any { done.clone() } else { Vec::new() };
        for (part, (_, results)) in self.parts.iter().zip(&mut done) {
            if part.outputs.is_empty() {
                continue;
            }
            let vars = merged(&part.vars, &run.vars);
            let counts = counts(part, inputs);
            let scope = output::Scope {
                vars: &vars,
                inputs: &counts,
                templates: &plain,
                per_input: part.method == Method::PerInput,
            };
            for out in &part.outputs {
                *results = out.run(results.take(), &scope)?;
            }
        }
        if value::were_marked() || self.marked {
            done.iter_mut().for_each(|(_, results)| value::settle(results));
        }
        if !run.templates.is_empty() {
            done.retain(|(n, _)| run.templates.contains(n));
        }
        if !run.output.is_empty() {
            let out = output::Output::from_attributes(run.output.clone(), Value::Null)?;
            let vars = Map::new();
            let scope = output::Scope { vars: &vars, inputs: &[], templates: &[], per_input: true };
            for (_, results) in &mut done {
                *results = out.run(results.take(), &scope)?;
            }
        }
        Ok(match run.structure.unwrap_or(self.options.structure) {
            Structure::List => Value::Array(done.into_iter().map(|(_, v)| v).collect()),
            Structure::Dictionary => Value::Object(done.into_iter().filter(|(n, _)| !n.is_empty()).collect()),
            Structure::FlatList => {
                let mut flat = Vec::new();
                for (_, v) in done {
                    match v {
                        Value::Array(items) => {
                            for item in items {
                                match item {
                                    Value::Array(inner) => flat.extend(inner),
                                    one => flat.push(one),
                                }
                            }
                        }
                        one => flat.push(one),
                    }
                }
                Value::Array(flat)
            }
        })
    }

    fn part(
        &self,
        part: &Single,
        inputs: &[Input],
        run: &Run,
        budget: &mut parse::Budget,
        globals: &mut Map<String, Value>,
        done: &[(String, Value)],
    ) -> Result<Value, TtpError> {
        let all = with_inputs(part, inputs);
        let more = (!run.lookups.is_empty()).then(|| merged(&part.lookups, &run.lookups));
        let lookups = more.as_ref().unwrap_or(&part.lookups);
        let mut results: Vec<Value> = Vec::new();
        let mut main = Value::Object(Map::new());
        for (_, input) in all.iter() {
            for text in &input.texts {
                let mut ctx = Context {
                    vars: merged(&part.vars, &run.vars),
                    globals: &mut *globals,
                    lookups,
                    results: &results,
                    templates: done,
                    max_value: self.options.max_value,
                    searches: &self.searches,
                };
                let given = match part.method {
                    Method::PerTemplate => std::mem::replace(&mut main, Value::Null),
                    Method::PerInput => Value::Object(Map::new()),
                };
                let made = one(part, input, text, &mut ctx, budget, given)?;
                match part.method {
                    Method::PerTemplate => main = made,
                    Method::PerInput => results.push(datum(made)),
                }
            }
        }
        Ok(match part.method {
            Method::PerInput => Value::Array(results),
            Method::PerTemplate => datum(main),
        })
    }
}

/// Lifts the results of anonymous groups out of their name.
fn datum(mut result: Value) -> Value {
    let Value::Object(m) = &mut result else { return result };
    let Some(anonymous) = m.shift_remove("_anonymous_") else { return result };
    if m.is_empty() {
        return anonymous;
    }
    match anonymous {
        Value::Array(mut a) => {
            a.push(result);
            Value::Array(a)
        }
        one => Value::Array(vec![one, result]),
    }
}

fn merged(own: &Map<String, Value>, more: &Map<String, Value>) -> Map<String, Value> {
    let mut out = own.clone();
    out.extend(more.clone());
    out
}

fn with_inputs<'p>(part: &'p Single, inputs: &[Input]) -> Cow<'p, [(String, template::Input)]> {
    if inputs.is_empty() {
        return part.inputs.as_slice().into();
    }
    let mut all = part.inputs.clone();
    for input in inputs {
        if input.template.as_ref().is_some_and(|t| *t != part.name) {
            continue;
        }
        let texts: Vec<Arc<str>> = input.texts.iter().map(|t| Arc::from(t.as_str())).collect();
        part.input(&mut all, &input.name, &texts, &input.groups);
    }
    all.into()
}

fn counts(part: &Single, inputs: &[Input]) -> Vec<(String, usize)> {
    with_inputs(part, inputs).iter().map(|(n, i)| (n.clone(), i.texts.len())).collect()
}

/// Parses one text into results.
fn one(
    part: &Single,
    input: &template::Input,
    text: &str,
    ctx: &mut Context<'_>,
    budget: &mut parse::Budget,
    main: Value,
) -> Result<Value, TtpError> {
    let mut framed = String::with_capacity(text.len() + 3);
    framed.push('\n');
    framed.push_str(text);
    framed.push_str("\n\n");
    let mut text = framed;
    for (name, getter) in &part.getters {
        if let Some(v) = getters::get(getter, &text)? {
            ctx.vars.insert(name.clone(), v);
        }
    }
    for call in &input.functions {
        if call.name == "extract_commands"
            && let Some(made) = getters::extract_commands(&text, &call.args)?
        {
            text = made;
        }
    }
    let mut fields = fields::Fields::new();
    let mut matches: Vec<Vec<results::Match<'_>>> = Vec::new();
    let mut apart: Vec<(Vec<results::Match<'_>>, &[usize])> = Vec::new();
    {
        let ascii = text.is_ascii();
        let mut parser = parse::Parser {
            template: part,
            text: &text,
            places: &places::Places::new(&text, ascii),
            fields: &mut fields,
            ascii,
            ctx: &mut *ctx,
            budget: &mut *budget,
        };
        for index in &input.groups {
            let Some(id) = part.top.get(*index).copied() else { continue };
            let Some(group) = part.groups.get(id) else { continue };
            let found = parser.group(id)?;
            if found.is_empty() {
                continue;
            }
            if group.output_ids.is_empty() {
                matches.push(found);
            } else {
                apart.push((found, &group.output_ids));
            }
        }
    }
    let runs: Vec<Map<String, Value>> =
        part.groups.iter().map(|g| template::runs(&g.defaults, [&*ctx.globals, &ctx.vars])).collect();
    let mut built = results::Results::new(part, &runs, ctx, &mut fields, main, budget.matches);
    built.build(matches)?;
    let mut main = built.results;
    for (found, outputs) in apart {
        let mut built =
            results::Results::new(part, &runs, ctx, &mut fields, Value::Object(Map::new()), budget.matches);
        built.build(vec![found])?;
        let mut result = built.results;
        let scope = output::Scope {
            vars: &ctx.vars,
            inputs: &[],
            templates: ctx.templates,
            per_input: part.method == Method::PerInput,
        };
        for id in outputs {
            if let Some(out) = part.group_outputs.get(*id) {
                result = out.run(result, &scope)?;
            }
        }
        main = match main {
            Value::Array(a) => Value::Array(a),
            Value::Object(m) if m.is_empty() => Value::Array(Vec::new()),
            other => Value::Array(vec![other]),
        };
        if let Value::Array(a) = &mut main {
            a.push(result);
        }
    }
    Ok(main)
}
