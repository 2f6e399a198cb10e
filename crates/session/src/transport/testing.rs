//! A transport for tests: the other end is the test itself, or a recording.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use netpulse_model::ErrorCode;
use tokio::sync::mpsc;

use super::Transport;
use crate::error::SessionError;

/// The device's end of a [`pair`].
pub struct Peer {
    to_client: Option<mpsc::UnboundedSender<Bytes>>,
    from_client: mpsc::UnboundedReceiver<Bytes>,
    received: Vec<u8>,
}

/// The client's end of a [`pair`].
pub struct InMemory {
    rx: mpsc::UnboundedReceiver<Bytes>,
    tx: mpsc::UnboundedSender<Bytes>,
    authenticated: bool,
}

/// A transport and the device at its other end. `authenticated` as [`Transport::authenticated`].
#[must_use]
pub fn pair(authenticated: bool) -> (InMemory, Peer) {
    let (to_client, rx) = mpsc::unbounded_channel();
    let (tx, from_client) = mpsc::unbounded_channel();
    (
        InMemory { rx, tx, authenticated },
        Peer { to_client: Some(to_client), from_client, received: Vec::new() },
    )
}

/// A transport that brings `recorded` in pieces of `size` bytes and then ends; what is sent to it
/// is dropped.
#[must_use]
pub fn replay(recorded: &[u8], size: usize) -> InMemory {
    let (transport, mut peer) = pair(true);
    for piece in recorded.chunks(size.max(1)) {
        peer.say(piece);
    }
    transport
}

impl Peer {
    /// Sends bytes to the client, in one piece.
    pub fn say(&mut self, bytes: &[u8]) {
        if let Some(to_client) = self.to_client.as_ref().filter(|_| !bytes.is_empty()) {
            // A client that has gone hears nothing, as over a network.
            let _gone = to_client.send(Bytes::copy_from_slice(bytes)).is_err();
        }
    }

    /// Sends bytes one at a time.
    pub fn spell(&mut self, bytes: &[u8]) {
        for byte in bytes.chunks(1) {
            self.say(byte);
        }
    }

    /// Waits until the client has sent `text` and takes everything up to and with it; `None` when
    /// the client left before.
    pub async fn hear(&mut self, text: &str) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.received, text.as_bytes()) {
                let rest = self.received.split_off(at + text.len());
                return Some(std::mem::replace(&mut self.received, rest));
            }
            self.received.extend_from_slice(&self.from_client.recv().await?);
        }
    }

    /// Takes what the client has sent since, without waiting.
    pub fn heard(&mut self) -> Vec<u8> {
        while let Ok(chunk) = self.from_client.try_recv() {
            self.received.extend_from_slice(&chunk);
        }
        std::mem::take(&mut self.received)
    }

    /// Ends the connection.
    pub fn hang_up(&mut self) {
        self.to_client = None;
    }
}

#[async_trait]
impl Transport for InMemory {
    async fn send(&mut self, data: &[u8], _deadline: Duration) -> Result<(), SessionError> {
        if self.rx.is_closed() && self.rx.is_empty() {
            return Err(SessionError::new(ErrorCode::SessionLost, "the session to the test device ended"));
        }
        // A device that no longer listens but has bytes under way looks alive to a sender.
        let _unheard = self.tx.send(Bytes::copy_from_slice(data)).is_err();
        Ok(())
    }

    async fn recv(&mut self) -> Option<Bytes> {
        self.rx.recv().await
    }

    async fn probe(&mut self, _deadline: Duration) -> Result<(), SessionError> {
        if self.rx.is_closed() {
            return Err(SessionError::new(ErrorCode::SessionLost, "the session to the test device ended"));
        }
        Ok(())
    }

    fn remote_version(&self) -> &str {
        "test"
    }

    fn end_reason(&self) -> Option<String> {
        self.rx.is_closed().then(|| "the test device hung up".to_owned())
    }

    fn authenticated(&self) -> bool {
        self.authenticated
    }

    async fn close(&mut self) {
        self.rx.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_device_played_by_the_test() {
        let (mut client, mut device) = pair(false);
        assert!(!client.authenticated());
        client.send(b"show ", Duration::from_secs(1)).await.unwrap();
        client.send(b"version\n and", Duration::from_secs(1)).await.unwrap();
        assert_eq!(device.hear("version\n").await.unwrap(), b"show version\n");
        assert_eq!(device.heard(), b" and");
        device.spell(b"ok");
        device.hang_up();
        assert_eq!((client.recv().await.unwrap(), client.recv().await.unwrap()), ("o".into(), "k".into()));
        assert!(client.recv().await.is_none() && client.send(b"x", Duration::from_secs(1)).await.is_err());
    }
}
