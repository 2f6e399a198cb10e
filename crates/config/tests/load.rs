//! What the loader makes of files, environment and flags, and what it says about mistakes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use netpulse_config::{Config, KEYS, LoadOptions, Loaded, Origin};
use tempfile::TempDir;

struct Case {
    folder: TempDir,
    options: LoadOptions,
}

fn case(yaml: &str) -> Case {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("np.yaml");
    std::fs::write(&file, yaml).unwrap();
    let options =
        LoadOptions { file: Some(file), search: Some(folder.path().to_owned()), ..LoadOptions::default() };
    Case { folder, options }
}

impl Case {
    fn env(mut self, name: &str, value: &str) -> Self {
        self.options.env.insert(name.into(), value.into());
        self
    }

    fn dotenv(self, text: &str) -> Self {
        std::fs::write(self.folder.path().join(".env"), text).unwrap();
        self
    }

    fn load(&self) -> Config {
        Config::load(self.options.clone()).unwrap().0
    }

    /// The mistakes, with the folder taken out of them.
    fn mistakes(&self) -> Vec<String> {
        let errors = Config::load(self.options.clone()).unwrap_err();
        errors.0.iter().map(|problem| self.clean(&problem.to_string())).collect()
    }

    fn mistakes_or_none(&self) -> Vec<String> {
        Loaded::read(self.options.clone()).problems.iter().map(|p| self.clean(&p.to_string())).collect()
    }

    fn warnings(&self) -> Vec<String> {
        let warnings = Loaded::read(self.options.clone()).warnings;
        warnings.iter().map(|warning| self.clean(&warning.to_string())).collect()
    }

    fn clean(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

const KEY: &str = "server: {api_key: k-0123456789}\n";

#[test]
fn nothing_but_the_key_is_required() {
    let config = case(KEY).load();
    assert_eq!((config.server.port, config.worker.scheduler.as_str()), (9000, "least_load"));
    let mistakes = case("").mistakes();
    assert_eq!(mistakes.len(), 1);
    assert!(mistakes[0].starts_with("server.api_key: must be set"), "{mistakes:?}");
    assert!(mistakes[0].contains("NETPULSE_SERVER__API_KEY"), "{mistakes:?}");
    assert!(
        case("server:\n  api_key: '  '\n").mistakes()[0]
            .starts_with("np.yaml:2: server.api_key: must be set")
    );
}

#[test]
fn flags_win_over_environment_over_dotenv_over_file_over_default() {
    let base = || case("server:\n  api_key: k-0123456789\n  port: 1001\n");
    let port = |case: &Case| case.load().server.port;
    assert_eq!(port(&base()), 1001);
    let dotenv = base().dotenv("NETPULSE_SERVER__PORT=1002\n");
    assert_eq!(port(&dotenv), 1002);
    let both = base().dotenv("NETPULSE_SERVER__PORT=1002\n").env("NETPULSE_SERVER__PORT", "1003");
    assert_eq!(port(&both), 1003);
    let mut flagged = both;
    flagged.options = flagged.options.with_override("server.port", "1004", "--port");
    assert_eq!(port(&flagged), 1004);
    let loaded = Loaded::read(flagged.options.clone());
    let setting = loaded.settings.iter().find(|s| s.key.path() == "server.port").unwrap();
    assert_eq!(setting.origin, Origin::Flag { flag: "--port".into() });
    // The early documentation's spelling.
    assert_eq!(port(&base().env("NETPULSE__SERVER__PORT", "1005")), 1005);
}

#[test]
fn the_file_is_named_by_the_environment_or_found() {
    let folder = TempDir::new().unwrap();
    let search = || LoadOptions { search: Some(folder.path().to_owned()), ..LoadOptions::default() };
    let write = |name: &str, port: u16| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("server: {{api_key: k-0123456789, port: {port}}}\n")).unwrap();
        path
    };
    let port = |options| Config::load(options).unwrap().0.server.port;
    write("netpulse.yaml", 1);
    assert_eq!(port(search()), 1);
    write("config/netpulse.yaml", 2);
    assert_eq!(port(search()), 2);
    let named = write("elsewhere.yaml", 3);
    let mut options = search();
    options.env.insert("NETPULSE_CONFIG_FILE".into(), named.display().to_string());
    assert_eq!(port(options.clone()), 3);
    let flagged = write("flag.yaml", 4);
    assert_eq!(port(options.with_file(Some(flagged))), 4);
    let missing = Config::load(search().with_file(Some("/nowhere/np.yaml".into()))).unwrap_err().to_string();
    assert!(missing.contains("/nowhere/np.yaml: the configuration file cannot be read"), "{missing}");
}

