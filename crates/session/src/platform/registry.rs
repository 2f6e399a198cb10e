//! Finding a platform by any of its names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use rust_embed::RustEmbed;

use super::schema::{Overlay, PlatformFile, Port, Transports, Verified};
use super::{Pattern, Platform};

#[derive(RustEmbed)]
#[folder = "../../platforms"]
#[include = "*.yaml"]
struct Embedded;

/// A platform file that cannot be used, or a name that nothing has.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlatformError {
    /// A file is wrong.
    #[error("platform file {file}{}: {message}", .line.map(|l| format!(" line {l}")).unwrap_or_default())]
    File {
        /// Which file.
        file: String,
        /// Which line, counted from 1, when it is known.
        line: Option<usize>,
        /// What is wrong with it.
        message: String,
    },
    /// The folder with platform files cannot be read.
    #[error("platform folder {folder}: {message}")]
    Folder {
        /// Which folder.
        folder: String,
        /// Why not.
        message: String,
    },
    /// No platform has this name.
    #[error("no platform is called `{name}`{}; `netpulse platforms` lists all names", suggest(.near))]
    Unknown {
        /// The name asked for.
        name: String,
        /// Names that look like it.
        near: Vec<String>,
    },
    /// The platform is not reached this way.
    #[error("`{name}`: {platform} is not reached by {transport}; {instead}")]
    Transport {
        /// The name asked for.
        name: String,
        /// The platform.
        platform: String,
        /// What the name's ending asks for.
        transport: &'static str,
        /// What would be right.
        instead: String,
    },
}

fn suggest(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(", ")) }
}

/// What carries a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// SSH.
    Ssh,
    /// Telnet.
    Telnet,
}

impl TransportKind {
    /// The word in names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Telnet => "telnet",
        }
    }
}

/// What a `device_type` means.
#[derive(Debug, Clone)]
pub struct Found {
    /// The platform.
    pub platform: Arc<Platform>,
    /// What carries the session.
    pub transport: TransportKind,
    /// The port unless the request says.
    pub port: u16,
}

/// Files that are no platforms, each with what is wrong.
pub type LeftOut = Vec<(PathBuf, PlatformError)>;

/// All platforms by name. Files are read when first asked for, patterns compiled when first used.
#[derive(Debug)]
pub struct Registry {
    files: BTreeMap<String, PlatformFile>,
    origins: BTreeMap<String, String>,
    names: BTreeMap<String, String>,
    built: RwLock<BTreeMap<String, Arc<Platform>>>,
}

impl Registry {
    /// The platforms that are built in.
    ///
    /// # Errors
    /// A built-in file is wrong, which a test rules out.
    pub fn builtin() -> Result<Arc<Self>, PlatformError> {
        static BUILTIN: OnceLock<Result<Arc<Registry>, PlatformError>> = OnceLock::new();
        BUILTIN
            .get_or_init(|| {
                let mut files = Vec::new();
                for path in Embedded::iter() {
                    if let Some(file) = Embedded::get(&path) {
                        files.push((path.to_string(), file.data.into_owned()));
                    }
                }
                Self::from_files(files).map(Arc::new)
            })
            .clone()
    }

