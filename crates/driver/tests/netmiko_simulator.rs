//! The platform files against the simulator's personas, which were written from the devices, not
//! from our files: what one says and the other does must agree, and the device is the judge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod netmiko_support;

use std::time::Duration;

use netmiko_support::{ask, connect, driver, object};
use netpulse_model::{ErrorCode, Outcome};
use netpulse_plugin::Driver;
use netpulse_session::platform::{Registry, TransportKind};
use netpulse_simulator::{Plan, Running, Simulator};
use serde_json::{Value, json};

/// A platform: lines that it takes, a part of each that its configuration shows then, a line that
/// it refuses, and the lines that change its name.
struct Case {
    name: &'static str,
    good: &'static [&'static str],
    shows: &'static str,
    other: &'static [&'static str],
    other_shows: &'static str,
    bad: &'static str,
    rename: &'static [&'static str],
    saves: bool,
    /// A refused line's open block is aborted, and nothing of it took effect.
    aborts: bool,
}

const fn cisco(name: &'static str) -> Case {
    Case {
        name,
        good: &["interface Loopback7", "description seven up"],
        shows: "seven up",
        other: &["interface Loopback8", "description eight up"],
        other_shows: "eight up",
        bad: "bogus nonsense",
        rename: &["hostname renamed-1"],
        saves: true,
        aborts: false,
    }
}

const fn huawei(name: &'static str) -> Case {
    Case {
        good: &["interface LoopBack7", "description seven up"],
        other: &["interface LoopBack8", "description eight up"],
        rename: &["sysname renamed-1"],
        ..cisco(name)
    }
}

const fn junos(name: &'static str) -> Case {
    Case {
        good: &["set interfaces lo0 description seven"],
        shows: "seven",
        other: &["set interfaces lo0 description eight"],
        other_shows: "eight",
        rename: &["set system host-name renamed-1"],
        bad: "sett nonsense",
        saves: false,
        ..cisco(name)
    }
}

const CASES: &[Case] = &[
    cisco("cisco_ios"),
    cisco("cisco_xe"),
    cisco("cisco_nxos"),
    Case { saves: false, ..cisco("cisco_xr") },
    Case {
        good: &["access-list seven extended permit ip any any"],
        shows: "seven",
        other: &["access-list eight extended permit ip any any"],
        other_shows: "eight",
        ..cisco("cisco_asa")
    },
    cisco("arista_eos"),
    cisco("dell_os10"),
    cisco("zte_zxros"),
    cisco("ruijie_os"),
    Case {
        good: &["interface lo", "description seven up"],
        other: &["interface eth0", "description eight up"],
        ..cisco("frr")
    },
    Case {
        good: &["vlan 7", "name seven"],
        shows: "seven",
        other: &["vlan 8", "name eight"],
        other_shows: "eight",
        ..cisco("aruba_aoscx")
    },
    Case {
        good: &["vlan 7", "name seven"],
        shows: "seven",
        other: &["vlan 8", "name eight"],
        other_shows: "eight",
        ..cisco("hp_procurve")
    },
    huawei("huawei"),
    huawei("huawei_vrpv8"),
    huawei("hp_comware"),
    junos("juniper_junos"),
    Case {
        good: &["set interfaces dummy dum7 description seven"],
        other: &["set interfaces dummy dum8 description eight"],
        rename: &["set system host-name renamed-1"],
        saves: true,
        ..junos("vyos")
    },
    Case {
        good: &["set deviceconfig system login-banner seven"],
        other: &["set deviceconfig system login-banner eight"],
        rename: &["set deviceconfig system hostname renamed-1"],
        ..junos("paloalto_panos")
    },
    Case {
        good: &["config system interface", "edit port7", "set alias seven", "next", "end"],
        other: &["config system interface", "edit port8", "set alias eight"],
        rename: &["config system global", "set hostname renamed-1", "end"],
        bad: "bogus nonsense",
        aborts: true,
        ..junos("fortinet")
    },
    Case {
        good: &["/interface ethernet set ether1 comment=seven"],
        other: &["/interface ethernet set ether2 comment=eight"],
        rename: &["/system identity set name=renamed-1"],
        bad: "/bogus nonsense",
        ..junos("mikrotik_routeros")
    },
    Case {
        good: &["create vlan seven"],
        other: &["create vlan eight"],
        rename: &["configure snmp sysName renamed-1"],
        bad: "bogus nonsense",
        saves: true,
        ..junos("extreme_exos")
    },
    Case {
        good: &["/configure router interface lo7 description seven"],
        other: &["/configure router interface lo8 description eight"],
        rename: &["/configure system name renamed-1"],
        bad: "/bogus nonsense",
        saves: true,
        ..junos("nokia_sros")
    },
    Case {
        good: &["set / interface ethernet-1/1 description seven"],
        other: &["set / interface ethernet-1/2 description eight"],
        rename: &["set / system name host-name renamed-1"],
        bad: "bogus nonsense",
        saves: true,
        ..junos("nokia_srl")
    },
    Case {
        good: &["create ltm node seven address 192.0.2.7"],
        other: &["create ltm node eight address 192.0.2.8"],
        rename: &["modify sys global-settings hostname renamed-1"],
        bad: "bogus nonsense",
        saves: true,
        ..junos("f5_tmsh")
    },
    Case {
        good: &["set interface eth7 comments seven"],
        other: &["set interface eth8 comments eight"],
        rename: &["set hostname renamed-1"],
        bad: "bogus nonsense",
        saves: true,
        ..junos("checkpoint_gaia")
    },
];

