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

/// Line, text in the answer, end of the answer.
type Dialogue = &'static [(&'static str, &'static str, &'static str)];

/// Logs in and goes through the dialogue.
async fn talk(persona: &str, first: &str, dialogue: Dialogue) -> Running {
    let running = start(persona);
    let mut s = shell(&running).await;
    s.until(first).await;
    for (line, part, end) in dialogue {
        let answer = s.line(line, end).await;
        assert!(answer.contains(part), "{persona}: {line:?} should answer {part:?} but said {answer:?}");
    }
    running
}

/// The change went into running and startup, and one line was refused.
fn settled(running: &Running, change: &str) {
    let device = running.device(0);
    let config = device.running_config();
    assert!(config.contains(change), "{change:?} is not in {config}");
    assert!(device.startup_config().contains(change), "{change:?} is not saved: {}", device.startup_config());
    let kinds: Vec<Kind> = running.journal().entries().into_iter().map(|e| e.kind).collect();
    assert!(kinds.contains(&Kind::Rejected), "nothing was refused");
}

#[tokio::test]
async fn the_ios_like() {
    for (persona, host, refusal) in [
        ("cisco_xe", "cat0", "% Invalid input detected"),
        ("ruijie_os", "rg0", "% Invalid input detected"),
        ("zte_zxros", "zxr0", "%Error 20203"),
    ] {
        let running = start(persona);
        let mut s = shell(&running).await;
        s.until(&format!("{host}>")).await;
        s.line("enable", "Password: ||Password:").await;
        s.line("enable", &format!("{host}#")).await;
        s.line("terminal length 0", "#").await;
        has(&s.line("show version", &format!("{host}#")).await, "ersion");
        s.line("configure terminal", "(config)#").await;
        has(&s.line("nonsense here", "(config)#").await, refusal);
        s.line("hostname renamed", "renamed(config)#").await;
        s.line("end", "renamed#").await;
        has(&s.line("write", "renamed#").await, "[OK]");
        settled(&running, "hostname renamed");
    }
    let running = talk(
        "dell_os10",
        "os10-0# ",
        &[
            ("terminal length 0", "", "os10-0# "),
            ("show version", "OS10 Enterprise", "os10-0# "),
            ("configure terminal", "", "(config)# "),
            ("nonsense", "% Error: Unrecognized command.", "(config)# "),
            ("interface ethernet1/1/2", "", "(conf-if-ethernet1/1/2)# "),
            ("description x", "", "# "),
            ("end", "", "os10-0# "),
            ("copy running-configuration startup-configuration", "", "os10-0# "),
        ],
    )
    .await;
    settled(&running, "description x");
    let running = talk(
        "frr",
        "frr0# ",
        &[
            ("show version", "FRRouting 8.4.4", "frr0# "),
            ("configure terminal", "", "frr0(config)# "),
            ("nonsense", "% Unknown command: nonsense", "frr0(config)# "),
            ("hostname f", "", "f(config)# "),
            ("end", "", "f# "),
            ("write memory", "[OK]", "f# "),
        ],
    )
    .await;
    settled(&running, "hostname f");
}

#[tokio::test]
async fn cisco_xr_commits_or_asks() {
    let running = talk(
        "cisco_xr",
        "RP/0/RP0/CPU0:xr0#",
        &[
            ("terminal length 0", "", "xr0#"),
            ("show version", "Version 7.5.2", "xr0#"),
            ("configure terminal", "", "xr0(config)#"),
            ("nonsense", "% Invalid input", "xr0(config)#"),
            ("interface GigabitEthernet0/0/0/1", "", "xr0(config-if)#"),
            ("description x", "", "xr0(config-if)#"),
            ("end", "Uncommitted changes found", "[cancel]:"),
            ("cancel", "", "xr0(config-if)#"),
            ("root", "", "xr0(config)#"),
            ("commit", "", "xr0(config)#"),
            ("commit", "No configuration changes", "xr0(config)#"),
            ("hostname refuse-commit", "", "xr0(config)#"),
            ("commit", "% Failed to commit", "xr0(config)#"),
            ("abort", "", "RP/0/RP0/CPU0:xr0#"),
        ],
    )
    .await;
    settled(&running, "description x");
    assert_eq!(running.device(0).commits(), 1);
}

