//! From a reference to a program in the folder of plugins, with every check before it is run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use netpulse_model::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::descriptor::Resource;
use super::digest::Digest;
use super::error::{InstallError, Result, Trouble, blocking};
use super::local::{Local, check};
use super::lock::{Entry, Lock, PinnedResource, Verdict};
use super::media::{self, Limits};
use super::reference::{Reference, Repository, Target};
use super::registry::Asking;
use super::select::{self, Wanted};
use super::signature::{ARTIFACT_DIGEST, BLOB_DIGEST, SHA256, Trust};
use super::stage::{Guard, Partial};
use super::store::{Located, Store, Watch};
use super::unpack::{Program, unpack};
use super::{platform, probe};

/// What to install, where to, and whom to believe.
#[derive(Debug, Clone)]
pub struct Order {
    /// What.
    pub target: Target,
    /// Which of its resources.
    pub wanted: Wanted,
    /// The folder of plugins.
    pub folder: PathBuf,
    /// The file's name; by default the last part of the component's.
    pub name: Option<String>,
    /// Whom to believe.
    pub trust: Trust,
    /// Whether it is asked for its capabilities.
    pub validate: bool,
    /// How long it may take to answer.
    pub patience: Duration,
    /// How registries are asked.
    pub asking: Asking,
    /// How large things may be.
    pub limits: Limits,
}

