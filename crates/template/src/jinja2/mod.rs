//! Jinja2 on minijinja, with the options of Python's `jinja2.Template`.
//!
//! ```
//! use netpulse_template::jinja2::{Options, Template};
//! use netpulse_template::{Limits, Renderer};
//! use serde_json::json;
//!
//! let template = Template::compile(
//!     "{% for v in vlans %}\nvlan {{ v }}\n{% endfor %}\n",
//!     &Options { trim_blocks: true, ..Options::default() },
//!     &Limits::default(),
//! )?;
//! assert_eq!(template.render(&json!({"vlans": [10, 20]}))?, "vlan 10\nvlan 20\n");
//! # Ok::<(), netpulse_template::TemplateError>(())
//! ```
//!
//! Rendering is bounded by fuel, recursion, output size and time; expressions by their depth. Templates reach neither files nor
//! other templates: `include`, `import` and `extends` of a name give "template not found".
//!
//! What stays different from Python's Jinja2 3.1, and what a user gets:
//!
//! | In the template | Here |
//! |---|---|
//! | `varargs`, `kwargs`, `catch_varargs` in a macro | too many arguments: the error names the macro's call |
//! | methods of Python objects beyond those of str, dict and list | "unknown method" |
//! | `"..." % x` where the left side is not a string literal | "invalid operation"; write `fmt\|format(x)` |
//! | integers beyond 128 bits | "invalid operation" |

mod filters;
mod guard;
mod methods;
mod mutable;
mod percent;
mod python;

use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value, context};
use serde::Deserialize;

use crate::Renderer;
use crate::error::{TemplateError, code};
use crate::limits::Limits;

const NAME: &str = "template";

/// The options of Python's `jinja2.Template`, under their names and with their defaults.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Begin of a block, `{%`.
    pub block_start_string: String,
    /// End of a block, `%}`.
    pub block_end_string: String,
    /// Begin of a variable, `{{`.
    pub variable_start_string: String,
    /// End of a variable, `}}`.
    pub variable_end_string: String,
    /// Begin of a comment, `{#`.
    pub comment_start_string: String,
    /// End of a comment, `#}`.
    pub comment_end_string: String,
    /// Prefix that makes a line a statement.
    pub line_statement_prefix: Option<String>,
    /// Prefix that makes the rest of a line a comment.
    pub line_comment_prefix: Option<String>,
    /// The first newline after a block is dropped.
    pub trim_blocks: bool,
    /// White space before a block, from the start of the line, is dropped.
    pub lstrip_blocks: bool,
    /// What newlines of the template become: `\n`, `\r\n` or `\r`.
    pub newline_sequence: String,
    /// One newline at the end of the template is kept.
    pub keep_trailing_newline: bool,
    /// Values are escaped for HTML.
    pub autoescape: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            block_start_string: "{%".into(),
            block_end_string: "%}".into(),
            variable_start_string: "{{".into(),
            variable_end_string: "}}".into(),
            comment_start_string: "{#".into(),
            comment_end_string: "#}".into(),
            line_statement_prefix: None,
            line_comment_prefix: None,
            trim_blocks: false,
            lstrip_blocks: false,
            newline_sequence: "\n".into(),
            keep_trailing_newline: false,
            autoescape: false,
        }
    }
}

impl Options {
    /// Reads `args` of a request.
    ///
    /// # Errors
    /// `template_request` that names the wrong field.
    pub fn from_args(args: &serde_json::Value) -> Result<Self, TemplateError> {
        if args.is_null() {
            return Ok(Self::default());
        }
        let options: Self = serde_json::from_value(args.clone())
            .map_err(|e| TemplateError::new("jinja2", code::REQUEST, format!("args: {e}")))?;
        if !["\n", "\r\n", "\r"].contains(&options.newline_sequence.as_str()) {
            return Err(TemplateError::new(
                "jinja2",
                code::REQUEST,
                "args: newline_sequence must be \\n, \\r\\n or \\r",
            ));
        }
        Ok(options)
    }

    fn syntax(&self) -> Result<SyntaxConfig, minijinja::Error> {
        let mut builder = SyntaxConfig::builder();
        builder
            .block_delimiters(self.block_start_string.clone(), self.block_end_string.clone())
            .variable_delimiters(self.variable_start_string.clone(), self.variable_end_string.clone())
            .comment_delimiters(self.comment_start_string.clone(), self.comment_end_string.clone())
            .trim_blocks(self.trim_blocks)
            .lstrip_blocks(self.lstrip_blocks)
            .keep_trailing_newline(self.keep_trailing_newline);
        builder.build()
    }
}

