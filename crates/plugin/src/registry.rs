//! One registry for every kind: what is built in, what was found in folders, and which of them a
//! name means.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use netpulse_model::plugin::{Capability, Kind};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::adapt::Plugin;
use crate::adapt::driver::ExternalDriver;
use crate::adapt::others::External;
use crate::adapt::templates::ExternalTemplate;
use crate::discovery::{self, Cache, Known, What};
use crate::driver::Driver;
use crate::host::HostSettings;
use crate::host::program::{Condition, Learned, Program};
use crate::kinds::{Check, CredentialProvider, Output, Processor, Provider, Scheduler, Webhook};

/// What stands behind a name.
#[derive(Clone)]
pub enum Implementation {
    /// A driver.
    Driver(Arc<dyn Driver>),
    /// An external renderer or parser: asked through [`crate::AllTemplates`].
    #[doc(hidden)]
    Template(Arc<ExternalTemplate>),
    /// A scheduler.
    Scheduler(Arc<dyn Scheduler>),
    /// A webhook.
    Webhook(Arc<dyn Webhook>),
    /// A credential provider.
    Credential(Arc<dyn CredentialProvider>),
    /// A provider of data.
    Provider(Arc<dyn Provider>),
    /// An input or an assistant.
    Processor(Arc<dyn Processor>),
    /// A check.
    Check(Arc<dyn Check>),
    /// An output.
    Output(Arc<dyn Output>),
    /// Something that is reached in another way and only listed here.
    Listed,
}

impl std::fmt::Debug for Implementation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Driver(_) => "Driver",
            Self::Template(_) => "Template",
            Self::Scheduler(_) => "Scheduler",
            Self::Webhook(_) => "Webhook",
            Self::Credential(_) => "Credential",
            Self::Provider(_) => "Provider",
            Self::Processor(_) => "Processor",
            Self::Check(_) => "Check",
            Self::Output(_) => "Output",
            Self::Listed => "Listed",
        })
    }
}

/// Where a plugin comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Part of NetPulse.
    BuiltIn,
    /// A file.
    External,
}

/// How a plugin is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Known, and not running: it starts at its first call.
    Declared,
    /// Running, or part of NetPulse.
    Started,
    /// It cannot be used, or its last start failed.
    Failed,
}

impl State {
    /// The word in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Started => "started",
            Self::Failed => "failed",
        }
    }
}

/// One line of the list of plugins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PluginHandle {
    /// What it is; none for a file that could not say.
    pub kind: Option<Kind>,
    /// The name that requests use, or the file's.
    pub name: String,
    /// `<who>/<kind>/<name>/v<n>`.
    pub id: String,
    /// Its own version.
    pub version: String,
    /// One sentence.
    pub description: String,
    /// Where it comes from.
    pub source: Source,
    /// Its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// How it is doing.
    pub state: State,
    /// What is wrong with it.
    pub error: Option<String>,
    /// What it can do.
    pub features: Vec<String>,
    /// How often its process was started.
    pub starts: u64,
}

/// Decides whether a file may be run at all; the error is shown in the list.
pub type Admit = Arc<dyn Fn(&Path) -> Result<(), String> + Send + Sync>;

/// Where plugins are looked for, and which of them count.
#[derive(Clone, Default)]
pub struct Folders {
    /// The folders, in order.
    pub folders: Vec<PathBuf>,
    /// `kind/name`: here the external one beats the built-in one.
    pub overrides: Vec<String>,
    /// `kind/name` to file name: this file wins among several of that name.
    pub prefer: BTreeMap<String, String>,
    /// Settings by plugin: the file's name or the plugin's id.
    pub settings: BTreeMap<String, Value>,
    /// Where capabilities are kept between starts.
    pub cache: Option<PathBuf>,
    /// Asked before a file is run.
    pub admit: Option<Admit>,
}

