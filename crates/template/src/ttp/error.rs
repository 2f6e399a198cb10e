//! The error of the TTP engine: a stable code, a sentence, and where known the template line.

use std::fmt;

/// Why a TTP template could not be compiled or a text not be parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TtpError {
    /// Stable word for programs: `python`, `io`, `syntax`, `regex`, `function`, `argument`,
    /// `data`, `limit`, `unsupported`.
    pub code: &'static str,
    /// A sentence that names the tag, line, or function and what to do.
    pub message: String,
    /// Line of the template the error was found on, counted from 1.
    pub line: Option<usize>,
}

impl TtpError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), line: None }
    }

    pub(crate) fn at(mut self, line: usize) -> Self {
        if self.line.is_none() && line > 0 {
            self.line = Some(line);
        }
        self
    }

    pub(crate) fn python(what: impl fmt::Display) -> Self {
        Self::new(
            "python",
            format!(
                "{what} is Python code, which is not run here: express it with TTP functions or parse it in the caller"
            ),
        )
    }

    pub(crate) fn limit(what: impl fmt::Display) -> Self {
        Self::new("limit", format!("{what}"))
    }
}

impl fmt::Display for TtpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "TTP template, line {line}: {}", self.message),
            None => write!(f, "TTP: {}", self.message),
        }
    }
}

impl std::error::Error for TtpError {}
