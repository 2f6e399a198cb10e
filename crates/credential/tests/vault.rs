//! The provider `vault_kv` against a Vault that answers, and one that misbehaves.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../../../tests/support/vault.rs"]
mod fake;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fake::{ROLE, ROOT, SECRET_ID, Vault};
use netpulse_config::Credential;
use netpulse_credential::VaultKv;
use netpulse_model::{ConnectionArgs, CredentialRef};
use netpulse_plugin::{CredentialProvider, Failed, NewSecret, PluginError, SecretValues};
use serde_json::{Value, json};
use zeroize::Zeroizing;

fn config(vault: &Vault) -> Credential {
    Credential {
        enabled: true,
        name: Some("vault_kv".into()),
        addr: Some(vault.addr()),
        token: Some(ROOT.into()),
        timeout: 2,
        ..Credential::default()
    }
}

fn with_role(vault: &Vault) -> Credential {
    Credential { token: None, role_id: Some(ROLE.into()), secret_id: Some(SECRET_ID.into()), ..config(vault) }
}

fn started(config: &Credential) -> Arc<VaultKv> {
    Arc::new(VaultKv::start(config).unwrap())
}

async fn get(provider: &VaultKv, reference: &CredentialRef) -> Result<Vec<String>, PluginError> {
    let values = provider.get(reference, &ConnectionArgs::default()).await?;
    Ok(values.0.iter().map(|(k, v)| format!("{k}={}", v.as_str())).collect())
}

async fn password(provider: &VaultKv, path: &str) -> Result<String, (Failed, String)> {
    let values = provider.get(&CredentialRef::to(path), &ConnectionArgs::default()).await;
    values.map(|v| v.0["password"].to_string()).map_err(|e| (e.kind, e.message))
}

fn login(password: &str) -> Value {
    json!({"username": "ops", "password": password})
}

#[tokio::test]
async fn every_way_to_name_a_secret() {
    let vault = Vault::start().await;
    vault.put("kv", "sites/hq", login("first"));
    vault.put("kv", "sites/hq", json!({"username": "ops", "password": "second", "pkey": "KEY"}));
    vault.put("deep/mount", "a b/ä?#%2e", json!({"u": "x", "p": "odd"}));
    vault.put_in("team", "kv", "sites/hq", login("theirs"));
    let provider = started(&config(&vault));
    let hq = CredentialRef::to("sites/hq");
    assert_eq!(get(&provider, &hq).await.unwrap(), ["password=second", "pkey=KEY", "username=ops"]);
    let first = CredentialRef { version: Some(1), ..hq.clone() };
    assert_eq!(get(&provider, &first).await.unwrap(), ["password=first", "username=ops"]);
    let theirs = CredentialRef { namespace: Some("team".into()), ..hq.clone() };
    assert_eq!(get(&provider, &theirs).await.unwrap(), ["password=theirs", "username=ops"]);
    let odd = CredentialRef {
        mount: Some("deep/mount".into()),
        field_mapping: Some([("username".into(), "u".into()), ("secret".into(), "p".into())].into()),
        ..CredentialRef::to("a b/ä?#%2e")
    };
    assert_eq!(get(&provider, &odd).await.unwrap(), ["secret=odd", "username=x"]);
    assert!(vault.journal().iter().all(|seen| seen.token == ROOT));
    // A configured namespace goes with every call.
    let scoped = started(&Credential { namespace: Some("team".into()), ..config(&vault) });
    assert_eq!(password(&scoped, "sites/hq").await.unwrap(), "theirs");
}

