//! Whether a server is fit to be the store: looked at on opening, and shown by `netpulse doctor`.

use std::time::Duration;

use netpulse_model::Timestamp;
use redis::{Cmd, Value};
use tokio::time::Instant;

use super::link::Trouble;
use super::record::{items, number, text};
use super::{Redis, RedisOpenError, Shared, unavailable};
use crate::api::QueueError;

/// How a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Good,
    /// It works, but promises may not hold when something fails.
    Warning,
    /// Jobs will be lost or refused.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// How it is.
    pub found: String,
    /// How it should be, and how to get there.
    pub wanted: String,
    /// How it weighs.
    pub severity: Severity,
}

fn finding(what: &'static str, found: impl Into<String>, wanted: &str, severity: Severity) -> Finding {
    Finding { what, found: found.into(), wanted: wanted.to_owned(), severity }
}

/// One line of `INFO`.
fn line<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn version(info: &str) -> Finding {
    let valkey = line(info, "valkey_version");
    let found = valkey.or_else(|| line(info, "redis_version")).unwrap_or("unknown");
    let major: Option<u32> = found.split('.').next().and_then(|major| major.parse().ok());
    let name = if valkey.is_some() { "Valkey" } else { "Redis" };
    // The scripts write times, which are longer than 32 bits, as whole numbers.
    let narrow = line(info, "arch_bits") == Some("32");
    let fit = major.is_some_and(|major| major >= 7) && !narrow;
    let severity = if fit { Severity::Good } else { Severity::Bad };
    let bits = if narrow { ", built for 32 bits" } else { "" };
    finding("version", format!("{name} {found}{bits}"), "Redis 7 or later, or Valkey, for 64 bits", severity)
}

fn eviction(policy: Option<&str>, maxmemory: Option<i64>) -> Finding {
    let wanted = "`maxmemory-policy noeviction`: any other throws jobs away when memory runs short";
    match policy {
        Some("noeviction") => finding("eviction", "noeviction", wanted, Severity::Good),
        Some(policy) if maxmemory == Some(0) => {
            let found = format!("{policy}, without a limit (maxmemory 0)");
            finding("eviction", found, wanted, Severity::Warning)
        }
        Some(policy) => finding("eviction", policy, wanted, Severity::Bad),
        None => finding("eviction", "not allowed to read (CONFIG GET)", wanted, Severity::Warning),
    }
}

fn persistence(appendonly: Option<&str>, fsync: Option<&str>) -> Finding {
    let wanted = "`appendonly yes`, and `appendfsync always` where not even the last second may be lost";
    match (appendonly, fsync) {
        (Some("yes"), Some("always")) => {
            finding("persistence", "append-only file, written at once", wanted, Severity::Good)
        }
        (Some("yes"), Some("everysec")) => {
            let found = "append-only file, written every second: a power cut loses up to the last second";
            finding("persistence", found, wanted, Severity::Good)
        }
        (Some("yes"), other) => {
            let found = format!("append-only file, appendfsync {}", other.unwrap_or("unknown"));
            finding("persistence", found, wanted, Severity::Warning)
        }
        (Some(_), _) => {
            let found = "no append-only file: a restart loses jobs that were accepted";
            finding("persistence", found, wanted, Severity::Warning)
        }
        (None, _) => finding("persistence", "not allowed to read (CONFIG GET)", wanted, Severity::Warning),
    }
}

impl Shared {
    async fn plain(&self, command: Cmd) -> Result<Value, Trouble> {
        self.link.one(command, self.until()).await
    }

    async fn info(&self) -> Result<String, Trouble> {
        let info = self.plain(redis::cmd("INFO")).await?;
        Ok(text(&info).unwrap_or_default().to_owned())
    }

    async fn setting(&self, name: &str) -> Option<String> {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg(name);
        // Hosted servers forbid it: then it is not known.
        let answer = self.plain(command).await.ok()?;
        items(&answer).get(1).and_then(text).map(str::to_owned)
    }

