//! The provider `env` in a process whose environment holds secrets.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use netpulse_credential::Env;
use netpulse_model::{ConnectionArgs, CredentialRef};
use netpulse_plugin::{CredentialProvider, Failed};

const INSIDE: &str = "NETPULSE_TEST_INSIDE";

/// A test may not change its own environment, so it runs itself again in another one.
#[test]
fn secrets_are_read_from_the_environment_and_nothing_else_is() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        return runtime.block_on(inside());
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "secrets_are_read_from_the_environment_and_nothing_else_is", "--nocapture"])
        .env(INSIDE, "1")
        .env("NETPULSE_CREDENTIAL_SITES_HQ_1_USERNAME", "ops")
        .env("NETPULSE_CREDENTIAL_SITES_HQ_1_PASSWORD", "pw-in-env")
        .env("NETPULSE_CREDENTIAL_SITES_HQ_1_JUMP", "pw-of-the-jump-host")
        .env("NETPULSE_CREDENTIAL_HALF_USERNAME", "ops")
        .env("NETPULSE_CREDENTIAL__TOKEN", "hvs.configuration")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

async fn inside() {
    let get = |reference: CredentialRef| async move {
        let values = Env.get(&reference, &ConnectionArgs::default()).await?;
        Ok(values.0.iter().map(|(k, v)| format!("{k}={}", v.as_str())).collect::<Vec<_>>())
    };
    let both = ["password=pw-in-env", "username=ops"];
    for path in ["sites/hq/1", "sites/hq-1", "SITES_HQ_1"] {
        let found: Result<_, netpulse_plugin::PluginError> = get(CredentialRef::to(path)).await;
        assert_eq!(found.unwrap(), both, "{path}");
    }
    let mapping = [("proxy_password".to_owned(), "jump".to_owned())].into();
    let jump = CredentialRef { field_mapping: Some(mapping), ..CredentialRef::to("sites/hq-1") };
    assert_eq!(get(jump).await.unwrap(), ["proxy_password=pw-of-the-jump-host"]);
    let half = get(CredentialRef::to("half")).await.unwrap_err();
    assert_eq!(half.message, "Missing required secret fields: password");
    // Configuration keys begin alike.
    let mapping = [("password".to_owned(), "token".to_owned())].into();
    let key = CredentialRef { field_mapping: Some(mapping), ..CredentialRef::to("_") };
    assert_eq!(get(key).await.unwrap_err().kind, Failed::BadRequest);
    assert_eq!(Env.validate().await.unwrap()["variables"], 4);
}