impl Order {
    /// An order with everything usual.
    #[must_use]
    pub fn new(target: Target, folder: PathBuf) -> Self {
        Self {
            target,
            wanted: Wanted::default(),
            folder,
            name: None,
            trust: Trust::default(),
            validate: true,
            patience: probe::PATIENCE,
            asking: Asking::default(),
            limits: Limits::default(),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is new.
    Installed,
    /// It stands in place of another version, or of a file that was changed.
    Replaced,
    /// It was there already.
    Unchanged,
}

/// What was installed.
#[derive(Debug, Clone, Serialize)]
pub struct Installed {
    /// Its name, which is its file's.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// Where it came from.
    pub source: String,
    /// The type of the resource, or `file`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What identifies the resource.
    pub identity: BTreeMap<String, String>,
    /// The file.
    pub location: PathBuf,
    /// The digest of the file.
    pub sha256: Digest,
    /// Whose signature was found good.
    pub signer: Option<String>,
    /// What happened.
    pub change: Change,
    /// The version that stood there before.
    pub replaced: Option<String>,
    /// What a person should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What is known of a program before its bytes are here.
struct Origin {
    source: String,
    version: String,
    resource: Option<PinnedResource>,
    signer: Option<String>,
    warnings: Vec<String>,
}

/// Installs a plugin: finds it, checks it, puts it in its place at once, and notes it in the lock.
/// The same version again changes nothing.
///
/// # Errors
/// Anything on the way; then the folder is as it was.
pub async fn install(order: &Order, watch: Arc<dyn Watch>) -> Result<Installed> {
    match single(order).await? {
        Place::Component(reference) => component(order, &reference, watch).await,
        Place::Program(path) => program(order, &path).await,
    }
}

enum Place {
    Component(Reference),
    Program(PathBuf),
}

/// A path may be a program, or an archive with one component version.
async fn single(order: &Order) -> Result<Place> {
    let path = match &order.target {
        Target::Component(reference) => return Ok(Place::Component(reference.clone())),
        Target::Path(path) => path.clone(),
    };
    let limits = order.limits;
    let shown = path.clone();
    let archive = blocking(move || {
        let about = std::fs::metadata(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                InstallError::new(Trouble::NotFound, format!("{}: no such file or folder", path.display()))
                    .hint("a component is written <repository>//<component>:<version>")
            }
            _ => InstallError::file("cannot be read", &path, &e),
        })?;
        match Local::open(&path, limits) {
            Ok(local) => Ok(Some(local)),
            // A program, or a program in an archive of its own.
            Err(_) if about.is_file() && !looks_like_archive(&path) => Ok(None),
            Err(error) => Err(error),
        }
    })
    .await?;
    let Some(local) = archive else { return Ok(Place::Program(shown)) };
    let all: Vec<(String, String)> =
        local.components().map(|(name, version)| (name.to_owned(), version)).collect();
    match all.as_slice() {
        [(component, version)] => Ok(Place::Component(Reference {
            repository: Repository::Archive(shown),
            component: component.clone(),
            version: Some(version.clone()),
            digest: None,
        })),
        [] => Err(InstallError::new(
            Trouble::NotFound,
            format!("{}: the archive has no component version", shown.display()),
        )),
        several => {
            let names: Vec<String> = several
                .iter()
                .map(|(name, version)| format!("{}//{name}:{version}", shown.display()))
                .collect();
            let what = format!("{}: the archive has {} component versions", shown.display(), names.len());
            Err(InstallError::new(Trouble::BadInput, what).hint(format!("name one of: {}", names.join(", "))))
        }
    }
}

fn looks_like_archive(path: &Path) -> bool {
    let name = path.to_string_lossy();
    [".ctf"].iter().any(|suffix| name.ends_with(suffix))
}

async fn component(order: &Order, reference: &Reference, watch: Arc<dyn Watch>) -> Result<Installed> {
    let (os, architecture) = (platform::os(), platform::architecture());
    let reference = &absolute(reference);
    let store = Store::open(&reference.repository, &order.asking, order.limits).await?;
    let found = store.find(reference, order.limits).await?;
    let (resource, mut warnings) =
        select::choose(&found.descriptor.component, &order.wanted, os, architecture)?;
    let (signer, about_trust) = order.trust.check(&found.descriptor, resource)?;
    warnings.extend(about_trust);
    let asked =
        |name: &str, own: &str| resource.extra_identity.get(name).cloned().unwrap_or_else(|| own.to_owned());
    let (os, architecture) = (asked(platform::OS, os), asked(platform::ARCHITECTURE, architecture));
    let located = store.locate(&found, &resource.access, (&os, &architecture), order.limits).await?;
    check_resource(resource, &located)?;

    let base = found.reference.component.rsplit('/').next().unwrap_or_default();
    let name = file_name(order, base)?;
    let origin = Origin {
        source: found.reference.to_string(),
        version: found.descriptor.component.version.clone(),
        resource: Some(PinnedResource {
            component: found.reference.component.clone(),
            name: resource.name.clone(),
            version: resource.version.clone(),
            kind: resource.kind.clone(),
            identity: resource.extra_identity.clone(),
            blob: located.blob.digest,
        }),
        signer,
        warnings,
    };
    let guard = guard(&order.folder).await?;
    let lock = read_lock(&order.folder).await?;
    if let Some(same) = settled(order, &lock, &name, &origin).await? {
        return Ok(same);
    }
    let blob = Partial::new(&order.folder, &name)?;
    let blob = located.fetch(blob, watch, order.limits).await?;
    let (folder, title, limits) = (order.folder.clone(), name.clone(), order.limits);
    let program = blocking(move || unpack(blob, &located.media_type, &folder, &title, limits)).await?;
    let installed = place(order, lock, name, program, origin).await;
    drop(guard);
    installed
}

/// An archive's whole path: the lock must still say where a plugin came from tomorrow.
fn absolute(reference: &Reference) -> Reference {
    let mut reference = reference.clone();
    if let Repository::Archive(path) = &mut reference.repository
        && let Ok(whole) = std::path::absolute(&*path)
    {
        *path = whole.components().collect();
    }
    reference
}

/// A file of this machine: nobody vouches for it, and its version is what it says itself.
async fn program(order: &Order, path: &Path) -> Result<Installed> {
    if order.trust.required() {
        let what = format!(
            "{}: a plain file carries no signature, and plugin.require_signature is on",
            path.display()
        );
        return Err(InstallError::new(Trouble::Untrusted, what)
            .hint("`netpulse plugin pack --sign` makes a signed archive of it"));
    }
    let stem = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let stem = [".tar.gz", ".tgz", ".tar", ".gz"]
        .iter()
        .find_map(|suffix| stem.strip_suffix(suffix))
        .unwrap_or(&stem);
    let name = file_name(order, stem)?;
    let source = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let guard = guard(&order.folder).await?;
    let lock = read_lock(&order.folder).await?;
    let mut blob = Partial::new(&order.folder, &name)?;
    let (folder, title, limits, from) = (order.folder.clone(), name.clone(), order.limits, source.clone());
    let program = blocking(move || {
        let file = std::fs::File::open(&from).map_err(|e| InstallError::file("cannot be read", &from, &e))?;
        let mut limited = std::io::Read::take(file, limits.blob + 1);
        let copied = std::io::copy(&mut limited, blob.file()?).map_err(|e| blob.failed(&e))?;
        if copied > limits.blob {
            let what = format!("{}: larger than the {} bytes allowed", from.display(), limits.blob);
            return Err(InstallError::new(Trouble::BadContent, what));
        }
        unpack(blob, media::OCTETS, &folder, &title, limits)
    })
    .await?;
    let origin = Origin {
        source: source.display().to_string(),
        version: String::new(),
        resource: None,
        signer: None,
        warnings: Vec::new(),
    };
    let installed = place(order, lock, name, program, origin).await;
    drop(guard);
    installed
}

/// The digest that the descriptor states must be the one of the blob: a signature covers that.
fn check_resource(resource: &Resource, located: &Located) -> Result<()> {
    let Some(spec) = &resource.digest else { return Ok(()) };
    let found = match spec.normalisation_algorithm.as_str() {
        BLOB_DIGEST => Some(located.blob.digest),
        ARTIFACT_DIGEST => located.artifact,
        // Another form is no hash of these bytes, so it says nothing here.
        _ => None,
    };
    let Some(found) = found else { return Ok(()) };
    let what = format!("the digest of resource {}", resource.name);
    if spec.hash_algorithm != SHA256 {
        return Err(InstallError::new(
            Trouble::BadContent,
            format!("{what} is of kind `{}`: only {SHA256} is understood", spec.hash_algorithm),
        ));
    }
    let expected = Digest::from_hex(&spec.value)
        .map_err(|why| InstallError::new(Trouble::BadContent, format!("{what} is wrong: {why}")))?;
    check(&format!("resource {}", resource.name), &expected, &found)
}

/// A plugin's file has no extension: with one it would not be taken for a plugin.
fn file_name(order: &Order, base: &str) -> Result<String> {
    let name = match &order.name {
        Some(name) => name.clone(),
        None => base.replace('.', "-"),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 100 || !name.chars().all(plain) {
        let what =
            format!("`{name}` cannot be the name of a plugin's file: letters, digits, `-` and `_` can");
        return Err(InstallError::new(Trouble::BadInput, what));
    }
    Ok(name)
}

async fn guard(folder: &Path) -> Result<Guard> {
    let folder = folder.to_owned();
    blocking(move || Guard::take(&folder)).await
}

async fn read_lock(folder: &Path) -> Result<Lock> {
    let folder = folder.to_owned();
    blocking(move || Lock::read(&folder)).await
}

/// Whether the very same is there already; or something that must not be written over.
async fn settled(order: &Order, lock: &Lock, name: &str, origin: &Origin) -> Result<Option<Installed>> {
    let path = order.folder.join(name);
    let Some(entry) = lock.get(name) else {
        if path.exists() {
            let what = format!("{}: a file that was not installed is in the way", path.display());
            return Err(InstallError::new(Trouble::InTheWay, what)
                .hint(format!("move it away, or keep it with `netpulse plugin verify --accept {name}`")));
        }
        return Ok(None);
    };
    let owner =
        |resource: &Option<PinnedResource>| resource.as_ref().map(|resource| resource.component.clone());
    let (old, new) = (owner(&entry.resource), owner(&origin.resource));
    if old != new {
        let what = format!("{}: a plugin of another origin has this name: {}", path.display(), entry.source);
        return Err(InstallError::new(Trouble::InTheWay, what)
            .hint(format!("`netpulse plugin remove {name}` first, or choose another name with --name")));
    }
    let same =
        origin.resource.is_some() && entry.resource == origin.resource && entry.version == origin.version;
    if !same || entry.accepted || entry.signer != origin.signer {
        return Ok(None);
    }
    let (checking, file) = (lock.clone(), path.clone());
    if blocking(move || Ok(checking.check(&file))).await? != Verdict::Unchanged {
        return Ok(None);
    }
    Ok(Some(report(name, path, entry, Change::Unchanged, None, origin.warnings.clone())))
}

fn for_another_machine(resource: &PinnedResource) -> bool {
    let is = |name: &str, own: &str| resource.identity.get(name).is_none_or(|value| value == own);
    let architecture =
        is(platform::ARCHITECTURE, platform::architecture()) && is("arch", platform::architecture());
    !(is(platform::OS, platform::os()) && architecture)
}

/// Asks the program what it can do while nobody else can see it, then puts it in its place.
async fn place(
    order: &Order,
    mut lock: Lock,
    name: String,
    program: Program,
    mut origin: Origin,
) -> Result<Installed> {
    if order.validate {
        let answer = probe::capabilities(program.file.path(), &name, order.patience).await;
        let answer =
            answer.map_err(|error| match origin.resource.as_ref().is_some_and(for_another_machine) {
                true => {
                    error.hint("it is for another platform than this: --skip-validation installs it unseen")
                }
                false => error,
            })?;
        if origin.version.is_empty() {
            origin.version = answer.get("version").and_then(Value::as_str).unwrap_or_default().to_owned();
        }
    }
    if origin.resource.is_none() {
        settled(order, &lock, &name, &origin).await?;
    }
    let path = order.folder.join(&name);
    let old = lock.get(&name).cloned();
    if let Some(old) =
        old.as_ref().filter(|old| origin.resource.is_none() && old.sha256 == program.digest && !old.accepted)
    {
        let (checking, file) = (lock.clone(), path.clone());
        if blocking(move || Ok(checking.check(&file))).await? == Verdict::Unchanged {
            return Ok(report(&name, path, old, Change::Unchanged, None, origin.warnings));
        }
    }
    let entry = Entry {
        sha256: program.digest,
        source: origin.source,
        version: origin.version,
        resource: origin.resource,
        installed_at: Timestamp::now(),
        signer: origin.signer,
        accepted: false,
    };
    let (target, noted, title) = (path.clone(), entry.clone(), name.clone());
    blocking(move || {
        // The lock first: cut off in between, a file that does not fit its entry is refused, while
        // a file without one would count as put there by hand.
        let before = lock.clone();
        lock.insert(&title, noted);
        lock.write()?;
        program.file.finish(&target).inspect_err(|_| {
            if let Err(error) = before.write() {
                tracing::error!(%error, "the lock could not be set back");
            }
        })
    })
    .await?;
    let change = if old.is_some() { Change::Replaced } else { Change::Installed };
    let replaced = old.map(|old| old.version).filter(|old| !old.is_empty() && *old != entry.version);
    Ok(report(&name, path, &entry, change, replaced, origin.warnings))
}

fn report(
    name: &str,
    location: PathBuf,
    entry: &Entry,
    change: Change,
    replaced: Option<String>,
    warnings: Vec<String>,
) -> Installed {
    let resource = entry.resource.as_ref();
    let mut identity = resource.map(|resource| resource.identity.clone()).unwrap_or_default();
    if let Some(resource) = resource {
        identity.insert("name".into(), resource.name.clone());
        identity.insert("version".into(), resource.version.clone());
    }
    Installed {
        plugin: name.to_owned(),
        version: entry.version.clone(),
        source: entry.source.clone(),
        kind: resource.map_or_else(|| "file".to_owned(), |resource| resource.kind.clone()),
        identity,
        location,
        sha256: entry.sha256,
        signer: entry.signer.clone(),
        change,
        replaced,
        warnings,
    }
}
