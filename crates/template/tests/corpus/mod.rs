//! Reads the recorded cases of the Python implementations, when they are at hand.

use std::path::PathBuf;
use std::process::Command;

/// The cases of one file, or `None` (with a word on stdout) when the corpus is not there.
pub fn read(file: &str) -> Option<Vec<serde_json::Value>> {
    let root = std::env::var_os("NETPULSE_CORPUS").map(PathBuf::from).or_else(|| {
        let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        [workspace.join("../shared/corpus"), workspace.join("../../shared/corpus")]
            .into_iter()
            .find(|p| p.is_dir())
    });
    let path = root.map(|r| r.join(file)).filter(|p| p.is_file());
    let Some(path) = path else {
        println!("skipped: no corpus ({file}); set NETPULSE_CORPUS to its folder");
        return None;
    };
    let out = Command::new("xz").arg("-dc").arg(&path).output().expect("xz is needed to read the corpus");
    assert!(out.status.success(), "xz failed on {}", path.display());
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    Some(text.lines().filter(|l| !l.is_empty()).map(|l| serde_json::from_str(l).expect("JSON")).collect())
}
