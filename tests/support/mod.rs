//! What the end-to-end tests share: the real program, a real sshd, a real FRR router.

#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub mod cluster;

pub const KEY: &str = "test-key-0123456789";

/// A port nobody listens on right now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until `ready` says so, at most `seconds`.
pub fn eventually(seconds: u64, what: &str, mut ready: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !ready() {
        assert!(Instant::now() < end, "{what} did not happen within {seconds} s");
        std::thread::yield_now();
        // Another process is being waited for: there is nothing to be notified by.
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Ends a child process by its id when the test ends, however it ends.
pub struct Reaped(pub Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The real program, serving on a free port over a store of its own.
pub struct Server {
    child: Option<Reaped>,
    pub url: String,
    pub dir: PathBuf,
    config: PathBuf,
    _temp: tempfile::TempDir,
    http: reqwest::Client,
}

impl Server {
    /// Starts with `extra` YAML appended to the configuration.
    pub fn start(extra: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().to_path_buf();
        let config = dir.join("netpulse.yaml");
        let yaml = format!(
            "server: {{host: 127.0.0.1, port: 0, api_key: {KEY}}}\nstore: {{path: {d}/store}}\nstorage: {{staging: {d}/staging}}\n{extra}\n",
            d = dir.display()
        );
        std::fs::write(&config, yaml).unwrap();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(90)).build().unwrap();
        let mut server = Self { child: None, url: String::new(), dir, config, _temp: temp, http };
        server.launch();
        server
    }

    /// Starts the process (again) over the same store.
    pub fn launch(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_netpulse"))
            .arg("serve")
            .arg("--config")
            .arg(&self.config)
            .env_remove("NETPULSE_CONFIG_FILE")
            .current_dir(&self.dir)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let child = Reaped(child);
        let url = loop {
            match lines.next() {
                Some(Ok(line)) => {
                    if let Some(at) = line.find("http://") {
                        break line[at..].split_whitespace().next().unwrap().to_owned();
                    }
                }
                _ => panic!("the server did not start:\n{}", self.log()),
            }
        };
        // Somebody has to read what else it prints.
        std::thread::spawn(move || lines.for_each(drop));
        self.url = url.trim_end_matches('/').to_owned();
        self.child = Some(child);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().0.id()
    }

    /// `kill -9`, and gone.
    pub fn kill(&mut self) {
        self.child = None;
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(signal).arg(self.pid().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// SIGTERM, and waits for the end; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal("-TERM");
        let mut child = self.child.take().unwrap();
        child.0.wait().unwrap().code()
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send(self.http.get(format!("{}{path}", self.url))).await
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        self.send(self.http.delete(format!("{}{path}", self.url))).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send(self.http.post(format!("{}{path}", self.url)).json(body)).await
    }

    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).header("X-API-KEY", KEY)
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let reply = request.header("X-API-KEY", KEY).send().await.unwrap();
        let status = reply.status().as_u16();
        let text = reply.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Runs a request to its end; the job.
    pub async fn exec(&self, body: &Value) -> Value {
        let (status, job) = self.post("/device/exec?wait=60", body).await;
        assert_eq!(status, 201, "{job}\n{}", self.log());
        job
    }

    pub async fn job(&self, id: &str, wait: u64) -> Value {
        let (status, job) = self.get(&format!("/jobs/{id}?wait={wait}")).await;
        assert_eq!(status, 200, "{job}");
        job
    }
}

/// Bytes of resident memory of a process.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A real OpenSSH server on a free loopback port, for the user that runs the tests.
pub struct Sshd {
    _process: Reaped,
    pub port: u16,
    /// The private key that opens it, as text.
    pub private_key: String,
    pub user: String,
    dir: tempfile::TempDir,
}

impl Sshd {
    /// Everybody who logs in gets `command`; a login shell when none.
    pub fn start(command: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        for key in ["host", "user"] {
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at.join(key)));
        }
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        if user.trim() == "root" {
            // Where sshd drops its privileges to; Debian makes it at boot.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = free_port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {d}/host\nPidFile none\nAuthorizedKeysFile {d}/user.pub\n\
             StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nPrintMotd no\nPrintLastLog no\n\
             MaxStartups 100:30:200\nMaxSessions 100\nSubsystem sftp internal-sftp\n{force}\n",
            d = at.display(),
            force = command.map(|c| format!("ForceCommand {c}")).unwrap_or_default()
        );
        std::fs::write(at.join("sshd_config"), config).unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(at.join("sshd_config"))
            .stderr(std::fs::File::create(at.join("log")).unwrap())
            .spawn()
            .expect("sshd (Debian package openssh-server)");
        let process = Reaped(child);
        let address: SocketAddr = ([127, 0, 0, 1], port).into();
        eventually(20, "sshd listening", || TcpStream::connect(address).is_ok());
        let private_key = std::fs::read_to_string(at.join("user")).unwrap();
        Self { _process: process, port, private_key, user: user.trim().to_owned(), dir }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Connection arguments that open it.
    pub fn args(&self) -> Value {
        json!({"host": "127.0.0.1", "port": self.port, "username": self.user, "pkey": self.private_key})
    }

    pub fn netmiko(&self, device_type: &str) -> Value {
        let mut args = self.args();
        args["device_type"] = json!(device_type);
        args["password"] = json!("unused-by-key-login");
        args
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A real FRR router (zebra and bgpd) whose command line is the login shell of a real sshd.
pub struct Frr {
    daemons: Vec<PathBuf>,
    pub sshd: Sshd,
    dir: tempfile::TempDir,
}

impl Frr {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let (etc, run_dir) = (at.join("etc"), at.join("run"));
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::create_dir_all(&run_dir).unwrap();
        for daemon in ["zebra", "bgpd"] {
            std::fs::write(etc.join(format!("{daemon}.conf")), "hostname r1\n").unwrap();
        }
        std::fs::write(etc.join("vtysh.conf"), "service integrated-vtysh-config\n").unwrap();
        std::fs::write(etc.join("frr.conf"), "").unwrap();
        // The daemons give their sockets to FRR's own group, so they run as FRR's own user.
        run(Command::new("chown").args(["-R", "frr:frr"]).args([&etc, &run_dir]));
        run(Command::new("chmod").arg("755").arg(at));
        let mut frr = Self { daemons: Vec::new(), sshd: Sshd::start(Some(&vtysh(at))), dir };
        for daemon in ["zebra", "bgpd"] {
            let pid = run_dir.join(format!("{daemon}.pid"));
            let mut command = Command::new(format!("/usr/lib/frr/{daemon}"));
            command.args(["-d", "-u", "frr", "-g", "frr", "-A", "127.0.0.1", "-P", "0", "-f"]);
            command.arg(etc.join(format!("{daemon}.conf"))).arg("-i").arg(&pid);
            command.arg("-z").arg(run_dir.join("zserv.api")).arg("--vty_socket").arg(&run_dir);
            if daemon == "bgpd" {
                command.args(["-p", "0"]);
            }
            run(&mut command);
            frr.daemons.push(pid);
        }
        frr
    }

    /// What the router itself says, past everything that is tested.
    pub fn show(&self, command: &str) -> String {
        let at = self.dir.path();
        let output = Command::new("vtysh")
            .arg("--vty_socket")
            .arg(at.join("run"))
            .arg("--config_dir")
            .arg(at.join("etc"))
            .args(["-c", command])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The folder of its sockets, as its processes' command lines name it.
    pub fn socket_dir(&self) -> String {
        self.dir.path().join("run").display().to_string()
    }

    /// What it would start with.
    pub fn saved(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("etc/frr.conf")).unwrap_or_default()
    }
}

fn vtysh(at: &Path) -> String {
    format!("/usr/bin/vtysh --vty_socket {d}/run --config_dir {d}/etc", d = at.display())
}

impl Drop for Frr {
    fn drop(&mut self) {
        for file in &self.daemons {
            let mut pid = String::new();
            if let Ok(mut file) = std::fs::File::open(file) {
                let _ = file.read_to_string(&mut pid);
            }
            if let Ok(pid) = pid.trim().parse::<u32>() {
                let _ = Command::new("kill").arg(pid.to_string()).status();
            }
        }
    }
}
