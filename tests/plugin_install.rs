//! Plugins from their maker to this machine, with the program's own commands and a real registry.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const NETPULSE: &str = env!("CARGO_BIN_EXE_netpulse");
const COMPONENT: &str = "example.org/drivers/acme";

/// `user:pass-word` as htpasswd writes it.
const HTPASSWD: &str = "user:$2b$04$nOPPBAUyGuLfbkGcgYNJfOdqRBs23vD5yhoX6Z3qk5uFdR8EoKHB.\n";

fn script(version: &str) -> String {
    format!(
        "#!/bin/sh\n[ \"$1\" = capabilities ] || exit 2\necho '{{\"version\":\"{version}\",\"type\":{{\"acme\":[\"driver\"]}}}}'\n"
    )
}

/// A folder to work in, which is also the home.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap() };
        desk.write("acme", &script("0.2.0"));
        desk.write(
            "constructor.yaml",
            &format!(
                "name: {COMPONENT}\nprovider: {{name: example.org}}\nresources:\n- name: acme\n  type: ocmPlugin\n  input: {{type: file, path: acme}}\n"
            ),
        );
        desk
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).unwrap();
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.folder.path());
        command
    }

    fn run(&self, words: &str) -> Ended {
        Ended::of(self.command(NETPULSE).args(words.split(' ')).output().unwrap())
    }

    fn installed(&self) -> Vec<String> {
        names(&self.at(".config/netpulse/plugins"))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(listing) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != ".install.lock");
    names.sort();
    names
}

