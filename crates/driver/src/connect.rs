//! From a request's connection arguments to an SSH connection: what all SSH drivers share.
//!
//! The names are Netmiko's and Paramiko's own; both sets are understood by every driver. What
//! cannot be honoured is named in [`SshPlan::warnings`], so that nothing is ignored silently.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use netpulse_model::fields::{FieldError, Fields};
use netpulse_model::{ConnectionArgs, DeviceKey, ErrorCode, ErrorInfo};
use netpulse_session::SessionError;
use netpulse_session::transport::hostkeys::{HostKeyPolicy, HostKeys};
use netpulse_session::transport::ssh::{
    self, Credentials, Disabled, KeyPlace, KeySource, LegacyDevices, Profile, SshConnection, SshOptions,
    SshTarget,
};
use secrecy::SecretString;
use serde_json::Value;
use tokio::sync::Semaphore;

/// What the configuration says about connections, for all drivers of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnectSettings {
    /// The host-key store.
    pub host_keys: HostKeys,
    /// What to do with unknown host keys, unless the request says.
    pub policy: HostKeyPolicy,
    /// Folders below which requests may name private keys.
    pub key_dirs: Arc<[PathBuf]>,
    /// For the TCP connection, unless the request says (`conn_timeout`).
    pub connect_timeout: Duration,
    /// Bounds the handshakes at a time.
    pub handshakes: Arc<Semaphore>,
    /// Devices that needed old algorithms.
    pub legacy_devices: LegacyDevices,
    /// Bytes of output that one command may give.
    pub max_output: usize,
    /// Silence after which a sign of life is asked for, unless the request says (`keepalive`).
    pub keepalive: Duration,
}

impl ConnectSettings {
    /// The defaults, with a store of host keys.
    #[must_use]
    pub fn new(host_keys: HostKeys) -> Self {
        Self {
            host_keys,
            policy: HostKeyPolicy::AcceptNew,
            key_dirs: Arc::from([]),
            connect_timeout: Duration::from_secs(10),
            handshakes: Arc::new(Semaphore::new(128)),
            legacy_devices: LegacyDevices::default(),
            max_output: 100 * 1024 * 1024,
            keepalive: Duration::from_secs(60),
        }
    }
}

/// Whose meaning ambiguous arguments have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `timeout` is for reading; the TCP connection has `conn_timeout`.
    Netmiko,
    /// `timeout` is for the TCP connection.
    Paramiko,
}

/// Connection arguments, understood.
#[derive(Debug, Clone)]
pub struct SshPlan {
    /// Where to go and who to be there.
    pub target: SshTarget,
    /// How.
    pub options: SshOptions,
    /// Arguments that were given and cannot be honoured, a sentence each.
    pub warnings: Vec<String>,
}

/// Arguments that mean something to Netmiko or Paramiko and nothing here, and why.
const NOT_HONOURED: &[(&str, &str)] = &[
    ("ssh_config_file", "name the jump host with `proxy_host`, and keys with `key_file` or `pkey`"),
    ("system_host_keys", "NetPulse has a host-key store of its own (`session.known_hosts`)"),
    ("alt_host_keys", "NetPulse has a host-key store of its own (`session.known_hosts`)"),
    ("alt_key_file", "NetPulse has a host-key store of its own (`session.known_hosts`)"),
    ("serial_settings", "serial lines are not supported"),
    ("sock", "a socket cannot be passed by REST; use `proxy_host`"),
    ("gss_auth", "GSSAPI is not supported"),
    ("gss_kex", "GSSAPI is not supported"),
    ("use_keys", "keys of the server's own user are not tried; give `key_file` or `pkey`"),
];

/// Names that are read from `connection_args`, by whichever driver. Others may stand there too (a
/// site's own fields), so only what looks like a slip of one of these is named.
const READ: &[&str] = &[
    "device_type",
    "host",
    "ip",
    "port",
    "username",
    "password",
    "secret",
    "passphrase",
    "pkey",
    "key_file",
    "key_filename",
    "allow_agent",
    "proxy_host",
    "proxy_port",
    "proxy_username",
    "proxy_password",
    "proxy_pkey",
    "proxy_passphrase",
    "proxy_key_file",
    "proxy_key_filename",
    "conn_timeout",
    "timeout",
    "banner_timeout",
    "auth_timeout",
    "session_timeout",
    "read_timeout_override",
    "keepalive",
    "compress",
    "ssh_profile",
    "ssh_strict",
    "host_key_policy",
    "disabled_algorithms",
    "default_enter",
    "enable_mode",
    "look_for_keys",
];