struct Entry {
    kind: Option<Kind>,
    name: String,
    id: String,
    version: String,
    description: String,
    features: Vec<String>,
    path: Option<PathBuf>,
    error: Option<String>,
    program: Option<Arc<Program>>,
    implementation: Implementation,
    /// Whether a look-up by name may find it.
    counts: bool,
}

impl Entry {
    fn handle(&self) -> PluginHandle {
        let (mut state, mut error) = (State::Started, self.error.clone());
        if self.path.is_some() {
            state = State::Declared;
        }
        if let Some(program) = &self.program {
            let (condition, failure) = program.condition();
            state = match condition {
                Condition::Declared => State::Declared,
                Condition::Started => State::Started,
                Condition::Failed => State::Failed,
            };
            error = error.or(failure);
        }
        if self.error.is_some() {
            state = State::Failed;
        }
        PluginHandle {
            kind: self.kind,
            name: self.name.clone(),
            id: self.id.clone(),
            version: self.version.clone(),
            description: self.description.clone(),
            source: if self.path.is_some() { Source::External } else { Source::BuiltIn },
            path: self.path.clone(),
            state,
            error,
            features: self.features.clone(),
            starts: self.program.as_ref().map_or(0, |program| program.starts()),
        }
    }
}

/// What was found in folders.
#[derive(Default)]
struct Catalog {
    entries: Vec<Entry>,
    by_name: HashMap<(Kind, String), usize>,
    programs: BTreeMap<PathBuf, (Known, Arc<Program>)>,
}

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Plugins(Arc<Inner>);

struct Inner {
    built_in: RwLock<Vec<Entry>>,
    external: RwLock<Arc<Catalog>>,
    setup: Option<Setup>,
    scanning: tokio::sync::Mutex<()>,
    scanned: AtomicBool,
    misses: AtomicU64,
    on_scan: RwLock<Vec<OnScan>>,
}

struct Setup {
    folders: Folders,
    host: Arc<HostSettings>,
    cache: Arc<Cache>,
}

/// Called after every scan with the files of the data kinds that were found: kind and path.
pub type OnScan = Arc<dyn Fn(&[(Kind, PathBuf)]) -> Scanned + Send + Sync>;

/// What was made of data files.
#[derive(Default)]
pub struct Scanned {
    /// What is wrong with a file.
    pub errors: Vec<(PathBuf, String)>,
    /// Built-in drivers that take the place of earlier ones of their names: those that know the new
    /// platforms.
    pub drivers: Vec<(Arc<dyn Driver>, &'static str)>,
}

/// The platform files in these folders. Blocking, and quick: nothing is run.
#[must_use]
pub fn platform_files(folders: &[PathBuf]) -> Vec<PathBuf> {
    let found = discovery::scan(folders).into_iter();
    found.filter(|file| matches!(file.what, What::Data(Kind::Platform, ..))).map(|file| file.path).collect()
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugins").field("external", &self.0.setup.is_some()).finish_non_exhaustive()
    }
}

impl Default for Plugins {
    fn default() -> Self {
        Self::without_external()
    }
}

impl Plugins {
    /// A registry that never runs a program of its own (`plugin.external: false`).
    #[must_use]
    pub fn without_external() -> Self {
        Self::with(None)
    }

    /// A registry with the plugins of these folders. Nothing is looked at before it is needed.
    #[must_use]
    pub fn new(folders: Folders, host: HostSettings) -> Self {
        let cache = Arc::new(Cache::open(folders.cache.clone()));
        Self::with(Some(Setup { folders, host: Arc::new(host), cache }))
    }

    fn with(setup: Option<Setup>) -> Self {
        Self(Arc::new(Inner {
            built_in: RwLock::default(),
            external: RwLock::default(),
            scanned: AtomicBool::new(setup.is_none()),
            setup,
            scanning: tokio::sync::Mutex::new(()),
            misses: AtomicU64::new(0),
            on_scan: RwLock::default(),
        }))
    }