    /// The built-in platforms, with the `*.yaml` files of `folder` added or put in their place.
    /// Every pattern of those files is compiled, so that a mistake shows at the start.
    ///
    /// # Errors
    /// The folder cannot be read, or a file is wrong: which, and on which line.
    pub fn with_folder(folder: &Path) -> Result<Arc<Self>, PlatformError> {
        let wrong = |e: std::io::Error| PlatformError::Folder {
            folder: folder.display().to_string(),
            message: e.to_string(),
        };
        let mut own = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
                own.push((path.display().to_string(), std::fs::read(&path).map_err(wrong)?));
            }
        }
        own.sort();
        let mut files = Vec::new();
        for path in Embedded::iter() {
            if let Some(file) = Embedded::get(&path) {
                files.push((path.to_string(), file.data.into_owned()));
            }
        }
        let own_files: Vec<String> = own.iter().map(|(file, _)| file.clone()).collect();
        files.extend(own);
        let registry = Self::from_files(files)?;
        for platform in registry.all()? {
            if own_files.contains(&platform.origin) {
                check_patterns(&platform)?;
            }
        }
        Ok(Arc::new(registry))
    }

    /// As [`Registry::with_folder`], or without a folder, with these files added or put in their
    /// place. A file that is wrong is left out, and told; the others count.
    ///
    /// # Errors
    /// As [`Registry::with_folder`].
    pub fn with_files(
        folder: Option<&Path>,
        files: &[PathBuf],
    ) -> Result<(Arc<Self>, LeftOut), PlatformError> {
        let base = match folder {
            Some(folder) => Self::with_folder(folder)?,
            None => Self::builtin()?,
        };
        let mut wrong = Vec::new();
        let mut registry = Self {
            files: base.files.clone(),
            origins: base.origins.clone(),
            names: base.names.clone(),
            built: RwLock::new(BTreeMap::new()),
        };
        for path in files {
            if let Err(error) = registry.add(path) {
                wrong.push((path.clone(), error));
            }
        }
        Ok((Arc::new(registry), wrong))
    }

    /// Adds one file, or changes nothing.
    fn add(&mut self, path: &Path) -> Result<(), PlatformError> {
        let file = path.display().to_string();
        let wrong = |message: String| PlatformError::File { file: file.clone(), line: None, message };
        let content = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
        let read = read(&file, &content)?;
        let name = read.name.clone().unwrap_or_default();
        let before = (self.files.clone(), self.origins.clone(), self.names.clone());
        self.names.retain(|_, platform| *platform != name);
        let taken = std::iter::once(&name).chain(read.aliases.iter().flatten()).find_map(|alias| {
            let other = self.names.insert(alias.clone(), name.clone())?;
            (other != name).then(|| wrong(format!("the name `{alias}` is taken by `{other}` already")))
        });
        self.files.insert(name.clone(), read);
        self.origins.insert(name.clone(), file.clone());
        let checked = match taken {
            Some(error) => Err(error),
            None => self.build(&name).and_then(|platform| check_patterns(&platform)),
        };
        if checked.is_err() {
            (self.files, self.origins, self.names) = before;
        }
        checked
    }

    /// The platforms of these files (path and content); a later file replaces an earlier one of
    /// the same name.
    ///
    /// # Errors
    /// As [`Registry::with_folder`].
    pub fn from_files(files: Vec<(String, Vec<u8>)>) -> Result<Self, PlatformError> {
        let mut registry = Self {
            files: BTreeMap::new(),
            origins: BTreeMap::new(),
            names: BTreeMap::new(),
            built: RwLock::new(BTreeMap::new()),
        };
        for (path, content) in files {
            let file = read(&path, &content)?;
            let name = file.name.clone().unwrap_or_default();
            registry.origins.insert(name.clone(), path);
            registry.files.insert(name, file);
        }
        for (name, file) in &registry.files {
            for alias in std::iter::once(name).chain(file.aliases.iter().flatten()) {
                if let Some(other) = registry.names.insert(alias.clone(), name.clone()) {
                    return Err(PlatformError::File {
                        file: registry.origins.get(name).cloned().unwrap_or_default(),
                        line: None,
                        message: format!("the name `{alias}` is taken by `{other}` already"),
                    });
                }
            }
        }
        Ok(registry)
    }

    /// The platform of that name or alias, without regard to a `_ssh` or `_telnet` ending.
    ///
    /// # Errors
    /// Nothing is called that.
    pub fn platform(&self, name: &str) -> Result<Arc<Platform>, PlatformError> {
        let wanted = name.trim().to_ascii_lowercase();
        let name = self.names.get(&wanted).ok_or_else(|| self.unknown(&wanted))?;
        if let Some(platform) = self.built.read().get(name) {
            return Ok(Arc::clone(platform));
        }
        let platform = Arc::new(self.build(name)?);
        self.built.write().insert(name.clone(), Arc::clone(&platform));
        Ok(platform)
    }

    /// What `device_type` means: `<name>`, `<name>_ssh`, `<name>_telnet`, or an alias with or
    /// without such an ending.
    ///
    /// # Errors
    /// Nothing is called that, or the platform is not reached that way.
    pub fn find(&self, device_type: &str) -> Result<Found, PlatformError> {
        let wanted = device_type.trim().to_ascii_lowercase();
        let (base, asked) = if self.names.contains_key(&wanted) {
            (wanted.as_str(), None)
        } else if let Some(base) = wanted.strip_suffix("_telnet") {
            (base, Some(TransportKind::Telnet))
        } else if let Some(base) = wanted.strip_suffix("_ssh") {
            (base, Some(TransportKind::Ssh))
        } else {
            (wanted.as_str(), None)
        };
        if wanted.ends_with("_serial") && self.names.contains_key(wanted.trim_end_matches("_serial")) {
            return Err(PlatformError::Transport {
                name: wanted.clone(),
                platform: wanted.trim_end_matches("_serial").to_owned(),
                transport: "a serial line",
                instead: "reach the console through a console server, by ssh or telnet".to_owned(),
            });
        }
        if !self.names.contains_key(base) {
            return Err(self.unknown(&wanted));
        }
        let platform = self.platform(base)?;
        let by = |kind: TransportKind| match kind {
            TransportKind::Ssh => platform.transports.ssh,
            TransportKind::Telnet => platform.transports.telnet,
        };
        let order = match asked {
            Some(kind) => vec![kind],
            None => vec![TransportKind::Ssh, TransportKind::Telnet],
        };
        match order.iter().find_map(|kind| by(*kind).map(|port| (*kind, port))) {
            Some((transport, Port { port })) => Ok(Found { platform, transport, port }),
            None => Err(PlatformError::Transport {
                name: wanted.clone(),
                platform: platform.name.clone(),
                transport: asked.map_or("ssh", TransportKind::as_str),
                instead: format!("use `{}`", self.names_of(&platform).join("` or `")),
            }),
        }
    }

    /// Every platform, sorted by name.
    ///
    /// # Errors
    /// One of them extends a platform that does not exist.
    pub fn all(&self) -> Result<Vec<Arc<Platform>>, PlatformError> {
        self.files.keys().map(|name| self.platform(name)).collect()
    }

    /// Every name that [`Registry::find`] takes for `platform`: with and without endings, and of
    /// its aliases.
    #[must_use]
    pub fn names_of(&self, platform: &Platform) -> Vec<String> {
        let mut names = Vec::new();
        for name in std::iter::once(&platform.name).chain(&platform.aliases) {
            names.push(name.clone());
            for (kind, port) in [("ssh", platform.transports.ssh), ("telnet", platform.transports.telnet)] {
                if port.is_some() && !name.ends_with(&format!("_{kind}")) {
                    names.push(format!("{name}_{kind}"));
                }
            }
        }
        names
    }

    fn unknown(&self, name: &str) -> PlatformError {
        let mut near: Vec<(usize, &String)> =
            self.names.keys().map(|known| (distance(known, name), known)).filter(|(d, _)| *d <= 3).collect();
        near.sort();
        let mut near: Vec<String> = near.into_iter().take(3).map(|(_, known)| known.clone()).collect();
        if near.is_empty() && name.len() >= 3 {
            near = self.names.keys().filter(|known| known.contains(name)).take(5).cloned().collect();
        }
        PlatformError::Unknown { name: name.to_owned(), near }
    }

    fn build(&self, name: &str) -> Result<Platform, PlatformError> {
        let origin = self.origins.get(name).cloned().unwrap_or_default();
        let wrong = |message: String| PlatformError::File { file: origin.clone(), line: None, message };
        let own = self.files.get(name).ok_or_else(|| self.unknown(name))?;
        let mut rules = own.clone();
        let mut seen = vec![name.to_owned()];
        let mut below = own.extends.clone();
        while let Some(base) = below {
            if seen.contains(&base) {
                return Err(wrong(format!("extends goes round in a circle: {}", seen.join(" -> "))));
            }
            let file = self
                .files
                .get(&base)
                .ok_or_else(|| wrong(format!("extends `{base}`, which does not exist")))?;
            rules = rules.overlay(file);
            below = file.extends.clone();
            seen.push(base);
        }
        // What tells this platform from others is its own.
        rules.detect.clone_from(&own.detect);
        rules.becomes.clone_from(&own.becomes);
        Ok(Platform {
            name: name.to_owned(),
            description: own.description.clone().unwrap_or_default(),
            verified: own.verified.unwrap_or(Verified::Facts),
            aliases: own.aliases.clone().unwrap_or_default(),
            transports: rules
                .transports
                .clone()
                .unwrap_or(Transports { ssh: Some(Port { port: 22 }), telnet: None }),
            origin,
            rules,
        })
    }
}

