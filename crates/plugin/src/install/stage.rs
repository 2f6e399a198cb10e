//! Files that appear whole or not at all, and one command at a time on a folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::error::{InstallError, Result, Trouble};

/// The end of the name of what is being written. It is an extension, so that no search for plugins
/// takes it for one.
const SUFFIX: &str = ".partial";
/// Held while a command changes the folder.
const GUARD: &str = ".install.lock";

/// A file under way, in the folder where it will stand; gone when dropped before [`Self::finish`].
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    file: Option<File>,
}

impl Partial {
    /// A new file that only its owner may read.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(format!(".{name}.{}{SUFFIX}", uuid::Uuid::new_v4().simple()));
        let mut options = OpenOptions::new();
        options.write(true).read(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(|e| InstallError::file("cannot be written", folder, &e))?;
        Ok(Self { path, file: Some(file) })
    }

    /// Where it is for now.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    ///
    /// # Errors
    /// It has been closed.
    pub fn file(&mut self) -> Result<&mut File> {
        self.file
            .as_mut()
            .ok_or_else(|| InstallError::new(Trouble::Local, "a file was written after it was closed"))
    }

    /// A failure to write it.
    #[must_use]
    pub fn failed(&self, error: &std::io::Error) -> InstallError {
        InstallError::file("cannot be written", self.path.parent().unwrap_or(&self.path), error)
    }

    /// Makes it durable, closed and, where wanted, executable.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn seal(&mut self, executable: bool) -> Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let sealed = file.flush().and_then(|()| set_mode(&file, executable)).and_then(|()| file.sync_all());
        sealed.map_err(|e| self.failed(&e))
    }

    /// Puts it in its place at once, over what is there.
    ///
    /// # Errors
    /// The folder does not take it; nothing is left behind.
    pub fn finish(mut self, place: &Path) -> Result<()> {
        self.seal(false)?;
        std::fs::rename(&self.path, place).map_err(|e| InstallError::file("cannot be written", place, &e))?;
        self.path = PathBuf::new();
        // The name is on disk when the folder is.
        if let Some(folder) = place.parent().and_then(|folder| File::open(folder).ok()) {
            folder.sync_all().map_err(|e| InstallError::file("cannot be written", place, &e))?;
        }
        Ok(())
    }
}

#[cfg(unix)]
fn set_mode(file: &File, executable: bool) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))
}

#[cfg(not(unix))]
fn set_mode(_: &File, _: bool) -> std::io::Result<()> {
    Ok(())
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        self.file = None;
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(file = %self.path.display(), %error, "an unfinished file is left behind");
        }
    }
}

/// Writes a whole file, or leaves the old one.
///
/// # Errors
/// The folder does not take it.
pub(crate) fn write_whole(place: &Path, bytes: &[u8]) -> Result<()> {
    let folder = place.parent().unwrap_or(Path::new("."));
    let name = place.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut partial = Partial::new(folder, &name)?;
    if let Err(error) = partial.file()?.write_all(bytes) {
        return Err(partial.failed(&error));
    }
    partial.finish(place)
}

/// The right to change a folder of plugins, until dropped.
#[derive(Debug)]
pub struct Guard {
    file: File,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Closing is not enough: a child that was just forked holds the file until it runs its program.
        if let Err(error) = self.file.unlock() {
            tracing::debug!(%error, "the folder of plugins is free once its file is closed");
        }
    }
}

impl Guard {
    /// Takes it, makes the folder where there is none, and sweeps what a killed command left.
    ///
    /// # Errors
    /// Another command holds it, or the folder cannot be written.
    pub fn take(folder: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| InstallError::file("cannot be written", folder, &e);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let path = folder.join(GUARD);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = format!("{}: another command is at work on this folder", folder.display());
                return Err(
                    InstallError::new(Trouble::InTheWay, what).hint("run this again when it has ended")
                );
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let left = name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(SUFFIX));
            if left {
                std::fs::remove_file(folder.join(&name)).map_err(failed)?;
            }
        }
        Ok(Self { file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("acme");
        let mut partial = Partial::new(folder.path(), "acme").unwrap();
        partial.file().unwrap().write_all(b"half").unwrap();
        assert!(!place.exists() && names(folder.path()).len() == 1);
        drop(partial);
        assert!(names(folder.path()).is_empty());
        write_whole(&place, b"old").unwrap();
        write_whole(&place, b"new").unwrap();
        assert_eq!(
            (std::fs::read(&place).unwrap().as_slice(), names(folder.path())),
            (&b"new"[..], vec!["acme".to_owned()])
        );
    }

    #[test]
    fn one_command_at_a_time_and_the_next_one_sweeps() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("made/here");
        let first = Guard::take(&folder).unwrap();
        let error = Guard::take(&folder).unwrap_err();
        assert_eq!(error.trouble, Trouble::InTheWay);
        drop(first);
        std::fs::write(folder.join(".acme.0.partial"), "killed").unwrap();
        std::fs::write(folder.join("acme"), "kept").unwrap();
        let _second = Guard::take(&folder).unwrap();
        assert_eq!(names(&folder), [GUARD, "acme"]);
    }
}