/// Says of each argument that looks like a slip of one that is read which that probably is.
pub(crate) fn slips(args: &ConnectionArgs) -> Vec<String> {
    let others = |name: &str| READ.contains(&name) || NOT_HONOURED.iter().any(|(known, _)| *known == name);
    let unread = args.0.keys().filter(|key| !others(key));
    unread
        .filter_map(|key| {
            let near = crate::unused::nearest(key, READ)?;
            let shown: String = key.chars().filter(|c| !c.is_control()).take(60).collect();
            Some(format!("`connection_args.{shown}` was not used: did you mean `{near}`?"))
        })
        .collect()
}

/// The device that arguments mean.
///
/// # Errors
/// No host, or one that can be none; a port that is none.
pub fn device(args: &ConnectionArgs, default_port: u16) -> Result<DeviceKey, FieldError> {
    let host = host(args)?;
    Ok(DeviceKey::new(host, port(args, default_port)?, default_port))
}

fn host(args: &ConnectionArgs) -> Result<&str, FieldError> {
    let missing = || FieldError {
        kind: "missing".into(),
        ..FieldError::new(&["connection_args", "host"], "Field required")
    };
    let host = args.host().filter(|h| !h.is_empty()).ok_or_else(missing)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let sound = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if bare.is_empty() || bare.len() > 255 || bare.starts_with('-') || !bare.chars().all(sound) {
        let mut error = FieldError::new(
            &["connection_args", "host"],
            "Input should be a host name or an address, without port, scheme or user",
        );
        error.input = Value::from(host);
        return Err(error);
    }
    Ok(bare)
}

fn port(args: &ConnectionArgs, default_port: u16) -> Result<u16, FieldError> {
    match args.0.get("port") {
        None | Some(Value::Null) => Ok(default_port),
        Some(given) => args.port().filter(|p| *p > 0).ok_or_else(|| {
            let mut error =
                FieldError::new(&["connection_args", "port"], "Input should be a port, 1 to 65535");
            error.input = given.clone();
            error
        }),
    }
}

/// Everything that is wrong with connection arguments, as far as can be seen without the device.
#[must_use]
pub fn validate(args: &ConnectionArgs, settings: &ConnectSettings, dialect: Dialect) -> Vec<FieldError> {
    match read(args, settings, dialect, 22) {
        Ok(_) => Vec::new(),
        Err(errors) => errors,
    }
}

/// Reads connection arguments.
///
/// # Errors
/// `BadRequest`, naming every wrong argument.
pub fn ssh_plan(
    args: &ConnectionArgs,
    settings: &ConnectSettings,
    dialect: Dialect,
) -> Result<SshPlan, ErrorInfo> {
    read(args, settings, dialect, 22)
        .map_err(|errors| ErrorInfo::new(ErrorCode::BadRequest, netpulse_model::fields::sentence(&errors)))
}

/// Connects and logs in.
///
/// # Errors
/// With the code that says which step failed.
pub async fn open(plan: &SshPlan, settings: &ConnectSettings) -> Result<SshConnection, ErrorInfo> {
    let places = std::iter::successors(Some(&plan.target), |target| target.jump.as_deref());
    for key in places.flat_map(|target| &target.credentials.keys) {
        if let KeyPlace::File(path) = &key.place {
            check_key_file(path, settings).await?;
        }
    }
    ssh::connect(&plan.target, &plan.options, &settings.host_keys).await.map_err(error_info)
}

/// What is said of a line that was not sent because the work ended with `code` before its turn;
/// none when a line before it was the reason.
pub(crate) fn not_sent(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::Canceled => Some("Not sent: canceled"),
        ErrorCode::SessionLost => Some("Not sent: the session was lost"),
        _ => None,
    }
}

/// A session's error as a job's.
#[must_use]
pub fn error_info(error: SessionError) -> ErrorInfo {
    ErrorInfo::new(error.kind, error.message)
}

