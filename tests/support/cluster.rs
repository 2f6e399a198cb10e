//! Many processes around a real Redis, each the real program.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use netpulse_simulator::{Plan, Running, Simulator};
use serde_json::{Value, json};

use super::{KEY, Reaped, eventually, free_port};

/// A real redis-server on a free loopback port, with a folder of its own.
pub struct RedisServer {
    child: Option<Reaped>,
    pub port: u16,
    arguments: Vec<String>,
    dir: tempfile::TempDir,
}

impl RedisServer {
    /// A server that keeps what it acknowledged.
    pub fn start() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "everysec"])
    }

    /// A server with these arguments besides port, folder and eviction.
    pub fn with(arguments: &[&str]) -> Self {
        let mut server = Self::stopped(arguments);
        server.launch();
        server
    }

    /// One that is not started yet: its port is known, and nobody listens there.
    pub fn stopped(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        Self { child: None, port: free_port(), arguments, dir: tempfile::tempdir().unwrap() }
    }

    /// Starts the process (again) over the same folder and port, and waits until it answers.
    pub fn launch(&mut self) {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--maxmemory-policy", "noeviction", "--dir"])
            .arg(self.dir.path())
            .args(&self.arguments)
            .stdout(
                std::fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap(),
            )
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server (Debian package redis-server)");
        self.child = Some(Reaped(child));
        let port = self.port;
        eventually(20, "redis-server answering", || {
            ask(port, "PING").is_ok_and(|said| said.starts_with("+PONG"))
        });
    }

    /// `kill -9`, and gone.
    pub fn kill(&mut self) {
        self.child = None;
    }

    pub fn signal(&self, signal: &str) {
        send_signal(self.child.as_ref().expect("it runs").0.id(), signal);
    }

    /// What it answers to an inline command, in Redis' own protocol.
    pub fn ask(&self, command: &str) -> String {
        ask(self.port, command).unwrap()
    }

    /// How many clients are connected, this question not counted.
    pub fn clients(&self) -> usize {
        self.ask("CLIENT LIST").lines().filter(|line| line.starts_with("id=")).count() - 1
    }
}

/// What a server or sentinel at a port answers to an inline command.
pub fn ask(port: u16, command: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // QUIT ends the connection, and with it what there is to read; a sentinel does not know it.
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
    let (mut said, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut piece)?;
        said.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&said);
        if read == 0 || text.contains("unknown command 'QUIT'") {
            return Ok(text.into_owned());
        }
    }
}

fn send_signal(pid: u32, signal: &str) {
    let status = Command::new("kill").arg(signal).arg(pid.to_string()).status().unwrap();
    assert!(status.success());
}

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `netpulse serve --engine redis`
    All,
    /// `netpulse controller`
    Controller,
    /// `netpulse worker node`
    Node,
    /// `netpulse worker fifo`
    Fifo,
}

/// One process of a cluster, with a folder of its own.
pub struct Process {
    child: Option<Reaped>,
    pub name: String,
    pub part: Part,
    /// The API, or of a worker its figures.
    pub url: String,
    pub dir: PathBuf,
}

impl Process {
    /// Writes its configuration and starts it, without waiting.
    pub fn spawn(part: Part, name: &str, dir: &Path, redis: u16, extra: &str) -> Self {
        Self::spawn_on(part, name, dir, &format!("{{host: 127.0.0.1, port: {redis}}}"), extra)
    }

    /// The same with a `redis:` section of one's own.
    pub fn spawn_on(part: Part, name: &str, dir: &Path, redis: &str, extra: &str) -> Self {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let d = dir.display();
        let yaml = format!(
            "server: {{host: 127.0.0.1, port: 0, api_key: {KEY}}}\nmetrics: {{port: 0}}\n\
             store: {{engine: redis, path: {d}/store}}\nstorage: {{staging: {d}/staging}}\n\
             redis: {redis}\nplatform: {{}}\n{extra}\n"
        );
        std::fs::write(dir.join("netpulse.yaml"), yaml).unwrap();
        let mut process = Self { child: None, name: name.to_owned(), part, url: String::new(), dir };
        process.begin();
        process
    }

    fn begin(&mut self) {
        let child = self.command().stdout(Stdio::piped()).stderr(self.log_file()).spawn().unwrap();
        self.child = Some(Reaped(child));
    }

    fn log_file(&self) -> std::fs::File {
        std::fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap()
    }

