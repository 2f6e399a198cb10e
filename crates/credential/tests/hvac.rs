//! Whether the fake Vault of the tests is one: the real Python client `hvac` works with it, and
//! reads what our provider wrote, and the other way round.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../../../tests/support/vault.rs"]
mod fake;

use fake::{ROLE, ROOT, SECRET_ID, Vault};
use netpulse_config::Credential;
use netpulse_credential::VaultKv;
use netpulse_model::{ConnectionArgs, CredentialRef};
use netpulse_plugin::{CredentialProvider, NewSecret, SecretValues};
use zeroize::Zeroizing;

/// `scripts/test` installs the client and names its Python; without it there is nothing to drive.
#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_for_vault_works_with_the_fake() {
    let Ok(python) = std::env::var("NETPULSE_TEST_PYTHON") else {
        println!("skipped: NETPULSE_TEST_PYTHON names no Python with hvac (scripts/test sets it)");
        return;
    };
    let (vault, sealed) = (Vault::start().await, Vault::start().await);
    sealed.faults(|f| f.sealed = true);
    let config = Credential { addr: Some(vault.addr()), token: Some(ROOT.into()), ..Credential::default() };
    let provider = VaultKv::start(&config).unwrap();
    let fields = [("username", "np"), ("password", "pw with ä and \" in it")];
    let fields = fields.map(|(k, v)| (k.to_owned(), Zeroizing::new(v.to_owned()))).into();
    let secret =
        NewSecret { path: "from/netpulse".into(), fields: SecretValues(fields), metadata: [].into() };
    provider.manager().unwrap().create(secret).await.unwrap();

    let output = tokio::process::Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/with_hvac.py"))
        .args([&vault.addr(), ROOT, ROLE, SECRET_ID, &sealed.addr()])
        .output()
        .await
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("all ok"), "{out}\n{err}");

    let theirs = CredentialRef::to("from hvac/ä%2e?");
    let values = provider.get(&theirs, &ConnectionArgs::default()).await.unwrap();
    assert_eq!(values.0["password"].as_str(), "pw\n✓");
}
