//! Keys of the Python system that are accepted so that its files load, and what becomes of each.

/// Keys that mean one of ours under another name.
pub(crate) const ALIASES: &[(&str, &str)] = &[
    ("server.tls.cert", "server.tls_cert"),
    ("server.tls.key", "server.tls_key"),
    ("credential.vault.url", "credential.addr"),
    ("credential.vault.token", "credential.token"),
    ("credential.vault.mount_point", "credential.mount"),
    ("credential.vault.timeout", "credential.timeout"),
];

/// Keys that are accepted and do nothing, with the reason. A path covers all below it.
pub(crate) const IGNORED: &[(&str, &str)] = &[
    ("server.gunicorn_worker", "there are no worker processes: the server uses every CPU by itself"),
    (
        "worker.ttl",
        "workers report every few seconds: `worker.lease` says how long a silent one keeps its devices",
    ),
    ("job.result_cache_ttl", "results are not shared between requests in this version"),
    ("mongodb", "the outcome of changes is kept in the embedded store for `audit.retention_days`"),
    ("log.config", "logs go to standard error: `log.level` and `log.format` set them"),
    ("server.tls", "use `server.tls_cert` and `server.tls_key`"),
];

/// Environment variables that look like keys but speak to somebody else.
pub(crate) const ENV_ALIASES: &[(&str, &str)] = &[("NETPULSE_LOG_LEVEL", "log.level")];

/// Set to a true word, it forces the embedded store: the Python system's switch for tests.
pub(crate) const FAKE_REDIS: &str = "NETPULSE_FAKE_REDIS";
/// As [`ENV_ALIASES`], for keys that nothing else sets.
pub(crate) const ENV_FALLBACKS: &[(&str, &str)] = &[
    ("NETPULSE_VAULT_TOKEN", "credential.token"),
    ("NETPULSE_VAULT_ROLE_ID", "credential.role_id"),
    ("NETPULSE_VAULT_SECRET_ID", "credential.secret_id"),
];

/// The reason why `path` is accepted and does nothing, if it is such a key.
pub(crate) fn ignored(path: &str) -> Option<&'static str> {
    IGNORED
        .iter()
        .filter(|(key, _)| path == *key || path.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
        .max_by_key(|(key, _)| key.len())
        .map(|(_, reason)| *reason)
}

/// The key that `path` means today.
pub(crate) fn today(path: &str) -> &str {
    ALIASES.iter().find(|(old, _)| *old == path).map_or(path, |(_, new)| new)
}
