//! Folders with plugins in them, made as users make them.

use std::path::{Path, PathBuf};
use std::process::Command;

use netpulse_plugin::{Folders, GuardProgram, HostSettings, Kind, Plugins};
use serde_json::Value;

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A folder of plugins, gone at the end.
pub struct Folder(pub tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A plugin in Python, by `plugins/build-python`.
    pub fn python(self, source: &str, name: &str, python: Option<&str>) -> Self {
        let mut command = Command::new(root().join("plugins/build-python"));
        command.arg(root().join(source)).arg(self.path().join(name)).args(python);
        run(&mut command);
        self
    }

    /// A file that is a plugin as it is.
    pub fn file(self, source: &Path, name: &str) -> Self {
        let target = self.path().join(name);
        std::fs::copy(source, &target).unwrap();
        run(Command::new("chmod").arg("755").arg(&target));
        self
    }

    /// The plugin in Rust, by cargo.
    pub fn tables(self) -> Self {
        let output = run(Command::new(env!("CARGO"))
            // The workspace's features are those of the test run: nothing is built twice.
            .args(["build", "--quiet", "--workspace", "--bin", "tables", "--message-format", "json"])
            .current_dir(root()));
        let made = output
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .expect("cargo names the program");
        self.file(&made, "tables")
    }

    /// The server's configuration for it.
    pub fn config(&self, settings: &Value) -> String {
        let mut texts = serde_json::Map::new();
        for (name, value) in settings.as_object().unwrap() {
            texts.insert(name.clone(), Value::from(value.to_string()));
        }
        format!("plugin: {{directory: {}, config: {}}}", self.path().display(), Value::Object(texts))
    }

    /// The plugin host itself, for kinds that are asked from within.
    pub fn host(&self, settings: &Value) -> Plugins {
        let folders = Folders {
            folders: vec![self.path().to_path_buf()],
            settings: settings.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            ..Folders::default()
        };
        let guard = GuardProgram {
            program: env!("CARGO_BIN_EXE_netpulse").into(),
            arguments: vec!["plugin-guard".into()],
        };
        Plugins::new(folders, HostSettings::new(guard))
    }
}

/// What `netpulse plugin doctor` says of every plugin in a folder: all is well.
pub fn doctor(folder: &Folder) {
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let file = entry.unwrap().path();
        let output = Command::new(env!("CARGO_BIN_EXE_netpulse"))
            .args(["plugin", "doctor"])
            .arg(&file)
            .output()
            .unwrap();
        let (said, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}:\n{said}\n{error}", file.display());
    }
}

/// One thing of the host, or what it said instead.
pub async fn found(plugins: &Plugins, kind: Kind, name: &str) -> netpulse_plugin::Implementation {
    match plugins.find(kind, name).await {
        Some(found) => found,
        None => panic!("no {kind:?} {name}: {:?}", plugins.list().await),
    }
}

pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The process that runs this file; waits until there is one.
pub fn process_of(file: &Path) -> u32 {
    let wanted = file.to_str().unwrap();
    let mut pid = None;
    super::support::eventually(10, "the plugin running", || {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&str> =
                line.split(|b| *b == 0).filter_map(|w| std::str::from_utf8(w).ok()).collect();
            // The guard names the file too, behind its own name.
            if words.iter().take(2).any(|word| *word == wanted) && words.contains(&"server") {
                pid = Some(id);
            }
        }
        pid.is_some()
    });
    pid.unwrap()
}
