//! The guard: a small process between host and plugin that lets no descendant outlive the host.
//!
//! It holds a pipe whose other end only the host has. When the host ends, whatever the reason, the
//! pipe closes and the guard kills the plugin and all that it started: on Linux it is the reaper
//! of every orphan below it, so that not even a grandchild in a session of its own escapes.
//!
//! Its command line is `<guard> <folder> <bytes> <program> <arguments...>`; the folder is removed at
//! the end (`-` for none), and the plugin may have so many bytes of memory of its own (0: any). One byte on stdin, `T`, sends SIGTERM to the plugin. Its exit status is the
//! plugin's, 128 and the signal's number when a signal ended it, 127 when it could not be run.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, WaitOptions, kill_process};

/// The exit status when the program could not be run.
pub const CANNOT_RUN: i32 = 127;

/// Runs the guard to its end; gives the exit status. `arguments` are those after the guard's own
/// name.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> i32 {
    let mut arguments = arguments.into_iter();
    let (Some(folder), Some(memory), Some(program)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        say("the guard needs a folder, a bound of memory and a program");
        return CANNOT_RUN;
    };
    limit(memory.to_str().and_then(|bytes| bytes.parse().ok()).unwrap_or(0));
    let status = guard(&program, arguments);
    if folder != "-" {
        // Whatever is left of the start; the host may have removed it before us.
        let _ = std::fs::remove_dir_all(PathBuf::from(folder));
    }
    status
}

/// Bounds the memory of everything that is run from here.
fn limit(bytes: u64) {
    if bytes == 0 {
        return;
    }
    let limit = rustix::process::Rlimit { current: Some(bytes), maximum: Some(bytes) };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Data, limit) {
        say(&format!("memory cannot be bounded: {error}"));
    }
}

fn guard(program: &OsString, arguments: impl Iterator<Item = OsString>) -> i32 {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        say(&format!("orphans cannot be collected: {error}"));
    }
    let spawned = Command::new(program).args(arguments).stdin(Stdio::null()).current_dir("/").spawn();
    let child = match spawned {
        Ok(child) => child,
        Err(error) => {
            say(&format!("cannot run {}: {error}", program.to_string_lossy()));
            return CANNOT_RUN;
        }
    };
    let Some(plugin) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return CANNOT_RUN;
    };
    let ending = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ending);
    // Ends with the process; nobody waits for it.
    std::thread::spawn(move || {
        let mut byte = [0u8; 1];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut byte) {
                Ok(1) if byte == *b"T" && !flag.load(Ordering::SeqCst) => {
                    let _ = kill_process(plugin, Signal::TERM);
                }
                Ok(1) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        flag.store(true, Ordering::SeqCst);
        kill_descendants(plugin);
    });
    let mut status = CANNOT_RUN;
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, how))) => {
                if pid == plugin {
                    status = how
                        .exit_status()
                        .or_else(|| how.terminating_signal().map(|signal| 128 + signal))
                        .unwrap_or(CANNOT_RUN);
                    ending.store(true, Ordering::SeqCst);
                }
                if ending.load(Ordering::SeqCst) {
                    kill_descendants(plugin);
                }
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            // No child is left.
            Err(_) => return status,
        }
    }
}

/// The host shows this beside its own sentence.
fn say(text: &str) {
    let line = serde_json::json!({"level": "error", "msg": text});
    // Without stderr there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Kills everything below us. What is forked meanwhile becomes our child when its parent ends, and
/// the next call finds it.
fn kill_descendants(plugin: Pid) {
    let found = descendants(std::process::id());
    if found.is_empty() {
        // Without /proc: at least the plugin itself.
        let _ = kill_process(plugin, Signal::KILL);
    }
    for pid in found {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Every process below `root` by the kernel's own list; zombies are left out.
#[must_use]
pub fn descendants(root: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut parents: Vec<(u32, u32)> = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may have ended since it was listed.
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name, in parentheses, may hold anything: what follows the last one is safe.
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let mut fields = rest.split_whitespace();
        let state = fields.next().unwrap_or_default();
        if let (false, Some(parent)) = (state == "Z", fields.next().and_then(|f| f.parse().ok())) {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&above) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        next += 1;
    }
    found.remove(0);
    found
}
