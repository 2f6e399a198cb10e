//! One call: HTTP/1.1 over the plugin's socket, with a deadline, limits, and a check that the
//! answer is the answer to this very request of this very start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use netpulse_model::plugin::{NDJSON, header};
use parking_lot::Mutex;
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroizing;

/// Bytes that a request may have.
pub const MAX_REQUEST: usize = 64 * 1024 * 1024;
/// Bytes of an error's text that are kept.
const MAX_TEXT: usize = 8 * 1024;
/// Connections kept for the next calls.
const KEPT: usize = 64;
/// For the socket to take a connection.
const DIAL: Duration = Duration::from_secs(5);

/// Where a start listens.
#[derive(Debug, Clone)]
pub(crate) enum Location {
    Unix(PathBuf),
    Tcp(SocketAddr, Zeroizing<String>),
}

/// Why a call gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallError {
    /// The plugin never saw it.
    NotSent(String),
    /// It was sent, and no answer came: it may have been done.
    Lost(String),
    /// No answer in time.
    Late(String),
    /// It answered with an error.
    Refused { status: u16, code: Option<String>, text: String },
    /// What it answered is no answer: too large, cut short, not JSON, of another request.
    Nonsense(String),
}

impl CallError {
    /// The reason as a sentence without a subject.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::NotSent(text) | Self::Lost(text) | Self::Late(text) | Self::Nonsense(text) => text.clone(),
            Self::Refused { status, text, .. } if text.is_empty() => format!("answered {status}"),
            Self::Refused { text, .. } => text.clone(),
        }
    }
}

/// What is needed to speak to a start.
pub(crate) struct Wire {
    location: Location,
    start: String,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    number: AtomicU64,
    max_answer: usize,
}

/// An answer whose body is still to be read.
pub(crate) struct Answer {
    pub(crate) streamed: bool,
    body: Incoming,
    deadline: Instant,
    max: usize,
    buffer: BytesMut,
    read: usize,
}

impl Wire {
    pub(crate) fn new(location: Location, start: String, max_answer: usize) -> Self {
        Self { location, start, idle: Mutex::default(), number: AtomicU64::new(1), max_answer }
    }

    /// Dials; over a Unix socket the other side must be of our own user.
    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, CallError> {
        let cannot = |e: std::io::Error| CallError::NotSent(format!("does not take connections: {e}"));
        let late = |_| CallError::NotSent("does not take connections in time".to_owned());
        match &self.location {
            Location::Unix(path) => {
                let stream = tokio::time::timeout(DIAL, connect_unix(path)).await.map_err(late)?;
                let stream = stream.map_err(cannot)?;
                let peer = stream.peer_cred().map_err(cannot)?.uid();
                let own = rustix::process::geteuid().as_raw();
                if peer != own {
                    return Err(CallError::NotSent(format!(
                        "listens as user {peer}, and NetPulse runs as {own}: nothing was sent"
                    )));
                }
                shake(TokioIo::new(stream)).await
            }
            Location::Tcp(address, _) => {
                let stream = tokio::time::timeout(DIAL, TcpStream::connect(address)).await.map_err(late)?;
                let stream = stream.map_err(cannot)?;
                stream.set_nodelay(true).map_err(cannot)?;
                shake(TokioIo::new(stream)).await
            }
        }
    }

