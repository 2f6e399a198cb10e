//! Rendering and parsing of text: Jinja2, TextFSM, TTP.
//!
//! Engines behind two traits ([`Renderer`], [`Parser`]) and one facade ([`Engines`]). Usable on
//! its own: see [`textfsm::Template`], [`jinja2::Template`], [`string::Template`] and
//! [`regexp::Template`]. There is no network I/O: a template that names a URL is fetched by the
//! caller's [`source::Fetch`], and files are read only where [`source::Sources`] allows it.
//! Templates and texts are taken as hostile: every compile, render and parse is bounded by
//! [`Limits`], and every [`TemplateError`] names the line where it can.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::print_stdout,
        clippy::print_stderr
    )
)]

pub mod engines;
pub mod error;
pub mod jinja2;
pub mod library;
pub mod limits;
pub(crate) mod pyre;
mod python;
pub mod regexp;
pub mod source;
pub mod string;
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

pub use engines::{CompileParser, Config, Engines, ParseCall};
pub use error::TemplateError;
pub use limits::Limits;
