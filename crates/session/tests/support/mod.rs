//! An OpenSSH server for one test, and a small SSH server of our own for logins that a system's
//! accounts would be needed for.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A file out of `ssh-keygen`.
pub fn keygen(dir: &Path, name: &str, args: &[&str]) -> PathBuf {
    let path = dir.join(name);
    if !path.exists() {
        let done = Command::new("ssh-keygen").args(["-q", "-f"]).arg(&path).args(args).output().unwrap();
        assert!(done.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&done.stderr));
    }
    path
}

/// The user that the tests run as, and so the one they can log in as.
pub fn user() -> String {
    let done = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// A running `sshd` on loopback, ended when dropped.
pub struct Sshd {
    child: Child,
    pub port: u16,
    pub dir: tempfile::TempDir,
}

impl Sshd {
    /// Starts one that lets [`user`] in with the key `client` in its folder; `extra` is added to
    /// its configuration.
    pub fn start(extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        keygen(dir.path(), "host_ed", &["-t", "ed25519", "-N", ""]);
        keygen(dir.path(), "host_rsa", &["-t", "rsa", "-b", "2048", "-N", ""]);
        keygen(dir.path(), "client", &["-t", "ed25519", "-N", ""]);
        std::fs::copy(dir.path().join("client.pub"), dir.path().join("authorized_keys")).unwrap();
        Self::start_in(dir, extra)
    }

    /// As [`Sshd::start`], in a folder that has its keys.
    pub fn start_in(dir: tempfile::TempDir, extra: &str) -> Self {
        // Where sshd jails its unprivileged half when run as root.
        if user() == "root" {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let host_keys = if extra.contains("HostKey ") {
            String::new()
        } else {
            format!("HostKey {0}/host_ed\nHostKey {0}/host_rsa\n", dir.path().display())
        };
        let config = format!(
            "{extra}\n{host_keys}AuthorizedKeysFile {0}/authorized_keys\nPidFile none\nListenAddress 127.0.0.1\n\
             StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nMaxStartups 1000\nMaxSessions 100\nPerSourcePenalties no\n\
             UseDNS no\nPrintMotd no\nAcceptEnv LANG_TEST\n",
            dir.path().display()
        );
        for _ in 0..20 {
            // Another process may take the port between the two binds: then the next one is tried.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let file = dir.path().join("sshd_config");
            std::fs::write(&file, format!("Port {port}\n{}", supported(&config))).unwrap();
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
                // Nobody may be left waiting for a reader of the log.
                std::thread::spawn(move || lines.for_each(drop));
                return Self { child, port, dir };
            }
            child.wait().unwrap();
            assert!(said.iter().any(|l| l.contains("Bind to port")), "sshd did not start: {said:?}");
        }
        panic!("no free port for sshd");
    }

    /// The private key that is let in.
    pub fn client_key(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("client")).unwrap()
    }

    /// Lets the key in the file `name` in as well.
    pub fn authorize(&self, name: &str) {
        let public = std::fs::read_to_string(self.dir.path().join(format!("{name}.pub"))).unwrap();
        let file = self.dir.path().join("authorized_keys");
        let old = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, old + &public).unwrap();
    }

    /// Stops listening; connections that stand stay up.
    pub fn stop_listening(&mut self) -> u16 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.port
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // It may have been ended by the test already.
        let _ended = self.child.kill().is_err();
        let _reaped = self.child.wait().is_err();
    }
}

/// Options that only newer servers know are left out for older ones.
fn supported(config: &str) -> String {
    let version = Command::new("/usr/sbin/sshd").arg("-V").output().unwrap();
    let version = String::from_utf8_lossy(&version.stderr).into_owned();
    let number: f32 = version
        .split("OpenSSH_")
        .nth(1)
        .and_then(|v| v.split(|c: char| !c.is_ascii_digit() && c != '.').next())
        .and_then(|v| v.parse().ok())
        .unwrap_or(9.0);
    config
        .lines()
        .filter(|l| number >= 9.75 || !l.starts_with("PerSourcePenalties"))
        .map(|l| format!("{l}\n"))
        .collect()
}
