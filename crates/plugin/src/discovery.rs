//! Finding plugins: files in folders, what they say they are, and a cache of that.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use netpulse_model::plugin::{Capabilities, Capability, Kind, StartForm};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::sync::Semaphore;

use crate::host::HostSettings;
use crate::host::logs::{self, Voice};
use crate::host::spawn::{Ended, Running};
use crate::host::start;

/// For `capabilities` to be printed.
pub const LIMIT: Duration = Duration::from_secs(5);
/// Bytes that they may have.
const MAX_CAPABILITIES: u64 = 1024 * 1024;
/// Files asked at a time.
const AT_ONCE: usize = 4;
/// Folders below folders.
const DEPTH: usize = 8;
/// Files looked at in one scan.
const FILES: usize = 10_000;

/// A file by what tells one version of it from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    size: u64,
    modified: i128,
    inode: u64,
}

impl Stamp {
    fn of(meta: &std::fs::Metadata) -> Self {
        let modified = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        Self { size: meta.size(), modified, inode: meta.ino() }
    }
}

/// What a scan found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) what: What,
}

/// What a file is.
#[derive(Debug)]
pub(crate) enum What {
    /// A program to be asked.
    Program(Stamp),
    /// Data: its kind, name and sentence.
    Data(Kind, String, String),
    /// Something that should be a plugin and cannot be used.
    Wrong(String),
}

/// Looks through folders. Blocking: for a thread of its own.
pub(crate) fn scan(folders: &[PathBuf]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for folder in folders {
        walk(folder, 0, &mut seen, &mut found);
    }
    // The same order everywhere: by file name, then by path.
    found.sort_by(|a, b| (a.path.file_name(), &a.path).cmp(&(b.path.file_name(), &b.path)));
    found
}

fn walk(folder: &Path, depth: usize, seen: &mut std::collections::BTreeSet<PathBuf>, found: &mut Vec<Found>) {
    let wrong = |why: String| Found { path: folder.to_owned(), what: What::Wrong(why) };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return found.push(wrong(format!("the folder cannot be read: {error}"))),
    };
    match std::fs::metadata(folder) {
        Ok(meta) if !trusted(&meta) => {
            return found.push(wrong(
                "the folder belongs to another user, or everybody may write into it".to_owned(),
            ));
        }
        Ok(_) => {}
        Err(error) => return found.push(wrong(format!("the folder cannot be looked at: {error}"))),
    }
    for entry in entries {
        let Ok(entry) = entry else { continue };
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if hidden || found.len() >= FILES || !seen.insert(path.clone()) {
            continue;
        }
        // Links count as what they lead to.
        let meta = match std::fs::metadata(&path) {
            Ok(meta) => meta,
            Err(error) => {
                found.push(Found { path, what: What::Wrong(format!("cannot be looked at: {error}")) });
                continue;
            }
        };
        if meta.is_dir() {
            if depth < DEPTH {
                walk(&path, depth + 1, seen, found);
            }
        } else if meta.is_file()
            && let Some(what) = look(&path, &meta)
        {
            found.push(Found { path, what });
        }
    }
}

/// Whether only we and root can have written it.
fn trusted(meta: &std::fs::Metadata) -> bool {
    let own = rustix::process::geteuid().as_raw();
    (meta.uid() == own || meta.uid() == 0) && meta.mode() & 0o002 == 0
}

/// What a file is; none when it is not for us.
fn look(path: &Path, meta: &std::fs::Metadata) -> Option<What> {
    let Some(extension) = path.extension() else {
        if meta.mode() & 0o111 == 0 {
            return None;
        }
        if !trusted(meta) {
            let why = "belongs to another user, or everybody may write it: it is not run (chown, chmod o-w)";
            return Some(What::Wrong(why.to_owned()));
        }
        return Some(What::Program(Stamp::of(meta)));
    };
    let read = || std::fs::read_to_string(path).map_err(|e| What::Wrong(format!("cannot be read: {e}")));
    match extension.to_str()? {
        "yaml" | "yml" => match read() {
            Ok(text) => platform(&text),
            Err(wrong) => Some(wrong),
        },
        "toml" => match read() {
            Ok(text) => check(path, &text),
            Err(wrong) => Some(wrong),
        },
        _ => None,
    }
}