#[tokio::test]
async fn cisco_asa_as_a_person_uses_it() {
    let running = talk(
        "cisco_asa",
        "asa0> ",
        &[
            ("enable", "", "Password: "),
            ("enable", "", "asa0# "),
            ("terminal pager 0", "", "asa0# "),
            ("show version", "Version 9.16(4)", "asa0# "),
            ("configure terminal", "", "asa0(config)# "),
            ("nonsense", "ERROR: % Invalid input", "asa0(config)# "),
            ("terminal width 511", "", "asa0(config)# "),
            ("hostname fw", "", "fw(config)# "),
            ("end", "", "fw# "),
            ("write memory", "[OK]", "fw# "),
        ],
    )
    .await;
    settled(&running, "hostname fw");
}

#[tokio::test]
async fn the_vrp_like() {
    let running = talk(
        "huawei_vrpv8",
        "<ce0>",
        &[
            ("screen-length 0 temporary", "", "<ce0>"),
            ("display version", "8.180", "<ce0>"),
            ("system-view", "", "[~ce0]"),
            ("nonsense", "Unrecognized command", "[~ce0]"),
            ("sysname core", "", "[*ce0]"),
            ("return", "Uncommitted", "C(cancel)]:"),
            ("c", "", "[*ce0]"),
            ("commit", "", "[~core]"),
            ("return", "", "<core>"),
            ("save", "", "[Y/N]:"),
            ("y", "successfully", "<core>"),
        ],
    )
    .await;
    settled(&running, "sysname core");
    let running = talk(
        "hp_comware",
        "<h3c0>",
        &[
            ("screen-length disable", "", "<h3c0>"),
            ("display version", "Comware Software", "<h3c0>"),
            ("system-view", "", "[h3c0]"),
            ("nonsense", " % Unrecognized command", "[h3c0]"),
            ("interface GigabitEthernet1/0/2", "", "[h3c0-GigabitEthernet1/0/2]"),
            ("description x", "", "2]"),
            ("save force", "successfully", "2]"),
            ("return", "", "<h3c0>"),
        ],
    )
    .await;
    settled(&running, "description x");
}

#[tokio::test]
async fn the_aruba_two() {
    let running = start("hp_procurve");
    let mut s = shell(&running).await;
    s.until("Press any key to continue\u{1b}[24;27H\u{1b}[?25h").await;
    s.send("x").await;
    s.until("hp0> ").await;
    s.line("enable", "Password: ").await;
    s.line("enable", "hp0# \u{1b}[?25h").await;
    s.line("no page", "hp0# \u{1b}[?25h").await;
    has(&s.line("show version", "hp0# \u{1b}[?25h").await, "WB.16.10.0016");
    s.line("configure terminal", "(config)# \u{1b}[?25h").await;
    has(&s.line("nonsense", "(config)# \u{1b}[?25h").await, "Invalid input: nonsense");
    s.line("hostname \"shed\"", "shed(config)# \u{1b}[?25h").await;
    s.line("write memory", "shed(config)# \u{1b}[?25h").await;
    settled(&running, "hostname \"shed\"");
    let running = talk(
        "aruba_aoscx",
        "cx0# ",
        &[
            ("no page", "", "cx0# "),
            ("show version", "FL.10.10.1030", "cx0# "),
            ("configure terminal", "", "cx0(config)# "),
            ("nonsense", "Invalid input: nonsense", "cx0(config)# "),
            ("vlan 20", "", "cx0(config-vlan-20)# "),
            ("name lab", "", "# "),
            ("end", "", "cx0# "),
            ("write memory", "[Success]", "cx0# "),
        ],
    )
    .await;
    settled(&running, "vlan 20\n    name lab");
}