#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    #[track_caller]
    fn fails(self, code: i32, said: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(said), "expected `{said}` in {self:?}");
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Debian's registry on a free port, ended with this value.
struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    fn start(desk: &Desk) -> Self {
        Self::start_with(desk, "")
    }

    /// With more lines of configuration.
    fn start_with(desk: &Desk, more: &str) -> Self {
        desk.write(
            "registry.yml",
            &format!(
                "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n{more}",
                desk.at("registry").display()
            ),
        );
        let mut child = desk
            .command("docker-registry")
            .args(["serve", "registry.yml"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is installed (Debian's package of that name)");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the registry says where it listens").unwrap();
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(['"', ' ', ',']).next().unwrap().to_owned();
            }
        };
        // Its log must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn packed_pushed_installed_verified_removed() {
    let desk = Desk::new();
    let registry = Registry::start(&desk);
    let base = format!("http://{}/plugins", registry.address);
    desk.run("plugin pack constructor.yaml --version 0.2.0 --output acme.ctf").ok();
    let pushed = desk.run(&format!("plugin push acme.ctf {base} -o json")).ok().json();
    assert_eq!(pushed[0]["reference"], format!("{base}//{COMPONENT}:0.2.0"));

    let reference = format!("{base}//{COMPONENT}:0.2.0");
    let shown = desk.run(&format!("plugin install {reference}")).ok();
    let header = shown.out.lines().next().unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(header, ["PLUGIN", "VERSION", "SOURCE", "TYPE", "IDENTITY", "LOCATION"]);
    assert_eq!(desk.installed(), ["acme", "plugins.lock"]);
    let again = desk.run(&format!("plugin install {reference} --output json")).ok().json();
    assert_eq!((again["change"].as_str(), again["version"].as_str()), (Some("unchanged"), Some("0.2.0")));
    // The flags of the tool that this command is modelled on.
    let other = desk.run(&format!("download plugin {reference} --output other --output-format yaml")).ok();
    assert!(
        other.out.contains("change: installed") && names(&desk.at("other")) == ["acme", "plugins.lock"],
        "{other:?}"
    );

    // An upgrade, packed and pushed in one go.
    desk.write("acme", &script("0.3.0"));
    desk.run(&format!("plugin pack constructor.yaml --version 0.3.0 -o acme.tgz --push {base}")).ok();
    let newest = desk.run(&format!("plugin install {base}//{COMPONENT} -o json")).ok().json();
    assert_eq!((newest["version"].as_str(), newest["replaced"].as_str()), (Some("0.3.0"), Some("0.2.0")));
    assert_eq!(std::fs::read_to_string(desk.at(".config/netpulse/plugins/acme")).unwrap(), script("0.3.0"));

    desk.run("plugin verify").ok();
    desk.write(".config/netpulse/plugins/acme", "changed");
    let changed = desk.run("plugin verify -o json");
    assert_eq!((changed.code, changed.json()[0]["state"].as_str()), (Some(7), Some("changed")));
    desk.run("plugin verify acme --accept").ok();
    desk.run("plugin verify nothing").fails(6, "there is no plugin `nothing`");
    desk.run("plugin remove acme").ok();
    assert_eq!(desk.installed(), ["plugins.lock"]);
    desk.run("plugin remove acme").fails(6, "no plugin `acme` is installed");

    desk.run(&format!("plugin install {base}//{COMPONENT}:9.9.9")).fails(6, "no such component version");
    desk.run(&format!("plugin install {reference} --extra-identity arch=riscv64"))
        .fails(6, "no resource found matching identity");
    desk.run(&format!("plugin install {reference} --extra-identity riscv64")).fails(2, "expected KEY=VALUE");
    desk.run("plugin install http://127.0.0.1:1/p//example.org/acme:1.0.0")
        .fails(3, "127.0.0.1:1 cannot be reached");
    desk.run("plugin install ./acme.ctf//Example.org/acme").fails(2, "the component is wrong");
    desk.run("plugin pack constructor.yaml --version 0.3.0 -o acme.tgz").fails(7, "it is there already");
    desk.run("plugin push acme.ctf ./folder").fails(2, "looks like a path");
    // What a tampered archive gives.
    let blobs = desk.at("acme.ctf/blobs");
    for name in names(&blobs) {
        let mut bytes = std::fs::read(blobs.join(&name)).unwrap();
        if bytes.starts_with(b"#!/bin/sh") {
            bytes[20] ^= 1;
            std::fs::write(blobs.join(&name), bytes).unwrap();
        }
    }
    desk.run("plugin install ./acme.ctf").fails(7, "the bytes are not what their digest says");
    assert_eq!(desk.installed(), ["plugins.lock"]);
}

#[test]
fn a_required_signature_is_required() {
    let desk = Desk::new();
    for words in ["genpkey -algorithm ed25519 -out key.pem", "pkey -in key.pem -pubout -out acme.pem"] {
        assert!(desk.command("openssl").args(words.split(' ')).status().unwrap().success());
    }
    desk.run("plugin pack constructor.yaml --version 0.2.0 --output unsigned.ctf").ok();
    desk.run("plugin pack constructor.yaml --version 0.2.0 --output signed.ctf --sign key.pem").ok();
    desk.write("netpulse.yaml", "plugin: {keys: [acme.pem], require_signature: true, directory: trusted}\n");
    desk.run("plugin install ./unsigned.ctf").fails(7, "is not signed, and plugin.require_signature is on");
    desk.run("plugin install ./acme").fails(7, "carries no signature");
    assert!(names(&desk.at("trusted")).is_empty());
    let signed = desk.run("plugin install ./signed.ctf -o json").ok().json();
    assert_eq!(signed["signer"], "acme");
    assert_eq!(names(&desk.at("trusted")), ["acme", "plugins.lock"]);
}

#[test]
fn credentials_may_be_kept_by_a_helper() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new();
    desk.write("htpasswd", HTPASSWD);
    let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", desk.at("htpasswd").display());
    let registry = Registry::start_with(&desk, &auth);
    std::fs::create_dir_all(desk.at(".docker")).unwrap();
    desk.write(".docker/config.json", "{\"credsStore\": \"test\"}");
    desk.run("plugin pack constructor.yaml --version 0.2.0 --output acme.ctf").ok();
    let path = format!("{}:{}", desk.folder.path().display(), std::env::var("PATH").unwrap());
    let push = || {
        let words = ["plugin", "push", "acme.ctf", &format!("http://{}/p", registry.address)];
        Ended::of(desk.command(NETPULSE).env("PATH", &path).args(words).output().unwrap())
    };
    push().fails(4, "kept by docker-credential-test: it cannot be run");
    for (helper, result) in [
        (
            "read host; echo 'credentials not found in native keychain'; exit 1",
            Err("no credentials for it were found"),
        ),
        ("read host; echo hunter2; exit 3", Err("it ended with exit status: 3")),
        ("echo hunter2", Err("not what a helper says")),
        (
            "read host; echo '{\"ServerURL\":\"'$host'\",\"Username\":\"user\",\"Secret\":\"pass-word\"}'",
            Ok(()),
        ),
    ] {
        desk.write("docker-credential-test", &format!("#!/bin/sh\n[ \"$1\" = get ] || exit 9\n{helper}\n"));
        std::fs::set_permissions(desk.at("docker-credential-test"), std::fs::Permissions::from_mode(0o755))
            .unwrap();
        let ended = push();
        assert!(!format!("{ended:?}").contains("hunter2"), "promise 12: {ended:?}");
        match result {
            Ok(()) => drop(ended.ok()),
            Err(said) => ended.fails(4, said),
        }
    }
}