#[test]
fn a_clients_profile_file_is_no_server_configuration() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("netpulse.yaml"), "default:\n  base_url: http://x:9000\n").unwrap();
    let mut options = LoadOptions { search: Some(folder.path().to_owned()), ..LoadOptions::default() };
    options.env.insert("NETPULSE_SERVER__API_KEY".into(), "k-0123456789".into());
    let (_, warnings) = Config::load(options).unwrap();
    assert!(warnings[0].to_string().contains("client's profiles"), "{warnings:?}");
}

#[test]
fn every_mistake_is_told_at_once_with_its_line() {
    let case = case(
        "server:\n\
         \x20 api_key: k-0123456789\n\
         \x20 port: 90000\n\
         \x20 hots: 0.0.0.0\n\
         worker: {scheduler: '',\n\
         \x20 lease: soon}\n\
         wroker:\n\
         \x20 lease: 3\n\
         job:\n\
         \x20 default_strategy:\n\
         \x20   napalm: pined\n\
         scheduler: greedy\n\
         session:\n\
         \x20 host_keys: stric\n\
         template:\n\
         \x20 dirs: [/nowhere/templates]\n",
    )
    .env("NETPULSE_STORE__MAX_QUED", "5")
    .env("NETPULSE_WORKER__KEEPALIVE", "-1");
    let mistakes = case.mistakes();
    let outer: Vec<&str> =
        netpulse_config::SECTIONS.iter().map(|(name, _)| *name).filter(|name| !name.contains('.')).collect();
    let sections = format!(
        "np.yaml:7: wroker: no such section (did you mean `worker`?): there are {}",
        outer.join(", ")
    );
    for expected in [
        "np.yaml:3: server.port: 90000 is out of bounds: expected 0 to 65535",
        "np.yaml:4: server.hots: no such key: did you mean `server.host`?",
        "np.yaml:5: worker.scheduler: must not be empty",
        "np.yaml:6: worker.lease: `soon` is no whole number: expected 1 to 3600",
        &sections,
        "np.yaml:10: job.default_strategy: napalm: `pined` is not known: expected one of fifo, pinned (did you mean `pinned`?)",
        "np.yaml:12: scheduler: no such key: did you mean `worker.scheduler`?",
        "np.yaml:14: session.host_keys: `stric` is not known: expected one of accept-new, strict, off (did you mean `strict`?)",
        "np.yaml:16: template.dirs: there is no folder `/nowhere/templates`",
        "environment variable NETPULSE_STORE__MAX_QUED: store.max_qued: no such key: did you mean `NETPULSE_STORE__MAX_QUEUED`?",
        "environment variable NETPULSE_WORKER__KEEPALIVE: worker.keepalive: `-1` is no whole number: expected 0 to 86400",
    ] {
        assert!(mistakes.iter().any(|m| m == expected), "missing: {expected}\nin: {mistakes:#?}");
    }
    assert_eq!(mistakes.len(), 11, "{mistakes:#?}");
}

