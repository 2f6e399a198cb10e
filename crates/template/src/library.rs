//! Finds installed template collections: ntc-templates and ttp-templates.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::error::{TemplateError, code};
use crate::source::read_bounded;
use crate::textfsm::Index;

/// Most bytes of an index file.
const INDEX_BYTES: usize = 16 << 20;

/// The folder of ntc-templates (where `index` lies), with its index read once per change.
#[derive(Debug)]
pub struct NtcTemplates {
    folder: PathBuf,
    index: Mutex<Option<(SystemTime, Arc<Index>)>>,
    template_bytes: usize,
}

fn with_index(path: &Path) -> Option<PathBuf> {
    [path.to_path_buf(), path.join("templates"), path.join("ntc_templates/templates")]
        .into_iter()
        .find(|dir| dir.join("index").is_file())
}

impl NtcTemplates {
    /// The first of `candidates` that holds an `index`, itself or in `templates/`; then the
    /// installed Python packages. `None` when there is none.
    pub fn find(candidates: &[PathBuf], template_bytes: usize) -> Option<Self> {
        candidates
            .iter()
            .find_map(|path| with_index(path))
            .or_else(|| python_packages("ntc_templates/templates/index")?.parent().map(Path::to_path_buf))
            .map(|folder| Self { folder, index: Mutex::new(None), template_bytes })
    }

    /// The folder in use.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn index(&self) -> Result<Arc<Index>, TemplateError> {
        let path = self.folder.join("index");
        let changed = fs::metadata(&path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        if let Some((then, index)) = &*self.index.lock()
            && *then == changed
        {
            return Ok(Arc::clone(index));
        }
        let index = Arc::new(Index::parse(&read_bounded(&path, INDEX_BYTES)?)?);
        *self.index.lock() = Some((changed, Arc::clone(&index)));
        Ok(index)
    }

    /// The texts of the templates for a platform and command, by the index.
    ///
    /// # Errors
    /// `template_not_found` when no row matches; source errors when a named file is missing.
    pub fn for_command(&self, platform: &str, command: &str) -> Result<Vec<String>, TemplateError> {
        let index = self.index()?;
        let attributes = |platform| [("Command", command), ("Platform", platform)];
        // Netmiko's fallback: IOS XE is parsed by the IOS templates where it has none of its own.
        let mut names = index.find(&attributes(platform))?;
        if names.is_none() && platform.contains("cisco_xe") {
            names = index.find(&attributes("cisco_ios"))?;
        }
        let Some(names) = names else {
            return Err(TemplateError::new(
                "textfsm",
                code::NOT_FOUND,
                format!("No template found for platform '{platform}' and command '{command}'"),
            ));
        };
        names.iter().map(|name| self.by_name(name)).collect()
    }

    /// The text of a template by its file name.
    ///
    /// # Errors
    /// `template_not_found` when the folder has no such file.
    pub fn by_name(&self, name: &str) -> Result<String, TemplateError> {
        let plain = !name.is_empty()
            && !name.starts_with('.')
            && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
        let path = self.folder.join(name);
        if !plain || !path.is_file() {
            return Err(TemplateError::new(
                "textfsm",
                code::NOT_FOUND,
                format!("there is no template '{name}' in {}", self.folder.display()),
            ));
        }
        read_bounded(&path, self.template_bytes)
    }
}

/// The folder of ttp-templates: `platform/`, `misc/` and `yang/` below it.
#[derive(Clone, Debug)]
pub struct TtpTemplates {
    folder: PathBuf,
    template_bytes: usize,
}

/// Folders that make a folder one of ttp-templates.
const TTP_FOLDERS: [&str; 4] = ["platform", "misc", "yang", "get"];

fn not_found(message: String) -> TemplateError {
    TemplateError::new("ttp", code::NOT_FOUND, message)
}

impl TtpTemplates {
    /// The first of `candidates` that holds `platform/`, `misc/`, `yang/` or `get/`, itself or in
    /// `ttp_templates/`; then the installed Python packages. `None` when there is none.
    pub fn find(candidates: &[PathBuf], template_bytes: usize) -> Option<Self> {
        let within = |path: &PathBuf| {
            [path.clone(), path.join("ttp_templates")]
                .into_iter()
                .find(|dir| TTP_FOLDERS.iter().any(|name| dir.join(name).is_dir()))
        };
        candidates
            .iter()
            .find_map(within)
            .or_else(|| python_packages("ttp_templates/__init__.py")?.parent().map(Path::to_path_buf))
            .map(|folder| Self { folder, template_bytes })
    }

