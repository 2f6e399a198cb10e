//! A real redis-server for a test: on a free loopback port, in a folder of its own, ended by its
//! process id.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use netpulse_queue::{Clock, RedisOptions, SealKey};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server that ends with its handle.
pub struct Server {
    child: std::sync::Mutex<Option<Child>>,
    /// The whole command line of a sentinel; of a server only what it has besides.
    arguments: Vec<String>,
    sentinel: bool,
    environment: Vec<(String, PathBuf)>,
    pub port: u16,
    pub folder: TempDir,
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts a server that keeps what it acknowledged, with `more` arguments.
    pub async fn start(more: &[&str]) -> Self {
        Self::start_on(free_port(), more).await
    }

    pub async fn start_on(port: u16, more: &[&str]) -> Self {
        Self::start_in(port, more, &[]).await
    }

    /// The same with these variables in its environment.
    pub async fn start_in(port: u16, more: &[&str], environment: &[(&str, &Path)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments = more.iter().map(|word| (*word).to_owned()).collect();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), v.to_path_buf())).collect();
        let child = std::sync::Mutex::new(None);
        let server = Self { child, arguments, sentinel: false, environment, port, folder };
        server.restart().await;
        server
    }

    /// Starts a sentinel that watches the master at a port.
    pub async fn sentinel(port: u16, master: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor mymaster 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 3000\n",
            folder.path().display()
        );
        std::fs::write(&file, text).unwrap();
        let arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
        let child = std::sync::Mutex::new(None);
        let server = Self { child, arguments, sentinel: true, environment: Vec::new(), port, folder };
        server.restart().await;
        server
    }

    /// Starts it (again) on the same folder and port.
    pub async fn restart(&self) {
        let mut command = Command::new("redis-server");
        command.envs(self.environment.iter().map(|(k, v)| (k, v)));
        if self.sentinel {
            command.args(&self.arguments);
        } else {
            self.plain(&mut command);
        }
        let child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("redis-server is installed");
        *self.child.lock().unwrap() = Some(child);
        self.wait().await;
    }

    fn plain(&self, command: &mut Command) {
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"])
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.arguments);
    }

    async fn wait(&self) {
        let end = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(answer) = self.try_admin(None, &["PING"]).await
                && !answer.contains("LOADING")
            {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "the server does not come up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it as a power cut would end its process.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends a signal to its process.
    pub fn signal(&self, name: &str) {
        let id = self.child.lock().unwrap().as_ref().expect("it runs").id();
        assert!(
            Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status().unwrap().success()
        );
    }

    pub fn options(&self) -> RedisOptions {
        RedisOptions {
            host: "127.0.0.1".into(),
            port: self.port,
            keys: vec![SealKey::new([7; 32])],
            instance: "test".into(),
            clock: Clock::default(),
            ..RedisOptions::default()
        }
    }

    pub async fn admin(&self, words: &[&str]) -> String {
        self.admin_as(None, words).await
    }

    pub async fn admin_as(&self, user: Option<(&str, &str)>, words: &[&str]) -> String {
        let answer = self.try_admin(user, words).await.unwrap();
        assert!(!answer.starts_with('-'), "{words:?}: {answer}");
        answer
    }

    /// One command over a connection of its own; the answer as it came.
    pub async fn try_admin(&self, user: Option<(&str, &str)>, words: &[&str]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        if let Some((name, password)) = user {
            exchange(&mut stream, &["AUTH", name, password]).await?;
        }
        exchange(&mut stream, words).await
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

async fn exchange(stream: &mut TcpStream, words: &[&str]) -> std::io::Result<String> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        let read = stream.read(&mut answer[length..]).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        length += read;
        if answer[..length].ends_with(b"\r\n") {
            return Ok(String::from_utf8_lossy(&answer[..length]).into_owned());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
