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
        let names = index.find(&attributes(platform)).or_else(|| {
            platform.contains("cisco_xe").then(|| index.find(&attributes("cisco_ios"))).flatten()
        });
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

/// The text of a ttp-templates template for a platform and command.
///
/// # Errors
/// `template_not_found` when the package or the template is missing.
pub fn ttp_template(
    candidates: &[PathBuf],
    platform: &str,
    command: &str,
    template_bytes: usize,
) -> Result<String, TemplateError> {
    let name = format!("{platform}_{command}").to_lowercase().replace('|', "pipe").replace([' ', '/'], "_");
    let missing = |message: String| TemplateError::new("ttp", code::NOT_FOUND, message);
    if !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) {
        return Err(missing(format!("'{platform}' and '{command}' name no template")));
    }
    let relative = format!("ttp_templates/platform/{name}.txt");
    let found = candidates
        .iter()
        .flat_map(|dir| {
            [dir.join(&relative), dir.join(format!("platform/{name}.txt")), dir.join(format!("{name}.txt"))]
        })
        .find(|path| path.is_file())
        .or_else(|| python_packages(&relative))
        .ok_or_else(|| {
            missing(format!(
                "no ttp-templates template 'platform/{name}.txt' was found; install ttp-templates"
            ))
        })?;
    read_bounded(&found, template_bytes)
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