fn simulate(name: &str) -> Running {
    let mut plan = Plan::of(name, 1);
    plan.telnet_port = Some(0);
    Simulator::start(plan).unwrap()
}

fn args(running: &Running, device_type: &str, telnet: bool) -> netpulse_model::ConnectionArgs {
    let device = running.device(0);
    let address = if telnet { device.telnet } else { device.ssh }.unwrap();
    object(json!({"device_type": device_type, "host": address.ip().to_string(), "port": address.port(),
        "username": "admin", "password": "admin", "secret": "enable"}))
}

async fn exercise(case: &Case) {
    let Case { name, .. } = case;
    let running = simulate(name);
    let device = running.device(0);
    let candidate = Registry::builtin().unwrap().platform(name).unwrap().has_candidate();
    let mut session = connect(&args(&running, name, false)).await;

    let report = ask(&mut *session, json!({"command": "simulator-lines 400"})).await;
    assert!(report.error.is_none(), "{name}: {:?}", report.error);
    let text = report.results[0].stdout.as_str().unwrap().to_owned();
    assert_eq!(
        text.lines().filter(|l| l.len() >= 60).count(),
        400,
        "{name}: {}",
        &text[..300.min(text.len())]
    );

    let report = ask(&mut *session, json!({"config": case.good, "save": case.saves})).await;
    assert!(report.error.is_none(), "{name}: {:?} {:#?}", report.error, report.results);
    assert_eq!(report.outcome, Some(Outcome::Applied), "{name}");
    let config = device.running_config();
    assert!(config.contains(case.shows), "{name}: not there:\n{config}");
    assert!(!case.saves || !device.unsaved(), "{name}: not saved");
    // What is there already is no failure, also where a commit then says that nothing changed.
    let report = ask(&mut *session, json!({"config": case.good})).await;
    assert!(report.error.is_none(), "{name}: {:?} {:#?}", report.error, report.results);
    assert_eq!(report.outcome, Some(Outcome::Applied), "{name}");

    let lines: Vec<&str> = case.other.iter().copied().chain([case.bad, "must not be sent"]).collect();
    let report = ask(&mut *session, json!({"config": lines})).await;
    let error =
        report.error.unwrap_or_else(|| panic!("{name}: {} was not refused: {:#?}", case.bad, report.results));
    assert_eq!(error.code, ErrorCode::LineRejected, "{name}: {error}");
    let config = device.running_config();
    if candidate || case.aborts {
        assert_eq!(report.outcome, Some(Outcome::NotApplied), "{name}");
        assert!(!config.contains(case.other_shows), "{name}: took effect:\n{config}");
    } else {
        assert_eq!(report.outcome, Some(Outcome::Partial), "{name}");
        assert!(config.contains(case.other_shows), "{name}: not there:\n{config}");
    }
    assert!(report.reusable, "{name}");

    if candidate {
        let report = ask(&mut *session, json!({"config": [case.good[0].replace("seven", "refuse-commit"), case.good[case.good.len() - 1].replace("seven", "refuse-commit")]})).await;
        assert_eq!(
            report.outcome,
            Some(Outcome::NotApplied),
            "{name}: {:?} {:#?}",
            report.error,
            report.results
        );
        assert_eq!(report.error.unwrap().code, ErrorCode::CommitFailed, "{name}");
    }

    let began = tokio::time::Instant::now();
    let report = ask(&mut *session, json!({"config": case.rename})).await;
    assert!(report.error.is_none(), "{name}: {:?} {:#?}", report.error, report.results);
    assert_eq!(device.hostname(), "renamed-1", "{name}");
    assert!(began.elapsed() < Duration::from_secs(8), "{name}: {:?}", began.elapsed());
    let report = ask(&mut *session, json!({"command": "simulator-lines 2"})).await;
    assert!(report.error.is_none(), "{name}: {:?}", report.error);
    let sent = running.journal().lines(0);
    assert!(!sent.iter().any(|line| line.contains("must not be sent")), "{name}");
    session.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn platforms_and_personas_agree() {
    let mut wrong = Vec::new();
    for case in CASES {
        let done = tokio::spawn(exercise(case)).await;
        if done.is_err() {
            wrong.push(case.name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_persona_is_reached_by_every_transport_of_its_platform() {
    let registry = Registry::builtin().unwrap();
    let library = netpulse_simulator::Library::embedded();
    let mut wrong = Vec::new();
    for name in library.names() {
        let Ok(platform) = registry.platform(name) else { continue };
        for kind in [TransportKind::Ssh, TransportKind::Telnet] {
            let telnet = kind == TransportKind::Telnet;
            if telnet && platform.transports.telnet.is_none() {
                continue;
            }
            let running = simulate(name);
            let device_type = format!("{}_{}", platform.name, kind.as_str());
            match driver().connect(&args(&running, &device_type, telnet)).await {
                Err(error) => wrong.push(format!("{device_type}: {error}")),
                Ok(mut session) => {
                    let report = ask(&mut *session, json!({"command": "simulator-lines 100"})).await;
                    let lines = report
                        .results
                        .first()
                        .and_then(|r| r.stdout.as_str())
                        .unwrap_or_default()
                        .lines()
                        .count();
                    if report.error.is_some() || lines < 100 || !report.reusable {
                        wrong.push(format!("{device_type}: {lines} lines, {:?}", report.error));
                    }
                    session.close().await;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn personas_are_detected() {
    let registry = Registry::builtin().unwrap();
    let mut wrong: Vec<(String, Value)> = Vec::new();
    for name in netpulse_simulator::Library::embedded().names() {
        let detectable = registry.platform(name).is_ok_and(|p| p.name == name && p.rules.detect.is_some());
        // This persona draws its prompt twice on one row, which nothing but itself does.
        if !detectable || name == "hp_procurve" {
            continue;
        }
        let running = simulate(name);
        let seen = match driver().test(&args(&running, "autodetect", false)).await {
            Ok(seen) => seen["device_type"].clone(),
            Err(error) => Value::from(error.to_string()),
        };
        if seen != name {
            wrong.push((name.to_owned(), seen));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_says_simulator_is_exercised_here() {
    for platform in Registry::builtin().unwrap().all().unwrap() {
        // FRR and Linux are proven on real software; `generic` in tests/platforms.rs.
        let here = CASES.iter().any(|case| case.name == platform.name) && platform.name != "frr"
            || platform.name == "generic";
        assert_eq!(platform.verified.as_str() == "simulator", here, "{}", platform.name);
    }
}
