//! From files, environment and flags to a configuration, with every mistake at once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::compat;
use crate::keys::{Config, KEYS, SECTIONS};
use crate::rules::{coerce, mistakes, nearest};
use crate::source::{Origin, Variable, expand, line_of, parse_dotenv, parse_yaml};
use crate::table::{Key, Kind};

/// Where to look for values. The default looks at nothing; [`LoadOptions::from_process`] is what
/// programs want.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The YAML file (`--config`). Without it: `NETPULSE_CONFIG_FILE`, then what `search` finds.
    pub file: Option<PathBuf>,
    /// Folder in which `config/netpulse.yaml`, `netpulse.yaml` and `.env` are looked for, if any.
    pub search: Option<PathBuf>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// What flags say: the key's path, the value as text, and the flag's name for messages.
    pub overrides: Vec<(String, String, String)>,
}

impl LoadOptions {
    /// The environment of this process and the files of its working directory.
    #[must_use]
    pub fn from_process() -> Self {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { env, search: Some(PathBuf::new()), ..Self::default() }
    }

    /// The same with the YAML file that a flag names.
    #[must_use]
    pub fn with_file(mut self, file: Option<PathBuf>) -> Self {
        self.file = file;
        self
    }

    /// The same with a key set by a flag.
    #[must_use]
    pub fn with_override(mut self, path: &str, value: impl Into<String>, flag: &str) -> Self {
        self.overrides.push((path.to_owned(), value.into(), flag.to_owned()));
        self
    }
}

/// Something that an operator should know, though the configuration can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The key, `section.name`.
    pub key: String,
    /// Where it was set.
    pub origin: Origin,
    /// What about it.
    pub message: String,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, `section.name`; empty when the file as a whole is wrong.
    pub key: String,
    /// Where it was set.
    pub origin: Origin,
    /// What was wrong, and what would be right.
    pub message: String,
}

fn write_place(f: &mut fmt::Formatter<'_>, origin: &Origin, key: &str, message: &str) -> fmt::Result {
    if *origin != Origin::Default {
        write!(f, "{origin}: ")?;
    }
    if !key.is_empty() {
        write!(f, "{key}: ")?;
    }
    f.write_str(message)
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.origin, &self.key, &self.message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.origin, &self.key, &self.message)
    }
}

/// Every mistake of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Problem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// A key with its value and where that was set.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The key.
    pub key: &'static Key,
    /// The value; a secret is masked.
    pub value: Value,
    /// Where it was set.
    pub origin: Origin,
}

/// All that was found, right or wrong: for `config check` and `config show`.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The YAML file that was read.
    pub file: Option<PathBuf>,
    /// Every key, in the order of the documentation.
    pub settings: Vec<Setting>,
    /// What an operator should know.
    pub warnings: Vec<Warning>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// The configuration; of no use while there are `problems`.
    pub config: Config,
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// All mistakes at once, each with its key, its place and what would be right.
    pub fn load(options: LoadOptions) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let loaded = Loaded::read(options);
        if loaded.problems.is_empty() {
            Ok((loaded.config, loaded.warnings))
        } else {
            Err(ConfigErrors(loaded.problems))
        }
    }
}

impl Loaded {
    /// Reads everything; what is wrong stands in `problems`.
    #[must_use]
    pub fn read(options: LoadOptions) -> Self {
        let mut reader = Reader::default();
        let mut variables = BTreeMap::new();
        let dotenv = reader.dotenv(options.search.as_deref());
        for (_, (name, value, _)) in &dotenv {
            variables.insert(name.clone(), value.clone());
        }
        variables.extend(options.env.clone());

        let file = reader.choose_file(&options, &variables);
        if let Some((path, text)) = &file {
            reader.yaml(path, text);
        }
        for (path, (name, value, line)) in dotenv {
            // The process environment says the same variable again: it wins.
            if !options.env.contains_key(&name) {
                let origin = Origin::DotEnv { path, line, variable: name.clone() };
                reader.variable(&name, value, origin);
            }
        }
        for (name, value) in &options.env {
            reader.variable(name, value.clone(), Origin::Env { variable: name.clone() });
        }
        for (path, value, flag) in options.overrides {
            reader.assign(&path, Value::String(value), Origin::Flag { flag }, false);
        }
        if let Some(value) = variables.get(compat::FAKE_REDIS) {
            reader.fake_redis(value);
        }
        reader.finish(file.map(|(path, _)| path), &variables)
    }
}

