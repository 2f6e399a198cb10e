//! Real command lines behind a real OpenSSH server: bash, and FRRouting's vtysh.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use netpulse_driver::connect::ConnectSettings;
use netpulse_driver::netmiko::Netmiko;
use netpulse_model::{ConnectionArgs, ExecutionRequest, ExecutionResult};
use netpulse_plugin::{Driver, DriverSession, Report, Run, Watch, Work};
use netpulse_session::platform::Registry;
use netpulse_session::transport::hostkeys::HostKeys;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn keygen(dir: &Path, name: &str) {
    let done = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(name)).output().unwrap();
    assert!(done.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&done.stderr));
}

/// A running server, ended when dropped.
pub struct Device {
    sshd: Child,
    daemons: Vec<Child>,
    pub port: u16,
    pub dir: tempfile::TempDir,
}

impl Device {
    /// OpenSSH with bash for a shell.
    pub fn bash() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("rc"), "PS1='ops@box:\\w\\$ '\n").unwrap();
        let shell = format!("/bin/bash --rcfile {}/rc -i", dir.path().display());
        Self::start(dir, &shell, Vec::new())
    }

    /// OpenSSH with vtysh for a shell, and one routing daemon behind it.
    pub fn frr() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        open(dir.path());
        let folder = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            open(&path);
            path.display().to_string()
        };
        let (run, config) = (folder("run"), folder("cfg"));
        std::fs::write(format!("{config}/vtysh.conf"), "service integrated-vtysh-config\n").unwrap();
        let daemon = Command::new("/usr/lib/frr/staticd")
            .args(["--vty_socket", &run, "-z", &format!("{run}/zserv.api"), "-i", &format!("{run}/staticd.pid")])
            .args(["-f", &format!("{config}/staticd.conf"), "-P", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("FRRouting is needed: apt-get install frr");
        let began = Instant::now();
        while !Path::new(&format!("{run}/staticd.vty")).exists() {
            assert!(began.elapsed() < Duration::from_secs(10), "staticd did not start");
            std::thread::yield_now();
        }
        let shell = format!("/usr/bin/vtysh --vty_socket {run} --config_dir {config}");
        Self::start(dir, &shell, vec![daemon])
    }

    fn start(dir: tempfile::TempDir, shell: &str, daemons: Vec<Child>) -> Self {
        keygen(dir.path(), "host");
        keygen(dir.path(), "client");
        std::fs::copy(dir.path().join("client.pub"), dir.path().join("authorized_keys")).unwrap();
        std::fs::create_dir_all("/run/sshd").unwrap();
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let file = dir.path().join("sshd_config");
            std::fs::write(
                &file,
                format!(
                    "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized_keys\n\
                     PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n\
                     UseDNS no\nPrintMotd no\nForceCommand {shell}\n",
                    dir.path().display()
                ),
            )
            .unwrap();
            let mut child = Command::new("/usr/sbin/sshd")
                .args(["-D", "-e", "-f"])
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("OpenSSH's server is needed: apt-get install openssh-server");
            let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
            let mut said = Vec::new();
            let listens = loop {
                match lines.next() {
                    Some(Ok(line)) if line.contains("Server listening on") => break true,
                    Some(Ok(line)) => said.push(line),
                    _ => break false,
                }
            };
            if listens {
                std::thread::spawn(move || lines.for_each(drop));
                return Self { sshd: child, daemons, port, dir };
            }
            child.wait().unwrap();
            assert!(said.iter().any(|l| l.contains("Bind to port")), "sshd did not start: {said:?}");
        }
        panic!("no free port for sshd");
    }

    /// How to reach it as `device_type`.
    pub fn args(&self, device_type: &str) -> ConnectionArgs {
        let user = Command::new("id").arg("-un").output().unwrap();
        let key = std::fs::read_to_string(self.dir.path().join("client")).unwrap();
        object(json!({"device_type": device_type, "host": "127.0.0.1", "port": self.port, "password": "",
            "username": String::from_utf8(user.stdout).unwrap().trim(), "pkey": key}))
    }

    /// Ends the shells of everybody who is logged in, as a reboot does.
    pub fn hang_up(&mut self) {
        let children = Command::new("pkill").args(["-9", "-P", &self.sshd.id().to_string()]).status().unwrap();
        assert!(children.success());
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        for child in std::iter::once(&mut self.sshd).chain(&mut self.daemons) {
            let _ended = child.kill().is_err();
            let _reaped = child.wait().is_err();
        }
    }
}

pub fn object(value: Value) -> ConnectionArgs {
    ConnectionArgs(value.as_object().unwrap().clone())
}

pub fn driver() -> Netmiko {
    Netmiko::new(ConnectSettings::new(HostKeys::in_memory()), Registry::builtin().unwrap())
}

/// Remembers what it was told; `deny` lines are forbidden.
#[derive(Default)]
pub struct Log {
    pub sent: Mutex<Vec<String>>,
    pub answered: Mutex<Vec<ExecutionResult>>,
    pub deny: Option<String>,
    pub cancel_after: Option<(usize, CancellationToken)>,
}

impl Watch for Log {
    fn sending(&self, _index: usize, _total: usize, line: &str) -> bool {
        if self.deny.as_deref() == Some(line) {
            return false;
        }
        self.sent.lock().push(line.to_owned());
        true
    }

    fn answered(&self, index: usize, _total: usize, result: &ExecutionResult) {
        self.answered.lock().push(result.clone());
        if let Some((after, token)) = &self.cancel_after
            && index == *after {
                token.cancel();
            }
    }
}

/// Does what the request body says over an open session.
pub async fn run(session: &mut dyn DriverSession, body: Value, reused: bool, log: &Log, cancel: CancellationToken) -> Report {
    let mut whole = json!({"driver": "netmiko", "connection_args": {"host": "x"}});
    for (key, value) in body.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let request = ExecutionRequest::read(&whole, 300).unwrap();
    let items = request.payload().items();
    let work = match request.kind() {
        netpulse_model::JobKind::Query => Work::Commands(items),
        netpulse_model::JobKind::Modification => Work::Config(items),
    };
    session.run(Run { request: &request, work, watch: log, cancel, fence: CancellationToken::new(), reused }).await
}

/// The same, with nobody watching.
pub async fn ask(session: &mut dyn DriverSession, body: Value) -> Report {
    run(session, body, true, &Log::default(), CancellationToken::new()).await
}

pub async fn connect(args: &ConnectionArgs) -> Box<dyn DriverSession> {
    driver().connect(args).await.unwrap()
}
