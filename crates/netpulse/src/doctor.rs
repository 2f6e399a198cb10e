//! `netpulse doctor`: looks at everything a server needs, and says what to change.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use netpulse_config::{Config, LoadOptions, Loaded};
use netpulse_queue::{Queue, Redis, Severity};
use netpulse_session::platform::Registry;
use netpulse_session::transport::hostkeys::HostKeys;
use serde_json::json;
use tokio::net::TcpListener;

use crate::exit::{Exit, Outcome};
use crate::server::lock::{self, Holder};
use crate::server::store;
use crate::ui::{Text, Tone, Ui};

/// Open files beside those of device sessions: clients, the store, logs.
const OTHER_FILES: u64 = 1000;
/// Longest that Redis may take to be looked at.
const PATIENCE: Duration = Duration::from_secs(60);

/// Look at the configuration and everything it names, and say what to change
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse doctor
  netpulse doctor --config /etc/netpulse/netpulse.yaml
  netpulse doctor --output json

Looks at the configuration, the store or Redis, the clock, the limit of open files, the port, the folders
of templates and platforms, and the host keys. Changes nothing. Exits 0 when all is well, 1 with
warnings, 2 when something is wrong.")]
pub struct DoctorArgs {
    /// Configuration file [default: NETPULSE_CONFIG_FILE, config/netpulse.yaml or netpulse.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// One thing that was looked at.
#[derive(Debug)]
struct Seen {
    area: &'static str,
    found: String,
    /// What to change; empty when nothing.
    change: String,
    severity: Severity,
}

fn good(area: &'static str, found: impl Into<String>) -> Seen {
    Seen { area, found: found.into(), change: String::new(), severity: Severity::Good }
}

fn warning(area: &'static str, found: impl Into<String>, change: impl Into<String>) -> Seen {
    Seen { area, found: found.into(), change: change.into(), severity: Severity::Warning }
}

fn bad(area: &'static str, found: impl Into<String>, change: impl Into<String>) -> Seen {
    Seen { area, found: found.into(), change: change.into(), severity: Severity::Bad }
}

pub fn run(args: &DoctorArgs, ui: &Ui) -> Outcome {
    let loaded = Loaded::read(LoadOptions::from_process().with_file(args.config.clone()));
    let mut seen = configuration(&loaded);
    let config = &loaded.config;
    seen.extend(files(config, open_files()));
    seen.push(clock());
    seen.extend(folders(config));
    seen.push(host_keys(config));
    seen.extend(locks(config));
    crate::block_on(async {
        seen.push(port(config).await);
        // With a wrong configuration one would look at some other store.
        if loaded.problems.is_empty() {
            seen.extend(if config.store.engine == "redis" {
                redis(config).await
            } else {
                vec![embedded(config)]
            });
        }
        Ok(())
    })?;
    report(&seen, ui)
}

fn report(seen: &[Seen], ui: &Ui) -> Outcome {
    let worst = seen.iter().map(|seen| seen.severity).max().unwrap_or(Severity::Good);
    let word = |severity| match severity {
        Severity::Good => ("good", Tone::Good),
        Severity::Warning => ("warning", Tone::Busy),
        Severity::Bad => ("bad", Tone::Bad),
    };
    if ui.for_people() {
        let rows = seen
            .iter()
            .map(|seen| {
                let (word, tone) = word(seen.severity);
                vec![
                    Text(word.to_owned(), tone),
                    Text::from(seen.area),
                    Text::from(seen.found.clone()),
                    Text::from(seen.change.clone()),
                ]
            })
            .collect();
        ui.table(&["", "LOOKED AT", "FOUND", "WHAT TO CHANGE"], rows);
    } else {
        let findings: Vec<_> = seen
            .iter()
            .map(|seen| {
                json!({"severity": word(seen.severity).0, "area": seen.area, "found": seen.found, "change": seen.change})
            })
            .collect();
        ui.document(&json!({"worst": word(worst).0, "findings": findings}))?;
    }
    Ok(match worst {
        Severity::Good => Exit::Ok,
        Severity::Warning => Exit::JobFailed,
        Severity::Bad => Exit::Usage,
    })
}

fn configuration(loaded: &Loaded) -> Vec<Seen> {
    const AREA: &str = "configuration";
    let mut seen: Vec<Seen> = loaded
        .problems
        .iter()
        .map(|problem| {
            bad(AREA, problem.to_string(), "correct it; `netpulse config reference` has every key")
        })
        .collect();
    seen.extend(loaded.warnings.iter().map(|told| warning(AREA, told.to_string(), "see the sentence")));
    if let Err(unknown) = netpulse_scheduler::choose(&loaded.config.worker.scheduler, &[]) {
        // A plugin may have the name; the server itself will tell.
        let told = format!("worker.scheduler: {unknown}");
        seen.push(warning(AREA, told, "unless a plugin of that name is installed, correct it"));
    }
    if seen.is_empty() {
        let source =
            loaded.file.as_ref().map_or("environment and defaults".to_owned(), |f| f.display().to_string());
        seen.push(good(AREA, format!("in order: {source}")));
    }
    seen
}

/// The soft limit of open files of this process, if it has one.
fn open_files() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

fn files(config: &Config, limit: Option<u64>) -> Option<Seen> {
    let limit = limit?;
    let sessions = config.worker.pinned_per_node.saturating_add(config.worker.fifo_concurrency) as u64;
    let needed = sessions.saturating_add(OTHER_FILES);
    let found = format!("{limit} at a time, for {sessions} device sessions");
    Some(if limit >= needed {
        good("open files", found)
    } else {
        let change = format!(
            "`ulimit -n {needed}` (LimitNOFILE= of the service) before the start, or `worker.pinned_per_node` of at most {}",
            limit.saturating_sub(OTHER_FILES + config.worker.fifo_concurrency as u64)
        );
        warning("open files", found, change)
    })
}

fn clock() -> Seen {
    let now = chrono::Utc::now();
    let found = format!("{} UTC", now.format("%Y-%m-%d %H:%M:%S"));
    // The source of this program is younger than that.
    if now.timestamp() < 1_760_000_000 {
        bad("clock", found, "set it, and let NTP keep it: times in jobs and logs would be wrong")
    } else {
        good("clock", found)
    }
}

/// Whether a file can be made in `folder`, or in the folder that it would be made in.
fn writable(folder: &Path) -> std::io::Result<()> {
    let existing = folder.ancestors().find(|f| f.is_dir()).unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    tempfile::Builder::new().prefix(".netpulse-doctor-").tempfile_in(existing).map(drop)
}

fn folders(config: &Config) -> Vec<Seen> {
    let mut seen = Vec::new();
    for (area, folder, key) in [
        ("staging folder", &config.storage.staging, "storage.staging"),
        ("work folder", &lock::work_dir(config), "worker.work_dir"),
    ] {
        seen.push(match writable(folder) {
            Ok(()) => good(area, folder.display().to_string()),
            Err(error) => bad(
                area,
                format!("{}: {error}", folder.display()),
                format!("let this user write there, or choose another with `{key}`"),
            ),
        });
    }
    for folder in &config.template.dirs {
        seen.push(match std::fs::read_dir(folder) {
            Ok(entries) => good("templates", format!("{}: {} entries", folder.display(), entries.count())),
            Err(error) => {
                bad("templates", format!("{}: {error}", folder.display()), "correct `template.dirs`")
            }
        });
    }
    if let Some(folder) = &config.template.ntc_dir {
        let index = [folder.join("index"), folder.join("templates").join("index")];
        let index = index.iter().chain([&folder.join("ntc_templates/templates/index")]).any(|f| f.is_file());
        seen.push(if index {
            good("ntc-templates", folder.display().to_string())
        } else {
            bad(
                "ntc-templates",
                format!("{} holds no `index`", folder.display()),
                "point `template.ntc_dir` to the folder of ntc-templates that holds `index`",
            )
        });
    }
    if let Some(folder) = &config.platform.dir {
        seen.push(match Registry::with_folder(folder) {
            Ok(_) => good("platforms", folder.display().to_string()),
            Err(error) => bad("platforms", error.to_string(), "correct the file, or `platform.dir`"),
        });
    }
    seen
}

fn host_keys(config: &Config) -> Seen {
    const AREA: &str = "host keys";
    let path = config.session.known_hosts.clone().unwrap_or_else(|| config.store.path.join("known_hosts"));
    if config.session.host_keys == "off" {
        let change = "`session.host_keys: accept-new`: whoever stands between reads passwords now";
        return warning(AREA, "not checked", change);
    }
    if !path.exists() {
        let change = format!(
            "let this user write there, or name another with `session.known_hosts`: {}",
            path.display()
        );
        return match writable(path.parent().unwrap_or(Path::new("."))) {
            Ok(()) if config.session.host_keys == "strict" => warning(
                AREA,
                format!("{} is not there: no device is known", path.display()),
                "put the keys of the devices there, or `session.host_keys: accept-new`",
            ),
            Ok(()) => good(AREA, format!("{}, once the first device has been met", path.display())),
            Err(error) => bad(AREA, error.to_string(), change),
        };
    }
    match HostKeys::open(path.clone()) {
        Ok(_) => {
            let lines = std::fs::read_to_string(&path).unwrap_or_default();
            let known =
                lines.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).count();
            good(AREA, format!("{}: {known} known", path.display()))
        }
        Err(error) => bad(AREA, error.to_string(), "correct or remove the line"),
    }
}