/// A value as it was written, before it is expanded and checked: only the one that wins is.
struct Written {
    value: Value,
    origin: Origin,
    expand: bool,
}

#[derive(Default)]
struct Reader {
    written: BTreeMap<String, Written>,
    /// Entries of mappings that variables set one by one.
    entries: Vec<(String, String, Written)>,
    warnings: Vec<Warning>,
    problems: Vec<Problem>,
}

impl Reader {
    fn problem(&mut self, key: &str, origin: Origin, message: impl Into<String>) {
        self.problems.push(Problem { key: key.to_owned(), origin, message: message.into() });
    }

    fn warn(&mut self, key: &str, origin: Origin, message: impl Into<String>) {
        self.warnings.push(Warning { key: key.to_owned(), origin, message: message.into() });
    }

    fn dotenv(&mut self, folder: Option<&Path>) -> Vec<(PathBuf, Variable)> {
        let Some(path) = folder.map(|folder| folder.join(".env")).filter(|path| path.is_file()) else {
            return Vec::new();
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let (variables, mistakes) = parse_dotenv(&text);
                for (line, message) in mistakes {
                    // Other programs share this file, so a line that we cannot read stops nobody.
                    self.warn("", Origin::File { path: path.clone(), line: Some(line) }, message);
                }
                variables.into_iter().map(|variable| (path.clone(), variable)).collect()
            }
            Err(error) => {
                self.problem("", Origin::File { path, line: None }, format!("cannot be read: {error}"));
                Vec::new()
            }
        }
    }

    /// The YAML file and its text.
    fn choose_file(
        &mut self,
        options: &LoadOptions,
        variables: &BTreeMap<String, String>,
    ) -> Option<(PathBuf, String)> {
        let named = options
            .file
            .clone()
            .or_else(|| variables.get("NETPULSE_CONFIG_FILE").filter(|p| !p.is_empty()).map(PathBuf::from));
        let (path, searched) = match (named, &options.search) {
            (Some(path), _) => (path, false),
            (None, Some(folder)) => {
                let places = [folder.join("config").join("netpulse.yaml"), folder.join("netpulse.yaml")];
                (places.into_iter().find(|place| place.is_file())?, true)
            }
            (None, None) => return None,
        };
        let origin = Origin::File { path: path.clone(), line: None };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                self.problem("", origin, format!("the configuration file cannot be read: {error}"));
                return None;
            }
        };
        // A client's profiles may bear the same name in the same folder.
        if searched && is_profile_file(&text) {
            self.warn("", origin, "holds a client's profiles, not a server's configuration: passed over");
            return None;
        }
        Some((path, text))
    }

    fn yaml(&mut self, path: &Path, text: &str) {
        let at = |line| Origin::File { path: path.to_owned(), line };
        match parse_yaml(text) {
            Ok(Value::Null) => {}
            Ok(Value::Object(document)) => self.walk(path, text, &mut Vec::new(), &document),
            Ok(_) => {
                self.problem("", at(Some(1)), "expected sections (`server:`, `worker:`, ...) at the top")
            }
            Err((line, message)) => self.problem("", at(line), format!("is no YAML: {message}")),
        }
    }

    fn walk(&mut self, file: &Path, text: &str, above: &mut Vec<String>, entries: &Map<String, Value>) {
        for (name, value) in entries {
            above.push(name.clone());
            let parts: Vec<&str> = above.iter().map(String::as_str).collect();
            let path = above.join(".");
            let below = format!("{path}.");
            let origin = Origin::File { path: file.to_owned(), line: line_of(text, &parts) };
            let known = key_of(compat::today(&path)).is_some();
            let has_keys_below = KEYS.iter().any(|key| key.path().starts_with(&below))
                || compat::ALIASES.iter().any(|(old, _)| old.starts_with(&below));
            match value {
                Value::Object(inner) if !known && has_keys_below => self.walk(file, text, above, inner),
                Value::Null if !known && has_keys_below => {}
                other if !known && SECTIONS.iter().any(|(section, _)| *section == path) => {
                    let message = format!("`{other}` is no section: expected keys below `{path}:`");
                    self.problem(&path, origin, message);
                }
                other => self.assign(&path, other.clone(), origin, true),
            }
            above.pop();
        }
    }

    /// An environment variable, of the process or of a `.env` file; not every one is ours.
    fn variable(&mut self, name: &str, value: String, origin: Origin) {
        if let Some((_, path)) = compat::ENV_ALIASES.iter().find(|(alias, _)| *alias == name) {
            // Its longer form says more precisely what is meant.
            if !self.written.get(*path).is_some_and(|set| !matches!(set.origin, Origin::File { .. })) {
                self.assign(path, Value::String(value), origin, false);
            }
            return;
        }
        if let Some((_, path)) = compat::ENV_FALLBACKS.iter().find(|(variable, _)| *variable == name) {
            let set = self.written.get(*path).is_some_and(|set| !set.value.is_null());
            if !set {
                self.assign(path, Value::String(value), origin, false);
            }
            return;
        }
        let Some(rest) = name.strip_prefix("NETPULSE_") else { return };
        let rest = rest.strip_prefix('_').unwrap_or(rest);
        if rest.contains("__") {
            let path = rest.to_ascii_lowercase().replace("__", ".");
            self.assign(&path, Value::String(value), origin, false);
        }
    }

    /// The Python system's switch for tests: it wins over everything.
    fn fake_redis(&mut self, value: &str) {
        let origin = Origin::Env { variable: compat::FAKE_REDIS.to_owned() };
        match value.trim().to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => {
                self.assign("store.engine", Value::String("embedded".into()), origin, false);
            }
            "" | "0" | "false" | "no" | "off" => {}
            _ => {
                let message = format!("`{value}` is neither true nor false");
                self.problem("store.engine", origin, message);
            }
        }
    }

    fn assign(&mut self, path: &str, value: Value, origin: Origin, expand: bool) {
        let path = compat::today(path);
        if key_of(path).is_some() {
            self.written.insert(path.to_owned(), Written { value, origin, expand });
            return;
        }
        if let Some((key, entry)) =
            path.rsplit_once('.').filter(|(key, _)| key_of(key).is_some_and(|key| key.kind == Kind::Mapping))
        {
            self.entries.push((key.to_owned(), entry.to_owned(), Written { value, origin, expand }));
        } else if let Some(reason) = compat::ignored(path) {
            self.warn(path, origin, format!("is accepted and does nothing: {reason}"));
        } else {
            let message = unknown(path, &origin);
            self.problem(path, origin, message);
        }
    }

    fn finish(mut self, file: Option<PathBuf>, variables: &BTreeMap<String, String>) -> Loaded {
        let mut tree = match serde_json::to_value(Config::default()) {
            Ok(tree) => tree,
            Err(_) => Value::Null,
        };
        let entries = std::mem::take(&mut self.entries);
        let mut origins = BTreeMap::new();
        // Of a file that cannot be read, nobody knows what it sets.
        let unreadable = self.problems.iter().any(|problem| problem.key.is_empty());
        for key in KEYS {
            let path = key.path();
            let told = self.problems.len();
            let mut value = Value::Null;
            if let Some(Written { value: raw, origin, expand }) = self.written.remove(&path) {
                let settled = if expand { expanded(&raw, variables) } else { Ok(raw) };
                match settled.and_then(|raw| coerce(key, &raw)) {
                    Ok(settled) => value = settled,
                    Err(message) => self.problem(&path, origin.clone(), message),
                }
                // An empty key (`port:`) means its default.
                if !value.is_null() || key.optional {
                    origins.insert(path.clone(), origin);
                }
            }
            for (_, entry, written) in entries.iter().filter(|(of, _, _)| *of == path) {
                if value.is_null() {
                    value = Value::Object(Map::new());
                }
                if let Value::Object(map) = &mut value {
                    map.insert(entry.clone(), written.value.clone());
                    origins.insert(path.clone(), written.origin.clone());
                }
            }
            if let Some(slot) = key.find_mut(&mut tree) {
                let origin = origins.get(&path).cloned().unwrap_or(Origin::Default);
                let candidate = if value.is_null() { slot.clone() } else { value };
                let wrong = mistakes(key, &candidate);
                // The default stands in for what is wrong, so that the other keys can still be judged.
                if wrong.is_empty() {
                    *slot = candidate;
                }
                // One mistake of a key is enough to correct it.
                let judged = self.problems.len() == told && !(unreadable && origin == Origin::Default);
                for message in wrong.into_iter().filter(|_| judged) {
                    self.problems.push(Problem { key: path.clone(), origin: origin.clone(), message });
                }
            }
        }
        let settings = KEYS
            .iter()
            .map(|key| {
                let value = key.find(&tree).cloned().unwrap_or_default();
                let hidden = key.is_secret() && value.as_str().is_some_and(|text| !text.is_empty());
                Setting {
                    key,
                    value: if hidden { netpulse_model::secret::MASK.into() } else { value },
                    origin: origins.get(&key.path()).cloned().unwrap_or(Origin::Default),
                }
            })
            .collect();
        let config = match serde_json::from_value::<Config>(tree) {
            Ok(config) => config,
            Err(error) => {
                self.problem("", Origin::Default, format!("the values do not fit together: {error}"));
                Config::default()
            }
        };
        let origin_of = |path: &str| origins.get(path).cloned().unwrap_or(Origin::Default);
        self.cross_check(&config, origin_of);
        // In the order in which a person corrects them: line by line, then the variables.
        self.problems.sort_by_key(|problem| problem.origin.line());
        Loaded { file, settings, warnings: self.warnings, problems: self.problems, config }
    }

    /// What can only be judged by looking at several keys.
    fn cross_check(&mut self, config: &Config, origin_of: impl Fn(&str) -> Origin) {
        let server = &config.server;
        match (&server.tls_cert, &server.tls_key) {
            (Some(_), None) => {
                let message = "`server.tls_key` is missing: HTTPS needs both the certificate and its key";
                self.problem("server.tls_cert", origin_of("server.tls_cert"), message);
            }
            (None, Some(_)) => {
                let message = "`server.tls_cert` is missing: HTTPS needs both the certificate and its key";
                self.problem("server.tls_key", origin_of("server.tls_key"), message);
            }
            _ => {}
        }
        self.cross_check_redis(config, &origin_of);
        if !is_loopback(&server.host) {
            if !server.api_key.is_empty() && server.api_key.chars().count() < 8 {
                let message = "is shorter than 8 characters while the server listens beyond this machine: \
                               take a long random one";
                self.warn("server.api_key", origin_of("server.api_key"), message);
            }
            if server.tls_cert.is_none() {
                let message = format!(
                    "`{}` is reached from beyond this machine over plain HTTP: keys and device passwords cross the \
                     network readable. Set `server.tls_cert` and `server.tls_key`, or put a proxy with TLS in front",
                    server.host
                );
                self.warn("server.host", origin_of("server.host"), message);
            }
        }
        crate::credential::check(config, |path, message| {
            self.problem(path, origin_of(path), message);
        });
        if let Some(message) = crate::credential::caution(config) {
            self.warn("credential.verify", origin_of("credential.verify"), message);
        }
        if config.session.host_keys == "off" {
            let message =
                "host keys are not checked: whoever stands between here and a device reads its password";
            self.warn("session.host_keys", origin_of("session.host_keys"), message);
        }
        if server.cors_origins.iter().any(|origin| origin == "*") {
            let message =
                "`*` lets every web page call this server with the key of the person who looks at it";
            self.warn("server.cors_origins", origin_of("server.cors_origins"), message);
        }
    }
}