/// What a request says about one login: the device's own, or with the prefix `proxy_` the jump host's.
fn credentials(f: &mut Fields<'_>, prefix: &str, settings: &ConnectSettings) -> Credentials {
    let name = |key: &str| format!("{prefix}{key}");
    let secret = |text: String| SecretString::from(text);
    let given = |text: &String| !text.is_empty();
    let password = f.string(&name("password")).filter(given).map(secret);
    let passphrase = f.string(&name("passphrase")).filter(given).map(secret);
    let mut keys = Vec::new();
    if let Some(text) = f.string(&name("pkey")).filter(given) {
        keys.push(KeySource { place: KeyPlace::Text(secret(text)), passphrase: passphrase.clone() });
    }
    for key in ["key_filename", "key_file"].map(name) {
        let Some(file) = f.string(&key).filter(given) else { continue };
        match key_path(&file, settings) {
            Ok(path) => keys.push(KeySource { place: KeyPlace::File(path), passphrase: passphrase.clone() }),
            Err(why) => f.error(&key, "value_error", why),
        }
    }
    Credentials { keys, agent: f.boolean("allow_agent").unwrap_or(false), password }
}

/// Where a key file named by a client lies: below a configured folder, or refused.
fn key_path(file: &str, settings: &ConnectSettings) -> Result<PathBuf, String> {
    let Some(first) = settings.key_dirs.first() else {
        return Err(
            "no folder for private keys is configured (`session.key_dirs`); send the key itself as `pkey`"
                .to_owned(),
        );
    };
    let path = Path::new(file);
    let climbs = path.components().any(|part| matches!(part, std::path::Component::ParentDir));
    let path = if path.is_absolute() { path.to_path_buf() } else { first.join(path) };
    if climbs || !settings.key_dirs.iter().any(|dir| path.starts_with(dir)) {
        return Err("private keys may only lie below the folders of `session.key_dirs`; send the key itself as `pkey`".to_owned());
    }
    Ok(path)
}

/// The same with every link followed, at the moment of use.
async fn check_key_file(path: &Path, settings: &ConnectSettings) -> Result<(), ErrorInfo> {
    let refused = |why: String| ErrorInfo::new(ErrorCode::BadRequest, why);
    let real = tokio::fs::canonicalize(path)
        .await
        .map_err(|error| refused(format!("the key file {} cannot be read: {error}", path.display())))?;
    for dir in settings.key_dirs.iter() {
        if tokio::fs::canonicalize(dir).await.is_ok_and(|dir| real.starts_with(dir)) {
            return Ok(());
        }
    }
    Err(refused(format!(
        "the key file {} leads out of the folders of `session.key_dirs`; send the key itself as `pkey`",
        path.display()
    )))
}

fn seconds(f: &mut Fields<'_>, key: &str) -> Option<Duration> {
    // A day is longer than any connection is waited for.
    f.number(key, 0.0, 86_400.0).map(Duration::from_secs_f64)
}

fn policy(f: &mut Fields<'_>, default: HostKeyPolicy) -> HostKeyPolicy {
    const WORDS: &[&str] = &["auto_add", "reject", "warning", "accept-new", "strict", "off"];
    let strict = f.boolean("ssh_strict").unwrap_or(false);
    match f.one_of("host_key_policy", WORDS) {
        Some("reject" | "strict") => HostKeyPolicy::Strict,
        Some("off") => HostKeyPolicy::Off,
        // Paramiko's `warning` and `auto_add` both let unknown keys pass; neither lets a changed one.
        Some(_) => HostKeyPolicy::AcceptNew,
        None if strict => HostKeyPolicy::Strict,
        None => default,
    }
}

fn disabled(f: &mut Fields<'_>) -> Disabled {
    let map = f.object("disabled_algorithms").unwrap_or_default();
    let list = |key: &str| -> Vec<String> {
        map.get(key)
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default()
    };
    let mut disabled = Disabled {
        kex: list("kex"),
        keys: list("keys"),
        pubkeys: list("pubkeys"),
        ciphers: list("ciphers"),
        macs: list("macs"),
    };
    if f.boolean("disable_sha2_fix").unwrap_or(false) {
        disabled.pubkeys.extend(["rsa-sha2-512".to_owned(), "rsa-sha2-256".to_owned()]);
    }
    disabled
}