/// Who works on the work folder.
fn locks(config: &Config) -> Vec<Seen> {
    let folder = lock::work_dir(config);
    let mut seen = Vec::new();
    for name in ["node.lock", "fifo.lock"] {
        if let Ok(Holder::Process { pid, silent }) = lock::holder(&folder, name) {
            let who = pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
            let found = format!("{who} holds {name}, last sign {} s ago", silent.as_secs());
            let limit = config.worker.lease.max(1) * 3 + 5;
            seen.push(if silent.as_secs() > limit {
                warning("worker", found, "it hangs, or its store is away: look at its log")
            } else {
                good("worker", found)
            });
        }
    }
    seen
}

async fn port(config: &Config) -> Seen {
    let (host, port) = (config.server.host.as_str(), config.server.port);
    let at = format!("{host}:{port}");
    match TcpListener::bind((host, port)).await {
        Ok(_) => good("port", format!("{at} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            match crate::health::api(config, false).await {
                Ok(_) => good("port", format!("{at}: NetPulse answers there already")),
                Err(_) => {
                    bad("port", format!("{at} is taken by another program"), "choose another `server.port`")
                }
            }
        }
        Err(error) => bad("port", format!("{at}: {error}"), "correct `server.host` and `server.port`"),
    }
}

fn embedded(config: &Config) -> Seen {
    let folder = &config.store.path;
    match writable(folder) {
        Ok(()) => {
            let file = folder.join("queue.sqlite");
            let size = std::fs::metadata(&file).map(|meta| meta.len());
            let size =
                size.map_or("made at the first start".to_owned(), |n| format!("{:.1} MB", n as f64 / 1e6));
            good("store", format!("embedded in {}: {size}", folder.display()))
        }
        Err(error) => bad(
            "store",
            format!("{}: {error}", folder.display()),
            "let this user write there, or choose another with `store.path`",
        ),
    }
}

