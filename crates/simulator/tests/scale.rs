//! Many devices in one process, and a journal that misses nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::time::{Duration, Instant};

use common::Shell;
use netpulse_simulator::raw::{RawOptions, measure};
use netpulse_simulator::{Entry, Faults, JournalOptions, Kind, Layout, Plan, Simulator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_devices_on_a_thousand_addresses_take_a_thousand_connections() {
    let start = Instant::now();
    let running = Simulator::start(Plan {
        personas: vec!["cisco_ios".into(), "juniper_junos".into(), "huawei".into()],
        devices: 1_000,
        layout: Layout::Addresses,
        bind: "127.77.0.0".parse().unwrap(),
        ..Plan::default()
    })
    .unwrap();
    println!("1,000 devices listen after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(5), "even unoptimised on a busy machine");
    assert_eq!(running.device(999).ssh.unwrap().ip().to_string(), "127.77.3.231");
    let mut open = Vec::new();
    for device in running.devices() {
        let mut tcp = TcpStream::connect(device.ssh.unwrap()).await.unwrap();
        let mut hello = [0u8; 8];
        timeout(common::LONG, tcp.read_exact(&mut hello)).await.unwrap().unwrap();
        assert_eq!(&hello, b"SSH-2.0-");
        open.push(tcp);
    }
    assert_eq!(running.devices().iter().map(|d| d.connections()).sum::<usize>(), 1_000);
    // Whole sessions on a tenth: handshakes are slow unoptimised; the example does all thousand.
    let targets = running.devices().iter().step_by(10).map(|d| d.ssh.unwrap()).collect();
    let figures = measure(&RawOptions {
        warm: 20,
        cold: 2,
        rate_devices: 100,
        rate_commands: 2,
        limit: Duration::from_secs(120),
        ..RawOptions::new(targets)
    })
    .await
    .unwrap();
    println!("{figures:?}");
    assert_eq!(figures.rate_devices, 100);
    for device in running.devices().iter().step_by(10) {
        assert!(running.journal().lines(device.index).len() >= 3);
    }
}

#[tokio::test]
async fn the_raw_figures_wait_for_the_whole_answer() {
    let running = Simulator::start(Plan::of("cisco_ios", 2)).unwrap();
    running.set_faults(&Faults { latency_ms: 40, split: 1, ..Faults::default() });
    let targets: Vec<_> = running.devices().iter().map(|d| d.ssh.unwrap()).collect();
    let figures = measure(&RawOptions { warm: 5, cold: 1, rate_commands: 5, ..RawOptions::new(targets) })
        .await
        .unwrap();
    assert!(figures.warm_p50_us >= 40_000, "{figures:?}");
    assert!(figures.cold_p50_us >= 40_000 && figures.commands_per_second <= 50.0, "{figures:?}");
    // 1 cold, 5 warm, 1 met, 5 for the rate; every one of them arrived.
    assert_eq!(running.journal().lines(0).len(), 12);
    assert!(running.journal().lines(0).iter().all(|l| l == "show clock"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_has_every_line_once_in_order_and_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("journal.jsonl");
    let plan = Plan {
        journal: JournalOptions { file: Some(file.clone()), ..JournalOptions::default() },
        ..Plan::of("cisco_nxos", 4)
    };
    let running = Simulator::start(plan).unwrap();
    let mut tasks = Vec::new();
    for device in running.devices() {
        for session in 0..3 {
            let (address, prompt) = (device.ssh.unwrap(), format!("{}# ", device.hostname()));
            tasks.push(tokio::spawn(async move {
                let mut s = Shell::open(address).await.unwrap();
                s.until(&prompt).await;
                for i in 0..25 {
                    s.line(&format!("ping 10.0.{session}.{i}"), &prompt).await;
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    let entries = running.journal().entries();
    assert_eq!(running.journal().dropped(), 0);
    assert!(entries.windows(2).all(|w| w[1].seq == w[0].seq + 1 && w[1].time >= w[0].time));
    for device in 0..4 {
        for session in 0..3 {
            let want: Vec<String> = (0..25).map(|i| format!("ping 10.0.{session}.{i}")).collect();
            let got: Vec<String> = running
                .journal()
                .lines(device)
                .into_iter()
                .filter(|l| l.starts_with(&format!("ping 10.0.{session}.")))
                .collect();
            assert_eq!(got, want);
        }
    }
    let disk: Vec<Entry> =
        std::fs::read_to_string(&file).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(&disk[..entries.len()], &entries[..]);
}

#[tokio::test]
async fn modes_and_secrets_in_the_journal() {
    let running = Simulator::start(Plan::of("cisco_ios", 1)).unwrap();
    let mut s = Shell::open(running.device(0).ssh.unwrap()).await.unwrap();
    s.until("sw0>").await;
    s.line("enable", "Password: ").await;
    s.line("enable", "sw0#").await;
    s.line("conf t", "(config)#").await;
    s.send("no").await;
    s.until("no").await;
    drop(s);
    for _ in 0..200 {
        if running.device(0).connections() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seen: Vec<(Kind, String, String, String)> =
        running.journal().entries().into_iter().map(|e| (e.kind, e.line, e.before, e.after)).collect();
    let want = [
        (Kind::Connect, "ssh", "", ""),
        (Kind::Login, "admin", "", ""),
        (Kind::Line, "enable", "exec", "exec"),
        (Kind::Answer, "****", "exec", "privileged"),
        (Kind::Line, "conf t", "privileged", "config"),
        (Kind::Close, "no", "", ""),
    ];
    let want: Vec<_> =
        want.into_iter().map(|(k, l, b, a)| (k, l.to_owned(), b.to_owned(), a.to_owned())).collect();
    assert_eq!(seen, want);
}

async fn until(tcp: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut got = Vec::new();
    let mut buffer = [0u8; 1024];
    while !got.ends_with(end) {
        let n = timeout(common::LONG, tcp.read(&mut buffer))
            .await
            .unwrap_or_else(|_| panic!("only {:?}", String::from_utf8_lossy(&got)))
            .unwrap();
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buffer[..n]);
    }
    got
}

#[tokio::test]
async fn telnet_negotiates_asks_and_serves() {
    let running =
        Simulator::start(Plan { ssh_port: None, telnet_port: Some(0), ..Plan::of("cisco_ios", 1) }).unwrap();
    let mut tcp = TcpStream::connect(running.device(0).telnet.unwrap()).await.unwrap();
    let got = until(&mut tcp, b"Username: ").await;
    assert!(got.starts_with(&[255, 251, 1]), "{got:?}");
    // The client refuses the terminal type, offers an option nobody knows, and asks for binary.
    tcp.write_all(&[255, 252, 24, 255, 251, 200, 255, 253, 0]).await.unwrap();
    until(&mut tcp, &[255, 254, 200, 255, 252, 0]).await;
    tcp.write_all(b"admin\r\n").await.unwrap();
    until(&mut tcp, b"Password: ").await;
    tcp.write_all(b"wrong\r\0").await.unwrap();
    until(&mut tcp, b"% Login invalid\r\n\r\nUsername: ").await;
    tcp.write_all(b"admin\r\n").await.unwrap();
    until(&mut tcp, b"Password: ").await;
    tcp.write_all(b"admin\r\n").await.unwrap();
    until(&mut tcp, b"sw0>").await;
    tcp.write_all(b"show clock\r\n").await.unwrap();
    let got = until(&mut tcp, b"sw0>").await;
    assert!(got.starts_with(b"show clock\r\n*"));
    // 0xff in data is doubled both ways.
    tcp.write_all(&[b'x', 255, 255, b'\r', 0]).await.unwrap();
    let got = until(&mut tcp, b"sw0>").await;
    assert!(got.starts_with(&[b'x', 255, 255]), "{got:?}");
    tcp.write_all(b"exit\r\n").await.unwrap();
    let mut rest = Vec::new();
    timeout(common::LONG, tcp.read_to_end(&mut rest)).await.unwrap().unwrap();
    let kinds: Vec<Kind> = running.journal().entries().into_iter().map(|e| e.kind).collect();
    assert!(kinds.contains(&Kind::LoginFailed) && kinds.contains(&Kind::Login));
}
