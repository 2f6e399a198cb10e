//! Component references: `[type::]<repository>/[component-descriptors]/<component>[:<version>][@<digest>]`.
//!
//! ```text
//! ghcr.io/acme/plugins//example.org/drivers/acme:0.2.0
//! oci::http://127.0.0.1:5000/plugins//example.org/drivers/acme
//! ctf::./acme.ctf//example.org/drivers/acme:0.2.0@sha256:...
//! ./acme.tgz/component-descriptors/example.org/drivers/acme:0.2.0
//! ```

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use super::digest::Digest;
use super::error::{InstallError, Result, Trouble};

/// The folder of component versions in a repository.
pub const DESCRIPTORS: &str = "component-descriptors";

/// Names of repository types as they stand before `::`, without their version.
const OCI_TYPES: &[&str] = &["oci", "ociregistry", "ocirepository"];
const CTF_TYPES: &[&str] = &["ctf", "commontransportformat"];

/// A component version in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where it is kept.
    pub repository: Repository,
    /// Its name: a domain and a path.
    pub component: String,
    /// Its version; the newest when absent.
    pub version: Option<String>,
    /// The digest that its manifest must have.
    pub digest: Option<Digest>,
}

/// Where component versions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repository {
    /// An OCI registry.
    Registry(Base),
    /// A CTF or OCI layout on this machine: a folder, `.tar` or `.tgz`.
    Archive(PathBuf),
}

/// A registry, and the path below which it keeps our repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Whether it is asked without TLS.
    pub plain_http: bool,
    /// Host and port.
    pub host: String,
    /// The path below it, without slashes around it; often empty.
    pub path: String,
}

/// What a user may name to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A component version.
    Component(Reference),
    /// A file or folder: a program, or an archive with one component version.
    Path(PathBuf),
}

impl Target {
    /// A component reference, or else a path.
    ///
    /// # Errors
    /// The text is neither; the message says which part is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        if split_component(after_type(text).1).is_some() {
            return Reference::parse(text).map(Self::Component);
        }
        let (kind, rest) = after_type(text);
        let registry = is_registry(kind, rest).map_err(|why| wrong(text, "repository", &why))?;
        // A name without a dot is a path already; `my.plugin` may be one.
        let exists = || kind.is_none() && !rest.contains("://") && PathBuf::from(rest).exists();
        if registry && !exists() {
            return Err(no_component(text));
        }
        Ok(Self::Path(rest.strip_prefix("file://").unwrap_or(rest).into()))
    }
}

impl Reference {
    /// Reads a reference.
    ///
    /// # Errors
    /// The message says which part is wrong, and what it should look like.
    pub fn parse(text: &str) -> Result<Self> {
        let (kind, rest) = after_type(text);
        let (repository, tail) = split_component(rest).ok_or_else(|| no_component(text))?;
        let (tail, digest) = match tail.split_once('@') {
            Some((tail, digest)) => {
                (tail, Some(digest.parse().map_err(|why: String| wrong(text, "digest", &why))?))
            }
            None => (tail, None),
        };
        let (component, version) = match tail.split_once(':') {
            Some((component, version)) => (component, Some(version)),
            None => (tail, None),
        };
        check_component(component).map_err(|why| wrong(text, "component", &why))?;
        if let Some(version) = version {
            check_version(version).map_err(|why| wrong(text, "version", &why))?;
        }
        Ok(Self {
            repository: parse_repository(kind, repository).map_err(|why| wrong(text, "repository", &why))?,
            component: component.to_owned(),
            version: version.map(str::to_owned),
            digest,
        })
    }
}

impl Repository {
    /// Reads a repository without a component, as `push` takes it.
    ///
    /// # Errors
    /// The type is unknown, or the host has no form.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let (kind, rest) = after_type(text);
        parse_repository(kind, rest)
    }
}

fn after_type(text: &str) -> (Option<&str>, &str) {
    match text.split_once("::") {
        // `::` may also stand in a literal IPv6 address, behind a scheme or a bracket.
        Some((kind, rest)) if !kind.contains([':', '[']) => (Some(kind), rest),
        _ => (None, text),
    }
}

