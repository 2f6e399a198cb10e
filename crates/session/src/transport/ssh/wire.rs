//! The stream under an SSH connection: keeps the device's first line, and can be cut from outside.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// Bytes before the version line that are looked at.
const MAX_GREETING: usize = 4096;

/// Whatever carries bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Ends a stream that its owner's task may be stuck in.
#[derive(Default)]
struct Cut {
    done: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Cut {
    fn now(&self) {
        self.done.store(true, Ordering::Release);
        self.reader.wake();
        self.writer.wake();
    }

    fn check(&self, waker: &AtomicWaker, cx: &Context<'_>) -> io::Result<()> {
        waker.register(cx.waker());
        if self.done.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "closed by NetPulse"));
        }
        Ok(())
    }
}

/// Cuts its stream when dropped, wherever the stream's task then is: in a key exchange that never
/// ends, in a write to a peer that is gone.
pub(super) struct CutOnDrop(Arc<Cut>);

impl CutOnDrop {
    /// Both directions fail from now on.
    pub(super) fn now(&self) {
        self.0.now();
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.now();
    }
}

/// What the device sent first.
#[derive(Default)]
pub(super) struct Greeting {
    seen: Mutex<Vec<u8>>,
    complete: AtomicBool,
    version_seen: Notify,
}

impl Greeting {
    /// The line that begins with `SSH-`.
    pub(super) fn version(&self) -> Option<String> {
        let seen = self.seen.lock();
        let line =
            seen.split_inclusive(|b| *b == b'\n').find(|l| l.starts_with(b"SSH-") && l.ends_with(b"\n"))?;
        Some(String::from_utf8_lossy(line).trim_end().chars().filter(|c| !c.is_control()).take(200).collect())
    }

    /// The first bytes, printable; none when nothing came.
    pub(super) fn excerpt(&self) -> Option<String> {
        let seen = self.seen.lock();
        if seen.is_empty() {
            return None;
        }
        let head = &seen[..seen.len().min(80)];
        Some(String::from_utf8_lossy(head).trim_end().escape_debug().collect())
    }

    /// Resolves when the version line has come.
    pub(super) async fn version_seen(&self) {
        if !self.complete.load(Ordering::Acquire) {
            self.version_seen.notified().await;
        }
    }

    fn note(&self, bytes: &[u8]) {
        let mut seen = self.seen.lock();
        let room = MAX_GREETING.saturating_sub(seen.len());
        seen.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let full = seen.len() >= MAX_GREETING;
        drop(seen);
        let version = self.version().is_some();
        if version || full {
            self.complete.store(true, Ordering::Release);
            let mut seen = self.seen.lock();
            seen.shrink_to_fit();
        }
        if version {
            self.version_seen.notify_one();
        }
    }
}

/// A stream that is watched and can be cut.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    cut: Arc<Cut>,
    greeting: Arc<Greeting>,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>) -> (Self, CutOnDrop, Arc<Greeting>) {
        let (cut, greeting) = (Arc::<Cut>::default(), Arc::<Greeting>::default());
        (Self { stream, cut: Arc::clone(&cut), greeting: Arc::clone(&greeting) }, CutOnDrop(cut), greeting)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.cut.check(&self.cut.reader, cx)?;
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if !self.greeting.complete.load(Ordering::Relaxed) && buf.filled().len() > before {
            self.greeting.note(&buf.filled()[before..]);
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.cut.check(&self.cut.writer, cx)?;
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cut.check(&self.cut.writer, cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