    /// The command that starts it; for tests that start one more in its place.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netpulse"));
        match self.part {
            Part::All => command.arg("serve"),
            Part::Controller => command.arg("controller"),
            Part::Node => command.args(["worker", "node"]),
            Part::Fifo => command.args(["worker", "fifo"]),
        };
        command.arg("--config").arg(self.dir.join("netpulse.yaml"));
        // A worker goes by the name that the test knows it by.
        command
            .env("NETPULSE_WORKER__NODE", &self.name)
            .env_remove("NETPULSE_CONFIG_FILE")
            .current_dir(&self.dir);
        command
    }

    /// Waits until it says that it is ready.
    pub fn ready(&mut self) {
        let child: &mut Child = &mut self.child.as_mut().unwrap().0;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = loop {
            match lines.next() {
                Some(Ok(line)) if line.contains("ready") => break line,
                Some(Ok(_)) => {}
                _ => panic!("{} did not start:\n{}", self.name, self.log()),
            }
        };
        // Somebody has to read what else it prints.
        std::thread::spawn(move || lines.for_each(drop));
        let url =
            line.split_whitespace().find_map(|w| w.find("http://").map(|at| &w[at..])).unwrap_or_default();
        self.url = url.trim_end_matches([')', '/']).trim_end_matches("/metrics").to_owned();
    }

    /// Starts it again, in the same place.
    pub fn launch(&mut self) {
        self.begin();
        self.ready();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").0.id()
    }

    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.0.try_wait().unwrap().is_some())
    }

    /// `kill -9`, and gone.
    pub fn kill(&mut self) {
        self.child = None;
    }

    pub fn signal(&self, signal: &str) {
        send_signal(self.pid(), signal);
    }

    /// Waits for its end; the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.take().unwrap().0.wait().unwrap().code()
    }

    /// SIGTERM, and waits for the end; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("-TERM");
        self.wait()
    }
}

/// Redis and processes around it.
pub struct Cluster {
    pub redis: RedisServer,
    pub processes: Vec<Process>,
    pub dir: tempfile::TempDir,
    http: reqwest::Client,
}

impl Cluster {
    /// Starts these parts, each named `<part>-<number>`, with `extra` YAML in every configuration.
    pub fn start(parts: &[Part], extra: &str) -> Self {
        let redis = RedisServer::start();
        let dir = tempfile::tempdir().unwrap();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(90)).build().unwrap();
        let mut processes: Vec<Process> = parts
            .iter()
            .enumerate()
            .map(|(index, part)| {
                let before = parts[..index].iter().filter(|p| *p == part).count();
                let name = format!("{part:?}-{before}").to_lowercase();
                Process::spawn(*part, &name, dir.path(), redis.port, extra)
            })
            .collect();
        processes.iter_mut().for_each(Process::ready);
        Self { redis, processes, dir, http }
    }

    pub fn process(&mut self, name: &str) -> &mut Process {
        self.processes.iter_mut().find(|process| process.name == name).unwrap()
    }

    pub fn url(&self, name: &str) -> &str {
        &self.processes.iter().find(|process| process.name == name).unwrap().url
    }

    /// A client that asks any of the controllers, and the next one when one does not answer or
    /// takes nothing new: what a proxy in front of them does.
    pub fn client(&self) -> Client {
        Client { http: self.http.clone(), ..client_of(&self.processes) }
    }

    /// Everything that the processes logged, for a test that fails.
    pub fn logs(&self) -> String {
        let log = |process: &Process| format!("--- {} ---\n{}\n", process.name, process.log());
        self.processes.iter().map(log).collect()
    }
}

/// Asks controllers.
pub struct Client {
    urls: std::sync::Mutex<Vec<String>>,
    http: reqwest::Client,
}

impl Client {
    /// A controller has come back elsewhere.
    pub fn moved(&self, from: &str, to: &str) {
        for url in self.urls.lock().unwrap().iter_mut().filter(|url| *url == from) {
            to.clone_into(url);
        }
    }