async fn redis(config: &Config) -> Vec<Seen> {
    const AREA: &str = "redis";
    let options = match store::redis(config) {
        Ok(mut options) => {
            // A name of its own: nothing of a process that runs is taken over.
            options.instance = format!("doctor {}", uuid::Uuid::new_v4());
            options.placer =
                netpulse_scheduler::choose(&config.worker.scheduler, &[]).ok().map(store::placer);
            options
        }
        Err(failure) => return vec![bad(AREA, failure.what, "correct it")],
    };
    let look = async {
        let redis = match Redis::open(options).await {
            Ok(redis) => redis,
            Err(error) => return vec![bad(AREA, error.to_string(), "see the sentence")],
        };
        let findings = redis.examine().await;
        redis.close().await;
        match findings {
            Err(error) => vec![bad(AREA, error.to_string(), "look at the server's log")],
            Ok(findings) => findings
                .into_iter()
                .map(|finding| Seen {
                    area: AREA,
                    found: format!("{}: {}", finding.what, finding.found),
                    change: if finding.severity == Severity::Good { String::new() } else { finding.wanted },
                    severity: finding.severity,
                })
                .collect(),
        }
    };
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(seen) => seen,
        Err(_elapsed) => vec![bad(AREA, "it did not answer in time", "look at the server and the way to it")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_open_files_say_how_many() {
        let mut config = Config::default();
        config.worker.pinned_per_node = 5000;
        config.worker.fifo_concurrency = 64;
        assert!(files(&config, None).is_none(), "no limit is no finding");
        assert_eq!(files(&config, Some(6064)).unwrap().severity, Severity::Good);
        let few = files(&config, Some(6063)).unwrap();
        assert_eq!(few.severity, Severity::Warning);
        assert!(
            few.change.contains("ulimit -n 6064") && few.change.contains("at most 4999"),
            "{}",
            few.change
        );
        assert!(open_files().is_some_and(|limit| limit > 0));
    }

    #[test]
    fn folders_that_cannot_be_written_are_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(writable(&folder.path().join("not/yet/there")).is_ok());
        let mut config = Config::default();
        config.storage.staging = folder.path().join("s");
        // A folder below a file can never be.
        std::fs::write(folder.path().join("file"), "").unwrap();
        config.template.dirs = vec![folder.path().join("file")];
        config.template.ntc_dir = Some(folder.path().into());
        config.store.path = folder.path().into();
        let seen = folders(&config);
        let of = |area: &str| seen.iter().find(|s| s.area == area).map(|s| s.severity);
        assert_eq!(of("staging folder"), Some(Severity::Good));
        assert_eq!(of("templates"), Some(Severity::Bad));
        assert_eq!(of("ntc-templates"), Some(Severity::Bad));
        assert_eq!(embedded(&config).severity, Severity::Good);
        std::fs::write(folder.path().join("known_hosts"), "not a key line\n").unwrap();
        config.session.host_keys = "off".into();
        assert_eq!(host_keys(&config).severity, Severity::Warning);
    }
}