fn read(path: &str, content: &[u8]) -> Result<PlatformFile, PlatformError> {
    let wrong =
        |line: Option<usize>, message: String| PlatformError::File { file: path.to_owned(), line, message };
    let file: PlatformFile =
        yaml_serde::from_slice(content).map_err(|e| wrong(e.location().map(|l| l.line()), e.to_string()))?;
    let missing = [
        ("name", file.name.as_ref().is_none_or(String::is_empty)),
        ("description", file.description.as_ref().is_none_or(String::is_empty)),
        ("verified", file.verified.is_none()),
    ];
    if let Some((key, _)) = missing.into_iter().find(|(_, missing)| *missing) {
        return Err(wrong(Some(1), format!("`{key}` is required")));
    }
    for name in file.name.iter().chain(file.aliases.iter().flatten()) {
        if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            return Err(wrong(None, format!("the name `{name}` may only hold a-z, 0-9 and _")));
        }
    }
    Ok(file)
}

/// Compiles every pattern of `platform`.
///
/// # Errors
/// The first that is wrong, with its key.
fn check_patterns(platform: &Platform) -> Result<(), PlatformError> {
    for (key, pattern) in platform.patterns() {
        Pattern::check(pattern).map_err(|e| PlatformError::File {
            file: platform.origin.clone(),
            line: None,
            message: format!("{key}: {e}"),
        })?;
    }
    Ok(())
}

