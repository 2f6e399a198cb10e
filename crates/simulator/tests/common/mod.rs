//! A plain russh client that reads until a text comes, for driving devices as a person would.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Handle};
use russh::{Channel, ChannelMsg};
use tokio::time::timeout;

pub const LONG: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
pub struct Client {
    pub key: Arc<parking_lot::Mutex<Option<String>>>,
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        *self.key.lock() = Some(format!("{key:?}"));
        Ok(true)
    }
}

pub struct Shell {
    pub handle: Handle<Client>,
    pub channel: Channel<client::Msg>,
    pub seen: Vec<u8>,
    pub key: String,
}

pub async fn connect(to: SocketAddr) -> Result<(Handle<Client>, String), russh::Error> {
    let config = Arc::new(client::Config { nodelay: true, ..Default::default() });
    let client = Client::default();
    let key = client.key.clone();
    let mut handle = timeout(LONG, client::connect(config, to, client)).await.expect("connect in time")?;
    let auth = timeout(LONG, handle.authenticate_password("admin", "admin")).await.expect("auth in time")?;
    if !auth.success() {
        let answer = handle.authenticate_keyboard_interactive_start("admin", None).await?;
        if let client::KeyboardInteractiveAuthResponse::InfoRequest { .. } = answer {
            let answer = handle.authenticate_keyboard_interactive_respond(vec!["admin".into()]).await?;
            if matches!(answer, client::KeyboardInteractiveAuthResponse::Success) {
                let key = key.lock().clone().unwrap_or_default();
                return Ok((handle, key));
            }
        }
        return Err(russh::Error::NotAuthenticated);
    }
    let key = key.lock().clone().unwrap_or_default();
    Ok((handle, key))
}

impl Shell {
    pub async fn open(to: SocketAddr) -> Result<Shell, russh::Error> {
        let (handle, key) = connect(to).await?;
        let channel = handle.channel_open_session().await?;
        channel.request_pty(true, "vt100", 511, 24, 0, 0, &[]).await?;
        channel.request_shell(true).await?;
        Ok(Shell { handle, channel, seen: Vec::new(), key })
    }

    pub async fn send(&self, text: &str) {
        self.channel.data_bytes(text.as_bytes().to_vec()).await.unwrap();
    }

    /// Reads until the text after the last call ends with `end` (any one of them when split by `||`).
    pub async fn until(&mut self, end: &str) -> String {
        let ends: Vec<&str> = end.split("||").collect();
        let read = async {
            loop {
                let text = String::from_utf8_lossy(&self.seen).into_owned();
                if ends.iter().any(|e| text.ends_with(e)) {
                    self.seen.clear();
                    return text;
                }
                match self.channel.wait().await {
                    Some(ChannelMsg::Data { data }) => self.seen.extend_from_slice(&data),
                    Some(_) => {}
                    None => panic!("closed while waiting for {end:?}; had {text:?}"),
                }
            }
        };
        match timeout(LONG, read).await {
            Ok(text) => text,
            Err(_) => panic!("no {end:?} within {LONG:?}; had {:?}", String::from_utf8_lossy(&self.seen)),
        }
    }

    /// Sends a line and reads until `end`.
    pub async fn line(&mut self, line: &str, end: &str) -> String {
        self.send(&format!("{line}\r")).await;
        self.until(end).await
    }

    /// Reads until the device closes; what came.
    pub async fn closed(&mut self) -> String {
        let read = async {
            while let Some(msg) = self.channel.wait().await {
                if let ChannelMsg::Data { data } = msg {
                    self.seen.extend_from_slice(&data);
                }
            }
        };
        timeout(LONG, read).await.expect("closes in time");
        String::from_utf8_lossy(&std::mem::take(&mut self.seen)).into_owned()
    }
}
