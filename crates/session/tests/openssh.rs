//! The SSH transport against OpenSSH's own server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    dead_code
)]

mod support;

use std::time::{Duration, Instant};

use netpulse_model::ErrorCode;
use netpulse_session::SessionError;
use netpulse_session::transport::hostkeys::{HostKeyPolicy, HostKeys};
use netpulse_session::transport::ssh::{
    self, Credentials, Disabled, ExecOptions, Exit, KeyPlace, KeySource, Overflow, Profile, SshConnection,
    SshOptions, SshTarget,
};
use netpulse_session::transport::{Pty, Transport};
use support::{Sshd, keygen, user};

const SOON: Duration = Duration::from_secs(20);

fn text_key(text: &str, passphrase: Option<&str>) -> KeySource {
    KeySource {
        place: KeyPlace::Text(text.to_owned().into()),
        passphrase: passphrase.map(|p| p.to_owned().into()),
    }
}

fn target(sshd: &Sshd) -> SshTarget {
    SshTarget {
        host: "127.0.0.1".into(),
        port: sshd.port,
        user: user(),
        credentials: Credentials { keys: vec![text_key(&sshd.client_key(), None)], ..Credentials::default() },
        jump: None,
    }
}

async fn open(sshd: &Sshd) -> SshConnection {
    ssh::connect(&target(sshd), &SshOptions::default(), &HostKeys::in_memory()).await.unwrap()
}

async fn refused(target: &SshTarget, options: &SshOptions, store: &HostKeys) -> SessionError {
    ssh::connect(target, options, store).await.expect_err("the connection should have been refused")
}

fn command(text: &str) -> ExecOptions {
    ExecOptions { command: text.to_owned(), pty: None, environment: Vec::new(), limit: 1 << 20 }
}

async fn run(connection: &SshConnection, options: ExecOptions) -> (String, String, Exit) {
    let mut exec = connection.exec(&options, SOON).await.unwrap();
    exec.end_input().await.unwrap();
    assert!(exec.ended(SOON).await, "the command did not end");
    let output = exec.take_output();
    (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
        output.exit.expect("an ended command has an exit"),
    )
}

async fn read_until(shell: &mut Box<dyn Transport>, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let chunk = tokio::time::timeout(SOON, shell.recv()).await.expect("silence").expect("the end");
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    seen
}

#[tokio::test]
async fn a_shell_talks_and_says_when_it_ends() {
    let sshd = Sshd::start("");
    let connection = open(&sshd).await;
    assert!(connection.remote_version().starts_with("SSH-2.0-OpenSSH"), "{}", connection.remote_version());
    let mut shell = connection.shell(&Pty::default(), SOON).await.unwrap();
    assert!(shell.authenticated());
    shell.send(b"stty size; echo TERM=$TERM\n", SOON).await.unwrap();
    let seen = read_until(&mut shell, "TERM=vt100").await;
    assert!(seen.contains("1000 511"), "{seen}");
    shell.probe(SOON).await.unwrap();
    assert!(shell.end_reason().is_none());
    shell.send(b"exit\n", SOON).await.unwrap();
    while shell.recv().await.is_some() {}
    assert!(shell.end_reason().unwrap().contains("closed"), "{:?}", shell.end_reason());
}

#[tokio::test]
async fn commands_keep_their_streams_and_status_apart() {
    let sshd = Sshd::start("");
    let connection = open(&sshd).await;
    let (out, err, exit) = run(&connection, command("echo out; echo err >&2; exit 7")).await;
    assert_eq!((out.as_str(), err.as_str(), exit), ("out\n", "err\n", Exit::Status(7)));
    let (_, _, exit) = run(&connection, command("kill -KILL $$")).await;
    assert_eq!(exit, Exit::Signal("KILL".into()));
    let with_pty =
        ExecOptions { pty: Some(Pty::default()), ..command("tty >/dev/null && echo terminal; echo err >&2") };
    let (out, err, _) = run(&connection, with_pty).await;
    assert_eq!((out.as_str(), err.as_str()), ("terminal\r\nerr\r\n", ""));
    let with_env =
        ExecOptions { environment: vec![("LANG_TEST".into(), "hello".into())], ..command("echo $LANG_TEST") };
    assert_eq!(run(&connection, with_env).await.0, "hello\n");
    let mut exec = connection.exec(&command("cat"), SOON).await.unwrap();
    exec.write(b"through standard input", SOON).await.unwrap();
    exec.end_input().await.unwrap();
    assert!(exec.ended(SOON).await);
    assert_eq!(exec.take_output().stdout, b"through standard input");
}