    /// Registers something built in; a second one of the same kind and name takes its place.
    pub fn register(&self, kind: Kind, name: &str, description: &str, implementation: Implementation) {
        let mut entries = self.0.built_in.write();
        entries.retain(|entry| entry.kind != Some(kind) || entry.name != name);
        entries.push(Entry {
            kind: Some(kind),
            name: name.to_owned(),
            id: format!("netpulse/{kind}/{name}/v1"),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            description: description.to_owned(),
            features: Vec::new(),
            path: None,
            error: None,
            program: None,
            implementation,
            counts: true,
        });
    }

    /// Registers a built-in driver under its own name.
    pub fn register_driver(&self, driver: Arc<dyn Driver>, description: &str) {
        let name = driver.name().to_owned();
        self.register(Kind::Driver, &name, description, Implementation::Driver(driver));
    }

    /// Calls `hook` after every scan.
    pub fn on_scan(&self, hook: OnScan) {
        self.0.on_scan.write().push(hook);
    }

    /// Whether an external plugin is to take the place of the built-in one.
    #[must_use]
    pub fn overridden(&self, kind: Kind, name: &str) -> bool {
        self.0.setup.as_ref().is_some_and(|setup| listed(&setup.folders.overrides, kind, name))
    }

    /// What is known under that name now, without looking into folders.
    #[must_use]
    pub fn get(&self, kind: Kind, name: &str) -> Option<Implementation> {
        let external = || {
            let catalog = self.0.external.read();
            let entry = catalog.entries.get(*catalog.by_name.get(&(kind, name.to_owned()))?)?;
            Some(entry.implementation.clone())
        };
        let built_in = || {
            let entries = self.0.built_in.read();
            entries.iter().find(|e| e.kind == Some(kind) && e.name == name).map(|e| e.implementation.clone())
        };
        let found = if self.overridden(kind, name) {
            external().or_else(built_in)
        } else {
            built_in().or_else(external)
        };
        if found.is_none() && !self.0.scanned.load(Ordering::Acquire) {
            self.0.misses.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// What that name means; looks into folders when nobody knows it yet.
    pub async fn find(&self, kind: Kind, name: &str) -> Option<Implementation> {
        if self.0.scanned.load(Ordering::Acquire) {
            return self.get(kind, name);
        }
        if !self.overridden(kind, name)
            && let Some(found) = self.get(kind, name)
        {
            return Some(found);
        }
        self.discovered().await;
        self.get(kind, name)
    }

    /// How often a name was asked for that only folders could know, before they were looked into.
    #[must_use]
    pub fn misses(&self) -> u64 {
        self.0.misses.load(Ordering::Relaxed)
    }

    /// The driver of that name, known now.
    #[must_use]
    pub fn driver(&self, name: &str) -> Option<Arc<dyn Driver>> {
        match self.get(Kind::Driver, name)? {
            Implementation::Driver(driver) => Some(driver),
            _ => None,
        }
    }

    /// The scheduler of that name.
    pub async fn scheduler(&self, name: &str) -> Option<Arc<dyn Scheduler>> {
        match self.find(Kind::Scheduler, name).await? {
            Implementation::Scheduler(found) => Some(found),
            _ => None,
        }
    }

    /// The webhook of that name.
    pub async fn webhook(&self, name: &str) -> Option<Arc<dyn Webhook>> {
        match self.find(Kind::Webhook, name).await? {
            Implementation::Webhook(found) => Some(found),
            _ => None,
        }
    }

    /// The credential provider of that name.
    pub async fn credential(&self, name: &str) -> Option<Arc<dyn CredentialProvider>> {
        match self.find(Kind::Credential, name).await? {
            Implementation::Credential(found) => Some(found),
            _ => None,
        }
    }

    /// Names of external plugins of that kind, known now.
    #[must_use]
    pub fn external_names(&self, kind: Kind) -> Vec<String> {
        let catalog = self.0.external.read();
        let mut names: Vec<String> =
            catalog.by_name.keys().filter(|(k, _)| *k == kind).map(|(_, n)| n.clone()).collect();
        names.sort();
        names
    }

    /// All names of that kind, known now.
    #[must_use]
    pub fn names(&self, kind: Kind) -> Vec<String> {
        let mut names: Vec<String> =
            self.0.built_in.read().iter().filter(|e| e.kind == Some(kind)).map(|e| e.name.clone()).collect();
        names.extend(self.external_names(kind));
        names.sort();
        names.dedup();
        names
    }

    /// Looks into the folders unless that was done.
    pub async fn discovered(&self) {
        if self.0.scanned.load(Ordering::Acquire) {
            return;
        }
        let _turn = self.0.scanning.lock().await;
        if !self.0.scanned.load(Ordering::Acquire) {
            self.scan().await;
        }
    }

    /// Looks into the folders again. What runs goes on: a plugin whose file changed or is gone ends
    /// when its last user is done with it.
    pub async fn reload(&self) -> Vec<PluginHandle> {
        {
            let _turn = self.0.scanning.lock().await;
            self.scan().await;
        }
        self.list().await
    }

    /// Every plugin, by kind and name; looks into the folders unless that was done.
    pub async fn list(&self) -> Vec<PluginHandle> {
        self.discovered().await;
        let mut handles: Vec<PluginHandle> = self.0.built_in.read().iter().map(Entry::handle).collect();
        handles.extend(self.0.external.read().entries.iter().map(Entry::handle));
        handles.sort_by(|a, b| (a.kind, &a.name, &a.path).cmp(&(b.kind, &b.name, &b.path)));
        handles
    }

    /// Every plugin of that kind and name: the one that counts first.
    pub async fn info(&self, kind: Kind, name: &str) -> Vec<PluginHandle> {
        let mut handles = self.list().await;
        handles.retain(|handle| handle.kind == Some(kind) && handle.name == name);
        let counting = {
            let catalog = self.0.external.read();
            catalog
                .by_name
                .get(&(kind, name.to_owned()))
                .and_then(|i| catalog.entries.get(*i))
                .and_then(|e| e.path.clone())
        };
        handles.sort_by_key(|handle| handle.path != counting);
        handles
    }

    /// Ends every external plugin.
    pub async fn stop(&self) {
        let programs: Vec<Arc<Program>> =
            self.0.external.read().programs.values().map(|(_, program)| Arc::clone(program)).collect();
        let mut ends = tokio::task::JoinSet::new();
        for program in programs {
            ends.spawn(async move { program.stop().await });
        }
        while ends.join_next().await.is_some() {}
    }

    async fn scan(&self) {
        let Some(setup) = &self.0.setup else { return };
        let folders = setup.folders.folders.clone();
        let found = match tokio::task::spawn_blocking(move || discovery::scan(&folders)).await {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "the plugin folders could not be looked through");
                return;
            }
        };
        let mut entries = Vec::new();
        let mut programs = Vec::new();
        let mut data = Vec::new();
        for file in found {
            match file.what {
                What::Wrong(why) => entries.push(broken(file.path, why)),
                What::Data(kind, name, description) => {
                    data.push((kind, file.path.clone()));
                    entries.push(Entry { kind: Some(kind), name, description, ..blank(file.path) });
                }
                What::Program(stamp) => {
                    match setup.folders.admit.as_ref().map_or(Ok(()), |admit| admit(&file.path)) {
                        Ok(()) => programs.push((file.path, stamp)),
                        Err(why) => entries.push(broken(file.path, why)),
                    }
                }
            }
        }
        let answers = discovery::ask_all(programs, &setup.cache, &setup.host).await;
        let before = Arc::clone(&self.0.external.read());
        let mut kept = BTreeMap::new();
        for (path, answer) in answers {
            match answer {
                Err(why) => entries.push(broken(path, why)),
                Ok(known) => {
                    let program = setup.program(&before, &path, &known);
                    for capability in &known.capabilities.capabilities {
                        entries.push(entry(&program, capability));
                    }
                    kept.insert(path, (known, program));
                }
            }
        }
        for hook in self.0.on_scan.read().iter() {
            let scanned = hook(&data);
            for (driver, description) in scanned.drivers {
                self.register_driver(driver, description);
            }
            for (path, why) in scanned.errors {
                if let Some(entry) = entries.iter_mut().find(|e| e.path.as_ref() == Some(&path)) {
                    entry.error = Some(why);
                }
            }
        }
        let catalog = self.sort_out(entries, kept, &setup.folders);
        for entry in catalog.entries.iter() {
            if let (Some(error), Some(path)) = (&entry.error, &entry.path) {
                tracing::warn!(target: "plugin", file = %path.display(), name = entry.name, "plugin not used: it {error}");
            }
        }
        let gone: Vec<Arc<Program>> = before
            .programs
            .iter()
            .filter(|(path, (_, old))| {
                catalog.programs.get(*path).is_none_or(|(_, new)| !Arc::ptr_eq(old, new))
            })
            .map(|(_, (_, program))| Arc::clone(program))
            .collect();
        *self.0.external.write() = Arc::new(catalog);
        self.0.scanned.store(true, Ordering::Release);
        for program in gone {
            tokio::spawn(async move { program.retire().await });
        }
    }

