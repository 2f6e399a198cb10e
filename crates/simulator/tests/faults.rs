//! Every fault does what it says, can be switched at run time, and is written down.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::time::{Duration, Instant};

use common::{LONG, Shell, connect};
use netpulse_simulator::{Faults, Kind, Plan, Running, Simulator};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

fn with(faults: Faults) -> Running {
    Simulator::start(Plan { start: Some("privileged".into()), faults, ..Plan::of("cisco_ios", 1) }).unwrap()
}

async fn shell(running: &Running) -> Shell {
    let mut shell = Shell::open(running.device(0).ssh.unwrap()).await.unwrap();
    shell.until("sw0#").await;
    shell
}

fn faults(running: &Running) -> Vec<String> {
    running.journal().entries().into_iter().filter(|e| e.kind == Kind::Fault).map(|e| e.line).collect()
}

#[test]
fn faults_are_read_from_words() {
    let f = Faults::parse("latency=50ms, junk-every=3,flood_on=show tech,slow_login=1.5s,half_open").unwrap();
    assert_eq!((f.latency_ms, f.junk_every, f.slow_login_ms, f.half_open), (50, 3, 1_500, true));
    assert_eq!(f.flood_on, "show tech");
    assert!(Faults::parse("latenzy=1").unwrap_err().contains("latency_ms"));
    assert!(Faults::parse("split=x").unwrap_err().contains("wants a number"));
}

#[tokio::test]
async fn latency_delays_the_answer_but_not_the_echo_of_the_line() {
    let running = with(Faults::default());
    let mut s = shell(&running).await;
    running.device(0).set_faults(Faults { latency_ms: 1_500, ..Faults::default() });
    let start = Instant::now();
    s.send("show clock\r").await;
    s.until("show clock\r\n").await;
    assert!(start.elapsed() < Duration::from_millis(1_400));
    s.until("sw0#").await;
    assert!(start.elapsed() >= Duration::from_millis(1_500));
    // And off again on the same session.
    running.device(0).set_faults(Faults::default());
    let start = Instant::now();
    s.line("show clock", "sw0#").await;
    assert!(start.elapsed() < Duration::from_millis(1_400));
}

#[tokio::test]
async fn junk_comes_between_and_from_outside() {
    let running = with(Faults { junk_every: 1, junk_text: "%NOISE-5-X: {x}".into(), ..Faults::default() });
    let mut s = shell(&running).await;
    assert!(s.line("show clock", "sw0#").await.contains("%NOISE-5-X: {x}\r\n"));
    running.set_faults(&Faults { junk_bytes: true, ..Faults::default() });
    s.send("show clock\r").await;
    s.until("\u{fffd}\r\nsw0#").await;
    running.set_faults(&Faults::default());
    running.syslog(0, "").await;
    s.until("changed state to up\r\n").await;
}

#[tokio::test]
async fn split_bytes_come_one_at_a_time() {
    let running = with(Faults { split: 1, ..Faults::default() });
    let (handle, _) = connect(running.device(0).ssh.unwrap()).await.unwrap();
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.request_pty(true, "vt100", 80, 24, 0, 0, &[]).await.unwrap();
    channel.request_shell(true).await.unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"sw0#") {
        match timeout(LONG, channel.wait()).await.unwrap().unwrap() {
            russh::ChannelMsg::Data { data } => {
                assert_eq!(data.len(), 1);
                text.extend_from_slice(&data);
            }
            _ => continue,
        }
    }
}

#[tokio::test]
async fn slow_echo_and_no_echo() {
    let running = with(Faults { slow_echo_ms: 10, ..Faults::default() });
    let mut s = shell(&running).await;
    let start = Instant::now();
    assert!(s.line("show clock", "sw0#").await.starts_with("show clock\r\n"));
    assert!(start.elapsed() >= Duration::from_millis(100));
    running.set_faults(&Faults { echo_off: true, ..Faults::default() });
    assert!(s.line("show clock", "sw0#").await.starts_with("\r\n*"));
}

#[tokio::test]
async fn drops_happen_where_they_are_asked_for() {
    let cases = [
        (Faults { drop_mid_line: 5, ..Faults::default() }, "drop_mid_line"),
        (Faults { drop_before: "vlan 77".into(), ..Faults::default() }, "drop_before"),
        (Faults { drop_after: "vlan 77".into(), ..Faults::default() }, "drop_after"),
        (Faults { drop_mid_answer: "vlan 77".into(), ..Faults::default() }, "drop_mid_answer"),
        (Faults { drop_after_lines: 2, ..Faults::default() }, "drop_after_lines"),
    ];
    for (fault, name) in cases {
        let running = with(Faults::default());
        let mut s = shell(&running).await;
        s.line("conf t", "(config)#").await;
        running.set_faults(&Faults { drop_times: 1, ..fault });
        s.send("vlan 77\r").await;
        s.closed().await;
        assert_eq!(faults(&running), [name]);
        let carried_out = running.device(0).running_config().contains("vlan 77");
        let received = running.journal().lines(0).contains(&"vlan 77".to_owned());
        match name {
            "drop_mid_line" => assert!(!carried_out && !received),
            "drop_before" => assert!(!carried_out && received),
            _ => assert!(carried_out && received, "{name}"),
        }
        // Once only.
        let mut s = shell(&running).await;
        s.line("conf t", "(config)#").await;
        s.line("vlan 77", "(config-vlan)#").await;
        if name == "drop_mid_line" {
            let close = running.journal().entries().into_iter().find(|e| e.kind == Kind::Close).unwrap();
            assert_eq!(close.line, "vlan ");
        }
    }
}

