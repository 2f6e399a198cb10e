//! Paths of secrets: what is a path, which are allowed, and how they are written in a URL.

use netpulse_plugin::{Failed, PluginError};

/// Longest path that is taken, bytes.
const LONGEST: usize = 1024;

/// The segments of a path; `what` names it in the sentence when it is none.
///
/// # Errors
/// [`Failed::BadRequest`]: empty, `.` and `..` segments, control characters, longer than 1024 bytes.
pub(crate) fn segments<'p>(what: &str, path: &'p str) -> Result<Vec<&'p str>, PluginError> {
    let wrong = |why: &str| {
        let shown: String = path.chars().filter(|c| !c.is_control()).take(80).collect();
        Err(PluginError::new(Failed::BadRequest, format!("The {what} `{shown}` {why}")))
    };
    if path.is_empty() {
        return wrong("is empty");
    }
    if path.len() > LONGEST {
        return wrong("is longer than 1024 bytes");
    }
    if path.chars().any(char::is_control) {
        return wrong("has control characters");
    }
    let parts: Vec<&str> = path.split('/').collect();
    if parts.iter().any(|part| part.trim().is_empty()) {
        return wrong("has an empty part: write it without a `/` at its ends and without `//`");
    }
    if parts.iter().any(|part| matches!(*part, "." | "..")) {
        return wrong("must not have `.` or `..` as a part");
    }
    Ok(parts)
}

/// Segments as the path of a URL: everything but letters, digits and `-._~` is percent-encoded, so
/// that no segment can become two, or a query.
pub(crate) fn encoded(segments: &[&str]) -> String {
    let mut url = String::new();
    for segment in segments {
        if !url.is_empty() {
            url.push('/');
        }
        for byte in segment.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                url.push(char::from(byte));
            } else {
                url.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    url
}

/// Which paths references may name.
///
/// An entry allows the path it names and everything below; ending in `*`, whatever begins so. A
/// path in another namespace than the configured one is written `<namespace>:<mount>/<path>`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
enum Entry {
    /// This path and all below.
    Below(String),
    /// Whatever begins so.
    Prefix(String),
}

impl Policy {
    /// The entries of `credential.allowed_paths`; none allows everything.
    pub(crate) fn new(entries: &[String]) -> Self {
        let entries = entries
            .iter()
            .map(|entry| entry.trim().trim_start_matches('/'))
            .filter(|entry| !entry.is_empty())
            .map(|entry| match entry.strip_suffix('*') {
                Some(prefix) => Entry::Prefix(prefix.to_owned()),
                None => Entry::Below(entry.trim_end_matches('/').to_owned()),
            })
            .collect();
        Self { entries }
    }

    /// Whether `path` (`<mount>/<path>`) may be read.
    pub(crate) fn allows(&self, path: &str) -> bool {
        self.entries.is_empty()
            || self.entries.iter().any(|entry| match entry {
                Entry::Below(top) => path
                    .strip_prefix(top.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
                Entry::Prefix(prefix) => path.starts_with(prefix.as_str()),
            })
    }

    /// Whether something below `folder` (without a `/` at its end) may be read.
    pub(crate) fn reaches_below(&self, folder: &str) -> bool {
        let below = format!("{folder}/");
        self.allows(&below)
            || self.entries.iter().any(|entry| match entry {
                Entry::Below(path) | Entry::Prefix(path) => path.starts_with(&below),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(entries: &[&str]) -> Policy {
        Policy::new(&entries.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn allowed_paths_match_whole_segments() {
        let net = policy(&["kv/net", "/lab/", "kv/edge*", "team:kv/x"]);
        for (path, allowed) in [
            ("kv/net", true),
            ("kv/net/core/sw1", true),
            ("kv/network2", false),
            ("kv", false),
            ("lab", true),
            ("lab/a", true),
            ("laboratory/a", false),
            ("kv/edge", true),
            ("kv/edge7/a", true),
            ("kv/x", false),
            ("team:kv/x/y", true),
            ("", false),
        ] {
            assert_eq!(net.allows(path), allowed, "{path}");
        }
        assert!(policy(&[]).allows("anything/at/all"));
        assert!(policy(&["*"]).allows("anything/at/all"));
        for (folder, reaches) in
            [("kv", true), ("kv/net", true), ("kv/other", false), ("lab", true), ("kv/ed", false)]
        {
            assert_eq!(net.reaches_below(folder), reaches, "{folder}");
        }
    }

    #[test]
    fn promise_15_what_is_no_path_is_refused_with_a_sentence() {
        for (path, why) in [
            ("", "is empty"),
            ("/a", "has an empty part"),
            ("a//b", "has an empty part"),
            ("a/ /b", "has an empty part"),
            ("a/", "has an empty part"),
            ("a/../b", "`.` or `..`"),
            ("..", "`.` or `..`"),
            ("a/./b", "`.` or `..`"),
            ("a\nb", "control characters"),
        ] {
            let error = segments("reference", path).unwrap_err();
            assert!(error.message.contains(why) && error.kind == Failed::BadRequest, "{path}: {error}");
        }
        assert!(segments("reference", &"a".repeat(1025)).is_err());
        assert_eq!(segments("reference", "sites/hq..2/...").unwrap(), ["sites", "hq..2", "..."]);
    }

    #[test]
    fn no_segment_leaves_its_place_in_the_url() {
        let parts = segments("reference", "a b/%2e%2e/x?version=1#y/ä").unwrap();
        assert_eq!(encoded(&parts), "a%20b/%252e%252e/x%3Fversion%3D1%23y/%C3%A4");
    }
}