    /// Which of the entries count, by name.
    fn sort_out(
        &self,
        mut entries: Vec<Entry>,
        programs: BTreeMap<PathBuf, (Known, Arc<Program>)>,
        folders: &Folders,
    ) -> Catalog {
        let built_in: Vec<(Kind, String)> =
            self.0.built_in.read().iter().filter_map(|e| Some((e.kind?, e.name.clone()))).collect();
        let mut by_name: HashMap<(Kind, String), usize> = HashMap::new();
        let mut ids: HashMap<(String, Kind, String), PathBuf> = HashMap::new();
        for index in 0..entries.len() {
            let Some(entry) = entries.get(index) else { continue };
            let (Some(kind), true) = (entry.kind, entry.error.is_none()) else { continue };
            let key = (kind, entry.name.clone());
            let label = format!("{kind}/{}", entry.name);
            let path = entry.path.clone().unwrap_or_default();
            let file =
                |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let error = if built_in.contains(&key) && !listed(&folders.overrides, kind, &entry.name) {
                Some(format!(
                    "is skipped: {label} is built in (`plugin.override: [\"{label}\"]` puts it in its place)"
                ))
            } else if let Some(other) = ids.get(&(entry.id.clone(), kind, entry.name.clone())) {
                Some(format!("is skipped: {} has the same id `{}`", other.display(), entry.id))
            } else if let Some(first) =
                by_name.get(&key).and_then(|i| entries.get(*i)).and_then(|e| e.path.clone())
            {
                let preferred = folders.prefer.get(&label).is_some_and(|name| *name == file(&path));
                if preferred {
                    if let Some(loser) = by_name.get(&key).copied().and_then(|i| entries.get_mut(i)) {
                        loser.error = Some(format!(
                            "is skipped: `plugin.prefer` chooses {} for {label}",
                            path.display()
                        ));
                        loser.counts = false;
                    }
                    by_name.remove(&key);
                    None
                } else {
                    Some(format!(
                        "is skipped: {} is {label}, too, and comes first (`plugin.prefer: {{\"{label}\": \"{}\"}}` turns that round)",
                        first.display(),
                        file(&path)
                    ))
                }
            } else {
                None
            };
            let Some(entry) = entries.get_mut(index) else { continue };
            match error {
                Some(error) => {
                    entry.error = Some(error);
                    entry.counts = false;
                }
                None => {
                    ids.insert((entry.id.clone(), kind, entry.name.clone()), path);
                    by_name.insert(key, index);
                }
            }
        }
        Catalog { entries, by_name, programs }
    }
}

