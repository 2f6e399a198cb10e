//! Every persona is driven as its vendor's user would: log in, show, change, save or commit, get an error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod common;

use common::Shell;
use netpulse_simulator::{Kind, Plan, Running, Simulator};

fn start(persona: &str) -> Running {
    Simulator::start(Plan::of(persona, 1)).unwrap()
}

async fn shell(running: &Running) -> Shell {
    Shell::open(running.device(0).ssh.unwrap()).await.unwrap()
}

#[track_caller]
fn has(text: &str, part: &str) {
    assert!(text.contains(part), "{part:?} is not in {text:?}");
}

#[tokio::test]
async fn cisco_ios_as_a_person_uses_it() {
    let running = start("cisco_ios");
    let mut s = shell(&running).await;
    has(&s.until("sw0>").await, "Authorized access only");
    has(&s.line("show running-config", "sw0>").await, "        ^\r\n% Invalid input detected at '^' marker.");
    s.line("en", "Password: ").await;
    s.line("wrong", "Password: ").await;
    s.line("enable", "sw0#").await;
    s.line("terminal length 0", "sw0#").await;
    let version = s.line("sh ver", "sw0#").await;
    assert!(version.starts_with("sh ver\r\nCisco IOS Software"), "{version:?}");
    has(&s.line("conf t", "sw0(config)#").await, "End with CNTL/Z");
    s.line("int GigabitEthernet0/7", "sw0(config-if)#").await;
    s.line("desc to the roof", "sw0(config-if)#").await;
    has(&s.line("descriptio", "sw0(config-if)#").await, "% Incomplete command.");
    has(&s.line("ip adress 1.1.1.1", "sw0(config-if)#").await, "adress");
    has(&s.line("frobnicate 1", "sw0(config-if)#").await, "% Invalid input detected");
    s.line("ntp server 10.9.9.9", "sw0(config-if)#").await;
    s.line("hostname edge", "edge(config)#").await;
    s.line("no ip http server", "edge(config)#").await;
    s.line("banner motd ^C", "'^C'.\r\n").await;
    s.send("hello\r").await;
    s.line("^C", "edge(config)#").await;
    s.send("\u{1a}").await;
    s.until("edge#").await;
    let config = s.line("show run", "edge#").await;
    has(&config, "interface GigabitEthernet0/7\r\n description to the roof\r\n");
    has(&config, "hostname edge");
    has(&config, "banner motd ^C\r\nhello\r\n^C");
    assert!(!config.contains("ip http server"), "{config}");
    assert!(running.device(0).unsaved());
    has(&s.line("wr mem", "edge#").await, "[OK]");
    assert!(!running.device(0).unsaved());
    has(&s.line("show run | include ntp", "edge#").await, "ntp server 10.0.0.8\r\n");
    s.line("copy running-config startup-config", "[startup-config]? ").await;
    has(&s.line("", "edge#").await, "[OK]");
    s.line("exit", "exit\r\n").await;
    s.closed().await;
    let journal = running.journal();
    let rejected = journal.device(0).iter().filter(|e| e.kind == Kind::Rejected).count();
    assert_eq!(rejected, 3, "{:#?}", journal.entries());
}

#[tokio::test]
async fn the_pager_asks_and_wipes() {
    let running = start("cisco_ios");
    let mut s = shell(&running).await;
    s.until("sw0>").await;
    let page = s.line("show mac address-table", " --More-- ").await;
    assert_eq!(page.lines().count(), 25, "{page}");
    s.send(" ").await;
    let page = s.until(" --More-- ").await;
    assert!(page.starts_with("\u{8}\u{8}"), "{page:?}");
    s.send("\r").await;
    assert_eq!(s.until(" --More-- ").await.matches("DYNAMIC").count(), 1);
    s.send("q").await;
    s.until("sw0>").await;
}

#[tokio::test]
async fn arista_eos_as_a_person_uses_it() {
    let running = start("arista_eos");
    let mut s = shell(&running).await;
    s.until("leaf0>").await;
    s.line("enable", "Password: ").await;
    s.line("enable", "leaf0#").await;
    has(&s.line("terminal length 0", "leaf0#").await, "Pagination disabled.");
    has(&s.line("show version", "leaf0#").await, "Arista DCS-7050SX3");
    s.line("configure", "leaf0(config)#").await;
    s.line("interface Ethernet7", "leaf0(config-if-Et7)#").await;
    s.line("description spare", "leaf0(config-if-Et7)#").await;
    has(&s.line("bogus x", "leaf0(config-if-Et7)#").await, "% Invalid input (at token 0: 'bogus')");
    s.line("end", "leaf0#").await;
    has(&s.line("show running-config", "leaf0#").await, "interface Ethernet7\r\n   description spare");
    has(&s.line("write memory", "leaf0#").await, "Copy completed successfully.");
    assert!(running.device(0).startup_config().contains("spare"));
}