/// A YAML file that describes a device platform.
fn platform(text: &str) -> Option<What> {
    #[derive(Deserialize)]
    struct Head {
        name: Option<String>,
        description: Option<String>,
        verified: Option<String>,
    }
    let head: Head = match yaml_serde::from_str(text) {
        Ok(head) => head,
        Err(error) => return Some(What::Wrong(format!("is no platform file: {error}"))),
    };
    // Other tools keep YAML in such folders, too.
    head.verified.as_ref()?;
    Some(What::Data(Kind::Platform, head.name?, head.description.unwrap_or_default()))
}

/// A check without code: a manifest beside a `.rego` file.
fn check(path: &Path, text: &str) -> Option<What> {
    let mut section = "";
    let (mut name, mut description) = (None, String::new());
    for line in text.lines().map(str::trim) {
        if let Some(inner) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = inner.trim();
        } else if let (true, Some((key, value))) = (section == "info", line.split_once('=')) {
            let value = value.trim().trim_matches(['"', '\'']).to_owned();
            match key.trim() {
                "name" => name = Some(value),
                "description" => description = value,
                _ => {}
            }
        }
    }
    let name = name?;
    let beside = path.parent().and_then(|folder| std::fs::read_dir(folder).ok());
    let rego =
        beside.into_iter().flatten().flatten().any(|e| e.path().extension().is_some_and(|e| e == "rego"));
    if !rego {
        return Some(What::Wrong(format!("the manifest of the check `{name}` has no .rego file beside it")));
    }
    Some(What::Data(Kind::Check, name, description))
}

/// What one program says it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Known {
    stamp: Stamp,
    pub(crate) capabilities: Arc<Capabilities>,
    #[serde(default)]
    pub(crate) form: Option<StartForm>,
}

impl Known {
    /// Whether both are of the same version of a file.
    pub(crate) fn same_file(&self, other: &Self) -> bool {
        self.stamp == other.stamp && self.capabilities == other.capabilities
    }
}

/// The answers of earlier scans, kept in a file.
pub(crate) struct Cache {
    file: Option<PathBuf>,
    known: Mutex<BTreeMap<PathBuf, Known>>,
}

impl Cache {
    /// The cache in that file; an unreadable one counts as empty.
    pub(crate) fn open(file: Option<PathBuf>) -> Self {
        let known = file
            .as_ref()
            .and_then(|file| std::fs::read(file).ok())
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self { file, known: Mutex::new(known) }
    }

    fn get(&self, path: &Path, stamp: Stamp) -> Option<Known> {
        self.known.lock().get(path).filter(|known| known.stamp == stamp).cloned()
    }

    /// Remembers which start form worked.
    pub(crate) fn learn(&self, path: &Path, form: StartForm) {
        if let Some(known) = self.known.lock().get_mut(path) {
            known.form = Some(form);
        }
        self.save();
    }

    fn save(&self) {
        let Some(file) = &self.file else { return };
        let written =
            serde_json::to_vec(&*self.known.lock()).map_err(std::io::Error::other).and_then(|bytes| {
                let folder = file.parent().unwrap_or(Path::new("."));
                let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
                temporary.write_all(&bytes)?;
                temporary.persist(file).map_err(|e| e.error)?;
                Ok(())
            });
        if let Err(error) = written {
            tracing::warn!(file = %file.display(), %error, "the cache of plugins cannot be written; the next start asks them again");
        }
    }
}

/// Asks every program what it is, from the cache where its file has not changed.
pub(crate) async fn ask_all(
    programs: Vec<(PathBuf, Stamp)>,
    cache: &Cache,
    host: &Arc<HostSettings>,
) -> Vec<(PathBuf, Result<Known, String>)> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = Vec::new();
    let mut fresh = false;
    for (path, stamp) in programs {
        if let Some(known) = cache.get(&path, stamp) {
            tasks.push((path, Err(known)));
            continue;
        }
        fresh = true;
        let (turns, host, file) = (Arc::clone(&turns), Arc::clone(host), path.clone());
        let task = tokio::spawn(async move {
            let _turn = turns.acquire().await;
            let capabilities = capabilities(&file, &host).await?;
            Ok::<_, String>(Known { stamp, form: capabilities.start, capabilities: Arc::new(capabilities) })
        });
        tasks.push((path, Ok(task)));
    }
    let mut answers = Vec::with_capacity(tasks.len());
    for (path, task) in tasks {
        let answer = match task {
            Err(known) => Ok(known),
            Ok(task) => task.await.unwrap_or_else(|error| Err(format!("could not be asked: {error}"))),
        };
        answers.push((path, answer));
    }
    let known: BTreeMap<PathBuf, Known> = answers
        .iter()
        .filter_map(|(path, answer)| Some((path.clone(), answer.as_ref().ok()?.clone())))
        .collect();
    let gone = {
        let mut now = cache.known.lock();
        let gone = now.len() != known.len();
        *now = known;
        gone
    };
    if fresh || gone {
        cache.save();
    }
    answers
}

