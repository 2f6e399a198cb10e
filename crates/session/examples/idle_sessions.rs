//! Memory and time of many idle SSH shells: opens N of them to a server in a process of its own
//! and prints what each costs here. `cargo run --release -p netpulse-session --example
//! idle_sessions -- 1000`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netpulse_session::transport::Pty;
use netpulse_session::transport::hostkeys::HostKeys;
use netpulse_session::transport::ssh::{self, Credentials, SshOptions, SshTarget};
use russh::keys::{Algorithm, PrivateKey, key::safe_rng};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session};
use russh::{Channel, ChannelId};

struct Device;

impl server::Handler for Device {
    type Error = russh::Error;

    async fn auth_password(&mut self, _user: &str, _password: &str) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        session.channel_success(channel)?;
        session.data(channel, "switch#".as_bytes())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.data(channel, [data, &b"x".repeat(4000), b"\r\nswitch#"].concat())
    }
}

async fn serve() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
    let config = Arc::new(server::Config {
        keys: vec![key],
        auth_rejection_time: Duration::ZERO,
        ..server::Config::default()
    });
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let config = Arc::clone(&config);
        tokio::spawn(async move {
            if let Ok(running) = server::run_stream(config, socket, Device).await {
                running.await.ok();
            }
        });
    }
}

/// Resident memory in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

#[tokio::main]
async fn main() {
    let argument = std::env::args().nth(1).unwrap_or_else(|| "1000".into());
    if argument == "server" {
        return serve().await;
    }
    let count: u64 = argument.parse().unwrap();
    let mut child =
        Command::new(std::env::current_exe().unwrap()).arg("server").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let target = SshTarget {
        host: "127.0.0.1".into(),
        port: line.trim().parse().unwrap(),
        user: "ops".into(),
        credentials: Credentials { password: Some("x".to_owned().into()), ..Credentials::default() },
        jump: None,
    };
    let options =
        SshOptions { handshakes: Some(Arc::new(tokio::sync::Semaphore::new(128))), ..SshOptions::default() };
    let store = HostKeys::in_memory();
    let deadline = Duration::from_secs(60);
    let open = || {
        let (target, options, store) = (target.clone(), options.clone(), store.clone());
        tokio::spawn(async move {
            let connection = ssh::connect(&target, &options, &store).await.unwrap();
            let mut shell = connection.shell(&Pty::default(), deadline).await.unwrap();
            drop(connection);
            while !shell.recv().await.unwrap().ends_with(b"switch#") {}
            shell.send(b"show version\n", deadline).await.unwrap();
            while !shell.recv().await.unwrap().ends_with(b"switch#") {}
            shell
        })
    };
    let _warm = open().await.unwrap();
    let before = resident();
    let started = Instant::now();
    let opening: Vec<_> = (0..count).map(|_| open()).collect();
    let mut shells = Vec::new();
    for shell in opening {
        shells.push(shell.await.unwrap());
    }
    let opened = started.elapsed();
    let used = resident() - before;
    println!(
        "{count} shells, one command each: {:.2} s; {} KiB resident each, {} MiB in all",
        opened.as_secs_f32(),
        used / count,
        (before + used) / 1024
    );
    let mut times = Vec::new();
    let all = shells.len();
    for turn in 0..2000 {
        let shell = &mut shells[turn % all];
        let sent = Instant::now();
        shell.send(b"show clock\n", deadline).await.unwrap();
        while !shell.recv().await.unwrap().ends_with(b"switch#") {}
        times.push(sent.elapsed());
    }
    times.sort();
    println!("round trip: p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
    child.kill().unwrap();
    child.wait().unwrap();
}