impl Setup {
    /// The program of that file: the one that runs when the file has not changed.
    fn program(&self, before: &Catalog, path: &Path, known: &Known) -> Arc<Program> {
        let file = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let settings =
            self.folders.settings.get(&file).or_else(|| self.folders.settings.get(&known.capabilities.id));
        if let Some((old, program)) = before.programs.get(path)
            && old.same_file(known)
            && program.settings() == settings
        {
            return Arc::clone(program);
        }
        let cache = Arc::clone(&self.cache);
        let learned: Learned = Arc::new(move |path, form| {
            // Written beside the calls, never before one.
            let (cache, path) = (Arc::clone(&cache), path.to_owned());
            tokio::task::spawn_blocking(move || cache.learn(&path, form));
        });
        Program::new(
            path.to_owned(),
            Arc::clone(&known.capabilities),
            known.form,
            settings.cloned(),
            Arc::clone(&self.host),
            Some(learned),
        )
    }
}

fn listed(list: &[String], kind: Kind, name: &str) -> bool {
    list.iter().any(|item| {
        item.split_once('/').is_some_and(|(k, n)| n == name && k.parse::<Kind>().is_ok_and(|k| k == kind))
    })
}

fn blank(path: PathBuf) -> Entry {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Entry {
        kind: None,
        name,
        id: String::new(),
        version: String::new(),
        description: String::new(),
        features: Vec::new(),
        path: Some(path),
        error: None,
        program: None,
        implementation: Implementation::Listed,
        counts: true,
    }
}

