//! Where jobs wait: the embedded store, or the Redis that many processes share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netpulse_config::Config;
use netpulse_plugin::Scheduler;
use netpulse_queue::{
    Embedded, OpenError, Options, Placer, Queue, Redis, RedisOpenError, RedisOptions, RedisSentinel,
    RedisTls, RingSize, SealKey,
};
use netpulse_worker::ByScheduler;

use super::{Shape, lock};
use crate::exit::{Exit, Failure};

/// Between two attempts to reach Redis, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Opens the store that `store.engine` names. Waits for Redis while it cannot be reached or is
/// loading, and says so.
pub(super) async fn open(
    config: &Config,
    shape: Shape,
    scheduler: Arc<dyn Scheduler>,
) -> Result<Arc<dyn Queue>, Failure> {
    if config.store.engine != "redis" {
        return Ok(embedded(config)?);
    }
    let mut options = redis(config)?;
    options.instance = instance(config, shape)?;
    options.placer = Some(placer(scheduler));
    let mut pause = PAUSE.0;
    let mut waiting = None;
    loop {
        match Redis::open(options.clone()).await {
            Ok(redis) => {
                if let Some(since) = waiting.map(|since: Instant| since.elapsed()) {
                    tracing::info!(seconds = since.as_secs_f64(), "Redis answers; going on");
                }
                return Ok(redis);
            }
            Err(error @ RedisOpenError::Unreachable { .. }) => {
                // A warning once and then now and again: a log must not fill up meanwhile.
                if waiting.is_none() {
                    waiting = Some(Instant::now());
                    tracing::warn!("{error}; waiting for it, until a signal ends this process");
                } else {
                    tracing::info!("{error}; still waiting");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            Err(error) => {
                let exit =
                    if matches!(error, RedisOpenError::Unfit { .. }) { Exit::Local } else { Exit::Usage };
                return Err(Failure::new(exit, "redis", error.to_string())
                    .hint("`netpulse doctor` looks at everything that Redis must have"));
            }
        }
    }
}

/// What the engine asks for a device's node.
pub(crate) fn placer(scheduler: Arc<dyn Scheduler>) -> Arc<dyn Placer> {
    Arc::new(ByScheduler::new(scheduler))
}

/// How `redis.*` says that Redis is reached, and the bounds of its store.
///
/// # Errors
/// A Sentinel's port that is none.
pub(crate) fn redis(config: &Config) -> Result<RedisOptions, Failure> {
    let redis = &config.redis;
    let path = |file: &Option<PathBuf>| file.clone();
    let tls = redis.tls.enabled.then(|| RedisTls {
        ca: path(&redis.tls.ca),
        cert: path(&redis.tls.cert),
        key: path(&redis.tls.key),
    });
    let sentinel = if redis.sentinel.enabled {
        Some(RedisSentinel {
            hosts: sentinels(&redis.sentinel.host, redis.sentinel.port)?,
            master_name: redis.sentinel.master_name.clone(),
            password: redis.sentinel.password.clone(),
        })
    } else {
        None
    };
    // One text for all processes: what each could have on disk would be another for each.
    let text = config.store.seal_key.clone().unwrap_or_else(|| config.server.api_key.clone());
    Ok(RedisOptions {
        host: redis.host.clone(),
        port: redis.port,
        db: i64::from(redis.db),
        username: redis.username.clone(),
        password: redis.password.clone(),
        tls,
        sentinel,
        timeout: Duration::from_secs(redis.timeout.max(1)),
        keepalive: Duration::from_secs(redis.keepalive.max(1)),
        prefix: redis.key.prefix.clone(),
        host_to_node_map: redis.key.host_to_node_map.clone(),
        node_info_map: redis.key.node_info_map.clone(),
        keys: vec![SealKey::from_passphrase(&text)],
        lease: Duration::from_secs(config.worker.lease.max(1)),
        max_queued: config.store.max_queued,
        max_queued_per_device: config.store.max_queued_per_device,
        max_outbox: config.store.max_outbox,
        events: RingSize { events: config.store.events, ..RedisOptions::default().events },
        audit_retention: Duration::from_secs(config.audit.retention_days.saturating_mul(24 * 3600)),
        canceled_ttl: Duration::from_secs(config.job.ttl),
        min_replicas: redis.min_replicas,
        ..RedisOptions::default()
    })
}

/// `host[:port]`, separated by commas.
fn sentinels(hosts: &str, default: u16) -> Result<Vec<(String, u16)>, Failure> {
    let one = |entry: &str| match entry.rsplit_once(':') {
        // An IPv6 address has colons of its own; with a port it stands in brackets.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => port
            .parse::<u16>()
            .map(|port| (host.trim_matches(['[', ']']).to_owned(), port))
            .map_err(|_| Failure::usage(format!("redis.sentinel.host: `{port}` in `{entry}` is no port"))),
        _ => Ok((entry.trim_matches(['[', ']']).to_owned(), default)),
    };
    hosts.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(one).collect()
}

/// What tells the place of this process from every other: a new process in the same place takes
/// over at once what the one before it held. Two controllers have no place of their own, so each
/// life of one is another.
fn instance(config: &Config, shape: Shape) -> Result<String, Failure> {
    if shape == Shape::Controller {
        return Ok(format!("controller {}", uuid::Uuid::new_v4()));
    }
    let folder = lock::work_dir(config);
    let folder = folder.canonicalize().map_err(|e| Failure::local(format!("{}: {e}", folder.display())))?;
    let role = match shape {
        Shape::All => "all",
        Shape::Devices => "node",
        Shape::Fifo => "fifo",
        Shape::Controller => "controller",
    };
    Ok(format!("{} {} {role}", netpulse_worker::host_name(), folder.display()))
}

fn embedded(config: &Config) -> Result<Arc<Embedded>, Failure> {
    let options = Options {
        lease: Duration::from_secs(config.worker.lease.max(1)),
        max_queued: config.store.max_queued,
        max_queued_per_device: config.store.max_queued_per_device,
        max_outbox: config.store.max_outbox,
        result_cache: config.store.result_cache,
        events: RingSize { events: config.store.events, ..Options::default().events },
        audit_retention: Duration::from_secs(config.audit.retention_days.saturating_mul(24 * 3600)),
        canceled_ttl: Duration::from_secs(config.job.ttl),
        ..Options::default()
    };
    Embedded::open(&config.store.path, options).map_err(|error| {
        let code = if matches!(error, OpenError::InUse { .. }) { "store_in_use" } else { "store" };
        Failure::new(Exit::Local, code, error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentinels_with_and_without_their_port() {
        let read = |text: &str| sentinels(text, 26_379).unwrap();
        let at = |host: &str, port| (host.to_owned(), port);
        assert_eq!(read("redis-sentinel"), [at("redis-sentinel", 26_379)]);
        assert_eq!(
            read("s1:1, s2 ,[::1]:7,::2"),
            [at("s1", 1), at("s2", 26_379), at("::1", 7), at("::2", 26_379)]
        );
        let wrong = sentinels("s1:x", 1).unwrap_err();
        assert_eq!(wrong.what, "redis.sentinel.host: `x` in `s1:x` is no port");
    }

    #[test]
    fn every_process_seals_with_the_same_text() {
        let mut config = Config::default();
        config.server.api_key = "k-0123456789".into();
        config.redis.tls.enabled = true;
        config.redis.sentinel.enabled = true;
        let options = redis(&config).unwrap();
        assert!(options.tls.is_some() && options.sentinel.is_some() && options.keys.len() == 1);
        assert_eq!((options.prefix.as_str(), options.min_replicas), ("np", 0));
        assert!(!format!("{:?}", options.keys).contains("0123"), "a key is never shown");
    }
}
