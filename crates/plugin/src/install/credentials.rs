//! Who we are to a registry: docker's and podman's files of credentials.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use zeroize::Zeroizing;

use super::error::{InstallError, Result, Trouble};

/// How long a helper may take; a person may have to unlock something.
const HELPER: Duration = Duration::from_secs(60);

/// What is said to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User and password.
    Basic(String, Zeroizing<String>),
    /// A refresh token, as some clouds hand it out.
    Identity(Zeroizing<String>),
    /// A token to use as it is.
    Token(Zeroizing<String>),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic(user, _) => write!(f, "Basic({user}, ...)"),
            Self::Identity(_) => f.write_str("Identity(...)"),
            Self::Token(_) => f.write_str("Token(...)"),
        }
    }
}

/// A file of credentials in docker's form.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: HashMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    #[serde(deserialize_with = "secret")]
    auth: Option<Zeroizing<String>>,
    username: Option<String>,
    #[serde(deserialize_with = "secret")]
    password: Option<Zeroizing<String>>,
    #[serde(deserialize_with = "secret")]
    identitytoken: Option<Zeroizing<String>>,
    #[serde(deserialize_with = "secret")]
    registrytoken: Option<Zeroizing<String>>,
}

/// A text that is wiped when it is dropped.
pub(crate) fn secret<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Zeroizing<String>>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Zeroizing::new))
}

/// The files that may hold credentials, in the order they are asked.
#[must_use]
pub fn usual_files(variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let docker = variable("DOCKER_CONFIG").or_else(|| variable("HOME").map(|home| home.join(".docker")));
    variable("REGISTRY_AUTH_FILE")
        .into_iter()
        .chain(docker.map(|folder| folder.join("config.json")))
        .chain(variable("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")))
        .collect()
}

/// What a file knows of a registry.
#[derive(Debug, PartialEq, Eq)]
pub enum Known {
    /// The credentials themselves.
    Here(Credentials),
    /// `docker-credential-<name>` has them.
    Helper(String),
}

/// The credentials for a repository of a host, and the file they are from.
///
/// # Errors
/// A file is there and cannot be read or is broken. Its text is never part of the message.
pub fn find(files: &[PathBuf], host: &str, repository: &str) -> Result<Option<(Known, PathBuf)>> {
    for file in files {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => Zeroizing::new(text),
            Err(e)
                if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
            {
                continue;
            }
            Err(e) => return Err(InstallError::file("credentials cannot be read", file, &e)),
        };
        let config: Config = serde_json::from_str(&text).map_err(|e| {
            broken(file, &format!("no JSON as docker writes it (line {}, column {})", e.line(), e.column()))
        })?;
        if let Some(found) = of(&config, file, host, repository)? {
            return Ok(Some((Known::Here(found), file.clone())));
        }
        let helper = config.cred_helpers.get(helper_name(host)).or(config.cred_helpers.get(host));
        if let Some(helper) = helper.or(config.creds_store.as_ref()).filter(|helper| !helper.is_empty()) {
            if !helper.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
                return Err(broken(file, &format!("`{helper}` cannot be the name of a credential helper")));
            }
            return Ok(Some((Known::Helper(helper.clone()), file.clone())));
        }
    }
    Ok(None)
}

/// How helpers and docker's files call a host.
fn helper_name(host: &str) -> &str {
    if host == "registry-1.docker.io" { "https://index.docker.io/v1/" } else { host }
}

/// Asks `docker-credential-<helper>`; none where it knows none.
///
/// # Errors
/// It cannot be run, hangs or fails. What it printed is never part of the message.
pub async fn ask_helper(helper: &str, host: &str) -> Result<Option<Credentials>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        #[serde(deserialize_with = "secret")]
        secret: Option<Zeroizing<String>>,
    }
    let program = format!("docker-credential-{helper}");
    let failed = |why: String| {
        InstallError::new(Trouble::Denied, format!("credentials for {host} are kept by {program}: {why}"))
            .hint("`docker login` with another store, or name the credentials under `auths` of config.json")
    };
    let mut command = tokio::process::Command::new(&program);
    command.arg("get").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| failed(format!("it cannot be run: {e}")))?;
    let work = async {
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read ends all the same, and its answer tells.
            if let Err(error) = stdin.write_all(helper_name(host).as_bytes()).await {
                tracing::debug!(%error, program, "did not read what was asked");
            }
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(HELPER, work).await;
    let output = output.map_err(|_| failed(format!("it gave no answer in {} s", HELPER.as_secs())))?;
    let output = output.map_err(|e| failed(format!("its answer was lost: {e}")))?;
    let answer = Zeroizing::new(output.stdout);
    if !output.status.success() {
        // This is how every helper says that it knows none.
        if answer.starts_with(b"credentials not found") {
            return Ok(None);
        }
        return Err(failed(format!("it ended with {}", output.status)));
    }
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|_| failed("its answer is not what a helper says".to_owned()))?;
    let secret = answer.secret.unwrap_or_default();
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials::Identity(secret),
        _ => Credentials::Basic(answer.username, secret),
    }))
}

fn broken(file: &Path, why: &str) -> InstallError {
    InstallError::new(Trouble::BadInput, format!("{}: credentials cannot be used: {why}", file.display()))
}