fn read(
    args: &ConnectionArgs,
    settings: &ConnectSettings,
    dialect: Dialect,
    default_port: u16,
) -> Result<SshPlan, Vec<FieldError>> {
    let mut errors = Vec::new();
    let host = host(args).map(str::to_owned).map_err(|error| errors.push(error)).unwrap_or_default();
    let port = port(args, default_port).map_err(|error| errors.push(error)).unwrap_or(default_port);
    let value = Value::Object(args.0.clone());
    let loc = vec![Value::from("connection_args")];
    let Some(mut f) = Fields::of(&value, loc, &mut errors) else { return Err(errors) };

    let user = f.required_string("username");
    let credentials_of_device = credentials(&mut f, "", settings);
    let jump = f.string("proxy_host").filter(|h| !h.is_empty()).map(|proxy| {
        let mut login = credentials(&mut f, "proxy_", settings);
        login.agent = credentials_of_device.agent;
        Box::new(SshTarget {
            host: proxy,
            port: f.integer("proxy_port", 1, 65535).and_then(|p| u16::try_from(p).ok()).unwrap_or(22),
            user: f.string("proxy_username").filter(|u| !u.is_empty()).unwrap_or_else(|| user.clone()),
            credentials: login,
            jump: None,
        })
    });
    let defaults = SshOptions::default();
    let connect = seconds(&mut f, "conn_timeout");
    let timeout = seconds(&mut f, "timeout").filter(|_| dialect == Dialect::Paramiko);
    let profile = match f.one_of("ssh_profile", &["auto", "modern", "legacy"]) {
        Some("modern") => Profile::Modern,
        Some("legacy") => Profile::Legacy,
        _ => Profile::Auto,
    };
    let nonzero = |d: Option<Duration>| d.filter(|d| !d.is_zero());
    let options = SshOptions {
        profile,
        disabled: disabled(&mut f),
        compress: f.boolean("compress").unwrap_or(false),
        connect_timeout: nonzero(connect).or(nonzero(timeout)).unwrap_or(settings.connect_timeout),
        banner_timeout: nonzero(seconds(&mut f, "banner_timeout")).unwrap_or(defaults.banner_timeout),
        auth_timeout: nonzero(seconds(&mut f, "auth_timeout")).unwrap_or(Duration::from_secs(30)),
        // A keepalive of 0 asks for none.
        keepalive: seconds(&mut f, "keepalive").or(Some(settings.keepalive)).filter(|d| !d.is_zero()),
        host_keys: policy(&mut f, settings.policy),
        handshakes: Some(Arc::clone(&settings.handshakes)),
        legacy_devices: settings.legacy_devices.clone(),
        ..defaults
    };
    let mut warnings = slips(args);
    for (key, why) in NOT_HONOURED {
        let asks = match f.get(key) {
            None | Some(Value::Bool(false)) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        };
        let moot = *key == "use_keys" && !credentials_of_device.keys.is_empty();
        if asks && !moot {
            warnings.push(format!("`{key}` was not used: {why}"));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let target = SshTarget { host, port, user, credentials: credentials_of_device, jump };
    Ok(SshPlan { target, options, warnings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn slips_of_known_names_are_named_and_other_fields_are_let_be() {
        let given = json!({"host": "h", "username": "u", "pasword": "p", "conn_timout": 3, "site": "hq",
            "proxyhost": "j", "session_log": null, "global_delay_factor": 2, "fast_cli": true, "ports": [1]});
        let said = slips(&args(given));
        let named: Vec<&str> = said.iter().filter_map(|s| s.split('`').nth(3)).collect();
        assert_eq!(named, ["password", "conn_timeout", "proxy_host", "port"], "{said:?}");
        assert!(!said.concat().contains("`p`"), "no value is shown");
    }

    fn args(value: Value) -> ConnectionArgs {
        ConnectionArgs(value.as_object().unwrap().clone())
    }

    fn settings() -> ConnectSettings {
        ConnectSettings::new(HostKeys::in_memory())
    }

    fn sentences(value: Value, settings: &ConnectSettings) -> String {
        netpulse_model::fields::sentence(&validate(&args(value), settings, Dialect::Netmiko))
    }

    #[test]
    fn promise_15_each_wrong_argument_is_named() {
        let text = sentences(
            json!({"host": "ssh://sw1", "port": 0, "banner_timeout": "soon", "host_key_policy": "maybe", "pkey": 7}),
            &settings(),
        );
        for part in [
            "connection_args.host: Input should be a host name",
            "connection_args.port: Input should be a port",
            "connection_args.username: Field required",
            "connection_args.banner_timeout: ",
            "connection_args.host_key_policy: Input should be 'auto_add'",
            "connection_args.pkey: ",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(
            sentences(json!({"username": "u"}), &settings()).contains("connection_args.host: Field required")
        );
        for host in ["-oProxyCommand=x", "a b", "a\nb", "u@h"] {
            assert!(
                sentences(json!({"username": "u", "host": host}), &settings()).contains("host name"),
                "{host}"
            );
        }
        for host in ["sw-1.example.net", "192.0.2.1", "2001:db8::1", "[2001:db8::1]", "fe80::1%eth0"] {
            assert_eq!(sentences(json!({"username": "u", "host": host}), &settings()), "", "{host}");
        }
    }

    #[test]
    fn netmiko_and_paramiko_names_mean_what_they_mean_there() {
        let given = json!({"host": "h", "username": "u", "timeout": 77, "conn_timeout": null, "auth_timeout": 5,
            "keepalive": 0, "disable_sha2_fix": true, "disabled_algorithms": {"kex": ["x"]}, "ssh_strict": true,
            "fast_cli": true, "global_delay_factor": 2, "system_host_keys": true, "serial_settings": {}, "use_keys": true});
        let plan = ssh_plan(&args(given.clone()), &settings(), Dialect::Netmiko).unwrap();
        assert_eq!(plan.options.connect_timeout, Duration::from_secs(10));
        assert_eq!((plan.options.auth_timeout, plan.options.keepalive), (Duration::from_secs(5), None));
        assert_eq!(plan.options.host_keys, HostKeyPolicy::Strict);
        assert_eq!(plan.options.disabled.pubkeys, ["rsa-sha2-512", "rsa-sha2-256"]);
        assert_eq!(plan.options.disabled.kex, ["x"]);
        assert_eq!(plan.warnings.len(), 3, "{:?}", plan.warnings);
        assert!(!plan.target.credentials.agent && plan.target.credentials.keys.is_empty());
        let plan = ssh_plan(&args(given), &settings(), Dialect::Paramiko).unwrap();
        assert_eq!(plan.options.connect_timeout, Duration::from_secs(77));
    }

    #[test]
    fn the_jump_host_has_its_own_login() {
        let plan = ssh_plan(
            &args(json!({"host": "h", "username": "u", "password": "device-pw", "proxy_host": "j", "proxy_port": "2222",
                "proxy_pkey": "KEY", "proxy_passphrase": "pp"})),
            &settings(),
            Dialect::Paramiko,
        )
        .unwrap();
        let jump = plan.target.jump.as_ref().unwrap();
        assert_eq!((jump.host.as_str(), jump.port, jump.user.as_str()), ("j", 2222, "u"));
        assert!(jump.credentials.password.is_none(), "the device's password is not for the jump host");
        assert_eq!(jump.credentials.keys.len(), 1);
        assert!(!format!("{plan:?}").contains("device-pw"));
    }

    #[tokio::test]
    async fn s4_key_files_lie_below_configured_folders() {
        let plain = json!({"host": "127.0.0.1", "port": 1, "username": "u", "key_file": "/etc/shadow"});
        assert!(sentences(plain.clone(), &settings()).contains("session.key_dirs"));
        let dir = tempfile::tempdir().unwrap();
        let settings = ConnectSettings { key_dirs: Arc::from([dir.path().to_path_buf()]), ..settings() };
        assert!(sentences(plain, &settings).contains("may only lie below"));
        let within =
            |file: &str| json!({"host": "127.0.0.1", "port": 1, "username": "u", "key_filename": file});
        assert!(sentences(within("../x"), &settings).contains("may only lie below"));
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let plan = ssh_plan(&args(within("link")), &settings, Dialect::Netmiko).unwrap();
        let error = open(&plan, &settings).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::BadRequest);
        assert!(error.message.contains("leads out of"), "{error}");
    }

    #[test]
    fn d15_host_and_port_are_the_device() {
        let key = |v: Value| device(&args(v), 22).unwrap().to_string();
        assert_eq!(key(json!({"ip": "SW1"})), "sw1");
        assert_eq!(key(json!({"host": "sw1", "port": "2222"})), "sw1:2222");
        assert!(device(&args(json!({"host": "sw1", "port": 70000})), 22).is_err());
    }
}