fn broken(path: PathBuf, why: String) -> Entry {
    Entry { error: Some(why), counts: false, ..blank(path) }
}

/// One capability of a program.
fn entry(program: &Arc<Program>, capability: &Capability) -> Entry {
    let said = &program.capabilities;
    let kind = capability.kind.parse::<Kind>().ok().filter(|kind| *kind != Kind::Platform);
    let implementation = match kind {
        None => Err(format!("declares the kind `{}`, which this NetPulse does not know", capability.kind)),
        Some(_) if !discovery::is_name(&capability.name) => Err(format!(
            "declares the name `{}`; a name is of a-z, 0-9 and _ and begins with a letter",
            capability.name
        )),
        Some(kind) => implement(kind, Plugin::new(Arc::clone(program), capability.clone())),
    };
    let (implementation, error) = match implementation {
        Ok(implementation) => (implementation, None),
        Err(why) => (Implementation::Listed, Some(why)),
    };
    Entry {
        kind,
        name: capability.name.clone(),
        id: said.id.clone(),
        version: said.version.clone(),
        description: said.description.clone(),
        features: capability.features.clone(),
        counts: error.is_none(),
        error,
        program: Some(Arc::clone(program)),
        implementation,
        ..blank(program.path.clone())
    }
}

fn implement(kind: Kind, plugin: Plugin) -> Result<Implementation, String> {
    Ok(match kind {
        Kind::Driver => Implementation::Driver(Arc::new(ExternalDriver::new(plugin)?)),
        Kind::TemplateRenderer | Kind::TemplateParser => {
            Implementation::Template(Arc::new(ExternalTemplate::new(plugin)?))
        }
        Kind::Scheduler => Implementation::Scheduler(Arc::new(External::new(plugin, kind)?)),
        Kind::Webhook => Implementation::Webhook(Arc::new(External::new(plugin, kind)?)),
        Kind::Credential => Implementation::Credential(Arc::new(External::new(plugin, kind)?)),
        Kind::Provider => Implementation::Provider(Arc::new(External::new(plugin, kind)?)),
        Kind::Input | Kind::Assistant => Implementation::Processor(Arc::new(External::new(plugin, kind)?)),
        Kind::Check => Implementation::Check(Arc::new(External::new(plugin, kind)?)),
        Kind::Output => Implementation::Output(Arc::new(External::new(plugin, kind)?)),
        Kind::Platform => return Err("declares a platform, which is a file and no program".to_owned()),
    })
}