#[tokio::test]
async fn d21_megabytes_on_both_streams_do_not_hang() {
    let sshd = Sshd::start("");
    let connection = open(&sshd).await;
    let both = "head -c 5000000 /dev/zero | tr '\\0' o & head -c 5000000 /dev/zero | tr '\\0' e >&2; wait";
    let (out, err, exit) = run(&connection, ExecOptions { limit: 6_000_000, ..command(both) }).await;
    assert_eq!((out.len(), err.len(), exit), (5_000_000, 5_000_000, Exit::Status(0)));
}

#[tokio::test]
async fn promise_10_an_endless_command_is_bounded_and_killed() {
    let sshd = Sshd::start("");
    let connection = open(&sshd).await;
    let mark = sshd.dir.path().join("ended");
    let endless = format!("trap 'touch {}; exit' TERM HUP PIPE; while :; do echo yes; done", mark.display());
    let mut exec = connection.exec(&ExecOptions { limit: 100_000, ..command(&endless) }, SOON).await.unwrap();
    assert!(exec.ended(SOON).await && !exec.is_done());
    if !exec.interrupt(Duration::from_secs(1)).await {
        exec.close().await;
    }
    assert!(exec.ended(SOON).await);
    let output = exec.take_output();
    assert_eq!((output.stdout.len(), output.overflow), (100_000, Some(Overflow::Stdout)));
    drop(exec);
    // The connection serves on.
    assert_eq!(run(&connection, command("echo still here")).await.0, "still here\n");
    assert!(mark.exists(), "the command was not told to stop");
}

#[tokio::test]
async fn a_silent_command_is_interrupted_at_its_deadline() {
    let sshd = Sshd::start("");
    let connection = open(&sshd).await;
    // OpenSSH passes signals on only for users other than root; a terminal's Ctrl-C always arrives.
    let pty = (user() == "root").then(Pty::default);
    let mut exec = connection.exec(&ExecOptions { pty, ..command("sleep 300") }, SOON).await.unwrap();
    let started = Instant::now();
    assert!(!exec.ended(Duration::from_millis(200)).await);
    assert!(exec.interrupt(Duration::from_secs(5)).await);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert!(exec.is_done());
}

#[tokio::test]
async fn a_program_left_in_the_background_does_not_hold_the_command() {
    let sshd = Sshd::start("");
    let connection = open(&sshd).await;
    let started = Instant::now();
    let (out, _, exit) = run(&connection, command("sleep 20 & echo started")).await;
    assert_eq!((out.as_str(), exit), ("started\n", Exit::Status(0)));
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn every_kind_of_key_logs_in() {
    let sshd = Sshd::start("");
    let dir = sshd.dir.path();
    for (name, args) in [
        ("k_rsa", &["-t", "rsa", "-b", "2048", "-N", ""][..]),
        ("k_rsa_pem", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "open sesame"]),
        ("k_rsa_p8", &["-t", "rsa", "-b", "2048", "-m", "PKCS8", "-N", "open sesame"]),
        ("k_ec", &["-t", "ecdsa", "-b", "521", "-N", "open sesame"]),
        ("k_ec_pem", &["-t", "ecdsa", "-b", "384", "-m", "PEM", "-N", "open sesame"]),
        ("k_ed", &["-t", "ed25519", "-N", "open sesame"]),
    ] {
        let path = keygen(dir, name, args);
        sshd.authorize(name);
        let mut to = target(&sshd);
        to.credentials.keys = vec![KeySource {
            place: KeyPlace::File(path.clone()),
            passphrase: Some("open sesame".to_owned().into()),
        }];
        let opened = ssh::connect(&to, &SshOptions::default(), &HostKeys::in_memory()).await;
        assert!(opened.is_ok(), "{name}: {:?}", opened.err());
        to.credentials.keys = vec![text_key(&std::fs::read_to_string(path).unwrap(), Some("open sesame"))];
        let opened = ssh::connect(&to, &SshOptions::default(), &HostKeys::in_memory()).await;
        assert!(opened.is_ok(), "{name}: {:?}", opened.err());
    }
    // PuTTY's own form, where its tools are installed.
    let ppk = dir.join("k.ppk");
    let made = std::process::Command::new("puttygen")
        .arg(dir.join("k_rsa"))
        .args(["-O", "private", "-o"])
        .arg(&ppk)
        .arg("--new-passphrase")
        .arg({
            std::fs::write(dir.join("pass"), "open sesame").unwrap();
            dir.join("pass")
        })
        .output();
    if made.is_ok_and(|done| done.status.success()) {
        let mut to = target(&sshd);
        to.credentials.keys = vec![text_key(&std::fs::read_to_string(ppk).unwrap(), Some("open sesame"))];
        ssh::connect(&to, &SshOptions::default(), &HostKeys::in_memory()).await.unwrap();
    }
}