#[tokio::test]
async fn cisco_nxos_as_a_person_uses_it() {
    let running = start("cisco_nxos");
    let mut s = shell(&running).await;
    s.until("n9k0# ").await;
    s.line("terminal length 0", "n9k0# ").await;
    has(&s.line("show version", "n9k0# ").await, "NXOS: version 9.3(10)");
    s.line("configure terminal", "n9k0(config)# ").await;
    has(&s.line("nonsense", "n9k0(config)# ").await, "% Invalid command at '^' marker.");
    s.line("vlan 33", "n9k0(config-vlan)# ").await;
    s.line("name lab", "n9k0(config-vlan)# ").await;
    s.line("end", "n9k0# ").await;
    has(&s.line("copy running-config startup-config", "n9k0# ").await, "Copy complete.");
    assert!(running.device(0).startup_config().contains("vlan 33\n  name lab"));
}

#[tokio::test]
async fn juniper_junos_as_a_person_uses_it() {
    let running = start("juniper_junos");
    let mut s = shell(&running).await;
    s.until("admin@mx0> ").await;
    has(&s.line("set cli screen-length 0", "admin@mx0> ").await, "Screen length set to 0");
    has(&s.line("set cli complete-on-space off", "admin@mx0> ").await, "Disabling");
    has(&s.line("show version", "admin@mx0> ").await, "Junos: 21.4R3-S5.4");
    has(&s.line("configure", "[edit]\r\nadmin@mx0# ").await, "Entering configuration mode");
    s.line("set system host-name core", "admin@mx0# ").await;
    s.line("set interfaces ge-0/0/1 unit 0 family inet address 10.2.0.1/31", "admin@mx0# ").await;
    has(&s.line("set sistem host-name x", "admin@mx0# ").await, "syntax error.");
    has(&s.line("delete system nothing", "admin@mx0# ").await, "warning: statement not found");
    has(
        &s.line("show | compare", "admin@mx0# ").await,
        "[edit system]\r\n-  host-name mx0;\r\n+  host-name core;",
    );
    assert!(!running.device(0).running_config().contains("core"));
    s.line("edit interfaces ge-0/0/1", "[edit interfaces ge-0/0/1]\r\nadmin@mx0# ").await;
    has(&s.line("show", "admin@mx0# ").await, "unit 0 {");
    s.line("top", "[edit]\r\nadmin@mx0# ").await;
    s.line("exit", "[yes,no] (yes) ").await;
    s.line("no", "admin@mx0# ").await;
    has(&s.line("commit", "admin@core# ").await, "commit complete");
    assert_eq!(running.device(0).commits(), 1);
    s.line("set system location refuse-commit", "admin@core# ").await;
    has(&s.line("commit", "admin@core# ").await, "error: commit failed");
    s.line("rollback 0", "admin@core# ").await;
    has(&s.line("exit", "admin@core> ").await, "Exiting configuration mode");
    has(&s.line("show configuration | display set", "admin@core> ").await, "set system host-name core");
}

#[tokio::test]
async fn huawei_as_a_person_uses_it() {
    let running = start("huawei");
    let mut s = shell(&running).await;
    s.until("<hw0>").await;
    s.line("screen-length 0 temporary", "<hw0>").await;
    has(&s.line("display version", "<hw0>").await, "Version 5.170");
    has(&s.line("system-view", "[hw0]").await, "Enter system view");
    s.line("interface GigabitEthernet0/0/5", "[hw0-GigabitEthernet0/0/5]").await;
    s.line("description roof", "[hw0-GigabitEthernet0/0/5]").await;
    has(
        &s.line("frob", "[hw0-GigabitEthernet0/0/5]").await,
        "Error: Unrecognized command found at '^' position.",
    );
    s.line("quit", "[hw0]").await;
    s.line("sysname gw", "[gw]").await;
    s.line("undo telnet server disable", "[gw]").await;
    s.line("return", "<gw>").await;
    let config = s.line("display current-configuration", "<gw>").await;
    has(&config, "interface GigabitEthernet0/0/5\r\n description roof");
    assert!(!config.contains("telnet server disable"), "{config}");
    s.line("save", "[Y/N]").await;
    has(&s.line("y", "<gw>").await, "Save the configuration successfully.");
    assert!(!running.device(0).unsaved());
}

#[tokio::test]
async fn linux_shell_and_exec() {
    let running = start("linux");
    let mut s = shell(&running).await;
    s.until("admin@srv0:~$ ").await;
    has(&s.line("echo a; false; echo $?", "$ ").await, "a\r\n1\r\n");
    s.line("cd /tmp", "admin@srv0:/tmp$ ").await;
    has(&s.line("nope", "$ ").await, "bash: nope: command not found");
    s.line("sudo -s", "[sudo] password for admin: ").await;
    s.line("admin", "root@srv0:/tmp# ").await;
    let channel = s.handle.channel_open_session().await.unwrap();
    channel.exec(true, "echo out; echo bad 1>/dev/null; cat /nothing; exit 7").await.unwrap();
    let (mut out, mut err, mut status) = (String::new(), String::new(), None);
    let mut channel = channel;
    while let Some(msg) = channel.wait().await {
        match msg {
            russh::ChannelMsg::Data { data } => out.push_str(&String::from_utf8_lossy(&data)),
            russh::ChannelMsg::ExtendedData { data, ext: 1 } => err.push_str(&String::from_utf8_lossy(&data)),
            russh::ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    assert!(out.starts_with("out\n"), "{out:?}");
    has(&err, "No such file or directory");
    assert_eq!(status, Some(7));
}