    /// The folder in use.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The text of a template by its path below the folder, with or without `ttp://`.
    ///
    /// # Errors
    /// `template_not_found` when there is no such file below the folder, `template_source_failed`
    /// when it cannot be read.
    pub fn by_path(&self, path: &str) -> Result<String, TemplateError> {
        let path = path.trim();
        let path = path.strip_prefix("ttp://").unwrap_or(path);
        let missing = || not_found(format!("there is no template '{path}' in {}", self.folder.display()));
        // Symbolic links and `..` may not lead out of the folder.
        let real = fs::canonicalize(self.folder.join(path)).map_err(|_| missing())?;
        let folder = fs::canonicalize(&self.folder).map_err(|_| missing())?;
        if !real.starts_with(&folder) || !real.is_file() {
            return Err(missing());
        }
        read_bounded(&real, self.template_bytes)
    }

    /// The text of the template that `ttp_template_args` choose: `path`, else `platform` with
    /// `command`, else `platform` with `yang`, else `misc`, in this order as in ttp-templates.
    ///
    /// # Errors
    /// `template_request` when they choose nothing, `template_not_found` when there is no such
    /// template.
    pub fn choose(&self, args: &TtpChoice<'_>) -> Result<String, TemplateError> {
        if let Some(path) = args.path {
            return self.by_path(path);
        }
        if args.get.is_some() {
            return Err(TemplateError::new(
                "ttp",
                code::UNSUPPORTED,
                "ttp_template_args.get: getters sort their input by platform in Python: \
                 use platform and command, misc or path",
            ));
        }
        let path = match *args {
            TtpChoice {
                platform: Some(platform), command: Some(command), yang: None, misc: None, ..
            } => {
                let command = command.to_lowercase().replace('|', "pipe").replace(['"', '\''], "");
                let name = format!("{}_{command}", platform.to_lowercase()).replace([' ', '-'], "_");
                if name.contains(['/', '\\']) {
                    return Err(not_found(format!(
                        "ttp-templates has no template for platform '{platform}' and command '{command}'"
                    )));
                }
                format!("platform/{name}.txt")
            }
            TtpChoice { platform: Some(platform), yang: Some(yang), .. } => {
                format!("yang/{yang}_{platform}.txt").to_lowercase().replace(' ', "_")
            }
            TtpChoice { misc: Some(misc), .. } => format!("misc/{misc}"),
            _ => {
                return Err(TemplateError::new(
                    "ttp",
                    code::REQUEST,
                    "give a template, or ttp_template_args with platform and command, platform and yang, misc or path",
                ));
            }
        };
        self.by_path(&path)
    }
}

/// What chooses one of ttp-templates.
#[derive(Clone, Copy, Debug, Default)]
pub struct TtpChoice<'c> {
    /// Path below the folder, `ttp://...` or not.
    pub path: Option<&'c str>,
    /// Platform, such as `cisco_ios`.
    pub platform: Option<&'c str>,
    /// Command, such as `show version`.
    pub command: Option<&'c str>,
    /// YANG module, with a platform.
    pub yang: Option<&'c str>,
    /// Path below `misc/`.
    pub misc: Option<&'c str>,
    /// A getter; refused.
    pub get: Option<&'c str>,
}

/// The first installed Python package folder that holds `relative`; looks only at the places
/// where Python puts packages and runs nothing.
fn python_packages(relative: &str) -> Option<PathBuf> {
    let mut roots: Vec<PathBuf> = Vec::new();
    for variable in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        roots.extend(std::env::var_os(variable).map(PathBuf::from));
    }
    roots.extend(std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local")));
    roots.extend(["/usr/local", "/usr"].map(PathBuf::from));
    for root in roots {
        for lib in ["lib", "lib64"] {
            let Ok(entries) = fs::read_dir(root.join(lib)) else { continue };
            let mut pythons: Vec<PathBuf> = entries
                .filter_map(Result::ok)
                .map(|e| e.path())
                .filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("python3")))
                .collect();
            pythons.sort();
            for python in pythons.iter().rev() {
                for packages in ["site-packages", "dist-packages"] {
                    let path = python.join(packages).join(relative);
                    if path.is_file() {
                        return Some(path);
                    }
                }
            }
        }
    }
    None
}

/// A bounded map from content to what was compiled of it; the least recently used goes first.
pub(crate) struct Cache<T: ?Sized> {
    entries: HashMap<[u8; 32], (u64, Arc<T>)>,
    clock: u64,
    most: usize,
}

impl<T: ?Sized> Cache<T> {
    pub fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), clock: 0, most }
    }

    pub fn get(&mut self, key: &[u8; 32]) -> Option<Arc<T>> {
        self.clock += 1;
        let clock = self.clock;
        let (used, value) = self.entries.get_mut(key)?;
        *used = clock;
        Some(Arc::clone(value))
    }

    pub fn put(&mut self, key: [u8; 32], value: Arc<T>) {
        if self.most == 0 {
            return;
        }
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            let oldest = self.entries.iter().min_by_key(|(_, (used, _))| *used).map(|(k, _)| *k);
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
        self.clock += 1;
        self.entries.insert(key, (self.clock, value));
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }
}