    /// A kept connection that is ready, or none.
    async fn kept(&self) -> Option<SendRequest<Full<Bytes>>> {
        loop {
            let mut sender = self.idle.lock().pop()?;
            if !sender.is_closed() && sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        number: u64,
        left: Duration,
        stream: bool,
    ) -> Result<Request<Full<Bytes>>, CallError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "plugin")
            .header(header::START, &self.start)
            .header(header::REQUEST, number)
            .header(header::TIMEOUT, format!("{:.3}", left.as_secs_f64()));
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if stream {
            request = request.header(ACCEPT, NDJSON);
        }
        if let Location::Tcp(_, token) = &self.location {
            request = request.header(header::TOKEN, token.as_str());
        }
        request
            .body(Full::new(body))
            .map_err(|e| CallError::NotSent(format!("the request cannot be written: {e}")))
    }

    /// Sends a request and reads the head of its answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        deadline: Instant,
        stream: bool,
    ) -> Result<(Answer, Returning), CallError> {
        if body.len() > MAX_REQUEST {
            return Err(CallError::NotSent(format!(
                "the request has {} bytes and may have {MAX_REQUEST}",
                body.len()
            )));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let late = || CallError::Late(format!("did not answer within {:.1} s", left.as_secs_f64()));
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let mut request = self.request(method, path, Bytes::from(body), number, left, stream)?;
        let exchange = async {
            let mut fresh = false;
            loop {
                let mut sender = match self.kept().await {
                    Some(sender) => sender,
                    None => {
                        fresh = true;
                        self.dial().await?
                    }
                };
                match sender.try_send_request(request).await {
                    Ok(response) => return Ok((response, sender)),
                    Err(mut error) => match error.take_message() {
                        // Never written: the plugin had closed an idle connection.
                        Some(unsent) if !fresh => request = unsent,
                        Some(_) => {
                            return Err(CallError::NotSent(format!(
                                "closed the connection: {}",
                                error.error()
                            )));
                        }
                        None => {
                            return Err(CallError::Lost(format!(
                                "broke the connection before it answered: {}",
                                error.error()
                            )));
                        }
                    },
                }
            }
        };
        let (response, sender) =
            tokio::time::timeout_at(deadline.into(), exchange).await.map_err(|_| late())??;
        let answer = self.check(response, number, deadline).await?;
        Ok((answer, Returning(sender)))
    }

    /// Whether the head of an answer is one: ours, of a known length, and not an error.
    async fn check(
        &self,
        response: Response<Incoming>,
        number: u64,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let (head, body) = response.into_parts();
        let text = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let start = text(header::START);
        if start != self.start {
            let what = if start.is_empty() { "no start".to_owned() } else { format!("the start {start}") };
            return Err(CallError::Nonsense(format!("answered for {what}, not for {}", self.start)));
        }
        let answered = text(header::REQUEST);
        if answered != number.to_string() {
            return Err(CallError::Nonsense(format!("answered request `{answered}`, not request {number}")));
        }
        if body.size_hint().exact().is_none() && !head.headers.contains_key(TRANSFER_ENCODING) {
            return Err(CallError::Nonsense("answered without saying how long its answer is".to_owned()));
        }
        let code = Some(text(header::ERROR).to_owned()).filter(|code| !code.is_empty());
        let streamed = text(CONTENT_TYPE.as_str()).starts_with(NDJSON);
        let ok = head.status == StatusCode::OK;
        let max = if ok { self.max_answer } else { MAX_TEXT };
        if ok && body.size_hint().lower() > max as u64 {
            return Err(too_large(max));
        }
        let mut answer = Answer { streamed, body, deadline, max, buffer: BytesMut::new(), read: 0 };
        if ok {
            return Ok(answer);
        }
        let text = match answer.whole().await {
            Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
            Err(CallError::Nonsense(_)) => String::from_utf8_lossy(&answer.buffer).trim().to_owned(),
            Err(other) => return Err(other),
        };
        Err(CallError::Refused { status: head.status.as_u16(), code, text })
    }

    /// Keeps a connection for the next call.
    pub(crate) fn keep(&self, returning: Returning) {
        let mut idle = self.idle.lock();
        if idle.len() < KEPT && !returning.0.is_closed() {
            idle.push(returning.0);
        }
    }
}

/// Connects to a Unix socket. One whose queue is full refuses at once, and nothing tells when there
/// is room.
async fn connect_unix(path: &Path) -> std::io::Result<UnixStream> {
    let mut pause = Duration::from_millis(1);
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

/// A connection whose answer was read to its end; without that it is not to be used again.
pub(crate) struct Returning(SendRequest<Full<Bytes>>);

async fn shake<T>(io: TokioIo<T>) -> Result<SendRequest<Full<Bytes>>, CallError>
where
    TokioIo<T>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) =
        handshake(io).await.map_err(|e| CallError::NotSent(format!("does not speak HTTP/1.1: {e}")))?;
    tokio::spawn(async move {
        // The call itself reports what breaks.
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a connection to a plugin ended");
        }
    });
    Ok(sender)
}

fn too_large(max: usize) -> CallError {
    CallError::Nonsense(format!("answered with more than {max} bytes (`plugin.max_answer`)"))
}

impl Answer {
    /// The next piece of the body; none at its proper end.
    async fn piece(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            let frame = tokio::time::timeout_at(self.deadline.into(), self.body.frame())
                .await
                .map_err(|_| CallError::Late("did not end its answer in time".to_owned()))?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|e| {
                CallError::Lost(format!("broke off its answer after {} bytes: {e}", self.read))
            })?;
            if let Ok(data) = frame.into_data() {
                self.read += data.len();
                if self.read > self.max {
                    return Err(too_large(self.max));
                }
                return Ok(Some(data));
            }
        }
    }

    /// The whole body.
    pub(crate) async fn whole(&mut self) -> Result<Bytes, CallError> {
        let Some(first) = self.piece().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.piece().await? else { return Ok(first) };
        self.buffer.extend_from_slice(&first);
        self.buffer.extend_from_slice(&second);
        while let Some(more) = self.piece().await? {
            self.buffer.extend_from_slice(&more);
        }
        Ok(self.buffer.split().freeze())
    }

    /// The next line of a streamed body; none at its end.
    pub(crate) async fn line(&mut self) -> Result<Option<Bytes>, CallError> {
        let mut searched = 0;
        loop {
            let at = self.buffer.get(searched..).and_then(|new| new.iter().position(|b| *b == b'\n'));
            if let Some(at) = at {
                let line = self.buffer.split_to(searched + at + 1).freeze();
                if line.iter().all(u8::is_ascii_whitespace) {
                    searched = 0;
                    continue;
                }
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            match self.piece().await? {
                Some(more) => self.buffer.extend_from_slice(&more),
                None if self.buffer.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                None => return Ok(Some(self.buffer.split().freeze())),
            }
        }
    }
}
