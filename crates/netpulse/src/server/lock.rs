//! One node and one FIFO worker on a work folder: a locked file each, free again when its process
//! ends, however it ends.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use crate::exit::{Exit, Failure};

/// How long a start waits for the process before it to end.
const PATIENCE: Duration = Duration::from_secs(3);

/// A lock on `node.lock` or `fifo.lock`, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

/// What a lock file says to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// No such file, or nobody holds it.
    Nobody,
    /// A process holds it; how long ago it last said that it works, if it did.
    Process {
        /// Its id, when it is written there.
        pid: Option<u32>,
        /// Since its last sign of life.
        silent: Duration,
    },
}

impl Lock {
    /// Takes the lock `name` in `folder`, within three seconds.
    pub(crate) async fn take(folder: &Path, name: &'static str) -> Result<Self, Failure> {
        let path = folder.join(name);
        let failed = |error: std::io::Error| {
            Failure::local(format!("{}: {error}", path.display()))
                .hint("`worker.work_dir` must be a folder that this user may write")
        };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(failed)?;
        let (tell, told) = oneshot::channel();
        let waiting = file.try_clone().map_err(failed)?;
        // A thread of its own: there is no other way to be told when a file lock comes free, and
        // one of the runtime's would hold up the end of the process.
        std::thread::spawn(move || drop(tell.send(waiting.lock())));
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => return Err(failed(error)),
            Ok(Err(_)) | Err(_) => return Err(Self::held(&path, name)),
        }
        let lock = Self { file };
        lock.sign().map_err(failed)?;
        Ok(lock)
    }

    fn held(path: &Path, name: &str) -> Failure {
        let kind = name.trim_end_matches(".lock");
        let pid = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok());
        let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
        let sentence = format!("a {kind} worker runs here already: {who} holds {}", path.display());
        tracing::error!(critical = true, "{sentence}");
        Failure::new(Exit::JobFailed, "worker_runs", sentence)
            .hint("end that process first, or give this one a folder of its own (`worker.work_dir`) and a name (`worker.node`)")
    }

    /// Writes who holds it.
    fn sign(&self) -> std::io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    }

    /// Says that its process works: the file's time is what `netpulse health` looks at.
    pub(crate) fn touch(&self) -> std::io::Result<()> {
        self.file.set_modified(SystemTime::now())
    }
}

/// Where the lock files of this configuration lie.
pub(crate) fn work_dir(config: &netpulse_config::Config) -> PathBuf {
    config.worker.work_dir.clone().unwrap_or_else(|| config.store.path.clone())
}

/// Who holds the lock `name` in `folder`.
pub(crate) fn holder(folder: &Path, name: &str) -> std::io::Result<Holder> {
    let path = folder.join(name);
    let file = match File::options().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        // Closing the file ends the lock.
        Ok(()) => Ok(Holder::Nobody),
        Err(std::fs::TryLockError::WouldBlock) => {
            let pid = std::fs::read_to_string(&path)?.trim().parse().ok();
            let silent = file.metadata()?.modified()?.elapsed().unwrap_or_default();
            Ok(Holder::Process { pid, silent })
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_holder_at_a_time_and_free_when_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(holder(folder.path(), "node.lock").unwrap(), Holder::Nobody);
        let first = Lock::take(folder.path(), "node.lock").await.unwrap();
        let other = Lock::take(folder.path(), "fifo.lock").await.unwrap();
        let Holder::Process { pid, silent } = holder(folder.path(), "node.lock").unwrap() else {
            panic!("it is held")
        };
        assert_eq!(pid, Some(std::process::id()));
        assert!(silent < Duration::from_secs(60), "{silent:?}");
        first.touch().unwrap();
        // Who starts while the one before it ends waits for it.
        let second = tokio::spawn({
            let folder = folder.path().to_owned();
            async move { Lock::take(&folder, "node.lock").await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!second.is_finished());
        drop(first);
        let second = second.await.unwrap().unwrap();
        // And one that does not end is named.
        let refused = Lock::take(folder.path(), "node.lock").await.unwrap_err();
        assert_eq!((refused.exit.number(), refused.code.as_str()), (1, "worker_runs"));
        let sentence = format!("a node worker runs here already: process {} holds", std::process::id());
        assert!(refused.what.starts_with(&sentence), "{}", refused.what);
        drop((second, other));
        assert_eq!(holder(folder.path(), "fifo.lock").unwrap(), Holder::Nobody);
    }
}
