//! The ways to Redis that an installation has besides a plain port: TLS with certificates on both
//! sides and a user with few rights, and Sentinels that know who is the master.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use netpulse_simulator::Running;
use serde_json::{Value, json};
use support::cluster::{
    Client, Part, Process, RedisServer, change, client_of, devices, netpulse, query, received,
};
use support::{KEY, Reaped, eventually, free_port};

/// The rights that docs/redis.md asks for, word by word.
const RIGHTS: &str = "~np:* ~netpulse:* &np:* -@all +@read +@write +@scripting +@pubsub +@connection -@dangerous \
                      +time +info +role +wait +config|get";

fn openssl(dir: &Path, arguments: &str) {
    let done = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(dir)
        .output()
        .expect("openssl (Debian package openssl)");
    assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A certificate authority `<name>.crt`, and what it signed.
fn authority(dir: &Path, name: &str) {
    openssl(
        dir,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name} \
             -keyout {name}.key -out {name}.crt"
        ),
    );
}

fn signed(dir: &Path, authority: &str, name: &str) {
    openssl(
        dir,
        &format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key \
             -out {name}.csr"
        ),
    );
    std::fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        dir,
        &format!(
            "x509 -req -in {name}.csr -CA {authority}.crt -CAkey {authority}.key -CAcreateserial -days 2 \
             -extfile names -out {name}.crt"
        ),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_certificates_on_both_sides_and_a_user_with_few_rights() {
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    authority(dir, "ca");
    authority(dir, "stranger");
    signed(dir, "ca", "server");
    signed(dir, "ca", "client");
    let at = |name: &str| dir.join(name).display().to_string();
    let tls = free_port().to_string();
    let mut arguments: Vec<String> =
        ["--appendonly", "yes", "--tls-port", &tls, "--tls-auth-clients", "yes"].map(str::to_owned).into();
    for (key, file) in [
        ("--tls-cert-file", "server.crt"),
        ("--tls-key-file", "server.key"),
        ("--tls-ca-cert-file", "ca.crt"),
    ] {
        arguments.extend([key.to_owned(), at(file)]);
    }
    arguments.extend(["--user", "netpulse", "on", ">s3cr3t-of-redis"].map(str::to_owned));
    arguments.extend(RIGHTS.split(' ').map(str::to_owned));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let redis = RedisServer::with(&arguments);
    let section = |ca: &str, more: &str| {
        format!(
            "{{host: 127.0.0.1, port: {tls}, username: netpulse, password: s3cr3t-of-redis, \
             tls: {{enabled: true, ca: {}{more}}}}}",
            at(ca)
        )
    };
    let own = format!(", cert: {}, key: {}", at("client.crt"), at("client.key"));
    let home = tempfile::tempdir().unwrap();
    let running = devices(2);
    let mut processes: Vec<Process> = [Part::Controller, Part::Node, Part::Fifo]
        .into_iter()
        .map(|part| {
            let name = format!("{part:?}").to_lowercase();
            Process::spawn_on(part, &name, home.path(), &section("ca.crt", &own), "")
        })
        .collect();
    processes.iter_mut().for_each(Process::ready);
    let client = client_of(&processes);
    client.exec(&query(&running, 0)).await;
    client.exec(&change(&running, 1, 1)).await;
    assert_eq!(received(&running, 1, 1), 1);
    let mut fifo = query(&running, 0);
    fifo["queue_strategy"] = json!("fifo");
    client.exec(&fifo).await;
    // Everybody came over TLS as that user.
    let clients = redis.ask("CLIENT LIST");
    let ours: Vec<&str> = clients.lines().filter(|line| line.contains("user=netpulse")).collect();
    assert!(ours.len() >= 3, "{clients}");
    assert!(ours.iter().all(|line| line.contains(&format!("laddr=127.0.0.1:{tls}"))), "{clients}");
    // Nothing was tried that the user may not do.
    let denied = redis.ask("ACL LOG");
    assert!(denied.starts_with("*0"), "{denied}");

    let config = processes[0].dir.join("netpulse.yaml").display().to_string();
    let (_, found, said) = netpulse(&["doctor", "--config", &config], &[], home.path());
    assert!(found.contains("version: Redis"), "{found}{said}");

    // Who is not who he says, on either side, and what is said then.
    for (section, expected) in [
        (section("stranger.crt", &own), "UnknownIssuer"),
        (section("ca.crt", ""), "ertificate"),
        (
            section("ca.crt", &own).replace("s3cr3t-of-redis", "wrong"),
            "check `redis.username` and `redis.password`",
        ),
        (section("absent.crt", &own), "absent.crt"),
    ] {
        let mut refused = Process::spawn_on(Part::Controller, "refused", home.path(), &section, "");
        eventually(30, expected, || refused.log().contains(expected) || refused.has_ended());
        let log = refused.log();
        assert!(log.contains(expected), "{section}: {log}");
        assert!(!log.contains("s3cr3t-of-redis"), "{log}");
        refused.kill();
        std::fs::remove_file(refused.dir.join("log")).unwrap();
    }
}