/// A compiled Jinja2 template.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    output_bytes: usize,
    time: std::time::Duration,
    /// Whether the template changes lists or maps.
    mutable: bool,
}

/// An environment with everything but the template and its syntax; cloned for each template.
fn base() -> &'static Environment<'static> {
    static BASE: std::sync::OnceLock<Environment<'static>> = std::sync::OnceLock::new();
    BASE.get_or_init(|| {
        let mut environment = Environment::new();
        minijinja_contrib::add_to_environment(&mut environment);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_debug(false);
        filters::add(&mut environment);
        environment
    })
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// `template_syntax` with the line, `template_request` for delimiters that cannot work,
    /// `template_limit` for a template that is too long.
    pub fn compile(text: &str, options: &Options, limits: &Limits) -> Result<Self, TemplateError> {
        if text.len() > limits.template_bytes {
            return Err(TemplateError::new(
                "jinja2",
                code::LIMIT,
                format!(
                    "the template has {} bytes, at most {} are allowed",
                    text.len(),
                    limits.template_bytes
                ),
            ));
        }
        let mut environment = base().clone();
        environment.set_syntax(
            options
                .syntax()
                .map_err(|e| TemplateError::new("jinja2", code::REQUEST, format!("args: {e}")))?,
        );
        let escape = options.autoescape;
        environment.set_auto_escape_callback(
            move |_| {
                if escape { AutoEscape::Html } else { AutoEscape::None }
            },
        );
        environment.set_fuel(Some(limits.fuel));
        environment.set_recursion_limit(limits.recursion);
        let mutable = mutable::is_wanted(text);
        if mutable {
            environment.add_filter("list", |value: Value| mutable::mutable(value));
        }
        let text = newlines(text, &options.newline_sequence);
        let text = percent::line_statements(&text, options);
        let text = percent::rewrite(&text, options, mutable).map_err(|line| TemplateError {
            engine: "jinja2",
            message: format!("the expression is too long or nested too deeply: split it (line {line})"),
            line: Some(line),
            code: code::LIMIT,
        })?;
        environment.add_template_owned(NAME, text.into_owned()).map_err(|e| convert(&e))?;
        Ok(Self { environment, output_bytes: limits.output_bytes, time: limits.time, mutable })
    }
}

/// All newlines of a template become one kind, as Python's lexer does.
fn newlines<'t>(text: &'t str, sequence: &str) -> std::borrow::Cow<'t, str> {
    if !text.contains('\r') && sequence == "\n" {
        return text.into();
    }
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    if sequence == "\n" { text.into() } else { text.replace('\n', sequence).into() }
}

/// Collects output up to a bound.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Bounded {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + chunk.len() > self.most {
            return Err(io::Error::other("too much output"));
        }
        self.bytes.extend_from_slice(chunk);
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Renderer for Template {
    fn render(&self, context: &serde_json::Value) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME).map_err(|e| convert(&e))?;
        let mut out = Bounded { bytes: Vec::new(), most: self.output_bytes };
        let root = if context.is_null() {
            context! {}
        } else if self.mutable {
            mutable::context(context)
        } else {
            Value::from(minijinja::value::Serde(context))
        };
        // Loops look at the clock now and then; what is left is for the step under way.
        guard::begin(std::time::Instant::now() + self.time * 3 / 4);
        let done = template.render_captured_to(root, &mut out);
        if guard::was_late() {
            let message = "the template took longer than allowed".to_owned();
            return Err(TemplateError { engine: "jinja2", message, line: None, code: code::LIMIT });
        }
        if let Err(error) = done {
            if error.kind() == ErrorKind::WriteFailure {
                return Err(TemplateError::new(
                    "jinja2",
                    code::LIMIT,
                    format!("the rendered text has more than {} bytes", self.output_bytes),
                ));
            }
            return Err(convert(&error));
        }
        String::from_utf8(out.bytes).map_err(|e| TemplateError::new("jinja2", code::RENDER, e.to_string()))
    }
}

fn convert(error: &minijinja::Error) -> TemplateError {
    let code = match error.kind() {
        ErrorKind::SyntaxError | ErrorKind::UnknownFilter | ErrorKind::UnknownTest => code::SYNTAX,
        ErrorKind::OutOfFuel => code::LIMIT,
        _ => code::RENDER,
    };
    let mut message = match error.kind() {
        ErrorKind::OutOfFuel => "the template took too many steps".to_owned(),
        kind => match error.detail() {
            Some(detail) => format!("{kind}: {detail}"),
            None => kind.to_string(),
        },
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    if let Some(line) = error.line() {
        message.push_str(&format!(" (line {line})"));
    }
    TemplateError { engine: "jinja2", message, line: error.line(), code }
}
