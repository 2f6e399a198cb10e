//! What the process says when it ends: a number for scripts, a sentence and a hint for people.

use std::fmt;
use std::process::ExitCode;

/// Why the process ended. The numbers are a promise to scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// 0
    Ok,
    /// 1
    JobFailed,
    /// 2
    Usage,
    /// 3
    Unreachable,
    /// 4
    Denied,
    /// 5
    Timeout,
    /// 6
    NotFound,
    /// 7
    Refused,
    /// 8
    Local,
    /// 130
    Interrupted,
}

/// Every exit code with its number and meaning, in one place: help and documentation print it.
pub const CODES: &[(Exit, u8, &str)] = &[
    (Exit::Ok, 0, "everything was done as asked"),
    (
        Exit::JobFailed,
        1,
        "a job failed or was canceled, a device could not be reached or refused, or a worker of this kind runs here already",
    ),
    (Exit::Usage, 2, "wrong flags, a bad file or payload, or a configuration with mistakes"),
    (Exit::Unreachable, 3, "the server or registry could not be reached, or broke off"),
    (Exit::Denied, 4, "the server did not accept the API key, or a registry the credentials"),
    (Exit::Timeout, 5, "the time to wait passed; the job goes on"),
    (Exit::NotFound, 6, "no such job, worker or plugin"),
    (
        Exit::Refused,
        7,
        "the server refused or failed (queue full, store away, internal error), or a plugin was refused",
    ),
    (Exit::Local, 8, "a file or the terminal on this machine could not be read or written"),
    (Exit::Interrupted, 130, "interrupted by Ctrl-C; jobs that were accepted go on"),
];

impl Exit {
    /// The number.
    pub fn number(self) -> u8 {
        CODES.iter().find(|(exit, _, _)| *exit == self).map_or(70, |(_, number, _)| *number)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// The table for `--help`.
pub fn help() -> String {
    let mut out = String::from("Exit codes:\n");
    for (_, number, meaning) in CODES {
        out.push_str(&format!("  {number:>3}  {meaning}\n"));
    }
    out
}

/// Why a command could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// A stable word for programs.
    pub code: String,
    /// What happened, where, and why.
    pub what: String,
    /// More, one line each: every mistake of a file, for example.
    pub details: Vec<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with its code and sentence.
    pub fn new(exit: Exit, code: impl Into<String>, what: impl Into<String>) -> Self {
        Self { exit, code: code.into(), what: what.into(), details: Vec::new(), hint: None }
    }

    /// Wrong flags or a bad file.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "bad_input", what)
    }

    /// A file or terminal of this machine.
    pub fn local(what: impl Into<String>) -> Self {
        Self::new(Exit::Local, "local_io", what)
    }

    /// The same with more, one line each.
    pub fn details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }

    /// The same with what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.code)
    }
}

impl std::error::Error for Failure {}

/// How a command ended.
pub type Outcome = Result<Exit, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_number() {
        let mut numbers: Vec<u8> = CODES.iter().map(|(_, number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), CODES.len());
        assert_eq!((Exit::Ok.number(), Exit::Usage.number(), Exit::Interrupted.number()), (0, 2, 130));
    }
}
