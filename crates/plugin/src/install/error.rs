//! Why a plugin could not be packed, pushed, found, trusted or put in place.

use std::path::Path;

/// What a failure means to who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The reference, a flag or a file of the user's is wrong.
    BadInput,
    /// No such component, version, resource or plugin.
    NotFound,
    /// The registry did not answer, or broke off.
    Unreachable,
    /// The registry wants other credentials.
    Denied,
    /// Bytes are not what a digest or signature says they are.
    Untrusted,
    /// What came is broken, too large, or tries to reach outside its place.
    BadContent,
    /// The file is no plugin.
    NotAPlugin,
    /// Something is in the way: a file that is there, a process that runs, another command at work.
    InTheWay,
    /// A file of this machine could not be read or written.
    Local,
}

impl Trouble {
    /// A stable word for programs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::BadInput => "bad_input",
            Self::NotFound => "not_found",
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Untrusted => "untrusted",
            Self::BadContent => "bad_content",
            Self::NotAPlugin => "not_a_plugin",
            Self::InTheWay => "in_the_way",
            Self::Local => "local_io",
        }
    }
}

/// A failure: what it means, a sentence, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InstallError {
    /// What it means.
    pub trouble: Trouble,
    /// What happened, where, and why.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl InstallError {
    /// A failure of this meaning.
    pub fn new(trouble: Trouble, message: impl Into<String>) -> Self {
        Self { trouble, message: message.into(), hint: None }
    }

    /// The same with what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A file of this machine: `doing` as in "cannot write".
    pub fn file(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        let new = Self::new(Trouble::Local, format!("{}: {doing}: {}", path.display(), reason(error)));
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                new.hint("free some space there, or choose another folder; nothing was left behind")
            }
            std::io::ErrorKind::PermissionDenied => {
                new.hint("choose a folder that you may write, or ask who owns it")
            }
            _ => new,
        }
    }
}

/// The reason in words, without the system's number.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::StorageFull => "no space left on the device".to_owned(),
        std::io::ErrorKind::QuotaExceeded => "the disk quota is used up".to_owned(),
        std::io::ErrorKind::FileTooLarge => "the file is larger than this process may write".to_owned(),
        std::io::ErrorKind::NotFound => "no such file or folder".to_owned(),
        _ => error.to_string(),
    }
}

/// What these modules return.
pub type Result<T> = std::result::Result<T, InstallError>;

/// Runs blocking work off the asynchronous threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        InstallError::new(Trouble::Local, format!("a thread of this process ended early: {error}"))
    })?
}
