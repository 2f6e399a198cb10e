//! The registry of plugins by the configuration: what is built in, and where others are looked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use netpulse_config::Config;
use netpulse_plugin::install::{Lock, Verdict};
use netpulse_plugin::{Admit, Folders, GuardProgram, HostSettings, Implementation, Kind, Plugins};
use serde_json::Value;

use crate::exit::Failure;

/// The argument that makes this program the guard of a plugin.
pub(crate) const GUARD: &str = "plugin-guard";

/// The registry by the configuration, without anything built in.
pub(crate) fn registry(config: &Config) -> Result<Plugins, Failure> {
    if !config.plugin.external {
        return Ok(Plugins::without_external());
    }
    let plugin = &config.plugin;
    for item in plugin.r#override.iter().chain(plugin.prefer.keys()) {
        kind_and_name(item)?;
    }
    let cache = config.store.path.is_dir().then(|| config.store.path.join("plugins-cache.json"));
    let folders = Folders {
        folders: folders(config),
        overrides: plugin.r#override.clone(),
        prefer: plugin.prefer.clone(),
        settings: settings(&plugin.config)?,
        cache,
        admit: Some(admission(folders(config))),
    };
    Ok(Plugins::new(folders, host(config)?))
}

/// Refuses files that are not what was installed: nothing of a changed file is run.
fn admission(folders: Vec<PathBuf>) -> Admit {
    Arc::new(move |path| {
        let Some(folder) = folders.iter().find(|folder| path.starts_with(folder)) else {
            return Ok(());
        };
        let lock = Lock::read(folder).map_err(|error| error.message)?;
        match lock.check(path) {
            Verdict::Unchanged | Verdict::Unlisted => Ok(()),
            Verdict::Changed { expected, found } => Err(format!(
                "it is not what was installed ({found} instead of {expected}): install it again, or accept it with \
                 `netpulse plugin verify --accept`"
            )),
            Verdict::Missing => Err("it was installed and is gone".to_owned()),
            Verdict::Unreadable { why } => Err(format!("it cannot be read: {why}")),
        }
    })
}

/// What holds for every plugin's process.
pub(crate) fn host(config: &Config) -> Result<HostSettings, Failure> {
    let program = std::env::current_exe().map_err(|e| Failure::local(format!("cannot find myself: {e}")))?;
    let guard = GuardProgram { program, arguments: vec![GUARD.into()] };
    let plugin = &config.plugin;
    let mut host = HostSettings::new(guard);
    host.environment.clone_from(&plugin.environment);
    if let Some(folder) = &plugin.runtime_dir {
        host.runtime_dir.clone_from(folder);
    }
    host.idle_timeout = Duration::from_secs(plugin.idle_timeout);
    host.start_timeout = Duration::from_secs(plugin.start_timeout.max(1));
    host.call_timeout = Duration::from_secs(config.job.timeout.max(1));
    host.max_answer = plugin.max_answer;
    host.max_memory = plugin.max_memory;
    Ok(host)
}

/// The folder of plugins of every kind.
pub(crate) fn directory(config: &Config) -> Option<PathBuf> {
    let own = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".config/netpulse/plugins"));
    config.plugin.directory.clone().or_else(own)
}

/// Every folder that is looked through, in order.
pub(crate) fn folders(config: &Config) -> Vec<PathBuf> {
    let plugin = &config.plugin;
    let own = [
        &plugin.driver,
        &plugin.template,
        &plugin.webhook,
        &plugin.scheduler,
        &plugin.credential,
        &plugin.provider,
        &plugin.input,
        &plugin.check,
        &plugin.assistant,
        &plugin.output,
        &plugin.platform,
    ];
    let mut folders: Vec<PathBuf> =
        directory(config).into_iter().chain(own.into_iter().flatten().cloned()).collect();
    let mut seen = std::collections::BTreeSet::new();
    folders.retain(|folder| seen.insert(folder.clone()));
    folders
}

/// `kind/name` taken apart.
pub(crate) fn kind_and_name(item: &str) -> Result<(Kind, &str), Failure> {
    let (kind, name) = item.split_once('/').ok_or_else(|| {
        Failure::usage(format!("`{item}` is no plugin: write kind/name, as in `driver/netmiko`"))
    })?;
    let kind = kind.parse().map_err(|e: netpulse_model::plugin::NoKind| Failure::usage(e.to_string()))?;
    Ok((kind, name))
}

/// The plugins' own settings, read.
fn settings(texts: &BTreeMap<String, String>) -> Result<BTreeMap<String, Value>, Failure> {
    let mut settings = BTreeMap::new();
    for (plugin, text) in texts {
        let wrong = |why: String| Failure::usage(format!("plugin.config.{plugin}: {why}"));
        let text = match text.strip_prefix("file:") {
            Some(path) => std::fs::read_to_string(path).map_err(|e| wrong(format!("{path}: {e}")))?,
            None => text.clone(),
        };
        // The text may hold secrets: the parser's message must not quote it.
        let value: Value = yaml_serde::from_str(&text).map_err(|e| {
            let place = e.location().map(|l| format!(" (line {})", l.line())).unwrap_or_default();
            wrong(format!("is neither JSON nor YAML{place}"))
        })?;
        if !value.is_object() {
            return Err(wrong("must be a mapping".to_owned()));
        }
        settings.insert(plugin.clone(), value);
    }
    Ok(settings)
}

/// Lists what is built in and reached in other ways than by name here.
pub(crate) fn list_built_in(plugins: &Plugins) {
    let listed = [
        (Kind::TemplateRenderer, "jinja2", "Jinja2 templates"),
        (Kind::TemplateRenderer, "string", "`$name` templates"),
        (Kind::TemplateParser, "textfsm", "TextFSM templates"),
        (Kind::TemplateParser, "ttp", "TTP templates"),
        (Kind::TemplateParser, "regex", "Regular expressions"),
    ];
    for (kind, name, description) in listed {
        plugins.register(kind, name, description, Implementation::Listed);
    }
    for scheduler in netpulse_scheduler::built_in() {
        plugins.register(
            Kind::Scheduler,
            scheduler.name(),
            "Chooses nodes for devices",
            Implementation::Listed,
        );
    }
}