    async fn durability(&self) -> [Finding; 2] {
        let policy = self.setting("maxmemory-policy").await;
        let maxmemory = self.setting("maxmemory").await.and_then(|bytes| bytes.parse().ok());
        let appendonly = self.setting("appendonly").await;
        let fsync = self.setting("appendfsync").await;
        [eviction(policy.as_deref(), maxmemory), persistence(appendonly.as_deref(), fsync.as_deref())]
    }

    /// What has to hold before a store is opened; what should hold is said in the log.
    pub(super) async fn check(&self, address: &str) -> Result<(), RedisOpenError> {
        let info = self.info().await.map_err(|trouble| RedisOpenError::Unreachable {
            address: address.to_owned(),
            why: trouble.to_string(),
        })?;
        for found in [version(&info)].into_iter().chain(self.durability().await) {
            match found.severity {
                Severity::Good => {}
                Severity::Warning => {
                    tracing::warn!(
                        address,
                        found = found.found,
                        wanted = found.wanted,
                        "Redis: {}",
                        found.what
                    );
                }
                Severity::Bad => {
                    return Err(RedisOpenError::Unfit {
                        address: address.to_owned(),
                        what: found.what.to_owned(),
                        found: found.found,
                        wanted: found.wanted,
                    });
                }
            }
        }
        Ok(())
    }
}

impl Redis {
    /// Looks at the server: version, persistence, eviction, clocks, latency, replicas, encryption.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn examine(&self) -> Result<Vec<Finding>, QueueError> {
        let shared = &self.shared;
        let info = shared.info().await.map_err(unavailable)?;
        let mut findings = vec![version(&info)];
        findings.extend(shared.durability().await);
        let mut waits = Vec::with_capacity(100);
        let mut skew = Duration::MAX;
        for _ in 0..100 {
            let (before, began) = (Timestamp::now(), Instant::now());
            let time = shared.plain(redis::cmd("TIME")).await.map_err(unavailable)?;
            let wait = began.elapsed();
            waits.push(wait);
            let parts = items(&time);
            let (Some(seconds), Some(micros)) =
                (parts.first().and_then(number), parts.get(1).and_then(number))
            else {
                continue;
            };
            let theirs = seconds.saturating_mul(1_000_000).saturating_add(micros);
            let ours = before.plus(wait / 2).0;
            skew = skew.min(Duration::from_micros(theirs.abs_diff(ours)));
        }
        waits.sort_unstable();
        let at = |percent: usize| waits.get(waits.len() * percent / 100).copied().unwrap_or_default();
        let (p50, p99) = (at(50), at(99));
        findings.push(finding(
            "clocks",
            format!("{:.1} ms apart", skew.as_secs_f64() * 1e3),
            "less than a second apart: leases follow the server's clock alone, but times in logs do not",
            if skew < Duration::from_secs(1) { Severity::Good } else { Severity::Warning },
        ));
        findings.push(finding(
            "latency",
            format!(
                "{:.2} ms at the median, {:.2} ms at worst but one",
                p50.as_secs_f64() * 1e3,
                p99.as_secs_f64() * 1e3
            ),
            "less than 10 ms at the median: each job asks some five times",
            if p50 < Duration::from_millis(10) { Severity::Good } else { Severity::Warning },
        ));
        let replicas: usize = line(&info, "connected_slaves").and_then(|n| n.parse().ok()).unwrap_or(0);
        let wanted = shared.options.min_replicas;
        findings.push(finding(
            "replicas",
            replicas.to_string(),
            "one at least, so that the loss of the server loses no job",
            match replicas {
                n if n < wanted => Severity::Bad,
                0 => Severity::Warning,
                _ => Severity::Good,
            },
        ));
        let local = matches!(shared.options.host.as_str(), "localhost" | "127.0.0.1" | "::1");
        findings.push(match (&shared.options.tls, local) {
            (Some(_), _) => finding("encryption", "TLS", "TLS", Severity::Good),
            (None, true) => {
                finding("encryption", "none, on this machine", "TLS between machines", Severity::Good)
            }
            (None, false) => {
                let found = "none: requests and results are readable on the wire (secrets are sealed)";
                finding("encryption", found, "TLS (redis.tls.enabled)", Severity::Warning)
            }
        });
        Ok(findings)
    }
}