/// A sentinel on a free port that watches the master at `master`.
fn sentinel(dir: &Path, master: u16) -> (Reaped, u16) {
    let port = free_port();
    let own = dir.join(format!("sentinel-{port}"));
    std::fs::create_dir_all(&own).unwrap();
    let file = own.join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor mymaster 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n",
        own.display()
    );
    std::fs::write(&file, text).unwrap();
    let log = std::fs::File::create(own.join("log")).unwrap();
    let child = Command::new("redis-server").arg(&file).arg("--sentinel").stdout(log).spawn();
    (Reaped(child.expect("redis-server (Debian package redis-server)")), port)
}

/// Changes on every device, one after the other, until `until`; each with its mark.
async fn keep_changing(client: Client, running: &Running, until: Instant) -> Vec<(usize, usize, Value)> {
    let mut done = Vec::new();
    for mark in 1.. {
        if Instant::now() > until {
            break;
        }
        let device = mark % running.devices().len();
        let id = client.submit(&change(running, device, mark)).await;
        done.push((device, mark, client.ended(&id).await));
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_1_5_6_sentinels_change_the_master_and_nothing_is_lost_or_pushed_twice() {
    let home = tempfile::tempdir().unwrap();
    let aof = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut master = RedisServer::with(&aof);
    let of = master.port.to_string();
    let replicas: Vec<RedisServer> = (0..2)
        .map(|_| RedisServer::with(&[&aof[..], &["--replicaof", "127.0.0.1", of.as_str()]].concat()))
        .collect();
    for replica in &replicas {
        eventually(20, "a replica in step", || {
            replica.ask("INFO replication").contains("master_link_status:up")
        });
    }
    let sentinels: Vec<(Reaped, u16)> = (0..3).map(|_| sentinel(home.path(), master.port)).collect();
    let hosts: Vec<String> = sentinels.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
    for (_, port) in &sentinels {
        eventually(30, "sentinels that know each other and the replicas", || {
            let said = support::cluster::ask(*port, "SENTINEL master mymaster").unwrap_or_default();
            let after =
                |what: &str| said.split(what).nth(1).and_then(|rest| rest.lines().nth(2)).map(str::to_owned);
            after("num-slaves") == Some("2".into()) && after("num-other-sentinels") == Some("2".into())
        });
    }
    let section = format!(
        "{{min_replicas: 1, sentinel: {{enabled: true, host: \"{}\", master_name: mymaster}}}}",
        hosts.join(",")
    );
    let running = devices(3);
    let mut processes: Vec<Process> =
        [(Part::Controller, "controller"), (Part::Node, "node-a"), (Part::Node, "node-b")]
            .into_iter()
            .map(|(part, name)| Process::spawn_on(part, name, home.path(), &section, ""))
            .collect();
    processes.iter_mut().for_each(Process::ready);
    let client = client_of(&processes);
    client.exec(&change(&running, 0, 0)).await;

    let began = Instant::now();
    let load = keep_changing(client_of(&processes), &running, began + Duration::from_secs(12));
    let failover = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        tokio::task::block_in_place(|| master.kill());
    };
    let (done, ()) = tokio::join!(load, failover);
    let new = replicas.iter().find(|replica| replica.ask("ROLE").contains("master"));
    let new = new.expect("a replica was made master");
    assert!(new.ask("CLIENT LIST").lines().count() > 3, "the processes went over to it");
    let mut after = 0;
    for (device, mark, job) in &done {
        let (times, outcome) = (received(&running, *device, *mark), &job["result"]["outcome"]);
        assert!(times <= 1, "change {mark} came {times} times: {job}");
        match outcome.as_str() {
            Some("applied") => assert_eq!(times, 1, "{job}"),
            Some("not_applied") => assert_eq!(times, 0, "{job}"),
            Some("unknown" | "partial") => {}
            _ => panic!("change {mark} has no outcome: {job}"),
        }
        after += usize::from(job["status"] == "finished");
    }
    let last = done.last().unwrap();
    assert_eq!(last.2["status"], "finished", "served by the new master: {}", last.2);
    eprintln!("{} changes over a failover, {after} applied", done.len());
    // What was accepted before the failover is still known after it.
    for (_, _, job) in &done {
        let again = client.get(&format!("/jobs/{}", job["id"].as_str().unwrap())).await;
        assert_eq!(again["result"]["outcome"], job["result"]["outcome"]);
    }
    assert!(!processes.iter().any(|process| process.log().contains(KEY)));
}
