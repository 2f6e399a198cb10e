//! Takes a plugin away, unless somebody runs it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::{InstallError, Result, Trouble};
use super::lock::Lock;
use super::stage::Guard;

/// What was taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Its name.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// The file that is gone.
    pub location: PathBuf,
}

/// A process that runs a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub pid: u32,
    /// Its first words.
    pub command: String,
}

/// Removes a plugin's file and its entry in the lock.
///
/// # Errors
/// There is none of this name, or a process runs it and `force` is not given.
pub fn remove(folder: &Path, name: &str, force: bool) -> Result<Removed> {
    let _guard = if folder.is_dir() { Some(Guard::take(folder)?) } else { None };
    let mut lock = Lock::read(folder)?;
    let path = folder.join(name);
    let Some(entry) = lock.get(name).cloned() else {
        let known: Vec<&str> = lock.entries().keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let what = format!("{}: no plugin `{name}` is installed; there is: {known}", folder.display());
        return Err(InstallError::new(Trouble::NotFound, what));
    };
    let users = users(&path);
    if !users.is_empty() && !force {
        let shown: Vec<String> =
            users.iter().take(5).map(|user| format!("{} ({})", user.pid, user.command)).collect();
        let what =
            format!("{}: it is used by {}: {}", path.display(), processes(users.len()), shown.join(", "));
        return Err(InstallError::new(Trouble::InTheWay, what).hint(
            "stop what uses it, or remove it all the same with --force: what runs goes on until it ends",
        ));
    }
    // The file first: cut off in between, an entry without a file is told as missing.
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(InstallError::file("cannot be removed", &path, &e)),
    }
    lock.remove(name);
    lock.write()?;
    Ok(Removed { plugin: name.to_owned(), version: entry.version, location: path })
}

fn processes(count: usize) -> String {
    if count == 1 { "a process".to_owned() } else { format!("{count} processes") }
}

/// The processes of this machine that run a file, as a program or as a script, as far as we may see.
#[must_use]
pub fn users(path: &Path) -> Vec<User> {
    let Ok(file) = path.canonicalize() else { return Vec::new() };
    let Ok(listing) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut users = Vec::new();
    for entry in listing.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<String> = command
            .split(|byte| *byte == 0)
            .take(2)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        let runs_it = std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == file);
        // A script runs in its interpreter, which is given the script's path first.
        let interprets_it = words.get(1).is_some_and(|word| {
            let word = Path::new(word);
            word.is_absolute()
                && word.file_name() == file.file_name()
                && word.canonicalize().is_ok_and(|word| word == file)
        });
        if runs_it || interprets_it {
            users.push(User { pid, command: words.join(" ").trim().to_owned() });
        }
    }
    users.sort_by_key(|user| user.pid);
    users
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_runs_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acme");
        std::fs::write(&path, "#!/bin/sh\nread line\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut lock = Lock::read(folder.path()).unwrap();
        lock.accept(&["acme".to_owned()]).unwrap();
        lock.write().unwrap();
        let mut child = Command::new("/bin/sh").arg(&path).stdin(Stdio::piped()).spawn().unwrap();
        // Its words are there once it is what it was told to be.
        while users(&path).is_empty() {
            std::thread::yield_now();
        }
        let error = remove(folder.path(), "acme", false).unwrap_err();
        assert_eq!(error.trouble, Trouble::InTheWay);
        assert!(error.message.contains(&format!("used by a process: {} (/bin/sh ", child.id())), "{error}");
        drop(child.stdin.take());
        child.wait().unwrap();
        let removed = remove(folder.path(), "acme", false).unwrap();
        assert!(removed.location == path && !path.exists());
        assert!(Lock::read(folder.path()).unwrap().entries().is_empty());
        let error = remove(folder.path(), "acme", false).unwrap_err();
        assert!(error.message.contains("no plugin `acme` is installed; there is: none"), "{error}");
        assert!(remove(&folder.path().join("nowhere"), "acme", false).is_err());
    }
}