#[tokio::test]
async fn a_reboot_refuses_then_comes_back_with_the_startup_config() {
    let running = with(Faults::default());
    let device = running.device(0).clone();
    let mut s = shell(&running).await;
    s.line("conf t", "(config)#").await;
    s.line("hostname lost", "lost(config)#").await;
    device.reboot(Duration::from_millis(1_500));
    s.closed().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(TcpStream::connect(device.ssh.unwrap()).await.is_err());
    let back = Instant::now();
    while TcpStream::connect(device.ssh.unwrap()).await.is_err() {
        assert!(back.elapsed() < LONG, "it stays down");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shell(&running).await;
    assert_eq!((device.reboots(), device.hostname().as_str()), (1, "sw0"));
}

#[tokio::test]
async fn reload_asks_and_takes_everybody_down() {
    let running = with(Faults::default());
    let mut s = shell(&running).await;
    s.line("reload", "[confirm]").await;
    s.send("y").await;
    s.closed().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(running.device(0).reboots(), 1);
}

#[tokio::test]
async fn logins_are_refused_or_slow() {
    let running = with(Faults { refuse_login: true, ..Faults::default() });
    let address = running.device(0).ssh.unwrap();
    assert!(connect(address).await.is_err());
    assert!(running.journal().entries().iter().any(|e| e.kind == Kind::LoginFailed && e.line == "admin"));
    running.set_faults(&Faults { slow_login_ms: 200, ..Faults::default() });
    let start = Instant::now();
    shell(&running).await;
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn the_pager_sticks() {
    let running = with(Faults { stuck_pager: true, ..Faults::default() });
    let mut s = shell(&running).await;
    s.line("show clock", " --More-- ").await;
    for _ in 0..5 {
        s.send(" ").await;
        s.until(" --More-- ").await;
    }
}

#[tokio::test]
async fn the_prompt_turns_wrong() {
    let running = with(Faults { wrong_prompt: "what? ".into(), wrong_prompt_after: 2, ..Faults::default() });
    let mut s = shell(&running).await;
    s.line("show clock", "sw0#").await;
    s.line("show clock", "what? ").await;
}

#[tokio::test]
async fn a_flood_ends_only_with_ctrl_c_and_a_hang_never() {
    let running =
        with(Faults { flood_on: "show tech".into(), hang_on: "show version".into(), ..Faults::default() });
    let mut s = shell(&running).await;
    s.send("show tech-support\r").await;
    let mut got = 0;
    while got < 3_000_000 {
        match timeout(LONG, s.channel.wait()).await.unwrap().unwrap() {
            russh::ChannelMsg::Data { data } => got += data.len(),
            _ => continue,
        }
    }
    s.send("\u{3}").await;
    s.until("sw0#").await;
    s.send("show version\r").await;
    s.until("show version\r\n").await;
    assert!(timeout(Duration::from_millis(200), s.channel.wait()).await.is_err());
    s.send("\u{3}\r\r").await;
    assert!(timeout(Duration::from_millis(200), s.channel.wait()).await.is_err());
}

#[tokio::test]
async fn half_open_says_nothing_and_garbage_says_nonsense() {
    let running = with(Faults { half_open: true, ..Faults::default() });
    let address = running.device(0).ssh.unwrap();
    let mut buffer = [0u8; 64];
    let mut tcp = TcpStream::connect(address).await.unwrap();
    assert!(timeout(Duration::from_millis(200), tcp.read(&mut buffer)).await.is_err());
    running.set_faults(&Faults { garbage: true, seed: 7, ..Faults::default() });
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let n = timeout(LONG, tcp.read(&mut buffer)).await.unwrap().unwrap();
    assert!(n > 0 && !buffer.starts_with(b"SSH-"));
}

#[tokio::test]
async fn sessions_beyond_the_vty_limit_are_turned_away() {
    let running = with(Faults { vty_limit: 1, ..Faults::default() });
    let first = shell(&running).await;
    assert!(connect(running.device(0).ssh.unwrap()).await.is_err());
    assert_eq!(faults(&running), ["vty_limit 1"]);
    drop(first);
    for _ in 0..100 {
        if running.device(0).connections() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shell(&running).await;
}

#[tokio::test]
async fn the_host_key_changes_when_told_so() {
    let running = with(Faults::default());
    let first = shell(&running).await.key;
    assert_eq!(first, shell(&running).await.key);
    running.set_faults(&Faults { host_key: 1, ..Faults::default() });
    assert_ne!(first, shell(&running).await.key);
}