#[test]
fn a_broken_file_names_the_line() {
    let broken = case("server:\n  api_key: k\n port: 3\n").mistakes();
    assert!(broken[0].starts_with("np.yaml:3: is no YAML:"), "{broken:?}");
    let twice = case("server:\n  api_key: k\n  api_key: j\n").mistakes();
    assert!(twice[0].contains("is no YAML: ") && twice[0].contains("duplicate"), "{twice:?}");
    let list = case("- server\n").mistakes();
    assert!(list[0].starts_with("np.yaml:1: expected sections"), "{list:?}");
    let flat = case("server: 9000\n").mistakes();
    assert!(flat.concat().contains("`9000` is no section: expected keys below `server:`"), "{flat:?}");
}

#[test]
fn lists_and_mappings_from_the_environment() {
    let list = |value: &str| case(KEY).env("NETPULSE_SERVER__CORS_ORIGINS", value).load().server.cors_origins;
    assert_eq!(list(r#"["https://a", "https://b"]"#), ["https://a", "https://b"]);
    assert_eq!(list("https://a, https://b"), ["https://a", "https://b"]);
    assert!(list("").is_empty());
    assert!(
        case(KEY).env("NETPULSE_SERVER__CORS_ORIGINS", "[oops").mistakes()[0].contains("is no list of texts")
    );
    let mapping = |case: Case| case.load().job.default_strategy.into_iter().collect::<Vec<_>>();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    for value in [r#"{"napalm": "pinned"}"#, "napalm=pinned"] {
        assert_eq!(
            mapping(case(KEY).env("NETPULSE_JOB__DEFAULT_STRATEGY", value)),
            [pair("napalm", "pinned")]
        );
    }
    // One entry by one variable joins what the file has.
    let yaml = format!("{KEY}job: {{default_strategy: {{pyeapi: pinned}}}}\n");
    let joined = mapping(case(&yaml).env("NETPULSE_JOB__DEFAULT_STRATEGY__NAPALM", "fifo"));
    assert_eq!(joined, [pair("napalm", "fifo"), pair("pyeapi", "pinned")]);
}

#[test]
fn variables_in_the_file_are_expanded_and_typed() {
    let yaml = "server:\n  api_key: \"${NP_KEY}\"\n  port: \"${NP_PORT:-9100}\"\n  legacy_envelope: ${NP_OLD:-yes}\n";
    let config = case(yaml).env("NP_KEY", "from-the-environment").load();
    assert_eq!(config.server.api_key, "from-the-environment");
    assert_eq!((config.server.port, config.server.legacy_envelope), (9100, true));
    assert_eq!(case(yaml).dotenv("NP_KEY=from-dotenv\n").load().server.api_key, "from-dotenv");
    let unset = case(yaml).mistakes();
    assert!(
        unset[0].starts_with("np.yaml:2: server.api_key: the environment variable NP_KEY is not set"),
        "{unset:?}"
    );
    // Who sets the key elsewhere does not need the variable.
    assert_eq!(case(yaml).env("NETPULSE_SERVER__API_KEY", "direct-key").load().server.api_key, "direct-key");
}

#[test]
fn keys_of_the_python_system_warn_and_never_fail() {
    let case = case(
        "server: {host: 127.0.0.1, api_key: k-0123456789, gunicorn_worker: 4}\n\
         worker:\n  scheduler: load_weighted_random\n  ttl: 300\n\
         redis: {host: redis, port: 6379, password: \"${REDIS_PW}\", tls: {enabled: false}}\n\
         plugin: {driver: netpulse/plugins/drivers/}\n\
         log: {config: config/log-config.yaml, level: INFO}\n",
    )
    .env("REDIS_PW", "hidden");
    assert_eq!(case.load().worker.scheduler, "load_weighted_random");
    assert_eq!(case.load().redis.password.as_deref(), Some("hidden"));
    let warnings = case.warnings();
    for start in [
        "np.yaml:1: server.gunicorn_worker: is accepted and does nothing: ",
        "np.yaml:4: worker.ttl: ",
        "np.yaml:5: redis.host: does nothing while `store.engine` is `embedded`",
        "np.yaml:7: log.config: ",
    ] {
        assert!(warnings.iter().any(|w| w.starts_with(start)), "missing: {start}\nin: {warnings:#?}");
    }
    assert_eq!(warnings.len(), 4, "{warnings:#?}");
}

#[test]
fn promise_12_secrets_are_never_shown() {
    let case = case("server:\n  api_key: very-secret-key\n");
    let shown = format!("{:?} {:?}", case.load(), Loaded::read(case.options.clone()));
    assert!(!shown.contains("very-secret-key"), "{shown}");
    let quiet = self::case(KEY)
        .env("NETPULSE_REDIS__PASSWORD", "very-secret-key")
        .env("NETPULSE_REDIS__SENTINEL__PASSWORD", "very-secret-key")
        .env("NETPULSE_STORE__SEAL_KEY", "very-secret-key");
    let shown = format!("{:?} {:?}", quiet.load(), Loaded::read(quiet.options.clone()));
    assert!(!shown.contains("very-secret-key"), "{shown}");
    let wrong = self::case("server:\n  api_key: [very-secret-key]\n").mistakes().join("\n");
    assert!(!wrong.contains("very-secret-key") && wrong.contains("server.api_key"), "{wrong}");
}

#[test]
fn a_listener_beyond_this_machine_is_warned_about() {
    let quiet = |host: &str| case(&format!("server: {{api_key: short, host: '{host}'}}\n")).warnings();
    for host in ["127.0.0.1", "localhost", "::1", "127.0.0.9"] {
        assert!(quiet(host).is_empty(), "{host}");
    }
    let loud = quiet("0.0.0.0");
    assert_eq!(loud.len(), 2, "{loud:?}");
    assert!(loud[0].contains("server.api_key: is shorter than 8"), "{loud:?}");
    assert!(loud[1].contains("plain HTTP"), "{loud:?}");
}

#[test]
fn https_needs_both_files_and_they_must_be_there() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let half =
        case(&format!("server:\n  api_key: k-0123456789\n  tls_cert: {}\n", here.display())).mistakes();
    assert!(half[0].starts_with("np.yaml:3: server.tls_cert: `server.tls_key` is missing"), "{half:?}");
    let absent =
        case("server:\n  api_key: k-0123456789\n  tls: {cert: /nowhere/c.pem, key: /nowhere/k.pem}\n");
    let mistakes = absent.mistakes();
    assert_eq!(mistakes[0], "np.yaml:3: server.tls_cert: there is no file `/nowhere/c.pem` that can be read");
    assert_eq!(mistakes.len(), 2);
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    let folder = TempDir::new().unwrap();
    for key in KEYS {
        let mut case = case(KEY);
        let file = case.folder.path().join("np.yaml").display().to_string();
        let value = match key.path().as_str() {
            "server.tls_cert" | "server.tls_key" | "webhook.ca" | "plugin.keys" => file,
            "server.external_url" => "https://np.example.net".into(),
            "worker.scheduler" => "greedy".into(),
            "job.default_strategy" => "napalm=pinned".into(),
            "session.host_keys" => "strict".into(),
            "store.engine" => "redis".into(),
            "redis.tls.enabled" | "redis.sentinel.enabled" | "plugin.require_signature" => "true".into(),
            "log.level" => "DEBUG".into(),
            "log.format" => "json".into(),
            "webhook.format" => "legacy".into(),
            _ if key.kind == netpulse_config::Kind::Switch => "false".into(),
            "credential.addr" => "https://vault.example.net:8200".into(),
            "credential.timeout" | "redis.min_replicas" => "7".into(),
            path if path.ends_with("dir") || path.ends_with("dirs") => folder.path().display().to_string(),
            _ if key.kind == netpulse_config::Kind::Number => "1024".into(),
            _ if key.kind == netpulse_config::Kind::Switch => "true".into(),
            _ if key.kind == netpulse_config::Kind::Mapping => "acme=some-text".into(),
            _ => "some-text".into(),
        };
        case = case.env(&key.env(), &value);
        let loaded = Loaded::read(case.options.clone());
        let problems: Vec<_> =
            loaded.problems.iter().filter(|p| !p.message.contains("both the certificate")).collect();
        assert!(problems.is_empty(), "{}: {problems:?}", key.path());
        let setting = loaded.settings.iter().find(|s| s.key.path() == key.path()).unwrap();
        assert_eq!(setting.origin, Origin::Env { variable: key.env() });
    }
}

#[test]
fn sections_inside_sections_from_file_environment_and_flag() {
    let yaml = format!(
        "{KEY}store: {{engine: redis}}\nredis:\n  host: r1\n  tls:\n    enabled: false\n  sentinel: {{port: 26400}}\n"
    );
    let config = case(&yaml)
        .env("NETPULSE_REDIS__SENTINEL__ENABLED", "yes")
        .env("NETPULSE_REDIS__KEY__PREFIX", "site-a")
        .load();
    let redis = &config.redis;
    assert_eq!((redis.host.as_str(), redis.port, redis.timeout, redis.keepalive), ("r1", 6379, 30, 30));
    assert!(redis.sentinel.enabled && !redis.tls.enabled);
    assert_eq!((redis.sentinel.port, redis.sentinel.master_name.as_str()), (26_400, "mymaster"));
    assert_eq!(redis.key.prefix, "site-a");
    assert_eq!(redis.key.host_to_node_map, "netpulse:host_to_node_map");
    let mut flagged = case(&yaml);
    flagged.options = flagged.options.with_override("redis.sentinel.port", "26500", "--test");
    assert_eq!(flagged.load().redis.sentinel.port, 26_500);
    let mistakes =
        case(&format!("{KEY}redis:\n  tls: 5\n  sentinel:\n    prot: 3\n  key:\n    zzzzzz: 1\n")).mistakes();
    assert_eq!(mistakes[0], "np.yaml:3: redis.tls: `5` is no section: expected keys below `redis.tls:`");
    assert_eq!(
        mistakes[1],
        "np.yaml:5: redis.sentinel.prot: no such key: did you mean `redis.sentinel.port`?"
    );
    assert_eq!(
        mistakes[2],
        "np.yaml:7: redis.key.zzzzzz: no such key: `redis.key` has prefix, host_to_node_map, node_info_map"
    );
}

#[test]
fn the_files_of_tls_to_redis_must_be_there_once_it_is_enabled() {
    let yaml = |enabled: bool| {
        format!(
            "{KEY}redis:\n  tls:\n    enabled: {enabled}\n    ca: /nowhere/ca.pem\n    cert: /nowhere/c.pem\n"
        )
    };
    assert!(case(&yaml(false)).mistakes_or_none().is_empty());
    let mistakes = case(&yaml(true)).mistakes();
    for expected in [
        "np.yaml:5: redis.tls.ca: there is no file `/nowhere/ca.pem` that can be read",
        "np.yaml:6: redis.tls.cert: there is no file `/nowhere/c.pem` that can be read",
        "np.yaml:6: redis.tls.cert: `redis.tls.key` is missing: a certificate and its key belong together",
    ] {
        assert!(mistakes.iter().any(|m| m == expected), "missing: {expected}\nin: {mistakes:#?}");
    }
    assert_eq!(mistakes.len(), 3, "{mistakes:#?}");
}

#[test]
fn the_engine_is_named_and_the_python_systems_switch_wins() {
    let engine = |case: Case| case.load().store.engine;
    assert_eq!(engine(case(KEY)), "embedded");
    let redis = || case(&format!("{KEY}store: {{engine: redis}}\n"));
    assert_eq!(engine(redis()), "redis");
    for word in ["1", "true", "YES", "on"] {
        let mut forced = redis().env("NETPULSE_FAKE_REDIS", word);
        forced.options = forced.options.with_override("store.engine", "redis", "--engine");
        assert_eq!(engine(forced), "embedded", "{word}");
    }
    for word in ["0", "false", "no", "off", ""] {
        assert_eq!(engine(redis().env("NETPULSE_FAKE_REDIS", word)), "redis", "{word}");
    }
    assert_eq!(engine(redis().dotenv("NETPULSE_FAKE_REDIS=on\n")), "embedded");
    let wrong = redis().env("NETPULSE_FAKE_REDIS", "perhaps").mistakes();
    assert!(
        wrong[0].contains("NETPULSE_FAKE_REDIS") && wrong[0].contains("neither true nor false"),
        "{wrong:?}"
    );
    let unknown = case(&format!("{KEY}store: {{engine: reddis}}\n")).mistakes();
    assert!(unknown[0].contains("expected one of embedded, redis (did you mean `redis`?)"), "{unknown:?}");
}

#[test]
fn vault_is_configured_by_todays_keys_the_early_variables_and_the_fallbacks() {
    let today = case(
        "server: {api_key: k-0123456789}\n\
         credential: {enabled: true, name: vault_kv, addr: 'http://vault:8200', token: t-file, \
         allowed_paths: 'kv/network, kv/lab', verify: false, cache_ttl: 0}\n",
    );
    let config = today.load().credential;
    assert_eq!((config.allowed_paths.len(), config.verify.as_str(), config.cache_ttl), (2, "false", 0));
    assert_eq!(config.mount, "kv");
    // The file's own word stands before the fallback.
    assert_eq!(today.env("NETPULSE_VAULT_TOKEN", "t-env").load().credential.token.as_deref(), Some("t-file"));

    let early = case("server: {api_key: k-0123456789}\ncredential: {enabled: true, name: vault, token: }\n")
        .env("NETPULSE__CREDENTIAL__VAULT__URL", "http://localhost:8200")
        .env("NETPULSE__CREDENTIAL__VAULT__MOUNT_POINT", "secret")
        .env("NETPULSE__CREDENTIAL__VAULT__TIMEOUT", "7")
        .env("NETPULSE_VAULT_TOKEN", "t-env")
        .load()
        .credential;
    assert_eq!((early.addr.as_deref(), early.mount.as_str()), (Some("http://localhost:8200"), "secret"));
    assert_eq!((early.timeout, early.token.as_deref()), (7, Some("t-env")));
}

#[test]
fn an_incomplete_credential_section_stops_the_start() {
    let said = |section: &str| {
        case(&format!("{KEY}credential: {{enabled: true, {section}}}\n")).mistakes().join("\n")
    };
    for (section, sentence) in [
        ("cache_ttl: 30", "credential.name: must be set"),
        ("name: vault_kv, token: t", "credential.addr: must be set"),
        (
            "name: vault, addr: 'http://v:8200'",
            "credential.token: Vault auth requires token or AppRole (role_id + secret_id)",
        ),
        (
            "name: vault_kv, addr: 'http://v:8200', role_id: r",
            "Vault auth requires token or AppRole (role_id + secret_id)",
        ),
        ("name: env, providers: [file]", "credential.dir: must be set"),
        ("name: vault_kv, addr: 'http://v:8200', token: t, verify: /no/ca.pem", "credential.verify: "),
        ("name: vault_kv, addr: 'http://v:8200', token: t, allowed_paths: ['kv/../x']", "`kv/../x`"),
        ("name: vault_kv, adr: x", "did you mean `credential.addr`?"),
    ] {
        assert!(said(section).contains(sentence), "{section}: {}", said(section));
    }
    // Off, it may be incomplete.
    assert!(case(&format!("{KEY}credential: {{name: vault_kv}}\n")).warnings().is_empty());
    let open = "name: vault_kv, addr: 'https://v:8200', token: t, verify: false";
    let warned = case(&format!("{KEY}credential: {{enabled: true, {open}}}\n")).warnings().join("\n");
    assert!(warned.contains("credential.verify: "), "{warned}");
}