#[tokio::test]
async fn each_failure_has_its_sentence() {
    let vault = Vault::start().await;
    vault.put("kv", "a", login("pw-of-a"));
    vault.put("kv", "empty", json!({}));
    vault.put("kv", "half", json!({"user": "x", "password": null}));
    let strict = Credential { allowed_paths: vec!["kv".into()], cache_ttl: 0, ..config(&vault) };
    let provider = started(&strict);
    let said = |path: &'static str| password(&provider, path);
    let not_found = |text: &str| Err((Failed::NotFound, text.to_owned()));
    assert_eq!(said("a").await, Ok("pw-of-a".into()));
    assert_eq!(said("nope").await, not_found("Secret not found at Vault path: nope"));
    assert_eq!(said("empty").await, not_found("Secret payload is empty or invalid"));
    assert_eq!(said("half").await, not_found("Missing required secret fields: password, username"));
    let other = CredentialRef { mount: Some("secret".into()), ..CredentialRef::to("a") };
    let denied = provider.check(&other).unwrap_err();
    assert_eq!(denied.message, "Access to Vault path 'secret/a' is not allowed by policy");
    assert_eq!(denied.kind, Failed::Denied);
    // Another namespace is another place, and must be allowed by its name.
    let other = CredentialRef { namespace: Some("team".into()), ..CredentialRef::to("a") };
    assert_eq!(
        provider.check(&other).unwrap_err().message,
        "Access to Vault path 'team:kv/a' is not allowed by policy"
    );
    vault.faults(|f| f.nonsense = Some("<html>welcome</html>"));
    assert_eq!(said("a").await, not_found("Secret payload is empty or invalid"));
    vault.faults(|f| f.nonsense = Some(r#"{"data": {"data": ["pw-of-a"]}}"#));
    assert_eq!(said("a").await, not_found("Secret payload is empty or invalid"));
    vault.faults(|f| {
        f.nonsense = None;
        f.denied = vec!["kv/data/a".into()];
    });
    let lacks = "Vault token lacks permission to read path: a".to_owned();
    assert_eq!(said("a").await, Err((Failed::Denied, lacks)));
    vault.faults(|f| {
        f.denied.clear();
        f.sealed = true;
    });
    let (kind, sealed) = said("a").await.unwrap_err();
    assert_eq!(kind, Failed::Unavailable);
    assert!(sealed.starts_with("Failed to read secret from Vault: Vault is sealed"), "{sealed}");
    assert!(provider.validate().await.unwrap_err().message.contains("sealed"));
    vault.faults(|f| f.sealed = false);
    vault.revoke_all();
    let refused = "Vault authentication failed (token or AppRole not accepted)".to_owned();
    assert_eq!(said("a").await, Err((Failed::Denied, refused)));
}

#[tokio::test]
async fn vault_that_is_down_slow_or_breaks_off_is_unavailable_and_cached_secrets_still_serve() {
    let mut vault = Vault::start().await;
    vault.put("kv", "a", login("pw"));
    vault.put("kv", "b", login("pw"));
    let provider = started(&Credential { timeout: 1, ..config(&vault) });
    assert_eq!(password(&provider, "a").await.unwrap(), "pw");
    vault.down();
    assert_eq!(password(&provider, "a").await.unwrap(), "pw", "from memory");
    let (kind, said) = password(&provider, "b").await.unwrap_err();
    assert_eq!(kind, Failed::Unavailable);
    assert!(said.contains("does not answer") && said.contains(&vault.addr()), "{said}");
    vault.up().await;
    assert_eq!(password(&provider, "b").await.unwrap(), "pw", "as soon as it is back");
    vault.faults(|f| f.delay = Duration::from_secs(3));
    vault.put("kv", "c", login("pw"));
    let started = Instant::now();
    let (kind, said) = password(&provider, "c").await.unwrap_err();
    assert!(kind == Failed::Unavailable && said.contains("within 1 s"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(3), "a slow answer is not waited for twice");
    // A broken answer is asked for again, and again, and then given up.
    vault.faults(|f| {
        f.delay = Duration::ZERO;
        f.halves = 2;
    });
    assert_eq!(password(&provider, "c").await.unwrap(), "pw");
    vault.put("kv", "d", login("pw"));
    vault.faults(|f| f.halves = 9);
    assert_eq!(password(&provider, "d").await.unwrap_err().0, Failed::Unavailable);
}

#[tokio::test]
async fn limits_and_elections_are_waited_out() {
    let vault = Vault::start().await;
    vault.put("kv", "a", login("pw"));
    for status in [429, 503, 502, 412] {
        let provider = started(&config(&vault));
        provider.validate().await.unwrap();
        vault.faults(|f| f.next = Some((status, 2)));
        assert_eq!(password(&provider, "a").await.unwrap(), "pw", "{status} twice");
        vault.faults(|f| f.next = Some((status, 9)));
        vault.put("kv", "b", login("pw"));
        let (kind, said) = password(&provider, "b").await.unwrap_err();
        assert!(kind == Failed::Unavailable && said.contains(&status.to_string()), "{said}");
        vault.faults(|f| f.next = None);
    }
    // A standby node points to the active one.
    let active = Vault::start().await;
    active.put("kv", "a", login("from-the-active-one"));
    vault.faults(|f| f.redirect = Some(active.addr()));
    let provider = started(&config(&vault));
    assert_eq!(password(&provider, "a").await.unwrap(), "from-the-active-one");
    vault.faults(|f| {
        f.redirect = None;
        f.standby = true;
    });
    assert_eq!(provider.validate().await.unwrap()["standby"], true);
}

#[tokio::test]
async fn a_hundred_who_ask_at_once_are_one_read() {
    let vault = Vault::start().await;
    vault.put("kv", "a", login("pw"));
    for cache_ttl in [0, 30] {
        vault.forget_journal();
        let provider = started(&Credential { cache_ttl, ..with_role(&vault) });
        vault.faults(|f| f.delay = Duration::from_millis(200));
        let all: Vec<_> = (0..100)
            .map(|_| {
                let provider = provider.clone();
                tokio::spawn(async move { password(&provider, "a").await.unwrap() })
            })
            .collect();
        for one in all {
            assert_eq!(one.await.unwrap(), "pw");
        }
        assert_eq!((vault.count("GET kv/data/a"), vault.count("POST auth/approle/login")), (1, 1));
        vault.faults(|f| f.delay = Duration::ZERO);
        password(&provider, "a").await.unwrap();
        let reads = if cache_ttl == 0 { 2 } else { 1 };
        assert_eq!(vault.count("GET kv/data/a"), reads, "a cache_ttl of {cache_ttl}");
    }
}

#[tokio::test]
async fn the_token_comes_first_then_the_role_and_a_dead_token_is_replaced_once() {
    let vault = Vault::start().await;
    vault.put("kv", "a", login("pw"));
    let both = Credential { token: Some("hvs.never-valid".into()), cache_ttl: 0, ..with_role(&vault) };
    let provider = started(&both);
    assert_eq!(password(&provider, "a").await.unwrap(), "pw");
    assert_eq!(vault.count("POST auth/approle/login"), 1, "the token was refused");
    vault.revoke_all();
    assert_eq!(password(&provider, "a").await.unwrap(), "pw");
    assert_eq!(vault.count("POST auth/approle/login"), 2, "logged in again");
    // What the policy denies stays denied, without a flood of logins.
    vault.faults(|f| f.denied = vec!["kv/data/a".into()]);
    for _ in 0..5 {
        assert_eq!(password(&provider, "a").await.unwrap_err().0, Failed::Denied);
    }
    assert_eq!(vault.count("POST auth/approle/login"), 2);
    vault.faults(|f| f.denied.clear());
    vault.revoke_all();
    vault.role(ROLE, "another-secret-id");
    let (kind, said) = password(&provider, "a").await.unwrap_err();
    assert_eq!(
        (kind, said.as_str()),
        (Failed::Denied, "Vault authentication failed (token or AppRole not accepted)")
    );
    // The role is put right: nobody has to restart us.
    vault.role(ROLE, SECRET_ID);
    assert_eq!(password(&provider, "a").await.unwrap(), "pw");
}

#[tokio::test]
async fn tokens_are_renewed_before_they_end_without_anybody_asking() {
    let vault = Vault::start().await;
    vault.put("kv", "a", login("pw"));
    vault.token("hvs.short", 5, true);
    vault.login_ttl(5);
    let fixed = started(&Credential { token: Some("hvs.short".into()), cache_ttl: 0, ..config(&vault) });
    let role = started(&Credential { cache_ttl: 0, ..with_role(&vault) });
    password(&fixed, "a").await.unwrap();
    password(&role, "a").await.unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while vault.count("POST auth/token/renew-self") < 4 {
        assert!(Instant::now() < until, "{:#?}", vault.journal());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(password(&fixed, "a").await.unwrap(), "pw");
    assert_eq!(password(&role, "a").await.unwrap(), "pw");
    assert_eq!(vault.count("POST auth/approle/login"), 1, "renewed, not logged in again");
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_is_replaced_at_its_end() {
    let vault = Vault::start().await;
    vault.put("kv", "a", login("pw"));
    vault.token("hvs.brief", 1, false);
    let config = Credential { token: Some("hvs.brief".into()), cache_ttl: 0, ..with_role(&vault) };
    let provider = started(&config);
    password(&provider, "a").await.unwrap();
    assert_eq!(vault.count("POST auth/approle/login"), 0);
    let until = Instant::now() + Duration::from_secs(10);
    while vault.count("POST auth/approle/login") == 0 {
        assert!(Instant::now() < until);
        assert_eq!(password(&provider, "a").await.unwrap(), "pw", "no read fails in between");
    }
}

#[tokio::test]
async fn a_write_through_us_is_read_at_once() {
    let vault = Vault::start().await;
    let provider = started(&config(&vault));
    let manager = provider.manager().unwrap();
    let secret = |word: &str| NewSecret {
        path: "sites/hq".into(),
        fields: SecretValues(
            [("username", "ops"), ("password", word)]
                .map(|(k, v)| (k.to_owned(), Zeroizing::new(v.to_owned())))
                .into(),
        ),
        metadata: [("owner".to_owned(), "noc".to_owned())].into(),
    };
    for word in ["one", "two"] {
        manager.create(secret(word)).await.unwrap();
        assert_eq!(password(&provider, "sites/hq").await.unwrap(), word, "not the cached one");
    }
    let metadata = manager.metadata("sites/hq").await.unwrap();
    assert_eq!(
        (&metadata["current_version"], &metadata["custom_metadata"]["owner"]),
        (&json!(2), &json!("noc"))
    );
    assert_eq!(*manager.read("sites/hq").await.unwrap().0["password"], "two");
    manager.delete("sites/hq").await.unwrap();
    assert_eq!(password(&provider, "sites/hq").await.unwrap_err().0, Failed::NotFound);
    assert_eq!(manager.delete("sites/hq").await.unwrap_err().kind, Failed::NotFound);
}

#[tokio::test]
async fn listings_show_what_is_allowed_and_nothing_else() {
    let vault = Vault::start().await;
    for path in ["top", "net/core/sw1", "net/core/sw2", "net/edge", "network2/x", "hr/payroll"] {
        vault.put("kv", path, login("pw"));
    }
    let all = started(&config(&vault));
    let list = |prefix: &'static str, deep: bool| {
        let all = all.clone();
        async move { all.manager().unwrap().list(prefix, deep).await.unwrap() }
    };
    assert_eq!(list("", false).await, ["hr/", "net/", "network2/", "top"]);
    assert_eq!(list("/net/", true).await, ["net/core/sw1", "net/core/sw2", "net/edge"]);
    assert_eq!(list("nowhere", true).await, [""; 0]);
    let some =
        started(&Credential { allowed_paths: vec!["kv/net/core".into(), "kv/top".into()], ..config(&vault) });
    let manager = some.manager().unwrap();
    assert_eq!(manager.list("", false).await.unwrap(), ["net/", "top"]);
    assert_eq!(manager.list("", true).await.unwrap(), ["net/core/sw1", "net/core/sw2", "top"]);
    assert_eq!(manager.list("hr", false).await.unwrap_err().kind, Failed::Denied);
    for path in ["hr/payroll", "network2/x"] {
        assert_eq!(manager.read(path).await.err().unwrap().kind, Failed::Denied);
        assert_eq!(manager.delete(path).await.unwrap_err().kind, Failed::Denied);
    }
    assert_eq!(manager.read("net/../hr/payroll").await.err().unwrap().kind, Failed::BadRequest);
}

#[tokio::test]
async fn a_device_that_refuses_a_cached_secret_makes_it_fresh() {
    let vault = Vault::start().await;
    vault.put("kv", "a", login("old"));
    let provider = started(&Credential { cache_ttl: 3600, ..config(&vault) });
    assert_eq!(password(&provider, "a").await.unwrap(), "old");
    vault.put("kv", "a", login("new"));
    assert_eq!(password(&provider, "a").await.unwrap(), "old");
    provider.refused(&CredentialRef::to("a"));
    assert_eq!(password(&provider, "a").await.unwrap(), "new");
}

#[tokio::test]
async fn promise_12_no_error_carries_a_token_or_a_secret() {
    let mut vault = Vault::start().await;
    vault.put("kv", "a", json!({"username": "ops", "pw": "s3cret-word"}));
    let provider =
        started(&Credential { cache_ttl: 0, token: Some("hvs.never-valid".into()), ..with_role(&vault) });
    let mut said = Vec::new();
    said.push(password(&provider, "a").await.unwrap_err().1);
    vault.faults(|f| f.nonsense = Some(r#"{"data": "s3cret-word"}"#));
    said.push(password(&provider, "a").await.unwrap_err().1);
    vault.faults(|f| f.halves = 9);
    said.push(password(&provider, "a").await.unwrap_err().1);
    vault.down();
    said.push(password(&provider, "a").await.unwrap_err().1);
    let values = SecretValues([("password".to_owned(), Zeroizing::new("s3cret-word".to_owned()))].into());
    said.push(format!("{values:?}"));
    for text in said {
        for secret in ["s3cret-word", "hvs.", SECRET_ID, ROLE] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

/// Encrypts what goes to `inside`, with the certificate of the controller's tests.
async fn behind_tls(inside: std::net::SocketAddr) -> String {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_file_iter(CERTIFICATE).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(CERTIFICATE.replace(".pem", ".key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((outer, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust us hangs up.
                let Ok(mut outer) = acceptor.accept(outer).await else { return };
                let mut inner = tokio::net::TcpStream::connect(inside).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
            });
        }
    });
    addr
}

const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../controller/tests/data/loopback.pem");

#[tokio::test]
async fn the_certificate_is_checked_against_the_system_a_file_or_nothing() {
    let vault = Vault::start().await;
    vault.put("kv", "a", login("pw"));
    let addr = behind_tls(vault.inside()).await;
    let verified = |verify: &str| {
        started(&Credential { addr: Some(addr.clone()), verify: verify.into(), ..config(&vault) })
    };
    let (kind, said) = password(&verified("true"), "a").await.unwrap_err();
    assert!(kind == Failed::Unavailable && said.contains("certificate"), "{said}");
    assert_eq!(vault.journal().len(), 0, "no token went to whom nobody vouches for");
    assert_eq!(password(&verified(CERTIFICATE), "a").await.unwrap(), "pw");
    assert_eq!(password(&verified("false"), "a").await.unwrap(), "pw");
    // Whatever a server says, the token is not sent on without encryption.
    let open = Vault::start().await;
    vault.faults(|f| f.redirect = Some(open.addr()));
    let (kind, said) = password(&verified(CERTIFICATE), "a").await.unwrap_err();
    assert!(kind == Failed::Unavailable && said.contains("sends us elsewhere"), "{said}");
    assert_eq!(open.journal().len(), 0);

    let none = tempfile::NamedTempFile::new().unwrap();
    for file in [none.path().to_str().unwrap(), "/nonexistent.pem"] {
        let config = Credential { verify: file.into(), ..config(&vault) };
        let error = VaultKv::start(&config).err().unwrap().to_string();
        assert!(error.starts_with("credential.verify: "), "{error}");
    }
}