impl Reader {
    fn cross_check_redis(&mut self, config: &Config, origin_of: &impl Fn(&str) -> Origin) {
        let tls = &config.redis.tls;
        if tls.enabled {
            let files =
                [("redis.tls.ca", &tls.ca), ("redis.tls.cert", &tls.cert), ("redis.tls.key", &tls.key)];
            for (key, file) in files {
                if let Some(file) = file.as_ref().filter(|file| !file.is_file()) {
                    let message = format!("there is no file `{}` that can be read", file.display());
                    self.problem(key, origin_of(key), message);
                }
            }
            for (here, there) in [("redis.tls.cert", "redis.tls.key"), ("redis.tls.key", "redis.tls.cert")] {
                let set = |name| files.iter().any(|(key, file)| *key == name && file.is_some());
                if set(here) && !set(there) {
                    let message = format!("`{there}` is missing: a certificate and its key belong together");
                    self.problem(here, origin_of(here), message);
                }
            }
        }
        let weak = config.store.seal_key.as_ref().is_some_and(|key| key.chars().count() < 16);
        if weak {
            let message =
                "is shorter than 16 characters: take a long random one, as from `openssl rand -hex 32`";
            self.warn("store.seal_key", origin_of("store.seal_key"), message);
        }
        // A file of the Python system says where Redis is, and means that it be used.
        let chosen = origin_of("store.engine") != Origin::Default;
        let told = ["redis.host", "redis.sentinel.enabled"]
            .into_iter()
            .find(|key| origin_of(key) != Origin::Default);
        if let Some(key) = told.filter(|_| !chosen) {
            let message =
                "does nothing while `store.engine` is `embedded`: set it to `redis` for many machines";
            self.warn(key, origin_of(key), message);
        }
    }
}

