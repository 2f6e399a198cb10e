//! A cable between a process and Redis that can be cut, or swallow everything.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cable {
    /// Everything passes.
    Whole,
    /// Nothing passes, nobody is told.
    Swallows,
    /// Every connection breaks, and new ones too.
    Cut,
}

pub struct Proxy {
    pub port: u16,
    state: Arc<watch::Sender<Cable>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// A cable to this port of loopback.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let state = Arc::new(watch::Sender::new(Cable::Whole));
        let seen = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let mut now = seen.subscribe();
                if *now.borrow() == Cable::Cut {
                    continue;
                }
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    let (mut near_in, mut near_out) = near.into_split();
                    let (mut far_in, mut far_out) = far.into_split();
                    let (up, down) = (now.clone(), now.clone());
                    tokio::select! {
                        () = pass(&mut near_in, &mut far_out, up) => {}
                        () = pass(&mut far_in, &mut near_out, down) => {}
                        _ = now.wait_for(|cable| *cable == Cable::Cut) => {}
                    }
                });
            }
        });
        Self { port: own, state, task }
    }

    pub fn set(&self, cable: Cable) {
        self.state.send_replace(cable);
    }
}

async fn pass(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut now: watch::Receiver<Cable>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        // What was on its way while the cable swallowed arrives late, as TCP does.
        if now.wait_for(|cable| *cable == Cable::Whole).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
}
