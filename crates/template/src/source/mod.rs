//! Where a template comes from: the text itself, a file, a URL.
//!
//! The prefix decides, in any case: `file://`, `http://`, `https://`, `ftp://`; anything else is
//! the template itself. Files are read only below `template.dirs`, after symbolic links and `..`
//! are resolved; URLs are fetched only from `template.remote_hosts`, by the caller's [`Fetch`].
//! Both are empty by default.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{TemplateError, code};

/// Fetches a URL; given by the caller, since this crate does no network I/O.
pub trait Fetch: Send + Sync {
    /// The text behind `url`, within the caller's own timeout; at most `most` bytes. Redirects to
    /// other hosts must be refused.
    ///
    /// # Errors
    /// What went wrong, in a sentence.
    fn fetch(&self, url: &str, most: usize) -> Result<String, String>;
}

/// Resolves template sources under the configured limits.
#[derive(Clone, Default)]
pub struct Sources {
    /// Folders below which `file://` templates may lie (`template.dirs`).
    pub dirs: Vec<PathBuf>,
    /// Hosts from which templates may be fetched (`template.remote_hosts`): `host` or `host:port`.
    pub remote_hosts: Vec<String>,
    /// Fetches URLs.
    pub fetch: Option<Arc<dyn Fetch>>,
    /// Most bytes of a template.
    pub template_bytes: usize,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources")
            .field("dirs", &self.dirs)
            .field("remote_hosts", &self.remote_hosts)
            .finish_non_exhaustive()
    }
}

fn denied(message: String) -> TemplateError {
    TemplateError::new("source", code::SOURCE_DENIED, message)
}

fn failed(message: String) -> TemplateError {
    TemplateError::new("source", code::SOURCE_FAILED, message)
}

fn without_prefix<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    text.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix)).map(|_| &text[prefix.len()..])
}

impl Sources {
    /// The text of a template.
    ///
    /// # Errors
    /// `template_source_denied` names the configuration key; `template_source_failed` names the
    /// source.
    pub fn load<'t>(&self, template: &'t str) -> Result<Cow<'t, str>, TemplateError> {
        if let Some(path) = without_prefix(template, "file://") {
            return self.file(path.trim_end()).map(Cow::Owned);
        }
        for scheme in ["http://", "https://", "ftp://"] {
            if let Some(rest) = without_prefix(template, scheme) {
                return self.remote(template.trim_end(), rest).map(Cow::Owned);
            }
        }
        Ok(Cow::Borrowed(template))
    }

    fn file(&self, path: &str) -> Result<String, TemplateError> {
        if self.dirs.is_empty() {
            return Err(denied("file:// templates are not allowed: template.dirs is empty".to_owned()));
        }
        let outside =
            || denied(format!("'{path}' does not lie below one of template.dirs, or does not exist"));
        // The same words for "outside" and "absent", so that the answer maps no file system.
        let real = fs::canonicalize(path).map_err(|_| outside())?;
        let inside =
            self.dirs.iter().filter_map(|dir| fs::canonicalize(dir).ok()).any(|dir| real.starts_with(dir));
        if !inside {
            return Err(outside());
        }
        read_bounded(&real, self.template_bytes)
    }

    fn remote(&self, url: &str, rest: &str) -> Result<String, TemplateError> {
        let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or("");
        // What URL readers disagree about is refused, so that the host checked is the host asked.
        if url.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control()) {
            return Err(denied("a template URL may not hold white space or backslashes".to_owned()));
        }
        if authority.contains('@') {
            return Err(denied("a template URL may not carry a user name".to_owned()));
        }
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => authority,
        };
        let allowed = self
            .remote_hosts
            .iter()
            .any(|h| h.eq_ignore_ascii_case(authority) || h.eq_ignore_ascii_case(host));
        if host.is_empty() || !allowed {
            return Err(denied(format!(
                "templates may not be fetched from '{host}': it is not in template.remote_hosts"
            )));
        }
        let Some(fetch) = &self.fetch else {
            return Err(failed(format!("'{url}' cannot be fetched here")));
        };
        let text = fetch
            .fetch(url, self.template_bytes)
            .map_err(|why| failed(format!("'{url}' could not be fetched: {why}")))?;
        if text.len() > self.template_bytes {
            return Err(failed(format!("'{url}' is longer than {} bytes", self.template_bytes)));
        }
        Ok(text)
    }
}

/// Reads a regular file of bounded size.
pub(crate) fn read_bounded(path: &Path, most: usize) -> Result<String, TemplateError> {
    let shown = path.display();
    let meta = fs::metadata(path).map_err(|e| failed(format!("'{shown}' cannot be read: {e}")))?;
    if !meta.is_file() {
        return Err(failed(format!("'{shown}' is not a file")));
    }
    if meta.len() > most as u64 {
        return Err(failed(format!("'{shown}' is longer than {most} bytes")));
    }
    let bytes = fs::read(path).map_err(|e| failed(format!("'{shown}' cannot be read: {e}")))?;
    String::from_utf8(bytes).map_err(|_| failed(format!("'{shown}' is not UTF-8")))
}
