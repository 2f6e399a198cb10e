//! The SSH side of a device.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::ssh_key::PublicKey;
use russh::server::{Auth, ChannelOpenHandle, Handle, Handler, Msg, Response, Session};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Pty};
use tokio::sync::mpsc;

use crate::device::{ConnGuard, Reach};
use crate::drive::{Sink, drive};
use crate::journal::Kind;
use crate::vty::{Op, Reply, Vty};

/// What serves a channel.
enum Chan {
    /// Opened; whether a terminal was asked for, and its environment.
    New { pty: bool, env: Vec<(String, String)> },
    /// Served where the bytes arrive.
    Here(Box<Vty>),
    /// Served by a task, because something takes time.
    Task(mpsc::UnboundedSender<Vec<u8>>),
}

pub(crate) struct SshConn {
    guard: Arc<ConnGuard>,
    user: String,
    channels: HashMap<ChannelId, Chan>,
}

struct SshSink {
    handle: Handle,
    channel: ChannelId,
}

impl Sink for SshSink {
    async fn send(&mut self, bytes: Vec<u8>, error: bool) -> bool {
        if error {
            self.handle.extended_data(self.channel, 1, bytes).await.is_ok()
        } else {
            self.handle.data(self.channel, bytes).await.is_ok()
        }
    }

    async fn exit(&mut self, status: u32) {
        // The client may be gone already; then there is nobody to tell.
        let _ = self.handle.exit_status_request(self.channel, status).await;
        let _ = self.handle.eof(self.channel).await;
        let _ = self.handle.close(self.channel).await;
    }
}

