//! A plugin that misbehaves on command, for the tests of promise 14.
//!
//! How it starts is chosen by its file's name (`stress`, `foreign`, `liar`, ...), how it answers by
//! the first word of the command or line (`crash`, `hang`, `half`, ...). It speaks the contract by
//! hand: the kit would not let it lie.

#![allow(clippy::zombie_processes, reason = "it leaves children behind on purpose")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

const ID: &str = "netpulse.example/driver/stress/v1";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let mode = Path::new(&arguments[0]).file_name().unwrap().to_string_lossy().into_owned();
    let words: Vec<&str> = arguments[1..].iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match words.as_slice() {
        ["capabilities"] => runtime.block_on(capabilities(&mode)),
        ["server", config] if mode != "old_form" => runtime.block_on(serve(mode, config)),
        ["--config", config] if mode == "old_form" => runtime.block_on(serve(mode, config)),
        _ => {
            eprintln!("unknown arguments");
            std::process::exit(2);
        }
    }
}

async fn forever() {
    std::future::pending::<()>().await;
}

async fn capabilities(mode: &str) {
    let mut said = json!({
        "contract": "netpulse.plugin/v1", "id": ID, "version": "1.0.0", "features": ["time_travel"], "start": "server",
        "capabilities": [{"type": "driver", "name": "stress", "features": ["config", "telepathy"],
            "jsonSchema": {"driver_args": {"type": "object", "properties": {"depth": {"type": "integer"}}}}}],
    });
    match mode {
        "caps_hang" => forever().await,
        "caps_garbage" => return println!("hello, I am a plugin"),
        "caps_fail" => {
            eprintln!("no database here");
            std::process::exit(3);
        }
        "caps_flood" => {
            for _ in 0..3000 {
                println!("{}", "x".repeat(1000));
            }
            return;
        }
        "caps_fork" => {
            std::process::Command::new("sleep").arg("1000").spawn().unwrap();
            forever().await;
        }
        "version2" => said["contract"] = "netpulse.plugin/v2".into(),
        "old_form" => {
            said.as_object_mut().unwrap().remove("start");
        }
        "minor" => said["contract"] = "netpulse.plugin/v1.3".into(),
        "older_form" => {
            said.as_object_mut().unwrap().remove("capabilities");
            said["type"] = json!({"stress": ["driver"]});
        }
        "renamed" => said["capabilities"][0]["name"] = "Not A Name".into(),
        "netmiko_clash" => said["capabilities"][0]["name"] = "netmiko".into(),
        "two_kinds" => {
            said["capabilities"]
                .as_array_mut()
                .unwrap()
                .push(json!({"type": "templateRenderer", "name": "stress_text"}));
            said["capabilities"].as_array_mut().unwrap().push(json!({"type": "teleporter", "name": "later"}));
        }
        "pipeline" => said["capabilities"] = json!([{"type": "provider", "name": "items"}]),
        "detached" => said["capabilities"][0]["features"] = json!(["config", "detached"]),
        "validates" => said["capabilities"][0]["features"] = json!(["config", "validate"]),
        "with_settings" => said["features"] = json!(["configure"]),
        _ => {}
    }
    println!("{said}");
}

/// What the start gave.
#[derive(Clone)]
struct Given {
    mode: String,
    start: String,
    socket: PathBuf,
}

async fn serve(mode: String, config: &str) {
    let config: Value = serde_json::from_str(config).unwrap();
    let given = Given {
        start: config["start"].as_str().unwrap_or_default().to_owned(),
        socket: PathBuf::from(config["location"].as_str().unwrap()),
        mode: mode.clone(),
    };
    match mode.as_str() {
        "exit_early" => {
            eprintln!(r#"{{"level":"error","msg":"my licence has expired"}}"#);
            std::process::exit(4);
        }
        "no_hello" => forever().await,
        "foreign" => {
            println!("http://192.0.2.1:80");
            forever().await;
        }
        "noisy" => {
            for n in 0..5000 {
                println!("debug: warming up {n} {}", "x".repeat(100));
            }
        }
        _ => {}
    }
    let listener = UnixListener::bind(&given.socket).unwrap();
    if mode != "silent" {
        println!("http+unix://{}", given.socket.display());
    }
    if mode == "noisy" {
        // More than a pipe holds: a host that does not read would stop us here.
        for n in 0..5000 {
            println!("debug: ready {n} {}", "x".repeat(100));
        }
    }
    if mode == "stubborn" {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        tokio::spawn(async move { while terminate.recv().await.is_some() {} });
    }
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(connection(stream, given.clone()));
    }
}

