//! What the controller needs of the template engines.

use netpulse_model::request::TemplateCall;
use serde_json::Value;

/// Renderers and parsers by name. Calls may take long and run on threads of their own.
pub trait TemplateService: Send + Sync + 'static {
    /// The renderers' names.
    fn renderers(&self) -> Vec<String>;

    /// The parsers' names.
    fn parsers(&self) -> Vec<String>;

    /// Renders `call.template` with `call.context`.
    ///
    /// # Errors
    /// A sentence that says where the template is wrong.
    fn render(&self, call: &TemplateCall) -> Result<String, TemplateError>;

    /// Parses `text` with `call.template` or the template that `call.extra` chooses.
    ///
    /// # Errors
    /// A sentence that says where the template or the text is wrong.
    fn parse(&self, call: &TemplateCall, text: &str) -> Result<Value, TemplateError>;
}

/// Why a template could not be used, as a sentence for whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(pub String);
