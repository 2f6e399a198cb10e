//! Telnet as a transport: data with every negotiation taken out. The login is text, for the
//! conversation to answer.

mod codec;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use netpulse_model::ErrorCode;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::inbox::{Filler, Inbox, NotTaken, inbox};
use super::{Pty, Transport, tcp};
use crate::error::SessionError;

pub use codec::Codec;

/// Bytes read from the socket at a time.
const READ: usize = 4096;

/// Longest wait for a peer to take the answer to its own negotiation.
const ANSWER: Duration = Duration::from_secs(10);

/// Connects to `host:port` within `connect_timeout`.
///
/// # Errors
/// `ConnectFailed`, with what the network said.
pub async fn connect(
    host: &str,
    port: u16,
    pty: &Pty,
    connect_timeout: Duration,
) -> Result<Box<dyn Transport>, SessionError> {
    let stream = tcp::connect(host, port, connect_timeout).await?;
    let (read, write) = stream.into_split();
    let (filler, inbox) = inbox();
    let shared = Arc::new(Shared {
        codec: Mutex::new(Codec::new(&pty.term, pty.width, pty.height)),
        write: tokio::sync::Mutex::new(write),
        end: Mutex::new(None),
    });
    let stop = CancellationToken::new();
    tokio::spawn(drain(read, filler, Arc::clone(&shared), stop.clone()));
    Ok(Box::new(Telnet { place: tcp::place(host, port), inbox, shared, stop: Some(stop.drop_guard()) }))
}

struct Shared {
    codec: Mutex<Codec>,
    write: tokio::sync::Mutex<OwnedWriteHalf>,
    end: Mutex<Option<String>>,
}

impl Shared {
    fn ended(&self, why: impl Into<String>) {
        self.end.lock().get_or_insert_with(|| why.into());
    }
}

/// Reads the socket until it ends or nobody wants its data.
async fn drain(mut read: OwnedReadHalf, filler: Filler, shared: Arc<Shared>, stop: CancellationToken) {
    let work = async {
        let mut buffer = vec![0; READ];
        let (mut data, mut reply) = (Vec::new(), Vec::new());
        loop {
            let count = match read.read(&mut buffer).await {
                Ok(0) => return shared.ended("the device closed the connection"),
                Ok(count) => count,
                Err(error) => return shared.ended(format!("the connection broke: {error}")),
            };
            shared.codec.lock().receive(&buffer[..count], &mut data, &mut reply);
            if !reply.is_empty() {
                let sent = async { shared.write.lock().await.write_all(&reply).await };
                match tokio::time::timeout(ANSWER, sent).await {
                    Ok(Ok(())) => reply.clear(),
                    Ok(Err(error)) => return shared.ended(format!("the connection broke: {error}")),
                    Err(_) => return shared.ended("the device negotiates but takes no answer"),
                }
            }
            match filler.put(Bytes::copy_from_slice(&data)).await {
                Ok(()) => data.clear(),
                Err(NotTaken::NobodyThere) => return,
                Err(NotTaken::Flooded) => {
                    return shared.ended("the device sent more than anybody read; it was cut off");
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = filler.abandoned() => {}
        () = work => {}
    }
}

/// A Telnet connection.
struct Telnet {
    place: String,
    inbox: Inbox,
    shared: Arc<Shared>,
    stop: Option<DropGuard>,
}

impl Telnet {
    fn lost(&self) -> SessionError {
        let why = self.shared.end.lock().clone().unwrap_or_else(|| "the connection was closed".to_owned());
        SessionError::new(ErrorCode::SessionLost, format!("telnet session to {} ended: {why}", self.place))
    }

    async fn write(&self, wire: &[u8], deadline: Duration) -> Result<(), SessionError> {
        if self.shared.end.lock().is_some() {
            return Err(self.lost());
        }
        let sent = async { self.shared.write.lock().await.write_all(wire).await };
        match tokio::time::timeout(deadline, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.shared.ended(format!("the connection broke: {error}"));
                Err(self.lost())
            }
            Err(_) => {
                // Part of it may be out: nothing sensible can follow on this connection.
                self.shared.ended("the device took no more data");
                Err(SessionError::new(
                    ErrorCode::ReadTimeout,
                    format!("{} took no data for {} s", self.place, deadline.as_secs_f32()),
                ))
            }
        }
    }
}

#[async_trait]
impl Transport for Telnet {
    async fn send(&mut self, data: &[u8], deadline: Duration) -> Result<(), SessionError> {
        let mut wire = Vec::new();
        self.shared.codec.lock().encode(data, &mut wire);
        self.write(&wire, deadline).await
    }

    async fn recv(&mut self) -> Option<Bytes> {
        self.inbox.take().await
    }

    async fn probe(&mut self, deadline: Duration) -> Result<(), SessionError> {
        const IAC_NOP: [u8; 2] = [255, 241];
        self.write(&IAC_NOP, deadline).await
    }

    fn remote_version(&self) -> &str {
        "telnet"
    }

    fn end_reason(&self) -> Option<String> {
        self.shared.end.lock().clone()
    }

    fn authenticated(&self) -> bool {
        false
    }

    async fn close(&mut self) {
        self.shared.ended("closed by NetPulse");
        self.inbox.shut();
        // A peer that takes nothing must not hold us; the socket closes either way.
        let shut = async { self.shared.write.lock().await.shutdown().await };
        if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(1), shut).await {
            tracing::debug!(place = %self.place, %error, "telnet shutdown");
        }
        self.stop = None;
    }
}
