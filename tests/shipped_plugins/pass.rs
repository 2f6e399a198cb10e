//! The plugin `pass`: a real store, opened by the real gpg with a key of its own.

use std::path::Path;
use std::process::Command;

use netpulse_model::ConnectionArgs;
use netpulse_plugin::{CredentialRef, Failed, Implementation, Kind};
use serde_json::json;

use super::built::{Folder, found, run};

/// A key ring and a store, both thrown away.
struct Store {
    /// Short, since gpg's agent puts its sockets there.
    home: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::Builder::new().prefix("np").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let store = Self { home };
        run(store.gpg().args([
            "--passphrase",
            "",
            "--quick-generate-key",
            "test@netpulse.example",
            "default",
            "default",
            "never",
        ]));
        std::fs::create_dir_all(store.folder().join("sites/hq")).unwrap();
        store
    }

    fn folder(&self) -> std::path::PathBuf {
        self.home.path().join("store")
    }

    fn gpg(&self) -> Command {
        let mut command = Command::new("gpg");
        command
            .args(["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback", "--homedir"])
            .arg(self.home.path());
        command
    }

    fn put(&self, entry: &str, text: &str) {
        let plain = self.home.path().join("plain");
        std::fs::write(&plain, text).unwrap();
        let target = self.folder().join(format!("{entry}.gpg"));
        run(self
            .gpg()
            .args(["--recipient", "test@netpulse.example", "--output"])
            .arg(&target)
            .arg("--encrypt")
            .arg(&plain));
        std::fs::remove_file(plain).unwrap();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // The agent that gpg has started for this key ring alone.
        let _ =
            Command::new("gpgconf").arg("--homedir").arg(self.home.path()).args(["--kill", "all"]).status();
    }
}

fn reference(name: &str) -> CredentialRef {
    CredentialRef { name: Some("pass".into()), reference: name.into(), ..CredentialRef::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_out_of_the_store_and_nothing_else_does() {
    let store = Store::new();
    store.put("sites/hq/admin", "hq-s3cret\nlogin: ops\nsecret: enable-me\npkey:\n-----BEGIN X-----\nabc\n-----END X-----\nurl: https://x\n");
    store.put("other", "another\nusername: somebody\n");
    std::os::unix::fs::symlink("/etc/hostname", store.folder().join("out.gpg")).unwrap();
    let folder = Folder::new().python("plugins/pass", "pass", None);
    let settings = |allowed: &[&str]| json!({"pass": {"store": store.folder(), "gnupg_home": store.home.path(), "allowed_paths": allowed}});
    let plugins = folder.host(&settings(&[]));
    let Implementation::Credential(pass) = found(&plugins, Kind::Credential, "pass").await else { panic!() };
    let device = ConnectionArgs(json!({"host": "192.0.2.1"}).as_object().unwrap().clone());
    let values = pass.get(&reference("sites/hq/admin"), &device).await.unwrap();
    let value = |key: &str| values.0.get(key).map(|text| text.as_str().to_owned());
    assert_eq!(value("username").as_deref(), Some("ops"));
    assert_eq!(value("password").as_deref(), Some("hq-s3cret"));
    assert_eq!(value("pkey").as_deref(), Some("-----BEGIN X-----\nabc\n-----END X-----\n"));
    assert_eq!(value("secret"), None, "only what is asked for");
    let mapping = [("secret".to_owned(), "secret".to_owned())].into();
    let mapped = CredentialRef { field_mapping: Some(mapping), ..reference("sites/hq/admin") };
    let values = pass.get(&mapped, &device).await.unwrap();
    assert_eq!(values.0.get("secret").map(|text| text.as_str()), Some("enable-me"));
    for (name, kind) in [
        ("sites/hq/nobody", Failed::NotFound),
        ("../plain", Failed::BadRequest),
        ("sites//hq", Failed::BadRequest),
        ("/etc/passwd", Failed::BadRequest),
        ("out", Failed::Denied),
    ] {
        let error = pass.get(&reference(name), &device).await.unwrap_err();
        assert_eq!(error.kind, kind, "{name}: {error}");
    }
    let seen = pass.validate().await.unwrap();
    assert_eq!(seen["entries"], 3, "{seen:?}");
    plugins.stop().await;

    let plugins = folder.host(&settings(&["sites/hq"]));
    let Implementation::Credential(pass) = found(&plugins, Kind::Credential, "pass").await else { panic!() };
    assert!(pass.get(&reference("sites/hq/admin"), &device).await.is_ok());
    let denied = pass.get(&reference("other"), &device).await.unwrap_err();
    assert!(denied.kind == Failed::Denied && denied.message.contains("not allowed by policy"), "{denied}");
    plugins.stop().await;

    // A key ring without the key: the store does not answer, and says why without a secret.
    let empty = tempfile::Builder::new().prefix("np").tempdir_in("/tmp").unwrap();
    let wrong = json!({"pass": {"store": store.folder(), "gnupg_home": empty.path()}});
    let plugins = folder.host(&wrong);
    let Implementation::Credential(pass) = found(&plugins, Kind::Credential, "pass").await else { panic!() };
    let error = pass.get(&reference("other"), &device).await.unwrap_err();
    assert!(
        error.kind == Failed::Unavailable && error.message.contains("gpg did not open other.gpg"),
        "{error}"
    );
    plugins.stop().await;
    stop_agent(empty.path());
}

fn stop_agent(home: &Path) {
    let _ = Command::new("gpgconf").arg("--homedir").arg(home).args(["--kill", "all"]).status();
}
