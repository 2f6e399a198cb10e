//! The transports against peers that misbehave, and against logins that need a server of our own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netpulse_model::ErrorCode;
use netpulse_session::SessionError;
use netpulse_session::transport::hostkeys::HostKeys;
use netpulse_session::transport::ssh::{self, Credentials, SshOptions, SshTarget};
use netpulse_session::transport::{Pty, telnet};
use russh::keys::PrivateKey;
use russh::server::{self, Auth, Msg, Response, Session};
use russh::{Channel, ChannelId, MethodKind, MethodSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(20);

fn target(port: u16, password: &str) -> SshTarget {
    SshTarget {
        host: "127.0.0.1".into(),
        port,
        user: "ops".into(),
        credentials: Credentials { password: Some(password.to_owned().into()), ..Credentials::default() },
        jump: None,
    }
}

fn quick() -> SshOptions {
    SshOptions {
        connect_timeout: Duration::from_secs(2),
        banner_timeout: Duration::from_millis(300),
        handshake_timeout: Duration::from_millis(500),
        auth_timeout: Duration::from_secs(2),
        ..SshOptions::default()
    }
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A peer that does `play` with its first connection.
async fn peer<F>(play: impl FnOnce(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, port) = listener().await;
    tokio::spawn(async move { play(listener.accept().await.unwrap().0).await });
    port
}

async fn refused(port: u16) -> SessionError {
    ssh::connect(&target(port, "s3cret"), &quick(), &HostKeys::in_memory())
        .await
        .expect_err("no SSH server is there")
}

#[tokio::test]
async fn what_no_ssh_server_says_gets_a_sentence() {
    let web = peer(|mut s| async move {
        s.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        s.shutdown().await.unwrap();
    })
    .await;
    let error = refused(web).await;
    assert_eq!(error.kind, ErrorCode::HandshakeFailed);
    assert!(
        error.message.contains("answered `HTTP/1.1 400 Bad Request")
            && error.message.contains("which is not SSH"),
        "{error}"
    );

    let binary = peer(|mut s| async move {
        s.write_all(&[0xff, 0xfd, 0x18, 0, 7]).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let error = refused(binary).await;
    assert!(error.message.contains("and no SSH version within 0.3 s"), "{error}");

    let silent = peer(|s| async move {
        let _open = s;
        std::future::pending::<()>().await;
    })
    .await;
    let started = Instant::now();
    let error = refused(silent).await;
    assert!(error.message.contains("sent nothing for 0.3 s"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));

    let closes = peer(|s| async move { drop(s) }).await;
    let error = refused(closes).await;
    assert_eq!(error.kind, ErrorCode::HandshakeFailed);
    assert!(error.message.contains("closed it before the SSH handshake"), "{error}");

    // Speaks, and then no more: the middle of a key exchange.
    let half = peer(|mut s| async move {
        s.write_all(b"SSH-2.0-Slow_1.0\r\n").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let error = refused(half).await;
    assert!(
        error.message.contains("SSH-2.0-Slow_1.0") && error.message.contains("key exchange within 0.5 s"),
        "{error}"
    );

    let floods = peer(|mut s| async move { while s.write_all(&[b'x'; 4096]).await.is_ok() {} }).await;
    assert_eq!(refused(floods).await.kind, ErrorCode::HandshakeFailed);
}

#[tokio::test]
async fn nothing_there_is_told_apart() {
    let (listener, port) = listener().await;
    drop(listener);
    let error = refused(port).await;
    assert_eq!(error.kind, ErrorCode::ConnectFailed);
    assert!(error.message.contains(&format!("127.0.0.1:{port} refused the connection")), "{error}");
    let mut to = target(port, "x");
    to.host = "no-such-device.invalid".into();
    let error = ssh::connect(&to, &quick(), &HostKeys::in_memory()).await.unwrap_err();
    assert_eq!(error.kind, ErrorCode::ConnectFailed);
    assert!(error.message.contains("no-such-device.invalid` d"), "{error}");
}

#[tokio::test]
async fn a_failed_connect_leaves_no_open_socket() {
    let (listener, port) = listener().await;
    let connecting = tokio::spawn(async move { refused(port).await });
    let (mut socket, _) = listener.accept().await.unwrap();
    socket.write_all(b"SSH-2.0-Slow_1.0\r\n").await.unwrap();
    connecting.await.unwrap();
    let mut rest = Vec::new();
    // Ends only when the client has closed.
    tokio::time::timeout(SOON, socket.read_to_end(&mut rest)).await.unwrap().ok();

    // The same when the caller walks away in the middle.
    let connecting = tokio::spawn(async move { refused(port).await });
    let (mut socket, _) = listener.accept().await.unwrap();
    connecting.abort();
    tokio::time::timeout(SOON, socket.read_to_end(&mut rest)).await.unwrap().ok();
}

/// How the server below logs in.
#[derive(Clone, Copy, PartialEq)]
enum Login {
    Password,
    KeyboardInteractive,
    PasswordThenQuestions,
    Nothing,
}

#[derive(Clone)]
struct Device {
    login: Login,
    attempts: Arc<parking_lot::Mutex<Vec<String>>>,
    round: usize,
}

impl server::Handler for Device {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, russh::Error> {
        Ok(Some("Authorised users only\r\n".into()))
    }

    async fn auth_none(&mut self, _user: &str) -> Result<Auth, russh::Error> {
        self.attempts.lock().push("none".into());
        Ok(if self.login == Login::Nothing { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_password(&mut self, _user: &str, password: &str) -> Result<Auth, russh::Error> {
        self.attempts.lock().push(format!("password {password}"));
        Ok(match (self.login, password) {
            (Login::Password, "right") => Auth::Accept,
            (Login::PasswordThenQuestions, "right") => Auth::Reject {
                proceed_with_methods: Some(MethodSet::from(&[MethodKind::KeyboardInteractive][..])),
                partial_success: true,
            },
            // As OpenSSH: a method that failed may be tried again.
            (Login::Password, _) => Auth::Reject {
                proceed_with_methods: Some(MethodSet::from(
                    &[MethodKind::Password, MethodKind::KeyboardInteractive][..],
                )),
                partial_success: false,
            },
            _ => Auth::reject(),
        })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        self.round += 1;
        let answers: Vec<String> = response
            .into_iter()
            .flatten()
            .map(|a| String::from_utf8_lossy(a.as_ref()).into_owned())
            .collect();
        self.attempts.lock().push(format!("questions {}", answers.join("|")));
        let ask = |prompts: &[(&'static str, bool)]| Auth::Partial {
            name: Cow::Borrowed(""),
            instructions: Cow::Borrowed(""),
            prompts: prompts.iter().map(|(text, echo)| (Cow::Borrowed(*text), *echo)).collect(),
        };
        Ok(match (self.round, answers.join("|").as_str()) {
            (1, _) => ask(&[("Username: ", true), ("Password: ", false)]),
            (2, "ops|right") => ask(&[("Password again: ", false)]),
            (3, "right") => ask(&[]),
            (4, "") => Auth::Accept,
            _ => Auth::reject(),
        })
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: server::ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _col_width: u32,
        _row_height: u32,
        _pix_width: u32,
        _pix_height: u32,
        _modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }
}

async fn device(login: Login) -> (u16, Arc<parking_lot::Mutex<Vec<String>>>) {
    let (listener, port) = listener().await;
    let attempts = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let key = PrivateKey::random(&mut rand_for_keys(), russh::keys::Algorithm::Ed25519).unwrap();
    let methods = match login {
        Login::Password => &[MethodKind::Password, MethodKind::KeyboardInteractive][..],
        Login::KeyboardInteractive => &[MethodKind::KeyboardInteractive],
        Login::PasswordThenQuestions => &[MethodKind::Password],
        Login::Nothing => &[MethodKind::None],
    };
    let config = Arc::new(server::Config {
        keys: vec![key],
        methods: MethodSet::from(methods),
        auth_rejection_time: Duration::ZERO,
        ..server::Config::default()
    });
    let seen = Arc::clone(&attempts);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let handler = Device { login, attempts: Arc::clone(&seen), round: 0 };
            let config = Arc::clone(&config);
            tokio::spawn(async move {
                if let Ok(running) = server::run_stream(config, socket, handler).await {
                    running.await.ok();
                }
            });
        }
    });
    (port, attempts)
}

fn rand_for_keys() -> impl russh::keys::ssh_key::rand_core::CryptoRng {
    russh::keys::key::safe_rng()
}

#[tokio::test]
async fn passwords_go_the_way_the_device_takes_them() {
    for (login, expected) in [
        (Login::Password, vec!["password right"]),
        (
            Login::KeyboardInteractive,
            // The first answer is what says that this device takes no plain password.
            vec!["password right", "questions ", "questions ops|right", "questions right", "questions "],
        ),
        (
            Login::PasswordThenQuestions,
            vec!["password right", "questions ", "questions ops|right", "questions right", "questions "],
        ),
    ] {
        let (port, attempts) = device(login).await;
        let connection = ssh::connect(&target(port, "right"), &SshOptions::default(), &HostKeys::in_memory())
            .await
            .unwrap();
        assert_eq!(*attempts.lock(), expected);
        assert_eq!(connection.banner(), "Authorised users only\r\n");
        // This device gives no terminal, which is told and not waited for.
        let error = connection.shell(&Pty::default(), SOON).await.err().unwrap();
        assert!(error.message.contains("gives no terminal to this user"), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_one_failed_login_and_not_two() {
    let (port, attempts) = device(Login::Password).await;
    let error = ssh::connect(&target(port, "s3cret-wrong"), &SshOptions::default(), &HostKeys::in_memory())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorCode::AuthenticationFailed);
    assert_eq!(*attempts.lock(), ["password s3cret-wrong"]);
    assert!(
        error.message.contains("refused user `ops`: tried password; it takes password, keyboard-interactive"),
        "{error}"
    );
    assert!(!error.message.contains("s3cret"));
}

#[tokio::test]
async fn a_device_that_asks_nothing_lets_in() {
    let (port, attempts) = device(Login::Nothing).await;
    let mut to = target(port, "");
    to.credentials.password = None;
    ssh::connect(&to, &SshOptions::default(), &HostKeys::in_memory()).await.unwrap();
    assert_eq!(*attempts.lock(), ["none"]);
}

#[tokio::test]
async fn pain_16_a_half_open_connection_is_noticed() {
    // A relay that from some moment on passes nothing and closes nothing.
    let (port, _) = device(Login::Password).await;
    let (relay, relay_port) = listener().await;
    let (freeze, mut frozen) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        let (mut a, _) = relay.accept().await.unwrap();
        let mut b = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut a, &mut b) => {}
            _ = frozen.wait_for(|f| *f) => {}
        }
        let _held = (a, b);
        std::future::pending::<()>().await;
    });
    let options = SshOptions { keepalive: Some(Duration::from_millis(200)), ..SshOptions::default() };
    let connection =
        ssh::connect(&target(relay_port, "right"), &options, &HostKeys::in_memory()).await.unwrap();
    connection.probe(SOON).await.unwrap();
    freeze.send(true).unwrap();
    let error = connection.probe(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.kind, ErrorCode::SessionLost);
    assert!(error.message.contains("no sign of life within 0.3 s"), "{error}");
    // And by itself, without being asked.
    tokio::time::timeout(Duration::from_secs(5), connection.closed()).await.unwrap();
    assert!(connection.end_reason().unwrap().contains("no sign of life"));
}

#[tokio::test]
async fn telnet_answers_negotiation_while_nobody_reads() {
    let port = peer(|mut s| async move {
        s.write_all(&[255, 253, 24, 255, 251, 1]).await.unwrap();
        s.write_all(b"login: ").await.unwrap();
        let mut answers = [0u8; 6];
        s.read_exact(&mut answers).await.unwrap();
        assert_eq!(answers, [255, 251, 24, 255, 253, 1]);
        let mut line = [0u8; 6];
        s.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"admin\n");
        let mut nop = [0u8; 2];
        s.read_exact(&mut nop).await.unwrap();
        assert_eq!(nop, [255, 241]);
        s.write_all(b"hello \xff\xff\r\0").await.unwrap();
    })
    .await;
    let mut telnet = telnet::connect("127.0.0.1", port, &Pty::default(), SOON).await.unwrap();
    assert!(!telnet.authenticated());
    assert_eq!(telnet.remote_version(), "telnet");
    let mut seen = telnet.recv().await.unwrap().to_vec();
    while !seen.ends_with(b"login: ") {
        seen.extend_from_slice(&telnet.recv().await.unwrap());
    }
    assert_eq!(seen, b"login: ");
    telnet.send(b"admin\n", SOON).await.unwrap();
    telnet.probe(SOON).await.unwrap();
    let mut seen = Vec::new();
    while let Some(chunk) = telnet.recv().await {
        assert!(!chunk.is_empty());
        seen.extend_from_slice(&chunk);
    }
    assert_eq!(seen, b"hello \xff\r");
    assert!(telnet.end_reason().unwrap().contains("closed the connection"));
    assert_eq!(telnet.send(b"x", SOON).await.unwrap_err().kind, ErrorCode::SessionLost);
    assert_eq!(telnet.probe(SOON).await.unwrap_err().kind, ErrorCode::SessionLost);
}

#[tokio::test]
async fn a_telnet_device_that_takes_nothing_runs_into_the_deadline() {
    let port = peer(|s| async move {
        let _held = s;
        std::future::pending::<()>().await;
    })
    .await;
    let mut telnet = telnet::connect("127.0.0.1", port, &Pty::default(), SOON).await.unwrap();
    let much = vec![b'x'; 64 * 1024 * 1024];
    let error = telnet.send(&much, Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.kind, ErrorCode::ReadTimeout);
    telnet.close().await;
    assert!(telnet.recv().await.is_none());
}