    /// One request to one address.
    pub async fn at(&self, method: reqwest::Method, url: &str, body: Option<&Value>) -> (u16, Value) {
        let mut request = self.http.request(method, url).header("X-API-KEY", KEY);
        if let Some(body) = body {
            request = request.json(body);
        }
        let reply = request.send().await.unwrap();
        let status = reply.status().as_u16();
        let text = reply.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// A request to whoever answers, for at most thirty seconds. Repeated on a broken connection and
    /// on 503, so a POST carries an `Idempotency-Key` of its own.
    pub async fn send(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let key = uuid::Uuid::new_v4().to_string();
        let end = Instant::now() + Duration::from_secs(30);
        let mut seen = String::new();
        for turn in 0.. {
            assert!(Instant::now() < end, "no controller answered {path}: {seen}");
            let url = {
                let urls = self.urls.lock().unwrap();
                urls[turn % urls.len()].clone()
            };
            let mut request =
                self.http.request(method.clone(), format!("{url}{path}")).header("X-API-KEY", KEY);
            if let Some(body) = body {
                request = request.json(body).header("Idempotency-Key", &key);
            }
            match request.send().await {
                Ok(reply) if reply.status() == 503 => seen = reply.text().await.unwrap_or_default(),
                Ok(reply) => {
                    let status = reply.status().as_u16();
                    match reply.text().await {
                        Ok(text) => {
                            return (status, serde_json::from_str(&text).unwrap_or(Value::String(text)));
                        }
                        Err(error) => seen = error.to_string(),
                    }
                }
                Err(error) => seen = error.to_string(),
            }
            // A process is starting elsewhere: there is nothing to be notified by.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        unreachable!("the loop ends by its deadline")
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send(reqwest::Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send(reqwest::Method::POST, path, Some(body)).await
    }

    /// Accepts a job; its id.
    pub async fn submit(&self, body: &Value) -> String {
        let (status, job) = self.post("/device/exec", body).await;
        assert_eq!(status, 201, "{job}");
        job["id"].as_str().unwrap().to_owned()
    }

    /// The job when it has ended, or after a minute as it stands.
    pub async fn ended(&self, id: &str) -> Value {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let job = self.get(&format!("/jobs/{id}?wait=20")).await;
            let status = job["status"].as_str().unwrap();
            if ["finished", "failed", "canceled"].contains(&status) || Instant::now() > end {
                return job;
            }
        }
    }

    /// Runs a request to its end, which must be good.
    pub async fn exec(&self, body: &Value) -> Value {
        let id = self.submit(body).await;
        let job = self.ended(&id).await;
        assert_eq!(job["status"], "finished", "{job}");
        job
    }
}

/// A client of the controllers among these processes.
pub fn client_of(processes: &[Process]) -> Client {
    let has_api = |process: &&Process| matches!(process.part, Part::All | Part::Controller);
    let urls = processes.iter().filter(has_api).map(|process| process.url.clone()).collect();
    let http = reqwest::Client::builder().timeout(Duration::from_secs(90)).build().unwrap();
    Client { urls: std::sync::Mutex::new(urls), http }
}

/// The figure of this name and labels in a scrape.
pub fn figure(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A command of the program; its exit code, what it printed, and what it said beside.
pub fn netpulse(arguments: &[&str], environment: &[(&str, &str)], dir: &Path) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netpulse"));
    command.args(arguments).env_remove("NETPULSE_CONFIG_FILE").current_dir(dir);
    let output = command.envs(environment.iter().copied()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Connection arguments of a simulated device.
pub fn device_args(device: &netpulse_simulator::Device) -> Value {
    let at = device.ssh.unwrap();
    json!({"device_type": "cisco_ios", "host": at.ip().to_string(), "port": at.port(), "username": "admin",
        "password": "admin", "secret": "enable"})
}

/// So many simulated Cisco devices.
pub fn devices(count: u32) -> Running {
    Simulator::start(Plan { enable: "enable".into(), ..Plan::of("cisco_ios", count) }).unwrap()
}

/// A query of one of them.
pub fn query(running: &Running, device: usize) -> Value {
    json!({"driver": "netmiko", "connection_args": device_args(running.device(device)), "command": "show clock"})
}

/// A change of one of them whose lines bear a mark.
pub fn change(running: &Running, device: usize, mark: usize) -> Value {
    json!({"driver": "netmiko", "connection_args": device_args(running.device(device)), "enable_mode": true,
        "config": [format!("interface Loopback{mark}"), format!("description mark-{mark:05}")]})
}

/// How often a device received the line of a change.
pub fn received(running: &Running, device: usize, mark: usize) -> usize {
    let line = format!("description mark-{mark:05}");
    let lines = running.journal().lines(u32::try_from(device).unwrap());
    lines.iter().filter(|received| received.trim() == line).count()
}