/// The repository, and what follows the descriptor prefix. The `//` of a scheme is none.
fn split_component(text: &str) -> Option<(&str, &str)> {
    let named = format!("/{DESCRIPTORS}/");
    if let Some(at) = text.rfind(&named) {
        return Some((text.get(..at)?, text.get(at + named.len()..)?));
    }
    let start = text.find("://").map_or(0, |at| at + 3);
    let at = start + text.get(start..)?.rfind("//")?;
    Some((text.get(..at)?, text.get(at + 2..)?))
}

fn wrong(text: &str, part: &str, why: &str) -> InstallError {
    InstallError::new(Trouble::BadInput, format!("`{text}`: the {part} is wrong: {why}"))
}

fn no_component(text: &str) -> InstallError {
    InstallError::new(
        Trouble::BadInput,
        format!("`{text}` names no component: `//` and its name must follow the repository, and no such file is here"),
    )
    .hint("write <repository>//<component>:<version>, for example ghcr.io/acme/plugins//example.org/drivers/acme:0.2.0")
}

fn parse_repository(kind: Option<&str>, text: &str) -> std::result::Result<Repository, String> {
    if text.is_empty() {
        return Err("there is none before the component".to_owned());
    }
    if is_registry(kind, text)? {
        return Base::parse(text).map(Repository::Registry);
    }
    Ok(Repository::Archive(text.strip_prefix("file://").unwrap_or(text).into()))
}

fn is_registry(kind: Option<&str>, text: &str) -> std::result::Result<bool, String> {
    let Some(kind) = kind else { return Ok(guess_registry(text)) };
    let name = kind.strip_suffix("/v1").unwrap_or(kind).to_ascii_lowercase();
    if OCI_TYPES.contains(&name.as_str()) {
        return Ok(true);
    }
    if CTF_TYPES.contains(&name.as_str()) {
        return Ok(false);
    }
    Err(format!("the type `{kind}` before `::` is unknown: `oci` and `ctf` are known"))
}

/// Whether a repository without a type is a registry: a scheme, a port or a domain make it one;
/// `file://`, a path and the suffix of an archive do not.
fn guess_registry(text: &str) -> bool {
    if let Some((scheme, _)) = text.split_once("://") {
        return scheme != "file";
    }
    let first = text.split('/').next().unwrap_or_default();
    if matches!(first, "" | "." | ".." | "~") {
        return false;
    }
    if first.contains(':') || first == "localhost" {
        return true;
    }
    if [".tar", ".tgz", ".tar.gz", ".ctf"].iter().any(|suffix| text.ends_with(suffix)) {
        return false;
    }
    let domain = first.contains('.') && first.chars().any(char::is_alphabetic);
    domain || first.parse::<IpAddr>().is_ok()
}

impl Base {
    /// Reads `[http://|https://|oci://]host[:port][/path]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
        let plain_http = match scheme.to_ascii_lowercase().as_str() {
            "http" => true,
            "https" | "oci" => false,
            _ => {
                return Err(format!(
                    "`{scheme}://` is no way to a registry: https://, http:// and oci:// are"
                ));
            }
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.contains('@') {
            return Err(
                "credentials do not belong in it: they are read from docker's config.json (`docker login`)"
                    .to_owned(),
            );
        }
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, Some(port)),
            _ => (host, None),
        };
        let literal = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
        let name_ok = match literal {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !name.is_empty()
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
            }
        };
        if !name_ok {
            return Err(format!("`{name}` is no host name"));
        }
        if let Some(port) = port
            && port.parse::<u16>().map_or(true, |port| port == 0)
        {
            return Err(format!("`{port}` is no port: 1 to 65535 are"));
        }
        let path = path.trim_matches('/');
        if let Some(segment) = path.split('/').find(|segment| !path.is_empty() && !is_path_segment(segment)) {
            return Err(format!(
                "`{segment}` cannot stand in a registry's path: lower-case letters and digits, with `.`, `_` or `-` between them"
            ));
        }
        Ok(Self { plain_http, host: host.to_owned(), path: path.to_owned() })
    }

    /// The repository of a component.
    #[must_use]
    pub fn repository_of(&self, component: &str) -> String {
        let base = if self.path.is_empty() { String::new() } else { format!("{}/", self.path) };
        format!("{base}{DESCRIPTORS}/{component}")
    }
}

/// As registries allow it: `[a-z0-9]+` joined by `.`, `_`, `__` or dashes.
fn is_path_segment(segment: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    segment.starts_with(plain)
        && segment.ends_with(plain)
        && segment.chars().all(|c| plain(c) || "._-".contains(c))
}

