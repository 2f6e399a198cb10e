//! The Telnet side of a device: option negotiation (RFC 854, 855, 857, 858, 1073, 1091), then the same terminal line.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::device::{ConnGuard, Reach};
use crate::drive::{Sink, drive};
use crate::vty::{Reply, Vty};
use crate::wire::Wire;

const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SB: u8 = 250;
const SE: u8 = 240;
const ECHO: u8 = 1;
const SGA: u8 = 3;
const TTYPE: u8 = 24;
const NAWS: u8 = 31;

/// Takes Telnet apart: data bytes on one side, answers on the other.
#[derive(Debug, Default)]
pub(crate) struct Options {
    state: u8,
    verb: u8,
    sub: Vec<u8>,
}

impl Options {
    /// What the server says first: it will echo and suppress go-ahead, and asks for terminal and window size.
    pub(crate) fn greeting() -> Vec<u8> {
        vec![IAC, WILL, ECHO, IAC, WILL, SGA, IAC, DO, TTYPE, IAC, DO, NAWS]
    }

    /// Reads `input`; data goes to `data`, replies to `answer`.
    pub(crate) fn read(&mut self, input: &[u8], data: &mut Vec<u8>, answer: &mut Vec<u8>) {
        for &b in input {
            match self.state {
                0 if b == IAC => self.state = 1,
                0 => data.push(b),
                1 => match b {
                    IAC => {
                        data.push(IAC);
                        self.state = 0;
                    }
                    WILL | WONT | DO | DONT => {
                        self.verb = b;
                        self.state = 2;
                    }
                    SB => {
                        self.sub.clear();
                        self.state = 3;
                    }
                    // Break and interrupt process act as Ctrl-C; the rest (NOP, AYT, GA) is nothing to a VTY.
                    243 | 244 => {
                        data.push(3);
                        self.state = 0;
                    }
                    _ => self.state = 0,
                },
                2 => {
                    match (self.verb, b) {
                        // Agreed already, or agreed to what was asked.
                        (DO | DONT, ECHO | SGA) | (WILL | WONT, TTYPE | NAWS) | (WONT | DONT, _) => {}
                        (WILL, SGA) => answer.extend([IAC, DO, SGA]),
                        (DO, other) => answer.extend([IAC, WONT, other]),
                        (WILL, other) => answer.extend([IAC, DONT, other]),
                        _ => {}
                    }
                    if self.verb == WILL && b == TTYPE {
                        answer.extend([IAC, SB, TTYPE, 1, IAC, SE]);
                    }
                    self.state = 0;
                }
                3 if b == IAC => self.state = 4,
                3 => {
                    // A window size or a terminal's name is short; more is not kept.
                    if self.sub.len() < 256 {
                        self.sub.push(b);
                    }
                }
                _ => self.state = if b == SE { 0 } else { 3 },
            }
        }
    }
}

struct TelnetSink {
    out: mpsc::Sender<Vec<u8>>,
}

impl Sink for TelnetSink {
    async fn send(&mut self, bytes: Vec<u8>, _error: bool) -> bool {
        let mut escaped = Vec::with_capacity(bytes.len());
        for b in bytes {
            escaped.push(b);
            if b == IAC {
                escaped.push(IAC);
            }
        }
        self.out.send(escaped).await.is_ok()
    }

    async fn exit(&mut self, _status: u32) {
        // An empty packet is the sign to finish: what was sent before it still goes out.
        let _ = self.out.send(Vec::new()).await;
    }
}

/// Serves one Telnet connection until it ends.
pub(crate) async fn serve(wire: Wire, guard: Arc<ConnGuard>) {
    let cut = guard.cut.clone();
    let (mut reader, mut writer) = tokio::io::split(wire);
    let (out_tx, mut out_rx) = mpsc::channel::<Vec<u8>>(16);
    let (in_tx, in_rx) = mpsc::unbounded_channel();
    let (note_tx, mut note_rx) = mpsc::unbounded_channel();
    guard.device.reach(guard.number, Reach::Telnet(note_tx));
    if out_tx.send(Options::greeting()).await.is_err() {
        return;
    }
    let mut vty = Vty::new(guard.clone(), "", true);
    let mut reply = Reply::default();
    vty.open(false, &mut reply);
    let sink = TelnetSink { out: out_tx.clone() };
    let session = drive(vty, reply.ops, Vec::new(), in_rx, sink, cut);
    let write = async {
        loop {
            let bytes = tokio::select! {
                bytes = out_rx.recv() => bytes,
                note = note_rx.recv() => note,
            };
            match bytes {
                Some(bytes) if !bytes.is_empty() => {
                    if writer.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
                _ => {
                    // Already closed by the other side is as good.
                    let _ = writer.shutdown().await;
                    break;
                }
            }
        }
    };
    let read = async {
        let mut options = Options::default();
        let mut buffer = vec![0u8; 2048];
        while let Ok(n @ 1..) = reader.read(&mut buffer).await {
            let (mut data, mut answer) = (Vec::new(), Vec::new());
            options.read(&buffer[..n], &mut data, &mut answer);
            if !answer.is_empty() && out_tx.send(answer).await.is_err() {
                break;
            }
            if !data.is_empty() && in_tx.send(data).is_err() {
                break;
            }
        }
    };
    // The first that ends, ends all: a session that says goodbye does so through the writer.
    let session = async {
        session.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = write => {}
        () = read => {}
        () = session => {}
    }
}