/// The methods of a persona; all three when it names none.
pub(crate) fn methods(names: &[String]) -> MethodSet {
    let all = [MethodKind::PublicKey, MethodKind::Password, MethodKind::KeyboardInteractive];
    let kinds: Vec<MethodKind> = all
        .into_iter()
        .filter(|k| names.is_empty() || names.iter().any(|n| n == <&'static str>::from(k)))
        .collect();
    MethodSet::from(kinds.as_slice())
}

impl SshConn {
    pub(crate) fn new(guard: Arc<ConnGuard>) -> SshConn {
        SshConn { guard, user: String::new(), channels: HashMap::new() }
    }

    async fn check(&mut self, user: &str, good: bool) -> Auth {
        let device = &self.guard.device;
        let faults = device.faults();
        if faults.slow_login_ms > 0 {
            tokio::time::sleep(Duration::from_millis(faults.slow_login_ms)).await;
        }
        if good && !faults.refuse_login {
            device.journal.add(device.index, self.guard.number, Kind::Login, user, "", "");
            self.user = device.plain_user(user).to_owned();
            return Auth::Accept;
        }
        device.journal.add(device.index, self.guard.number, Kind::LoginFailed, user, "", "");
        Auth::reject()
    }

    /// Does what can be done on the spot; hands over to a task when something takes time.
    fn act(
        &mut self,
        channel: ChannelId,
        mut vty: Box<Vty>,
        mut reply: Reply,
        input: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let split = vty.faults().map_or(0, |f| f.split);
        let mut left = input;
        loop {
            let slow = reply.ops.iter().any(Op::timed) || split > 0 && !reply.ops.is_empty();
            if slow {
                let (tx, rx) = mpsc::unbounded_channel();
                self.channels.insert(channel, Chan::Task(tx));
                let sink = SshSink { handle: session.handle(), channel };
                let cut = self.guard.cut.clone();
                tokio::spawn(drive(*vty, reply.ops, left.to_vec(), rx, sink, cut));
                return Ok(());
            }
            for op in reply.ops.drain(..) {
                match op {
                    Op::Out(bytes) => session.data(channel, bytes)?,
                    Op::Err(bytes) => session.extended_data(channel, 1, bytes)?,
                    Op::Exit(status) => {
                        session.exit_status_request(channel, status)?;
                        session.eof(channel)?;
                        session.close(channel)?;
                        self.channels.remove(&channel);
                        return Ok(());
                    }
                    Op::Cut => {
                        self.guard.cut.now();
                        return Ok(());
                    }
                    Op::Wait(_) | Op::Rows(..) | Op::Flood | Op::Hang => {}
                }
            }
            if left.is_empty() {
                self.channels.insert(channel, Chan::Here(vty));
                return Ok(());
            }
            let used = vty.feed(left, &mut reply);
            left = &left[used..];
        }
    }
}

impl Handler for SshConn {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let good = self
            .guard
            .device
            .access
            .users
            .get(self.guard.device.plain_user(user))
            .is_some_and(|p| p == password);
        Ok(self.check(user, good).await)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let Some(mut response) = response else {
            return Ok(Auth::Partial {
                name: "".into(),
                instructions: "".into(),
                prompts: vec![("Password: ".into(), false)].into(),
            });
        };
        let given = response.next().map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
        let good = self
            .guard
            .device
            .access
            .users
            .get(self.guard.device.plain_user(user))
            .is_some_and(|p| *p == given);
        Ok(self.check(user, good).await)
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: russh::server::VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let access = &self.guard.device.access;
        let known = access
            .keys
            .iter()
            .any(|k| PublicKey::from_openssh(k).is_ok_and(|k| k.key_data() == key.public_key.key_data()));
        let good = access.users.contains_key(self.guard.device.plain_user(user)) && (access.any_key || known);
        Ok(self.check(user, good).await)
    }

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        let banner = &self.guard.device.persona.spec.login.banner;
        Ok((!banner.is_empty()).then(|| banner.clone()))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), Chan::New { pty: false, env: Vec::new() });
        reply.accept().await;
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _col_width: u32,
        _row_height: u32,
        _pix_width: u32,
        _pix_height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(Chan::New { pty, .. }) = self.channels.get_mut(&channel) {
            *pty = true;
        }
        session.channel_success(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.channels.get_mut(&channel) {
            Some(Chan::New { env, .. }) if self.guard.device.persona.spec.shell => {
                env.push((name.to_owned(), value.to_owned()));
                session.channel_success(channel)
            }
            _ => session.channel_failure(channel),
        }
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        let Some(Chan::New { pty, env }) = self.channels.remove(&channel) else {
            return session.channel_failure(channel);
        };
        session.channel_success(channel)?;
        let mut vty = Box::new(Vty::new(self.guard.clone(), &self.user, pty));
        vty.environment(&env);
        self.guard.device.reach(self.guard.number, Reach::Ssh(session.handle(), channel));
        let mut reply = Reply::default();
        vty.open(true, &mut reply);
        self.act(channel, vty, reply, &[], session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(Chan::New { pty, env }) = self.channels.remove(&channel) else {
            return session.channel_failure(channel);
        };
        session.channel_success(channel)?;
        let mut vty = Box::new(Vty::new(self.guard.clone(), &self.user, pty));
        vty.environment(&env);
        let mut reply = Reply::default();
        vty.exec(&String::from_utf8_lossy(data), &mut reply);
        self.act(channel, vty, reply, &[], session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        _c: u32,
        _r: u32,
        _w: u32,
        _h: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.channels.remove(&channel) {
            Some(Chan::Here(mut vty)) => {
                let mut reply = Reply::default();
                let used = vty.feed(data, &mut reply);
                self.act(channel, vty, reply, &data[used..], session)
            }
            Some(Chan::Task(tx)) => {
                // A task that has ended takes nothing more.
                if tx.send(data.to_vec()).is_ok() {
                    self.channels.insert(channel, Chan::Task(tx));
                }
                Ok(())
            }
            Some(new) => {
                self.channels.insert(channel, new);
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn channel_eof(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        if let Some(Chan::Here(_)) = self.channels.get(&channel) {
            self.channels.remove(&channel);
            session.exit_status_request(channel, 0)?;
            session.close(channel)?;
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&channel);
        Ok(())
    }
}
