//! A terminal on an SSH connection.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use netpulse_model::ErrorCode;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::time::{Instant, timeout, timeout_at};

use super::SshConnection;
use crate::error::SessionError;
use crate::transport::inbox::{Filler, Inbox, NotTaken, inbox};
use crate::transport::{Pty, Transport};

impl SshConnection {
    /// Opens a terminal with the user's login shell.
    ///
    /// # Errors
    /// `HandshakeFailed`, when the device opens none within `deadline`; `SessionLost`.
    pub async fn shell(&self, pty: &Pty, deadline: Duration) -> Result<Box<dyn Transport>, SessionError> {
        let end = Instant::now() + deadline;
        let channel = self.open_channel(deadline).await?;
        let (mut read, write) = channel.split();
        let refused =
            |what: &str| SessionError::new(ErrorCode::HandshakeFailed, format!("{} {what}", self.place()));
        // Both requests go out at once, as OpenSSH's client does: one round trip less.
        let asked = async {
            write
                .request_pty(true, &pty.term, u32::from(pty.width), u32::from(pty.height), 0, 0, &[])
                .await?;
            write.request_shell(true).await
        };
        let opened = async {
            asked.await.map_err(|error| self.lost(&self.why(&error.to_string())))?;
            let mut granted = 0;
            let mut early = Vec::new();
            while granted < 2 {
                match read.wait().await {
                    Some(ChannelMsg::Success) => granted += 1,
                    Some(ChannelMsg::Failure) if granted == 0 => {
                        return Err(refused("gives no terminal to this user"));
                    }
                    Some(ChannelMsg::Failure) => return Err(refused("gives no shell to this user")),
                    Some(ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. }) => {
                        early.push(data)
                    }
                    Some(ChannelMsg::Close | ChannelMsg::Eof) | None => {
                        return Err(
                            self.lost(&self.why("the device closed the terminal as soon as it was opened"))
                        );
                    }
                    Some(_) => {}
                }
                if !early.is_empty() {
                    // Some devices start to talk and answer the requests later, or never.
                    break;
                }
            }
            Ok(early)
        };
        let early = match timeout_at(end, opened).await {
            Ok(opened) => opened?,
            Err(_) => {
                return Err(refused(&format!("opened no terminal within {} s", deadline.as_secs_f32())));
            }
        };
        let (filler, inbox) = inbox();
        tokio::spawn(drain(read, early, filler, self.inner.peer.clone()));
        Ok(Box::new(Shell { connection: self.clone(), write, inbox }))
    }
}

/// Moves what the channel brings into the inbox, until either ends.
async fn drain(
    mut read: ChannelReadHalf,
    early: Vec<Bytes>,
    filler: Filler,
    peer: std::sync::Arc<super::Peer>,
) {
    for data in early {
        if filler.put(data).await.is_err() {
            return;
        }
    }
    loop {
        let message = tokio::select! {
            message = read.wait() => message,
            () = filler.abandoned() => return,
        };
        match message {
            Some(ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. }) => {
                match filler.put(data).await {
                    Ok(()) => {}
                    Err(NotTaken::NobodyThere) => return,
                    Err(NotTaken::Flooded) => {
                        return peer.ended("the device sent more than anybody read; it was cut off");
                    }
                }
            }
            Some(ChannelMsg::Close | ChannelMsg::Eof) => {
                peer.end.lock().get_or_insert_with(|| "the device closed the terminal".to_owned());
                return;
            }
            Some(_) => {}
            None => return,
        }
    }
}

/// A terminal.
struct Shell {
    connection: SshConnection,
    write: ChannelWriteHalf<Msg>,
    inbox: Inbox,
}

#[async_trait]
impl Transport for Shell {
    async fn send(&mut self, data: &[u8], deadline: Duration) -> Result<(), SessionError> {
        match timeout(deadline, self.write.data_bytes(Bytes::copy_from_slice(data))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.connection.lost(&self.connection.why(&error.to_string()))),
            Err(_) => Err(SessionError::new(
                ErrorCode::ReadTimeout,
                format!("{} took no data for {} s", self.connection.place(), deadline.as_secs_f32()),
            )),
        }
    }

    async fn recv(&mut self) -> Option<Bytes> {
        self.inbox.take().await
    }

    async fn probe(&mut self, deadline: Duration) -> Result<(), SessionError> {
        self.connection.probe(deadline).await
    }

    fn remote_version(&self) -> &str {
        self.connection.remote_version()
    }

    fn end_reason(&self) -> Option<String> {
        self.connection.inner.peer.end.lock().clone().or_else(|| self.connection.end_reason())
    }

    fn authenticated(&self) -> bool {
        true
    }

    async fn close(&mut self) {
        self.inbox.shut();
        self.connection.close().await;
    }
}