#[tokio::test]
async fn keys_that_do_not_help_are_named_without_secrets() {
    let sshd = Sshd::start("");
    keygen(sshd.dir.path(), "stranger", &["-t", "ed25519", "-N", "s3cret-phrase"]);
    let text = std::fs::read_to_string(sshd.dir.path().join("stranger")).unwrap();
    let mut to = target(&sshd);
    to.credentials.keys = vec![text_key(&text, Some("s3cret-phrase"))];
    to.credentials.password = Some("s3cret-word".to_owned().into());
    let store = HostKeys::in_memory();
    let error = refused(&to, &SshOptions::default(), &store).await;
    assert_eq!(error.kind, ErrorCode::AuthenticationFailed);
    assert!(error.message.contains("publickey (ssh-ed25519 SHA256:"), "{error}");
    assert!(
        error.message.contains(&format!("127.0.0.1:{}", sshd.port))
            && error.message.contains("it takes publickey")
    );
    to.credentials.keys = vec![text_key(&text, Some("wrong-phrase"))];
    let wrong = refused(&to, &SshOptions::default(), &store).await;
    assert!(wrong.message.contains("does not open with the passphrase"), "{wrong}");
    to.credentials.keys = vec![text_key(&text, None)];
    let none = refused(&to, &SshOptions::default(), &store).await;
    assert!(none.message.contains("is encrypted: give its `passphrase`"), "{none}");
    for text in [format!("{error:?} {wrong:?} {none:?}"), format!("{to:?}")] {
        assert!(
            !text.contains("s3cret") && !text.contains("wrong-phrase") && !text.contains("BEGIN"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn pain_39_old_gear_is_reached_by_the_legacy_profile_on_its_own() {
    for (what, config) in [
        (
            "group1, 3des, ssh-rsa",
            "KexAlgorithms diffie-hellman-group1-sha1\nCiphers 3des-cbc\nMACs hmac-sha1\nHostKeyAlgorithms ssh-rsa",
        ),
        (
            "group14, aes-cbc",
            "KexAlgorithms diffie-hellman-group14-sha1\nCiphers aes128-cbc\nMACs hmac-sha1\nHostKeyAlgorithms ssh-rsa",
        ),
        (
            "group exchange, aes256-cbc",
            "KexAlgorithms diffie-hellman-group-exchange-sha1\nCiphers aes256-cbc\nMACs hmac-sha1",
        ),
    ] {
        let sshd = Sshd::start(&format!("{config}\nPubkeyAcceptedAlgorithms +ssh-rsa"));
        keygen(sshd.dir.path(), "old", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""]);
        sshd.authorize("old");
        let mut to = target(&sshd);
        to.credentials.keys =
            vec![text_key(&std::fs::read_to_string(sshd.dir.path().join("old")).unwrap(), None)];
        let options = SshOptions::default();
        let store = HostKeys::in_memory();
        let connection = ssh::connect(&to, &options, &store).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(connection.is_legacy());
        assert_eq!(run(&connection, command("echo old but well")).await.0, "old but well\n");
        // The second time it is known, and asked with the old algorithms at once.
        assert!(ssh::connect(&to, &options, &store).await.unwrap().is_legacy());
        let modern = SshOptions { profile: Profile::Modern, ..options };
        let error = refused(&to, &modern, &store).await;
        assert_eq!(error.kind, ErrorCode::HandshakeFailed);
        assert!(
            error.message.contains("no common SSH key exchange") && error.message.contains("sha1"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn disabled_algorithms_are_not_offered() {
    let sshd = Sshd::start("Ciphers aes128-ctr,aes256-ctr");
    let all = Disabled { ciphers: vec!["aes128-ctr".into(), "aes256-ctr".into()], ..Disabled::default() };
    let options = SshOptions { disabled: all, ..SshOptions::default() };
    let error = refused(&target(&sshd), &options, &HostKeys::in_memory()).await;
    assert!(error.message.contains("no common SSH cipher"), "{error}");
}

#[tokio::test]
async fn compression_when_asked() {
    let sshd = Sshd::start("Compression yes");
    let options = SshOptions { compress: true, ..SshOptions::default() };
    let connection = ssh::connect(&target(&sshd), &options, &HostKeys::in_memory()).await.unwrap();
    assert_eq!(run(&connection, command("seq 1 20000 | tail -n 1")).await.0, "20000\n");
}

#[tokio::test]
async fn promise_13_a_changed_host_key_is_refused_until_it_is_accepted() {
    let mut sshd = Sshd::start("");
    let store_dir = tempfile::tempdir().unwrap();
    let path = store_dir.path().join("known_hosts");
    let store = HostKeys::open(&path).unwrap();
    let to = target(&sshd);
    let strict = SshOptions { host_keys: HostKeyPolicy::Strict, ..SshOptions::default() };
    assert_eq!(refused(&to, &strict, &store).await.kind, ErrorCode::HostKeyUnknown);
    ssh::connect(&to, &SshOptions::default(), &store).await.unwrap();
    ssh::connect(&to, &strict, &store).await.unwrap();

    // The same address, another key.
    sshd.stop_listening();
    std::fs::remove_file(sshd.dir.path().join("host_ed")).unwrap();
    keygen(sshd.dir.path(), "host_ed", &["-t", "ed25519", "-N", ""]);
    let other = Sshd::start("");
    let mut to = target(&other);
    std::fs::write(
        &path,
        std::fs::read_to_string(&path)
            .unwrap()
            .replace(&format!(":{}", sshd.port), &format!(":{}", other.port)),
    )
    .unwrap();
    let store = HostKeys::open(&path).unwrap();
    let error = refused(&to, &SshOptions::default(), &store).await;
    assert_eq!(error.kind, ErrorCode::HostKeyChanged);
    assert!(
        error.message.contains(&format!("ssh-keygen -R '[127.0.0.1]:{}' -f {}", to.port, path.display())),
        "{error}"
    );
    assert_eq!(store.remove("127.0.0.1", to.port).await.unwrap(), 1);
    to.jump = None;
    ssh::connect(&to, &SshOptions::default(), &store).await.unwrap();
    ssh::connect(&to, &strict, &store).await.unwrap();
}

#[tokio::test]
async fn a_device_with_several_host_keys_shows_the_one_we_know() {
    let sshd = Sshd::start("");
    let public = std::fs::read_to_string(sshd.dir.path().join("host_rsa.pub")).unwrap();
    let path = sshd.dir.path().join("known_hosts");
    std::fs::write(&path, format!("[127.0.0.1]:{} {public}", sshd.port)).unwrap();
    let strict = SshOptions { host_keys: HostKeyPolicy::Strict, ..SshOptions::default() };
    ssh::connect(&target(&sshd), &strict, &HostKeys::open(&path).unwrap()).await.unwrap();
}

#[tokio::test]
async fn through_a_jump_host_each_key_is_checked() {
    let jump = Sshd::start("");
    let device = Sshd::start("");
    let mut to = target(&device);
    to.jump = Some(Box::new(target(&jump)));
    let store = HostKeys::in_memory();
    let connection = ssh::connect(&to, &SshOptions::default(), &store).await.unwrap();
    assert_eq!(store.list().len(), 2);
    let (out, _, _) =
        run(&connection, command("echo $SSH_CONNECTION; head -c 3000000 /dev/zero | wc -c")).await;
    assert!(out.ends_with("3000000\n"), "{out}");
    let mut shell = connection.shell(&Pty::default(), SOON).await.unwrap();
    shell.send(b"head -c 2000000 /dev/zero | tr '\\0' x; echo; echo en''d\n", SOON).await.unwrap();
    assert!(read_until(&mut shell, "end\r\n").await.len() > 2_000_000);

    // A device that nobody reads stalls nobody else behind the same jump host.
    let mut stalled = connection.shell(&Pty::default(), SOON).await.unwrap();
    stalled.send(b"yes stalled\n", SOON).await.unwrap();
    let other = ssh::connect(&to, &SshOptions::default(), &store).await.unwrap();
    assert_eq!(run(&other, command("echo quick")).await.0, "quick\n");

    to.port = 1;
    let error = refused(&to, &SshOptions::default(), &store).await;
    assert_eq!(error.kind, ErrorCode::ConnectFailed);
    assert!(error.message.contains("did not reach 127.0.0.1:1"), "{error}");
    to.jump.as_mut().unwrap().credentials.keys.clear();
    let error = refused(&to, &SshOptions::default(), &store).await;
    assert_eq!(error.kind, ErrorCode::AuthenticationFailed);
    assert!(error.message.starts_with("jump host: "), "{error}");
}

#[tokio::test]
async fn an_agent_logs_in_only_when_allowed() {
    let sshd = Sshd::start("");
    let socket = sshd.dir.path().join("agent");
    let mut agent = std::process::Command::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let added = loop {
        let done = std::process::Command::new("ssh-add")
            .env("SSH_AUTH_SOCK", &socket)
            .arg(sshd.dir.path().join("client"))
            .output()
            .unwrap();
        if done.status.success() || agent.try_wait().unwrap().is_some() {
            break done.status.success();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(added);
    // The variable belongs to the process, so a process of its own asks the agent.
    let me = std::env::current_exe().unwrap();
    let done = tokio::process::Command::new(me)
        .args(["--exact", "agent_child", "--nocapture"])
        .env("SSH_AUTH_SOCK", &socket)
        .env("AGENT_TEST_PORT", sshd.port.to_string())
        .output()
        .await
        .unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

/// The other half of the test above; alone it has nothing to ask.
#[tokio::test]
async fn agent_child() {
    let Ok(port) = std::env::var("AGENT_TEST_PORT") else { return };
    let mut to = SshTarget {
        host: "127.0.0.1".into(),
        port: port.parse().unwrap(),
        user: user(),
        credentials: Credentials { agent: true, ..Credentials::default() },
        jump: None,
    };
    let store = HostKeys::in_memory();
    ssh::connect(&to, &SshOptions::default(), &store).await.unwrap();
    to.credentials.agent = false;
    assert_eq!(refused(&to, &SshOptions::default(), &store).await.kind, ErrorCode::AuthenticationFailed);
}

#[tokio::test]
async fn a_dropped_connection_closes_its_socket_and_a_server_that_dies_is_noticed() {
    let sshd = Sshd::start("");
    let connection = open(&sshd).await;
    let (parent, _, _) = run(&connection, command("echo $PPID")).await;
    let ended = connection.closed();
    // The process that serves this connection.
    let killed = std::process::Command::new("kill").arg(parent.trim()).status().unwrap();
    assert!(killed.success());
    tokio::time::timeout(SOON, ended).await.unwrap();
    assert!(connection.end_reason().is_some());
    assert_eq!(connection.probe(SOON).await.unwrap_err().kind, ErrorCode::SessionLost);
    assert!(matches!(
        connection.exec(&command("true"), SOON).await.err().unwrap().error.kind,
        ErrorCode::SessionLost
    ));
}