/// Checks a component's name: a domain in lower case, then at least one path segment.
///
/// # Errors
/// What is wrong with it.
pub fn check_component(name: &str) -> std::result::Result<(), String> {
    if name.is_empty() {
        return Err("it is empty".to_owned());
    }
    if name.len() > 255 {
        return Err("it is longer than 255 characters".to_owned());
    }
    let Some((domain, path)) = name.split_once('/') else {
        return Err(format!(
            "`{name}` has no path: a name is a domain and a path, like example.org/drivers/acme"
        ));
    };
    let label = |text: &str, more: &str| {
        text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || more.contains(c))
    };
    let top = domain.rsplit('.').next().unwrap_or_default();
    if !domain.contains('.') || top.len() < 2 || !top.chars().all(|c| c.is_ascii_lowercase()) {
        return Err(format!("`{domain}` is no domain in lower case, like example.org"));
    }
    if let Some(bad) = domain.split('.').find(|part| !label(part, "")) {
        return Err(format!(
            "`{bad}` cannot stand in the domain `{domain}`: lower-case letters, digits and dashes, a letter first"
        ));
    }
    let parts = path.split('/').flat_map(|segment| segment.split('.'));
    match parts.into_iter().find(|part| !label(part, "_")) {
        Some("") => Err(format!("`{path}` has an empty part")),
        Some(bad) => Err(format!(
            "`{bad}` cannot stand in the path: lower-case letters, digits, `-` and `_`, a letter first"
        )),
        None => Ok(()),
    }
}

/// Checks a version: semantic versioning, where `v` may lead and minor and patch may be absent.
///
/// # Errors
/// What is wrong with it.
pub fn check_version(text: &str) -> std::result::Result<(), String> {
    let usual = || format!("`{text}` is no version: 1.2.3, v1.2, 1.2.3-rc.1 and 1.2.3+build are");
    if text.len() > 128 {
        return Err("it is longer than 128 characters".to_owned());
    }
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let numeric = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    let number = |part: &str| numeric(part) && (part == "0" || !part.starts_with('0'));
    let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let core: Vec<&str> = core.strip_prefix('v').unwrap_or(core).split('.').collect();
    let good = core.len() <= 3
        && core.into_iter().all(number)
        && pre.is_none_or(|pre| pre.split('.').all(|part| word(part) && (!numeric(part) || number(part))))
        && build.is_none_or(|build| build.split('.').all(word));
    if good { Ok(()) } else { Err(usual()) }
}

/// The tag of a version: tags know no `+`.
#[must_use]
pub fn tag_of(version: &str) -> String {
    version.replacen('+', ".build-", 1)
}

/// The version of a tag.
#[must_use]
pub fn version_of(tag: &str) -> String {
    tag.replacen(".build-", "+", 1)
}

/// The order of versions: numbers as numbers, a pre-release below its release.
#[must_use]
pub fn version_key(version: &str) -> (Vec<u64>, bool, Vec<(u64, String)>) {
    let plain = version.strip_prefix('v').unwrap_or(version);
    let plain = plain.split('+').next().unwrap_or_default();
    let (core, pre) = plain.split_once('-').map_or((plain, None), |(core, pre)| (core, Some(pre)));
    let mut numbers: Vec<u64> = core.split('.').map(|n| n.parse().unwrap_or(0)).collect();
    numbers.resize(3, 0);
    // Numbers come before words.
    let part = |text: &str| match text.parse::<u64>() {
        Ok(number) => (number, String::new()),
        Err(_) => (u64::MAX, text.to_owned()),
    };
    (numbers, pre.is_none(), pre.map(|pre| pre.split('.').map(part).collect()).unwrap_or_default())
}

/// The newest version; a pre-release only where nothing else is.
pub fn newest<'a>(versions: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    versions.max_by_key(|version| {
        let key = version_key(version);
        (key.1, key)
    })
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.plain_http { "http://" } else { "" };
        let slash = if self.path.is_empty() { "" } else { "/" };
        write!(f, "{scheme}{}{slash}{}", self.host, self.path)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(base) => write!(f, "oci::{base}"),
            Self::Archive(path) => write!(f, "ctf::{}", path.display()),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}//{}", self.repository, self.component)?;
        if let Some(version) = &self.version {
            write!(f, ":{version}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