#[test]
fn no_space_leaves_nothing_behind() {
    let desk = Desk::new();
    desk.write("acme", &format!("{}# {}\n", script("0.2.0"), "x".repeat(1024 * 1024)));
    desk.run("plugin pack constructor.yaml --version 0.2.0 --output acme.ctf").ok();
    // A process that may not write large files meets its limit as it would meet a full disk.
    let limited = "trap '' XFSZ; ulimit -f 100; exec \"$0\" plugin install ./acme.ctf";
    let ended = Ended::of(desk.command("bash").args(["-c", limited, NETPULSE]).output().unwrap());
    ended.fails(8, "cannot be written: the file is larger than this process may write");
    assert!(desk.installed().is_empty(), "{:?}", desk.installed());
    desk.run("plugin install ./acme.ctf").ok();
}

/// A registry that serves a packed archive from its folder, but never ends its largest blob.
fn stalling(archive: PathBuf) -> (String, std::sync::mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (asked, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (archive, asked) = (archive.clone(), asked.clone());
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut first = String::new();
                reader.read_line(&mut first).unwrap();
                let mut line = String::new();
                while reader.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                let name = first.split_whitespace().nth(1).unwrap().rsplit('/').next().unwrap().to_owned();
                let index = std::fs::read_to_string(archive.join("artifact-index.json")).unwrap();
                let index: Value = serde_json::from_str(&index).unwrap();
                let digest = if name.starts_with("sha256:") {
                    name
                } else {
                    index["artifacts"][0]["digest"].as_str().unwrap().to_owned()
                };
                let bytes = std::fs::read(archive.join("blobs").join(digest.replace(':', "."))).unwrap();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    bytes.len()
                );
                stream.write_all(head.as_bytes()).unwrap();
                if bytes.len() > 100_000 {
                    stream.write_all(&bytes[..50_000]).unwrap();
                    asked.send(()).unwrap();
                    // Until the other side goes away.
                    let _ = reader.read(&mut [0]);
                } else {
                    stream.write_all(&bytes).unwrap();
                }
            });
        }
    });
    (address, told)
}

#[test]
fn an_interrupted_download_leaves_nothing_behind() {
    let desk = Desk::new();
    desk.write("acme", &format!("{}# {}\n", script("0.2.0"), "x".repeat(1024 * 1024)));
    desk.run("plugin pack constructor.yaml --version 0.2.0 --output acme.ctf").ok();
    let (address, told) = stalling(desk.at("acme.ctf"));
    for signal in ["INT", "TERM", "KILL"] {
        let child = desk
            .command(NETPULSE)
            .args(["plugin", "install", &format!("http://{address}//{COMPONENT}:0.2.0")])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        told.recv_timeout(std::time::Duration::from_secs(60)).expect("the download starts");
        assert!(
            Command::new("kill")
                .args([format!("-{signal}"), child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
        let ended = Ended::of(child.wait_with_output().unwrap());
        if signal == "KILL" {
            // Nobody could tidy up: the next command does.
            assert_eq!(desk.installed().len(), 1, "{:?}", desk.installed());
        } else {
            ended.fails(130, "nothing half done is left behind");
            assert!(desk.installed().is_empty(), "{:?}", desk.installed());
        }
    }
    desk.run("plugin install ./acme.ctf").ok();
    assert_eq!(desk.installed(), ["acme", "plugins.lock"]);
}

#[test]
fn a_catalogue_is_shown_in_every_form() {
    let desk = Desk::new();
    desk.write(
        "catalogue.yaml",
        &format!(
            "name: example.org/catalogue\nprovider: example.org\ncomponentReferences:\n- name: acme\n  componentName: {COMPONENT}\n  version: 0.2.0\n  labels:\n  - name: ocm.software/pluginInfo\n    value: {{description: Acme switches, platforms: [linux/amd64]}}\n"
        ),
    );
    desk.run("plugin pack catalogue.yaml --version 1.0.0 --output c.ctf").ok();
    let list = |output: &str| {
        desk.run(&format!("plugin registry list --registry ./c.ctf//example.org/catalogue -o {output}"))
            .ok()
            .out
    };
    assert!(list("table").contains("Acme switches") && !list("table").contains("REFERENCE"));
    assert!(list("wide").contains(&format!("//{COMPONENT}:0.2.0")));
    assert_eq!(serde_json::from_str::<Value>(&list("json")).unwrap()[0]["name"], "acme");
    assert!(list("yaml").contains("- name: acme"));
    assert_eq!(list("ndjson").lines().count(), 1);
    desk.run("plugin registry get acme:0.2.0 --registry ./c.ctf//example.org/catalogue:1.0.0").ok();
    desk.run("plugin registry get other --registry ./c.ctf//example.org/catalogue")
        .fails(6, "there is: acme:0.2.0");
}
