//! A wire between the engine and its server that can lose what the server says.

#![allow(dead_code, clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

pub struct Proxy {
    pub port: u16,
    swallow: Arc<AtomicBool>,
    cut: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (swallow, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let (lose, end) = (Arc::clone(&swallow), Arc::clone(&cut));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (lose, end) = (Arc::clone(&lose), Arc::clone(&end));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let down = async {
                        let mut buffer = vec![0; 64 * 1024];
                        while let Ok(read) = from_server.read(&mut buffer).await {
                            if read == 0 {
                                return;
                            }
                            if !lose.load(Ordering::SeqCst)
                                && to_client.write_all(&buffer[..read]).await.is_err()
                            {
                                return;
                            }
                        }
                    };
                    tokio::select! {
                        () = down => {}
                        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                        () = end.notified() => {}
                    }
                });
            }
        });
        Self { port, swallow, cut, task }
    }

    /// From now on, or no more, the server's words are lost.
    pub fn swallow_answers(&self, on: bool) {
        self.swallow.store(on, Ordering::SeqCst);
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