#[tokio::test]
async fn fortinet_as_a_person_uses_it() {
    let running = talk(
        "fortinet",
        "FGT0 # ",
        &[
            ("get system console", "output              : more", "FGT0 # "),
            ("config system console", "", "FGT0 (console) # "),
            ("set output standard", "", "FGT0 (console) # "),
            ("end", "", "FGT0 # "),
            ("get system console", ": standard", "FGT0 # "),
            ("get system status | grep Version", "Version: FortiGate", "FGT0 # "),
            ("nonsense", "Unknown action 0", "FGT0 # "),
            ("config system interface", "", "(interface) # "),
            ("edit port1", "", "(port1) # "),
            ("set alias x1", "", "(port1) # "),
            ("next", "", "(interface) # "),
            ("end", "", "FGT0 # "),
            ("config system global", "", "(global) # "),
            ("set hostname fw", "", "(global) # "),
            ("end", "", "fw # "),
            ("show system global", "set hostname fw", "fw # "),
        ],
    )
    .await;
    settled(&running, "set alias x1");
}

#[tokio::test]
async fn the_set_line_platforms() {
    let running = talk(
        "vyos",
        "admin@vyos0:~$ ",
        &[
            ("set terminal length 0", "", "$ "),
            ("show version", "VyOS 1.3.3", "$ "),
            ("configure", "[edit]", "admin@vyos0# "),
            ("set system host-name r1", "", "# "),
            ("set nonsense a", "Configuration path: [nonsense] is not valid", "# "),
            ("exit", "Cannot exit: configuration modified.", "# "),
            ("commit", "", "admin@r1# "),
            ("save", "Done", "# "),
            ("commit", "No configuration changes to commit", "# "),
            ("exit", "exit", "admin@r1:~$ "),
        ],
    )
    .await;
    settled(&running, "host-name r1");
    let running = talk(
        "paloalto_panos",
        "admin@pa0> ",
        &[
            ("set cli pager off", "", "> "),
            ("show system info", "sw-version: 10.2.4", "> "),
            ("configure", "Entering configuration mode", "admin@pa0# "),
            ("set deviceconfig system hostname fw", "", "# "),
            ("set nonsense a", "Invalid syntax.", "# "),
            ("commit", "Configuration committed successfully", "admin@fw# "),
            ("exit", "Exiting configuration mode", "admin@fw> "),
        ],
    )
    .await;
    settled(&running, "hostname fw");
    let running = talk(
        "nokia_sros",
        "\r\n[/]\r\nA:admin@sr0# ",
        &[
            ("environment more false", "", "sr0# "),
            ("show version", "TiMOS-C-22.10", "sr0# "),
            ("edit-config exclusive", "Entering exclusive", "\r\n(ex)[/]\r\nA:admin@sr0# "),
            ("/configure system location lab", "", "\r\n*(ex)[/]\r\nA:admin@sr0# "),
            ("/configure nonsense x", "Unknown element - 'nonsense'", "# "),
            ("commit", "", "\r\n(ex)[/]\r\nA:admin@sr0# "),
            ("/admin save", "OK", "# "),
            ("quit-config", "Exiting", "\r\n[/]\r\nA:admin@sr0# "),
        ],
    )
    .await;
    settled(&running, "location lab");
    let running = talk(
        "nokia_srl",
        "--{ running }--[  ]--\r\nA:srl0# ",
        &[
            ("show version", "v23.3.2", "srl0# "),
            ("enter candidate", "", "--{ candidate private private-admin }--[  ]--\r\nA:srl0# "),
            (
                "set / system information location lab",
                "",
                "--{ * candidate private private-admin }--[  ]--\r\nA:srl0# ",
            ),
            ("set / nonsense x", "Unknown token 'nonsense'", "# "),
            ("commit now", "All changes have been committed.", "--{ running }--[  ]--\r\nA:srl0# "),
            ("save startup", "Saved current running", "# "),
        ],
    )
    .await;
    settled(&running, "location lab");
}