struct Request {
    method: String,
    path: String,
    number: String,
    body: Value,
}

async fn read(reader: &mut BufReader<tokio::net::unix::OwnedReadHalf>) -> Option<Request> {
    let mut first = String::new();
    if reader.read_line(&mut first).await.ok()? == 0 {
        return None;
    }
    let mut parts = first.split_whitespace();
    let (method, path) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let (mut length, mut number) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "x-netpulse-plugin-request" => value.trim().clone_into(&mut number),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await.ok()?;
    Some(Request { method, path, number, body: serde_json::from_slice(&body).unwrap_or_default() })
}

async fn connection(stream: UnixStream, given: Given) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Some(request) = read(&mut reader).await {
        let head = |status: &str, start: &str, number: &str, length: &str| {
            format!(
                "HTTP/1.1 {status}\r\nx-netpulse-plugin-start: {start}\r\nx-netpulse-plugin-request: {number}\r\n{length}\r\n"
            )
        };
        let whole = |status: &str, body: &str| {
            let length = format!("content-length: {}\r\n", body.len());
            format!("{}{body}", head(status, &given.start, &request.number, &length))
        };
        let word = word(&request.body);
        let text = match (request.method.as_str(), request.path.as_str(), word.as_str()) {
            ("GET", "/healthz", _) => {
                let id = if given.mode == "liar" { "netpulse.example/driver/honest/v1" } else { ID };
                let contract = match given.mode.as_str() {
                    "turncoat" => "netpulse.plugin/v2",
                    "minor" => "netpulse.plugin/v1.3",
                    _ => "netpulse.plugin/v1",
                };
                whole("200 OK", &json!({"id": id, "version": "1.0.0", "contract": contract}).to_string())
            }
            (_, "/shutdown", _) if given.mode == "stubborn" => whole("200 OK", "{}"),
            (_, "/shutdown", _) => {
                let _ = writer.write_all(whole("200 OK", "{}").as_bytes()).await;
                let _ = std::fs::remove_file(&given.socket);
                std::process::exit(0);
            }
            (_, "/configure", _) => match request.body["config"]["url"].as_str() {
                Some(_) => whole("200 OK", "{}"),
                None => whole("400 Bad Request", "the setting `url` is missing"),
            },
            (_, "/driver/connect", _) if given.mode == "wrong_start" => {
                let body = r#"{"session":"s1"}"#;
                let length = format!("content-length: {}\r\n", body.len());
                format!("{}{body}", head("200 OK", "00000000-another", &request.number, &length))
            }
            (_, "/driver/connect", _) => match request.body["connection_args"]["host"].as_str() {
                Some("busy") => whole("503 Service Unavailable", "its management port does not answer"),
                _ => whole("200 OK", r#"{"session":"s1"}"#),
            },
            (_, "/driver/disconnect", _) => whole("200 OK", "{}"),
            (_, "/provider/gather", _) => {
                let what = request.body["settings"]["do"].as_str().unwrap_or_default();
                if what == "whole" {
                    whole(
                        "200 OK",
                        r#"{"relates_to":"all","result_name":"items","result_description":"","details":[1,2]}"#,
                    )
                } else {
                    let head = head(
                        "200 OK",
                        &given.start,
                        &request.number,
                        "content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n",
                    );
                    let _ = writer.write_all(head.as_bytes()).await;
                    gather(&mut writer, what).await;
                    if ["stream", "error"].contains(&what) {
                        continue;
                    }
                    return;
                }
            }
            (_, "/driver/validate", _) => match request.body["request"]["command"][0].as_str() {
                Some("reload") => whole("400 Bad Request", "command: `reload` is not done over this API"),
                Some("crash at the door") => std::process::exit(102),
                Some("hang at the door") => {
                    forever().await;
                    return;
                }
                _ => whole("200 OK", "{}"),
            },
            (_, "/driver/detached/launch", _) => {
                let command = request.body["command"].as_str().unwrap_or_default();
                if command == "crash" {
                    std::process::exit(103);
                }
                let id = if command == "lie" { json!("another") } else { request.body["task_id"].clone() };
                whole("200 OK", &json!({"task": {"task_id": id, "running": true, "pid": 4711}}).to_string())
            }
            (_, "/driver/detached/query", _) => {
                let log = "0123456789";
                let task = request.body["task_id"].clone();
                let from = request.body["offset"].as_u64().unwrap_or(0).min(log.len() as u64);
                let next = if task == "greedy" { 99 } else { log.len() };
                let task = json!({"task_id": task, "running": false, "exit_status": 0});
                let output = &log[usize::try_from(from).unwrap()..];
                let body = json!({"task": task, "output": output, "next_offset": next});
                if request.body["task_id"] == "unknown" {
                    whole("404 Not Found", "there is no task `unknown`")
                } else {
                    whole("200 OK", &body.to_string())
                }
            }
            (_, "/driver/detached/kill", _) => {
                whole("200 OK", &json!({"killed": request.body["task_id"] != "ended"}).to_string())
            }
            (_, "/driver/detached/list", _) => whole(
                "200 OK",
                &json!({"tasks": [{"task_id": "t1", "command": "tcpdump", "running": true}]}).to_string(),
            ),
            (_, "/template/render", _) => whole(
                "200 OK",
                &json!({"text": request.body["template"], "pid": std::process::id()}).to_string(),
            ),
            (_, path, "crash") if path.starts_with("/driver/") => {
                eprintln!("panicked at 'index out of bounds'");
                std::process::exit(101);
            }
            (_, _, "abort") => std::process::abort(),
            (_, _, "hang") => {
                forever().await;
                return;
            }
            (_, _, "freeze") => {
                // Nothing of us runs any more.
                let pid = rustix::process::getpid();
                rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
                forever().await;
                return;
            }
            (_, _, "garbage") => whole("200 OK", "<html>it works</html>"),
            (_, _, "empty") => whole("200 OK", "{}"),
            (_, _, "half") => {
                let body = format!(
                    "{}{}",
                    head("200 OK", &given.start, &request.number, "content-length: 500\r\n"),
                    "{\"results\":"
                );
                let _ = writer.write_all(body.as_bytes()).await;
                return;
            }
            (_, _, "endless") => {
                // No length: an answer that nobody can tell from a broken one.
                let body = format!(
                    "{}{{\"results\":[]}}",
                    head("200 OK", &given.start, &request.number, "connection: close\r\n")
                );
                let _ = writer.write_all(body.as_bytes()).await;
                return;
            }
            (_, _, "other") => {
                let body = results(&request.body);
                let length = format!("content-length: {}\r\n", body.len());
                format!("{}{body}", head("200 OK", &given.start, "4711", &length))
            }
            (_, _, "big") => {
                let _ = writer
                    .write_all(
                        head("200 OK", &given.start, &request.number, "transfer-encoding: chunked\r\n")
                            .as_bytes(),
                    )
                    .await;
                let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
                while writer.write_all(chunk.as_bytes()).await.is_ok() {}
                return;
            }
            (_, _, "memory") => {
                let mut hoard: Vec<Vec<u8>> = Vec::new();
                for _ in 0..4096 {
                    hoard.push(vec![1; 16 * 1024 * 1024]);
                }
                whole("200 OK", &json!({"hoarded": hoard.len()}).to_string())
            }
            (_, _, "flood") => {
                for n in 0..50_000 {
                    eprintln!(r#"{{"level":"info","msg":"flood {n}"}}"#);
                }
                whole("200 OK", &results(&request.body))
            }
            (_, _, "fork") => {
                // In a session of its own: a process group alone would not find it.
                let child = std::process::Command::new("setsid").args(["sleep", "1000"]).spawn().unwrap();
                let line = word_after(&request.body);
                std::fs::write(line, child.id().to_string()).unwrap();
                whole("200 OK", &results(&request.body))
            }
            (_, _, "tell") => {
                // What a careless author does with what he was given.
                eprintln!(r#"{{"level":"error","msg":"login failed with {}"}}"#, word_after(&request.body));
                whole(
                    "500 Internal Server Error",
                    &format!("login failed with {}", word_after(&request.body)),
                )
            }
            (_, _, "slow") => {
                let seconds: f64 = word_after(&request.body).parse().unwrap();
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                whole("200 OK", &results(&request.body))
            }
            (_, _, "coded") => {
                let text = "it went wrong";
                let more = format!(
                    "x-netpulse-plugin-error: {}\r\ncontent-length: {}\r\n",
                    word_after(&request.body),
                    text.len()
                );
                format!("{}{text}", head("500 Internal Server Error", &given.start, &request.number, &more))
            }
            (_, _, "forgotten") => whole("410 Gone", "that session is not known any more"),
            (_, _, "leave") => {
                // As one does that has had nothing to do for long.
                let _ = writer.write_all(whole("200 OK", &results(&request.body)).as_bytes()).await;
                let _ = std::fs::remove_file(&given.socket);
                std::process::exit(0);
            }
            (_, _, "refuse") => whole("400 Bad Request", "that is no command of mine"),
            (_, "/driver/config", "applied") => {
                // Says that all is well, and has half of the results.
                whole(
                    "200 OK",
                    &json!({"results": [{"command": "applied"}], "outcome": "applied"}).to_string(),
                )
            }
            (_, "/driver/send" | "/driver/config", _) => whole("200 OK", &results(&request.body)),
            _ => whole("404 Not Found", "no such endpoint"),
        };
        if writer.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A provider's stream, in every way that it can go.
async fn gather(writer: &mut tokio::net::unix::OwnedWriteHalf, what: &str) {
    let line = |text: &str| format!("{:x}\r\n{text}\n\r\n", text.len() + 1);
    let done = r#"{"done":{"relates_to":"all","result_name":"items","result_description":"three"}}"#;
    let mut out: String = (0..3).map(|n| line(&json!({"item": {"n": n}}).to_string())).collect();
    match what {
        "stream" => out += &line(done),
        "no_done" => {}
        "after_done" => out += &(line(done) + &line(r#"{"item":4}"#)),
        "not_json" => out += &line("and so on"),
        "foreign" => out += &line(r#"{"sending":0}"#),
        "error" => out += &line(r#"{"error":{"status":503,"message":"the inventory went away"}}"#),
        "details" => {
            out +=
                &line(r#"{"done":{"relates_to":"","result_name":"","result_description":"","details":[9]}}"#)
        }
        "flood" => loop {
            if writer
                .write_all(line(&json!({"item": "x".repeat(60_000)}).to_string()).as_bytes())
                .await
                .is_err()
            {
                return;
            }
        },
        "crash" => {
            let _ = writer.write_all(out.as_bytes()).await;
            std::process::exit(104);
        }
        _ => {}
    }
    out += "0\r\n\r\n";
    let _ = writer.write_all(out.as_bytes()).await;
}

fn items(body: &Value) -> Vec<String> {
    let list = body["commands"].as_array().or_else(|| body["lines"].as_array());
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn word(body: &Value) -> String {
    items(body).first().and_then(|item| item.split_whitespace().next()).unwrap_or_default().to_owned()
}

fn word_after(body: &Value) -> String {
    items(body).first().and_then(|item| item.split_whitespace().nth(1)).unwrap_or_default().to_owned()
}

fn results(body: &Value) -> String {
    let results: Vec<Value> = items(body)
        .into_iter()
        .map(|item| json!({"command": item, "stdout": format!("pid {}", std::process::id())}))
        .collect();
    json!({"results": results}).to_string()
}
