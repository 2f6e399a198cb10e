//! The processes: Redis, controllers, nodes, or one server on the embedded store.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::proxy::{Cable, Proxy};
use super::wall_clock::WallClock;
use crate::support::{KEY, Reaped, free_port};

/// Seconds that a lease lasts here.
pub const LEASE: u64 = 3;

/// Where jobs wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Embedded,
    /// Redis with this `appendfsync`.
    Redis(&'static str),
}

/// A process that is killed, frozen and started again.
pub struct Process {
    pub name: String,
    program: PathBuf,
    args: Vec<String>,
    dir: PathBuf,
    /// Its log cannot be written: the disk is full.
    full_disk: bool,
    /// The clock that it goes by, when not the machine's.
    clock: Option<Arc<WallClock>>,
    child: Option<Reaped>,
}

impl Process {
    fn new(name: &str, dir: &Path, program: impl Into<PathBuf>, args: &[&str]) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            dir: dir.into(),
            full_disk: false,
            clock: None,
            child: None,
        }
    }

    pub fn launch(&mut self) {
        if self.child.is_some() {
            return;
        }
        let log = || {
            let path =
                if self.full_disk { "/dev/full".into() } else { self.dir.join(format!("{}.log", self.name)) };
            std::fs::File::options().create(true).append(true).open(path).unwrap()
        };
        let child = Command::new(&self.program)
            .args(&self.args)
            .env_remove("NETPULSE_CONFIG_FILE")
            .envs(self.clock.iter().flat_map(|clock| clock.environment()))
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        self.child = Some(Reaped(child));
    }

    /// `kill -9`, and gone.
    pub fn kill(&mut self) {
        self.child = None;
    }

    pub fn signal(&self, signal: &str) {
        if let Some(child) = &self.child {
            let status = Command::new("kill").arg(signal).arg(child.0.id().to_string()).status().unwrap();
            assert!(status.success(), "{signal} to {}", self.name);
        }
    }

    /// Its exit code once it has ended by itself.
    pub fn ended(&mut self) -> Option<Option<i32>> {
        let status = self.child.as_mut()?.0.try_wait().unwrap()?;
        Some(status.code())
    }
}

/// A process that others hold, too.
pub type Shared = Arc<Mutex<Process>>;

/// Everything that runs.
pub struct Fleet {
    pub engine: Engine,
    pub dir: PathBuf,
    pub redis: Option<Shared>,
    /// What answers the API, with its address.
    pub controllers: Vec<(Shared, String)>,
    /// What runs jobs, with its cable to Redis.
    pub nodes: Vec<(Shared, Proxy)>,
    pub redis_clock: Arc<WallClock>,
    /// The clock of `node-c`.
    pub node_clock: Arc<WallClock>,
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_netpulse");

fn config(dir: &Path, name: &str, port: u16, redis: Option<u16>) -> PathBuf {
    let own = dir.join(name);
    std::fs::create_dir_all(&own).unwrap();
    let store = match redis {
        Some(port) => format!(
            "store: {{engine: redis, seal_key: one-key-for-all-processes, path: {own}}}\n\
             redis: {{host: 127.0.0.1, port: {port}}}\n",
            own = own.display()
        ),
        None => format!("store: {{path: {}/store}}\n", own.display()),
    };
    let yaml = format!(
        "server: {{host: 127.0.0.1, port: {port}, api_key: {KEY}}}\n{store}\
         storage: {{staging: {own}/staging}}\n\
         worker: {{node: {name}, work_dir: {own}, lease: {LEASE}, drain_timeout: 10}}\n\
         job: {{result_ttl: 7200, ttl: 7200, timeout: 60}}\n\
         webhook: {{allow_private: [127.0.0.1]}}\n",
        own = own.display()
    );
    let path = dir.join(format!("{name}.yaml"));
    std::fs::write(&path, yaml).unwrap();
    path
}

impl Fleet {
    pub async fn start(engine: Engine, dir: &Path) -> Self {
        let share = |process| Arc::new(Mutex::new(process));
        let mut fleet = Self {
            engine,
            dir: dir.into(),
            redis: None,
            controllers: Vec::new(),
            nodes: Vec::new(),
            redis_clock: Arc::new(WallClock::new(dir, "redis")),
            node_clock: Arc::new(WallClock::new(dir, "node")),
        };
        let port = free_port();
        match engine {
            Engine::Embedded => {
                let file = config(dir, "server", port, None).display().to_string();
                let process = Process::new("server", dir, PROGRAM, &["serve", "--config", &file]);
                let server = share(process);
                fleet.controllers.push((Arc::clone(&server), format!("http://127.0.0.1:{port}")));
                fleet.nodes.push((server, Proxy::to(port).await));
            }
            Engine::Redis(fsync) => {
                let at = dir.join("redis");
                std::fs::create_dir_all(&at).unwrap();
                let (at, text) = (at.display().to_string(), port.to_string());
                let args = [
                    "--port",
                    &text,
                    "--bind",
                    "127.0.0.1",
                    "--dir",
                    &at,
                    "--save",
                    "",
                    "--appendonly",
                    "yes",
                    "--appendfsync",
                    fsync,
                    "--maxmemory-policy",
                    "noeviction",
                ];
                let mut redis = Process::new("redis", dir, "redis-server", &args);
                redis.clock = Some(Arc::clone(&fleet.redis_clock));
                let redis = share(redis);
                redis.lock().launch();
                fleet.redis = Some(redis);
                for name in ["controller-a", "controller-b"] {
                    let own = free_port();
                    let file = config(dir, name, own, Some(port)).display().to_string();
                    let process = Process::new(name, dir, PROGRAM, &["controller", "--config", &file]);
                    fleet.controllers.push((share(process), format!("http://127.0.0.1:{own}")));
                }
                for (name, kind) in [
                    ("node-a", "node"),
                    ("node-b", "node"),
                    ("node-c", "node"),
                    ("slots-a", "fifo"),
                    ("slots-b", "fifo"),
                ] {
                    let proxy = Proxy::to(port).await;
                    let file = config(dir, name, free_port(), Some(proxy.port)).display().to_string();
                    let mut process = Process::new(name, dir, PROGRAM, &["worker", kind, "--config", &file]);
                    process.full_disk = name == "node-b";
                    process.clock = (name == "node-c").then(|| Arc::clone(&fleet.node_clock));
                    fleet.nodes.push((share(process), proxy));
                }
            }
        }
        fleet.heal();
        fleet.until_ready().await;
        fleet
    }

