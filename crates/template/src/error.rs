//! What went wrong in a template or with its input.

/// An error of an engine, a source or the facade.
///
/// `code` is stable and meant for programs; the text is meant for people.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{engine}: {message}")]
pub struct TemplateError {
    /// `jinja2`, `string`, `textfsm`, `ttp`, `regex` or `source`.
    pub engine: &'static str,
    /// What happened and, where it helps, what to do.
    pub message: String,
    /// Line of the template, counted from 1, where it is known.
    pub line: Option<usize>,
    /// One of [`code`].
    pub code: &'static str,
}

/// The stable codes.
pub mod code {
    /// The template cannot be compiled.
    pub const SYNTAX: &str = "template_syntax";
    /// The template uses what this engine refuses, such as Python code.
    pub const UNSUPPORTED: &str = "template_unsupported";
    /// A limit of size, steps or time was met.
    pub const LIMIT: &str = "template_limit";
    /// Rendering failed: an undefined name, a wrong type.
    pub const RENDER: &str = "template_render";
    /// Parsing failed: the template itself raised an error for this input.
    pub const PARSE: &str = "template_parse";
    /// No such template, engine or index row.
    pub const NOT_FOUND: &str = "template_not_found";
    /// The configuration does not allow this source.
    pub const SOURCE_DENIED: &str = "template_source_denied";
    /// An allowed source could not be read.
    pub const SOURCE_FAILED: &str = "template_source_failed";
    /// The call itself is wrong: a field is missing or has the wrong type.
    pub const REQUEST: &str = "template_request";
}

impl TemplateError {
    /// An error without a line.
    pub fn new(engine: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { engine, message: message.into(), line: None, code }
    }

    /// The same error at a line of the template.
    #[must_use]
    pub const fn at(mut self, line: usize) -> Self {
        self.line = Some(line);
        self
    }
}
