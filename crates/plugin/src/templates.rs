//! The template kinds: renderers make text of data, parsers data of text.

use netpulse_model::request::TemplateCall;
use serde_json::Value;

/// Renderers and parsers by name. Calls may take long and belong on threads of their own.
pub trait Templates: Send + Sync + 'static {
    /// The renderers' names.
    fn renderers(&self) -> Vec<String>;

    /// The parsers' names.
    fn parsers(&self) -> Vec<String>;

    /// Looks for engines that were not known so far. May take seconds; for a thread of its own.
    fn look_again(&self) {}

    /// Renders `call.template` with `call.context`.
    ///
    /// # Errors
    /// A sentence that says where the template is wrong.
    fn render(&self, call: &TemplateCall) -> Result<String, TemplateFailure>;

    /// Parses `text` with `call.template`, or with the template that `call.extra` or the
    /// command's origin chooses.
    ///
    /// # Errors
    /// A sentence that says where the template or the text is wrong.
    fn parse(
        &self,
        call: &TemplateCall,
        text: &str,
        origin: Option<Origin<'_>>,
    ) -> Result<Value, TemplateFailure>;
}

/// Where a text came from, for parsers that choose their template by it.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The platform's name (`cisco_ios`).
    pub platform: &'a str,
    /// The command that gave the text.
    pub command: &'a str,
}

/// Why a template could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateFailure {
    /// The stable code of the engine's error.
    pub code: &'static str,
    /// A sentence for whoever wrote the template.
    pub message: String,
}