fn of(config: &Config, file: &Path, host: &str, repository: &str) -> Result<Option<Credentials>> {
    // The longest entry wins: `host/team` before `host`.
    let whole = format!("{host}/{repository}");
    let entries = config.auths.iter().filter_map(|(key, entry)| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://");
        let key = key.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
        let same = match key {
            "index.docker.io" | "docker.io" => {
                matches!(host, "docker.io" | "registry-1.docker.io" | "index.docker.io")
            }
            key => key == host || whole.strip_prefix(key).is_some_and(|rest| rest.starts_with('/')),
        };
        same.then_some((key.len(), entry))
    });
    let Some((_, entry)) = entries.max_by_key(|(length, _)| *length) else { return Ok(None) };
    let text = |token: &Option<Zeroizing<String>>| token.clone().filter(|token| !token.is_empty());
    if let Some(token) = text(&entry.identitytoken) {
        return Ok(Some(Credentials::Identity(token)));
    }
    if let Some(token) = text(&entry.registrytoken) {
        return Ok(Some(Credentials::Token(token)));
    }
    if let Some(auth) = text(&entry.auth) {
        let wrong = || broken(file, &format!("`auth` of {host} is not `user:password` in base64"));
        let plain = Zeroizing::new(STANDARD.decode(auth.trim()).map_err(|_| wrong())?);
        let plain = std::str::from_utf8(&plain).map_err(|_| wrong())?;
        let (user, password) = plain.split_once(':').ok_or_else(wrong)?;
        // Old files pad the password with zero bytes.
        let password = Zeroizing::new(password.trim_end_matches('\0').to_owned());
        return Ok(Some(Credentials::Basic(user.to_owned(), password)));
    }
    Ok(match (&entry.username, &entry.password) {
        (Some(user), Some(password)) => Some(Credentials::Basic(user.clone(), password.clone())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(text: &str, host: &str, repository: &str) -> Result<Option<Known>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        std::fs::write(&file, text).unwrap();
        find(&[folder.path().join("none.json"), file], host, repository)
            .map(|found| found.map(|(found, _)| found))
    }

    fn found(text: &str, host: &str, repository: &str) -> Result<Option<Credentials>> {
        known(text, host, repository).map(|known| {
            known.map(|known| match known {
                Known::Here(credentials) => credentials,
                Known::Helper(name) => panic!("a helper: {name}"),
            })
        })
    }

    #[test]
    fn helpers_are_known_by_host() {
        let file =
            r#"{"auths":{"a.example":{"auth":"dTpw"}},"credsStore":"all","credHelpers":{"b.example":"own"}}"#;
        let helper = |host: &str| known(file, host, "x").unwrap();
        assert_eq!(helper("a.example"), basic("u", "p").map(Known::Here));
        assert_eq!(helper("b.example"), Some(Known::Helper("own".into())));
        assert_eq!(helper("c.example"), Some(Known::Helper("all".into())));
        assert!(known(r#"{"credsStore":"../../x"}"#, "c.example", "x").is_err());
    }

    fn basic(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Basic(user.into(), Zeroizing::new(password.into())))
    }

    #[test]
    fn entries_are_found_by_host_and_path() {
        let auth = |text: &str| STANDARD.encode(text);
        let file = format!(
            r#"{{"auths":{{"ghcr.io":{{"auth":"{}"}},"https://ghcr.io/team/":{{"auth":"{}"}},
               "https://index.docker.io/v1/":{{"username":"d","password":"q"}},
               "127.0.0.1:5000":{{"identitytoken":"refresh"}},"reg.example":{{"registrytoken":"t"}},"empty.example":{{}}}}}}"#,
            auth("all:a:b"),
            auth("team:secret")
        );
        assert_eq!(found(&file, "ghcr.io", "other/x").unwrap(), basic("all", "a:b"));
        assert_eq!(found(&file, "ghcr.io", "team/x").unwrap(), basic("team", "secret"));
        assert_eq!(found(&file, "ghcr.io", "teammate/x").unwrap(), basic("all", "a:b"));
        assert_eq!(found(&file, "registry-1.docker.io", "library/x").unwrap(), basic("d", "q"));
        assert_eq!(
            found(&file, "127.0.0.1:5000", "x").unwrap(),
            Some(Credentials::Identity(Zeroizing::new("refresh".into())))
        );
        assert_eq!(
            found(&file, "reg.example", "x").unwrap(),
            Some(Credentials::Token(Zeroizing::new("t".into())))
        );
        assert_eq!(found(&file, "127.0.0.1:5001", "x").unwrap(), None);
        assert_eq!(found(&file, "empty.example", "x").unwrap(), None);
    }

    #[test]
    fn promise_12_a_broken_file_is_told_without_its_text() {
        let error = found(r#"{"auths":{"a.example":{"auth":"hunter2!"}}}"#, "a.example", "x").unwrap_err();
        assert!(
            error.message.contains("`auth` of a.example") && !error.message.contains("hunter2"),
            "{error}"
        );
        let error = found(r#"{"auths":{"a.example":{"auth":hunter2}}}"#, "a.example", "x").unwrap_err();
        assert!(error.message.contains("line 1") && !error.message.contains("hunter2"), "{error}");
        let shown = format!("{:?}", basic("user", "hunter2"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn the_usual_files_follow_the_environment() {
        let files = usual_files(|name| match name {
            "HOME" => Some("/home/me".into()),
            "XDG_RUNTIME_DIR" => Some("/run/user/1".into()),
            _ => None,
        });
        assert_eq!(
            files,
            ["/home/me/.docker/config.json", "/run/user/1/containers/auth.json"].map(PathBuf::from)
        );
        let files = usual_files(|name| (name == "DOCKER_CONFIG").then(|| "/etc/d".into()));
        assert_eq!(files, [PathBuf::from("/etc/d/config.json")]);
    }
}