    /// Everything runs, and every cable is whole.
    pub fn heal(&self) {
        let all = self.redis.iter().chain(self.controllers.iter().map(|(process, _)| process));
        for process in all.chain(self.nodes.iter().map(|(process, _)| process)) {
            let mut process = process.lock();
            process.signal("-CONT");
            if let Some(code) = process.ended() {
                panic!("{} ended by itself with {code:?}", process.name);
            }
            process.launch();
        }
        for (_, proxy) in &self.nodes {
            proxy.set(Cable::Whole);
        }
    }

    /// Every controller answers and sees nodes.
    pub async fn until_ready(&self) {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(3)).build().unwrap();
        let until = Instant::now() + Duration::from_secs(90);
        for (process, url) in &self.controllers {
            loop {
                let name = process.lock().name.clone();
                assert!(Instant::now() < until, "{name} is not ready: see {}", self.dir.display());
                let ask = http.get(format!("{url}/workers")).header("X-API-KEY", KEY).send().await;
                if let Ok(reply) = ask
                    && let Ok(workers) = reply.json::<Vec<serde_json::Value>>().await
                    && workers.len() >= self.nodes.len()
                {
                    break;
                }
                // Other processes are being waited for: there is nothing to be notified by.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Whether a node of that name lives, as a controller sees it.
    async fn lives(&self, name: &str) -> bool {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(3)).build().unwrap();
        for (_, url) in &self.controllers {
            if let Ok(reply) = http.get(format!("{url}/nodes")).header("X-API-KEY", KEY).send().await
                && let Ok(nodes) = reply.json::<Vec<serde_json::Value>>().await
            {
                return nodes.iter().any(|node| node["name"] == name && node["state"] == "ready");
            }
        }
        false
    }

    /// A second node of the first one's name has to be refused, and to end.
    pub async fn duplicate_node(&self) -> Result<(), String> {
        let Some((first, _)) = self.nodes.first() else { return Ok(()) };
        let name = first.lock().name.clone();
        let until = Instant::now() + Duration::from_secs(15);
        while !self.lives(&name).await {
            if Instant::now() > until {
                return Err(format!("`{name}` does not come back"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let twin_dir = self.dir.join("twin");
        std::fs::create_dir_all(&twin_dir).unwrap();
        let text = std::fs::read_to_string(self.dir.join(format!("{name}.yaml"))).unwrap();
        let own = self.dir.join(&name).display().to_string();
        let file = self.dir.join("twin.yaml");
        std::fs::write(&file, text.replace(&own, &twin_dir.display().to_string())).unwrap();
        let file = file.display().to_string();
        let mut twin = Process::new("twin", &self.dir, PROGRAM, &["worker", "node", "--config", &file]);
        twin.launch();
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match twin.ended() {
                Some(Some(0)) => return Err(format!("a second `{name}` ended with code 0 by itself")),
                Some(_) => return Ok(()),
                None if Instant::now() > until => {
                    return Err(format!("a second node named `{name}` was let in beside the first"));
                }
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}