fn key_of(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path() == path)
}

fn expanded(value: &Value, variables: &BTreeMap<String, String>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(expand(text, variables)?),
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| expanded(item, variables)).collect::<Result<_, _>>()?)
        }
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(name, value)| Ok((name.clone(), expanded(value, variables)?)))
                .collect::<Result<_, String>>()?,
        ),
        other => other.clone(),
    })
}

/// What to say about a key that nobody knows.
fn unknown(path: &str, origin: &Origin) -> String {
    let in_env = matches!(origin, Origin::Env { .. } | Origin::DotEnv { .. });
    let shown = |key: &Key| if in_env { key.env() } else { key.path() };
    let name = path.rsplit('.').next().unwrap_or(path);
    let paths: Vec<String> = KEYS.iter().map(Key::path).collect();
    let near = nearest(path, paths.iter().map(String::as_str)).and_then(key_of);
    // The right name in the wrong section.
    let elsewhere = || KEYS.iter().find(|key| key.name == name || (path == key.name));
    let section = || {
        let above = path.rsplit_once('.').map_or(path, |(above, _)| above);
        let known = || SECTIONS.iter().map(|(section, _)| *section);
        nearest(above, known()).or_else(|| nearest(path.split('.').next().unwrap_or(path), known()))
    };
    match near.or_else(elsewhere) {
        Some(key) => format!("no such key: did you mean `{}`?", shown(key)),
        None => match section().filter(|_| path.contains('.')) {
            Some(section) => {
                let names: Vec<&str> =
                    KEYS.iter().filter(|key| key.section == section).map(|key| key.name).collect();
                format!("no such key: `{section}` has {}", names.join(", "))
            }
            None => {
                let sections: Vec<&str> =
                    SECTIONS.iter().map(|(section, _)| *section).filter(|s| !s.contains('.')).collect();
                let guess = section().map(|s| format!(" (did you mean `{s}`?)")).unwrap_or_default();
                format!("no such section{guess}: there are {}", sections.join(", "))
            }
        },
    }
}

fn is_profile_file(text: &str) -> bool {
    let Ok(Value::Object(document)) = parse_yaml(text) else { return false };
    let of_a_client = ["default", "profiles"].iter().any(|key| document.contains_key(*key));
    of_a_client && !SECTIONS.iter().any(|(section, _)| document.contains_key(*section))
}

/// Whether only this machine reaches a listener on `host`.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
