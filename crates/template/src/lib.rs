//! Rendering and parsing of text: Jinja2, TextFSM, TTP.
//!
//! Three engines behind two traits. The crate does no I/O of its own: a template that names a
//! file or a URL is fetched by a [`source::Sources`] under the caller's limits.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)
)]

pub mod error;
pub mod jinja2;
pub mod limits;
pub(crate) mod pyre;
mod python;
pub mod source;
pub mod textfsm;
pub mod ttp;

/// Turns a context into text.
pub trait Renderer: Send + Sync {
    /// Renders with `context`, a map (or null for none).
    ///
    /// # Errors
    /// `template_render` for what the template does wrong, `template_limit` for a met limit.
    fn render(&self, context: &serde_json::Value) -> Result<String, TemplateError>;
}

/// Turns a text into data.
pub trait Parser: Send + Sync {
    /// Parses `text`.
    ///
    /// # Errors
    /// `template_parse` when the template refuses the text, `template_limit` for a met limit.
    fn parse(&self, text: &str) -> Result<serde_json::Value, TemplateError>;
}

pub use error::TemplateError;
pub use limits::Limits;