#[tokio::test]
async fn the_flat_platforms() {
    let running = talk(
        "mikrotik_routeros",
        "[admin@mt0] > ",
        &[
            ("/system resource print", "7.11.2", "> "),
            ("/nonsense", "bad command name /nonsense (line 1 column 1)", "> "),
            ("/system identity set name=gw", "", "[admin@gw] > "),
            ("/ip address add address=10.5.0.1/24 interface=ether2", "", "> "),
            ("/export", "interface=ether2", "> "),
        ],
    )
    .await;
    settled(&running, "name=gw");
    let running = talk(
        "extreme_exos",
        "X465-0.1 # ",
        &[
            ("disable clipaging", "", "X465-0.2 # "),
            ("show version", "31.7.1.4", "# "),
            ("nonsense", "%% Invalid input", "# "),
            ("create vlan \"lab\"", "", "* X465-0.5 # "),
            ("save configuration primary", "", "(y/N) "),
            ("y", "saved to primary.cfg", "\nX465-0.6 # "),
            ("disable cli prompting", "", "# "),
            ("create vlan lab2", "", "* X465-0.8 # "),
            ("save configuration primary", "saved to primary.cfg", "\nX465-0.9 # "),
        ],
    )
    .await;
    settled(&running, "create vlan \"lab\"");
    let running = talk(
        "f5_tmsh",
        "(tmos)# ",
        &[
            ("modify cli preference pager disabled display-threshold 0", "", "(tmos)# "),
            ("show sys version", "16.1.3.2", "(tmos)# "),
            ("nonsense", "unexpected argument \"nonsense\"", "# "),
            (
                "modify sys global-settings hostname lb.example.net",
                "",
                "(lb.example.net)(cfg-sync Standalone)(Active)(/Common)(tmos)# ",
            ),
            ("save sys config", "bigip.conf", "(tmos)# "),
        ],
    )
    .await;
    settled(&running, "hostname lb.example.net");
    let running = talk(
        "checkpoint_gaia",
        "gw0> ",
        &[
            ("set clienv rows 0", "", "gw0> "),
            ("show version all", "R81.10", "gw0> "),
            ("nonsense", "CLINFR0329  Invalid command:'nonsense'.", "gw0> "),
            ("set hostname fw", "", "fw> "),
            ("save config", "", "fw> "),
            ("expert", "", "Enter expert password:"),
            ("enable", "", "[Expert@fw:0]# "),
        ],
    )
    .await;
    settled(&running, "set hostname fw");
    let running = talk(
        "generic",
        "device0> ",
        &[
            ("show version", "version 1.0", "> "),
            ("nonsense", "Unknown command: nonsense", "> "),
            ("configure", "", "device0(config)> "),
            ("hostname d", "", "d(config)> "),
            ("end", "", "d> "),
            ("save", "Saved.", "d> "),
        ],
    )
    .await;
    settled(&running, "hostname d");
}

