//! The server: socket, headers, health, idle exit, shutdown.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use netpulse_model::plugin::{NDJSON, StartConfig, header};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::command::duration;
use crate::idle::Work;
use crate::plugin::Plugin;
use crate::route::{App, Reply};
use crate::{Failure, log};

/// Bytes that a request may have.
const MAX_REQUEST: usize = 64 * 1024 * 1024;
/// For running requests when the plugin ends.
const DRAIN: Duration = Duration::from_secs(4);
/// For the head of a request.
const HEAD: Duration = Duration::from_secs(15);
/// How long a call may take when the host does not say.
const CALL: Duration = Duration::from_secs(300);

/// Prints a line on stdout; false when nobody reads it.
pub(crate) fn print(line: &str) -> bool {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

/// Serves until told to end, or idle for long enough.
pub(crate) fn run(plugin: Plugin, config: StartConfig) -> Result<(), String> {
    // Our host is gone when its guard is: nothing of us may stay.
    #[cfg(target_os = "linux")]
    if !config.start.is_empty()
        && let Err(error) =
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
    {
        log::debug(&format!("the end of the host will not be seen: {error}"));
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| format!("no threads: {e}"))?
        .block_on(serve(plugin, config))
}

enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

/// What every connection needs.
struct Shared {
    app: Arc<App>,
    work: Work,
    start: String,
    token: Option<String>,
}

async fn serve(plugin: Plugin, config: StartConfig) -> Result<(), String> {
    let work = Work::default();
    let app = Arc::new(App::new(plugin, &work));
    let token = match &config.token_file {
        Some(file) => Some(
            std::fs::read_to_string(file)
                .map_err(|e| format!("the token {file}: {e}"))?
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        ),
        None => None,
    };
    let (listener, location) = listen(&config)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    if !print(&location) {
        return Err("the host does not read where this plugin listens".to_owned());
    }
    let idle = config.idle_timeout.as_ref().and_then(duration).filter(|limit| !limit.is_zero());
    let idle = async {
        match idle {
            Some(limit) => work.idle(limit).await,
            None => std::future::pending().await,
        }
    };
    let shared = Arc::new(Shared { app: Arc::clone(&app), work: work.clone(), start: config.start, token });
    let connections = TaskTracker::new();
    let accepting = accept(&listener, &shared, &connections);
    tokio::select! {
        error = accepting => return Err(error),
        () = idle => log::debug("nothing to do for long enough"),
        () = app.shutdown.cancelled() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    app.shutdown.cancel();
    if let Listener::Unix(_, path) = &listener {
        // Nobody is to find a socket that nobody serves.
        let _ = std::fs::remove_file(path);
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        log::warn("requests were cut off at the end");
    }
    app.close().await;
    Ok(())
}

fn listen(config: &StartConfig) -> Result<(Listener, String), String> {
    let wrong = |e: std::io::Error| format!("cannot listen on {}: {e}", config.location);
    if config.kind == "tcp" {
        let place = if config.location.is_empty() { "127.0.0.1:0" } else { &config.location };
        // `:65454` is how the older form writes a port.
        let place =
            place.strip_prefix(':').map_or_else(|| place.to_owned(), |port| format!("127.0.0.1:{port}"));
        let place: SocketAddr = place.parse().map_err(|_| format!("`{place}` is no address and port"))?;
        if !place.ip().is_loopback() {
            return Err(format!("{place} is open to the network; a plugin listens on loopback only"));
        }
        let listener = std::net::TcpListener::bind(place).map_err(wrong)?;
        listener.set_nonblocking(true).map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        let listener = TcpListener::from_std(listener).map_err(wrong)?;
        return Ok((Listener::Tcp(listener), format!("http://{address}")));
    }
    let path = if config.location.is_empty() {
        std::env::temp_dir().join(format!("{}-{}.socket", config.id, std::process::id()))
    } else {
        PathBuf::from(&config.location)
    };
    remove_stale(&path).map_err(wrong)?;
    let listener = UnixListener::bind(&path).map_err(wrong)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(wrong)?;
    let location = format!("http+unix://{}", path.display());
    Ok((Listener::Unix(listener, path), location))
}

/// A socket that nobody serves is in the way; one that somebody does is not ours to remove.
fn remove_stale(path: &Path) -> std::io::Result<()> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(std::io::Error::new(std::io::ErrorKind::AddrInUse, "another plugin serves it"));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes connections for ever.
async fn accept(listener: &Listener, shared: &Arc<Shared>, connections: &TaskTracker) -> String {
    loop {
        let taken = match listener {
            Listener::Unix(listener, _) => match listener.accept().await {
                Ok((stream, _)) => {
                    connection(TokioIo::new(stream), shared, connections);
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Listener::Tcp(listener) => match listener.accept().await {
                Ok((stream, _)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        log::debug(&format!("no delay: {error}"));
                    }
                    connection(TokioIo::new(stream), shared, connections);
                    Ok(())
                }
                Err(error) => Err(error),
            },
        };
        if let Err(error) = taken {
            // Out of files, or a connection that broke at once: others may still come.
            log::warn(&format!("a connection was not taken: {error}"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn connection<T>(io: TokioIo<T>, shared: &Arc<Shared>, connections: &TaskTracker)
where
    TokioIo<T>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let shared = Arc::clone(shared);
    connections.spawn(async move {
        let ending = shared.app.shutdown.clone();
        let service = service_fn(move |request| {
            let shared = Arc::clone(&shared);
            async move { Ok::<_, Infallible>(answer(&shared, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = ending.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended
            && error.is_parse()
        {
            log::debug(&format!("a connection was no HTTP: {error}"));
        }
    });
}

/// A body: whole, or a stream that ends its work when it is dropped.
enum Out {
    Whole(Full<Bytes>),
    Stream(mpsc::Receiver<Bytes>, #[allow(dead_code)] DropGuard),
}

impl Body for Out {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx),
            Self::Stream(lines, _) => lines.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Stream(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Stream(..) => SizeHint::default(),
        }
    }
}

fn text(status: StatusCode, message: &str) -> Response<Out> {
    let mut response = Response::new(Out::Whole(Full::new(Bytes::from(message.to_owned()))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json(value: &serde_json::Value) -> Response<Out> {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Out::Whole(Full::new(Bytes::from(body))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn failure(failure: &Failure) -> Response<Out> {
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = text(status, &failure.message);
    if let Some(code) = failure.code {
        response.headers_mut().insert(header::ERROR, HeaderValue::from_static(code.as_str()));
    }
    response
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Out> {
    let _busy = (request.uri().path() != "/healthz").then(|| shared.work.begin());
    let number = request.headers().get(header::REQUEST).cloned();
    let work = AssertUnwindSafe(handle(shared, request)).catch_unwind();
    let mut response = work.await.unwrap_or_else(|_| {
        log::error("a handler panicked");
        text(StatusCode::INTERNAL_SERVER_ERROR, "the plugin's handler panicked")
    });
    let headers = response.headers_mut();
    if let Ok(start) = HeaderValue::from_str(&shared.start) {
        headers.insert(header::START, start);
    }
    if let Some(number) = number {
        headers.insert(header::REQUEST, number);
    }
    response
}

async fn handle(shared: &Shared, request: Request<Incoming>) -> Response<Out> {
    let head = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if let Some(token) = &shared.token
        && !bool::from(token.as_bytes().ct_eq(head(header::TOKEN).as_bytes()))
    {
        return text(StatusCode::UNAUTHORIZED, "the token is missing or wrong");
    }
    let meant = head(header::START);
    if !meant.is_empty() && !shared.start.is_empty() && meant != shared.start {
        return text(StatusCode::CONFLICT, "this is another start of the plugin");
    }
    let path = request.uri().path().to_owned();
    if path == "/healthz" {
        return if matches!(*request.method(), Method::GET | Method::HEAD) {
            json(&shared.app.health())
        } else {
            not_allowed("GET, HEAD")
        };
    }
    if !shared.app.knows(&path) {
        return text(StatusCode::NOT_FOUND, &format!("no endpoint {path}"));
    }
    if request.method() != Method::POST {
        return not_allowed("POST");
    }
    let timeout = head(header::TIMEOUT).parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    let deadline = Instant::now() + timeout.unwrap_or(CALL).min(Duration::from_secs(86_400));
    let ndjson = head(ACCEPT.as_str()).contains(NDJSON);
    let body = match Limited::new(request.into_body(), MAX_REQUEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return text(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body cannot be read: {error}"));
        }
    };
    match shared.app.post(&path, &body, deadline, ndjson).await {
        Ok(Reply::Json(value)) => json(&value),
        Ok(Reply::Stream(lines, abandoned)) => {
            let mut response = Response::new(Out::Stream(lines, CancellationToken::drop_guard(abandoned)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
            response
        }
        Err(error) => failure(&error),
    }
}

fn not_allowed(methods: &'static str) -> Response<Out> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, &format!("use {methods}"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}
