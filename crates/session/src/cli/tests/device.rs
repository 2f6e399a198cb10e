//! A device in memory: a function from what it is sent to what it answers, whose bytes come in
//! pieces of any size with pauses between them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use netpulse_model::ErrorCode;
use parking_lot::Mutex;

use crate::SessionError;
use crate::cli::{Login, Session};
use crate::platform::{Platform, Registry};
use crate::transport::Transport;

/// What a device does with what it receives.
pub trait Behave: Send {
    /// What it prints when the line opens.
    fn greet(&mut self) -> Vec<u8>;
    /// What it prints for these bytes; `None` hangs up.
    fn receive(&mut self, bytes: &[u8]) -> Option<Vec<u8>>;
}

pub struct Wire {
    device: Box<dyn Behave>,
    pieces: Box<dyn FnMut() -> usize + Send>,
    pause: Box<dyn FnMut() -> Duration + Send>,
    out: VecDeque<u8>,
    gone: bool,
    text_login: bool,
    pub sent: Arc<Mutex<Vec<u8>>>,
}

impl Wire {
    pub fn new(mut device: Box<dyn Behave>) -> Self {
        let out = device.greet().into();
        Self {
            device,
            pieces: Box::new(|| usize::MAX),
            pause: Box::new(|| Duration::ZERO),
            out,
            gone: false,
            text_login: false,
            sent: Arc::default(),
        }
    }

    /// In pieces of the sizes that `pieces` gives, `pause` apart.
    pub fn in_pieces(mut self, pause: Duration, pieces: impl FnMut() -> usize + Send + 'static) -> Self {
        self.pieces = Box::new(pieces);
        self.pause = Box::new(move || pause);
        self
    }

    /// In single bytes, each after the pause that `pause` gives.
    pub fn in_bytes(mut self, pause: impl FnMut() -> Duration + Send + 'static) -> Self {
        self.pieces = Box::new(|| 1);
        self.pause = Box::new(pause);
        self
    }

    /// Login is text.
    pub fn telnet(mut self) -> Self {
        self.text_login = true;
        self
    }

    pub async fn open(self, name: &str) -> Result<Session, SessionError> {
        let login = Login {
            label: "dut:22".into(),
            username: "ops".into(),
            password: "pass-word".into(),
            secret: Some("s3cret".into()),
            ..Login::default()
        };
        self.open_with(name, login).await
    }

    pub async fn open_with(self, name: &str, login: Login) -> Result<Session, SessionError> {
        Session::open(Box::new(self), platform(name), login).await
    }
}

pub fn platform(name: &str) -> Arc<Platform> {
    Registry::builtin().unwrap().platform(name).unwrap()
}

#[async_trait]
impl Transport for Wire {
    async fn send(&mut self, data: &[u8], _deadline: Duration) -> Result<(), SessionError> {
        if self.gone {
            return Err(SessionError::new(ErrorCode::SessionLost, "gone"));
        }
        self.sent.lock().extend_from_slice(data);
        match self.device.receive(data) {
            Some(bytes) => self.out.extend(bytes),
            None => self.gone = true,
        }
        Ok(())
    }

    async fn recv(&mut self) -> Option<Bytes> {
        if self.out.is_empty() {
            if self.gone {
                return None;
            }
            std::future::pending::<()>().await;
        }
        let pause = (self.pause)();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let size = (self.pieces)().clamp(1, self.out.len());
        Some(self.out.drain(..size).collect::<Vec<u8>>().into())
    }

    async fn probe(&mut self, _deadline: Duration) -> Result<(), SessionError> {
        if self.gone { Err(SessionError::new(ErrorCode::SessionLost, "gone")) } else { Ok(()) }
    }

    fn remote_version(&self) -> &str {
        "SSH-2.0-test"
    }

    fn end_reason(&self) -> Option<String> {
        None
    }

    fn authenticated(&self) -> bool {
        !self.text_login
    }

    async fn close(&mut self) {
        self.gone = true;
    }
}

/// A device that answers whole lines and echoes them.
pub struct Lines<F> {
    greeting: Vec<u8>,
    line: Vec<u8>,
    after_return: bool,
    answer: F,
}

/// `answer` gets each line and gives everything printed after the echo, prompt included;
/// `None` hangs up.
pub fn lines<F: FnMut(&str) -> Option<Vec<u8>> + Send + 'static>(
    greeting: &str,
    answer: F,
) -> Box<dyn Behave> {
    Box::new(Lines { greeting: greeting.as_bytes().to_vec(), line: Vec::new(), after_return: false, answer })
}

impl<F: FnMut(&str) -> Option<Vec<u8>> + Send> Behave for Lines<F> {
    fn greet(&mut self) -> Vec<u8> {
        self.greeting.clone()
    }

    fn receive(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for &byte in bytes {
            if std::mem::replace(&mut self.after_return, byte == b'\r') && byte == b'\n' {
                continue;
            }
            if byte == b'\n' || byte == b'\r' {
                out.extend_from_slice(b"\r\n");
                let line = String::from_utf8(std::mem::take(&mut self.line)).unwrap();
                out.extend((self.answer)(&line)?);
            } else if byte == 3 {
                self.line.clear();
                out.extend((self.answer)("\u{3}")?);
            } else {
                out.push(byte);
                self.line.push(byte);
            }
        }
        Some(out)
    }
}

/// An IOS-like device: three modes, paging commands, answers by the given function.
pub fn ios(mut answer: impl FnMut(&str, &str) -> Option<String> + Send + 'static) -> Box<dyn Behave> {
    let mut name = "R1".to_owned();
    let mut mode = "#".to_owned();
    lines("\r\nwelcome to R1> the router #1\r\nR1#", move |line| {
        let body = match line {
            "" => String::new(),
            "terminal width 511" | "terminal length 0" => String::new(),
            "configure terminal" => {
                mode = "(config)#".into();
                "Enter configuration commands, one per line.  End with CNTL/Z.\r\n".into()
            }
            "end" => {
                mode = "#".into();
                String::new()
            }
            "exit" if mode == "#" => return None,
            line => {
                if let Some(new) = line.strip_prefix("hostname ") {
                    name = new.to_owned();
                }
                if line.starts_with("interface ") {
                    mode = "(config-if)#".into();
                }
                if line == "\u{3}" { String::new() } else { answer(line, &mode)? }
            }
        };
        // A question stands without a prompt.
        let prompt = if body.ends_with(']') { String::new() } else { format!("{name}{mode}") };
        Some(format!("{body}{prompt}").into_bytes())
    })
}