/// Runs `<file> capabilities`.
///
/// # Errors
/// A sentence without a subject.
pub(crate) async fn capabilities(path: &Path, host: &HostSettings) -> Result<Capabilities, String> {
    let arguments = ["capabilities".to_owned()];
    let (running, stdout, stderr) =
        Running::spawn(&host.guard, None, host.max_memory, path, &arguments, &host.environment)
            .map_err(|e| format!("cannot be run: {e}"))?;
    // Dropped at the end: whatever of it still runs is killed.
    let (waiting, _leash) = running.split();
    let voice = Voice::new(&path.display().to_string());
    let logs = tokio::spawn(logs::drain_stderr(BufReader::new(stderr), Arc::clone(&voice)));
    let asked = async {
        let mut text = Vec::new();
        let mut limited = stdout.take(MAX_CAPABILITIES + 1);
        limited.read_to_end(&mut text).await.map_err(|e| format!("its capabilities cannot be read: {e}"))?;
        if text.len() as u64 > MAX_CAPABILITIES {
            return Err(format!("prints capabilities of more than {MAX_CAPABILITIES} bytes"));
        }
        Ok((text, waiting.ended().await))
    };
    let (text, ended) = tokio::time::timeout(LIMIT, asked)
        .await
        .map_err(|_| format!("did not print its capabilities within {} s", LIMIT.as_secs()))??;
    // What it said is there when it has ended.
    let _ = tokio::time::timeout(logs::LAST_LINES, logs).await;
    if ended != Ended::Exit(0) {
        return Err(format!("{ended} when asked for its capabilities{}", voice.last_words()));
    }
    let mut read: Capabilities = serde_json::from_slice(&text)
        .map_err(|e| format!("prints capabilities that are no JSON of the contract: {e}"))?;
    if read.capabilities.is_empty() {
        read.capabilities = older(&read.by_type);
    }
    check_capabilities(&read)?;
    Ok(read)
}

/// The older form: name to kinds.
fn older(by_type: &BTreeMap<String, Vec<String>>) -> Vec<Capability> {
    let pairs = by_type.iter().flat_map(|(name, kinds)| kinds.iter().map(move |kind| (name, kind)));
    pairs
        .map(|(name, kind)| Capability { kind: kind.clone(), name: name.clone(), ..Capability::default() })
        .collect()
}

fn check_capabilities(read: &Capabilities) -> Result<(), String> {
    start::contract(&read.contract)?;
    for (field, value) in [("id", &read.id), ("version", &read.version)] {
        if value.trim().is_empty() {
            return Err(format!("its capabilities have no `{field}`"));
        }
    }
    if read.capabilities.is_empty() {
        return Err("declares no capability".to_owned());
    }
    Ok(())
}

/// Whether that is a plugin's name.
pub(crate) fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_told_from_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("acme.yaml", "name: acme_os\ndescription: Acme\nverified: facts\n");
        write("other.yaml", "services: []\n");
        write("broken.yaml", "name: [\n");
        write("check.toml", "[info]\nname = \"ntp\"\ndescription = \"NTP is set\"\n");
        write("ntp.rego", "package ntp\n");
        write("README.md", "text");
        write("data", "not executable");
        let found = scan(&[folder.path().to_owned(), folder.path().join("missing")]);
        let names: Vec<String> = found
            .iter()
            .map(|f| match &f.what {
                What::Data(kind, name, _) => format!("{kind}/{name}"),
                What::Program(_) => "program".to_owned(),
                What::Wrong(why) => format!("wrong: {why}"),
            })
            .collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(names[0], "platform/acme_os");
        assert!(names[1].starts_with("wrong: is no platform file"), "{names:?}");
        assert_eq!(names[2], "check/ntp");
    }

    #[test]
    fn d9_a_file_that_others_may_write_is_not_run() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("open");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        let found = scan(&[folder.path().to_owned()]);
        assert!(
            matches!(&found[0].what, What::Wrong(why) if why.contains("everybody may write")),
            "{found:?}"
        );
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        assert!(matches!(scan(&[folder.path().to_owned()])[0].what, What::Program(_)));
    }

    #[test]
    fn names_are_lower_case_words() {
        assert!(
            is_name("acme_2") && !is_name("2acme") && !is_name("Acme") && !is_name("") && !is_name("a-b")
        );
    }
}