#[test]
fn every_file_is_built_in_and_every_persona_is_whole() {
    let library = netpulse_simulator::Library::embedded();
    let mut files: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/personas"))
        .unwrap()
        .map(|f| f.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .map(|p| p.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, library.names());
    for name in library.names() {
        let persona = library.get(name).unwrap();
        assert_eq!(persona.spec.name, name);
        assert!(
            !persona.spec.about.is_empty() && !persona.spec.errors.invalid.is_empty() || name == "linux",
            "{name}"
        );
        assert!(library.get(&format!("{name}_telnet")).is_ok());
    }
    assert!(library.get("h3c").is_ok());
    assert!(library.get("cisco_oops").unwrap_err().to_string().contains("cisco_ios"));
}

#[tokio::test]
async fn an_unconfirmed_commit_is_taken_back() {
    let running = start("juniper_junos");
    let mut s = shell(&running).await;
    s.until("> ").await;
    s.line("configure", "# ").await;
    s.line("set system host-name brief", "# ").await;
    // 0.01 minutes, so that the test need not wait for a whole one.
    has(&s.line("commit confirmed 0.01", "admin@brief# ").await, "commit complete");
    for _ in 0..200 {
        if running.device(0).hostname() == "mx0" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(running.device(0).hostname(), "mx0");
    s.line("set system host-name stays", "admin@mx0# ").await;
    s.line("commit confirmed 0.01", "admin@stays# ").await;
    s.line("commit", "admin@stays# ").await;
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
    assert_eq!(running.device(0).hostname(), "stays");
    let kinds: Vec<Kind> = running.journal().entries().into_iter().map(|e| e.kind).collect();
    assert_eq!(kinds.iter().filter(|k| **k == Kind::Rollback).count(), 1);
}

#[tokio::test]
async fn a_command_over_an_exec_channel_of_a_switch() {
    let running = start("cisco_ios");
    let s = shell(&running).await;
    let mut channel = s.handle.channel_open_session().await.unwrap();
    channel.exec(true, "show version").await.unwrap();
    let mut out = String::new();
    while let Some(msg) = channel.wait().await {
        if let russh::ChannelMsg::Data { data } = msg {
            out.push_str(&String::from_utf8_lossy(&data));
        }
    }
    assert!(out.starts_with("Cisco IOS Software") && !out.contains("sw0>"), "{out:?}");
    assert!(running.journal().entries().iter().any(|e| e.kind == Kind::Exec && e.line == "show version"));
}

#[tokio::test]
async fn the_line_editor_edits() {
    let running = start("cisco_ios");
    let mut s = shell(&running).await;
    s.until("sw0>").await;
    s.send("shxx\u{7f}\u{8}ow clock").await;
    s.until("\u{8} \u{8}\u{8} \u{8}ow clock").await;
    s.line("", "sw0>").await;
    assert_eq!(running.journal().lines(0), ["show clock"]);
    s.send("show c?").await;
    let help = s.until("sw0>show c").await;
    has(&help, "  clock\r\n");
    // Cursor keys, Ctrl-U and Ctrl-C leave nothing behind.
    s.send("\u{1b}[A\u{15}abc\u{3}").await;
    s.until("\r\nsw0>").await;
    s.send("sh\tcl\r").await;
    has(&s.until("sw0>").await, "UTC");
    assert_eq!(running.journal().lines(0), ["show clock", "show cl"]);
}

#[tokio::test]
async fn personas_come_from_a_folder_too() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("toaster.yaml"),
        "like: generic\nname: toaster\nvendor: Breakfast\nhostname: 'toast{index}'\n",
    )
    .unwrap();
    let plan = Plan { persona_dir: Some(dir.path().to_owned()), ..Plan::of("toaster", 2) };
    let running = Simulator::start(plan.clone()).unwrap();
    let mut s = Shell::open(running.device(1).ssh.unwrap()).await.unwrap();
    s.until("toast1> ").await;
    std::fs::write(
        dir.path().join("toaster.yaml"),
        "like: generic\nname: toaster\nvendor: B\nhostname: x\nmodez: {}\n",
    )
    .unwrap();
    let error = Simulator::start(plan).unwrap_err().to_string();
    assert!(error.contains("toaster") && error.contains("modez"), "{error}");
}

#[tokio::test]
async fn stopping_closes_and_frees_everything() {
    let running = start("linux");
    let address = running.device(0).ssh.unwrap();
    let mut s = shell(&running).await;
    s.until("$ ").await;
    running.stop();
    s.closed().await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    let plan = Plan { ssh_port: Some(address.port()), ..Plan::of("linux", 1) };
    Simulator::start(plan).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_output_of_known_size() {
    let running = start("cisco_ios");
    let mut s = shell(&running).await;
    s.until("sw0>").await;
    // 64 bytes a line: 4 MB.
    s.send("simulator-lines 62500\r").await;
    let (mut count, mut last) = (0, Vec::new());
    while !last.ends_with(b"sw0>") {
        match tokio::time::timeout(common::LONG, s.channel.wait()).await.unwrap().unwrap() {
            russh::ChannelMsg::Data { data } => {
                count += data.len();
                last = data.to_vec();
            }
            _ => continue,
        }
    }
    assert_eq!(count, "simulator-lines 62500\r\n".len() + 62_500 * 64 + "sw0>".len());
}