/// How many letters must change to make one name of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(files: &[(&str, &str)]) -> Result<Registry, PlatformError> {
        Registry::from_files(files.iter().map(|(p, c)| ((*p).to_owned(), c.as_bytes().to_vec())).collect())
    }

    #[test]
    fn a_file_that_is_wrong_is_left_out_and_the_others_count() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = folder.path().join(file);
            std::fs::write(&path, text).unwrap();
            path
        };
        let head = "description: A test\nverified: facts\n";
        let files = [
            write("good.yaml", &format!("name: acme_os\nextends: cisco_ios\n{head}")),
            write("taken.yaml", &format!("name: other_os\naliases: [acme_os]\n{head}")),
            write("circle.yaml", &format!("name: lost_os\nextends: nowhere_os\n{head}")),
        ];
        let (registry, wrong) = Registry::with_files(None, &files).unwrap();
        assert_eq!(registry.platform("acme_os").unwrap().name, "acme_os");
        assert!(registry.platform("other_os").is_err() && registry.platform("lost_os").is_err());
        assert!(registry.platform("cisco_ios").is_ok());
        let said: Vec<String> = wrong.iter().map(|(_, error)| error.to_string()).collect();
        assert_eq!(said.len(), 2);
        assert!(said[0].contains("taken by `acme_os`") && said[1].contains("nowhere_os"), "{said:?}");
    }

    #[test]
    fn every_builtin_loads_every_pattern_compiles_and_no_two_share_a_name() {
        let registry = Registry::builtin().unwrap();
        let mut names = std::collections::BTreeMap::new();
        for platform in registry.all().unwrap() {
            check_patterns(&platform).unwrap();
            assert_eq!(
                platform.origin,
                format!("{}.yaml", platform.name),
                "a file is named after its platform"
            );
            assert!(
                platform.transports.ssh.is_some() || platform.transports.telnet.is_some(),
                "{}",
                platform.name
            );
            for name in registry.names_of(&platform) {
                assert_eq!(registry.find(&name).unwrap().platform.name, platform.name, "{name}");
                assert!(names.insert(name.clone(), platform.name.clone()).is_none(), "{name} twice");
            }
            for reply in platform.pagers().iter().chain(platform.questions()) {
                assert!(reply.send.is_some() != reply.key.is_some(), "{}: {reply:?}", platform.name);
            }
            for becomes in platform.rules.becomes.iter().flatten() {
                registry.platform(&becomes.platform).unwrap();
            }
        }
        assert!(names.len() > 30);
    }

    #[test]
    fn a_wrong_file_is_named_with_its_line() {
        let bad =
            registry(&[("x.yaml", "name: x\ndescription: X\nverified: facts\npromt: {}\n")]).unwrap_err();
        assert!(bad.to_string().contains("x.yaml line 4") && bad.to_string().contains("promt"), "{bad}");
        let bad = registry(&[("y.yaml", "name: y\nverified: facts\n")]).unwrap_err();
        assert!(bad.to_string().contains("`description` is required"), "{bad}");
        let same = "description: X\nverified: facts\n";
        let bad = registry(&[
            ("a.yaml", &format!("name: a\naliases: [z]\n{same}")),
            ("b.yaml", &format!("name: b\naliases: [z]\n{same}")),
        ])
        .unwrap_err();
        assert!(bad.to_string().contains("`z` is taken"), "{bad}");
    }

    #[test]
    fn a_wrong_pattern_in_the_own_folder_shows_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = "name: mine\ndescription: X\nverified: facts\nprompt: { exec: '^(' }\n";
        std::fs::write(folder.path().join("mine.yaml"), file).unwrap();
        let bad = Registry::with_folder(folder.path()).unwrap_err().to_string();
        assert!(bad.contains("mine.yaml") && bad.contains("prompt.exec"), "{bad}");
        std::fs::write(folder.path().join("mine.yaml"), file.replace("^(", "^x>$")).unwrap();
        assert!(Registry::with_folder(folder.path()).unwrap().find("mine_ssh").is_ok());
    }

    #[test]
    fn a_file_takes_from_another_what_it_does_not_say() {
        let registry = registry(&[
            (
                "a.yaml",
                "name: a\ndescription: A\nverified: facts\nconfig: {enter: go, exit: out}\nlogout: bye\n",
            ),
            ("b.yaml", "name: b\ndescription: B\nverified: facts\nextends: a\nconfig: {exit: leave}\n"),
            ("c.yaml", "name: c\ndescription: C\nverified: facts\nextends: d\n"),
        ])
        .unwrap();
        let b = registry.platform("b").unwrap();
        assert_eq!(b.rules.config.enter.as_deref(), Some("go"));
        assert_eq!(b.rules.config.exit.as_deref(), Some("leave"));
        assert_eq!((b.logout(), b.description.as_str()), ("bye", "B"));
        assert!(registry.platform("c").unwrap_err().to_string().contains("extends `d`"));
    }

    #[test]
    fn names_with_endings_and_near_misses() {
        let registry = Registry::builtin().unwrap();
        assert_eq!(registry.find("cisco_ios").unwrap().transport, TransportKind::Ssh);
        let telnet = registry.find("Cisco_IOS_Telnet").unwrap();
        assert_eq!((telnet.transport, telnet.port), (TransportKind::Telnet, 23));
        let near = registry.find("cisco_iso").unwrap_err().to_string();
        assert!(near.contains("cisco_ios"), "{near}");
        let serial = registry.find("cisco_ios_serial").unwrap_err().to_string();
        assert!(serial.contains("console server"), "{serial}");
        let only_ssh = super::Registry::from_files(vec![(
            "x.yaml".to_owned(),
            b"name: x\ndescription: X\nverified: facts\ntransports: {ssh: {port: 22}}\n".to_vec(),
        )])
        .unwrap();
        assert!(only_ssh.find("x_telnet").unwrap_err().to_string().contains("not reached by telnet"));
    }
}
