//! The server: sockets, TLS, limits on connections and slow clients, and an orderly end.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use netpulse_config::Server;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// From connection, or from the last answer, to the end of the next request's headers.
const HEADERS: Duration = Duration::from_secs(30);
/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest that a client may leave an answer unread.
const UNREAD: Duration = Duration::from_secs(60);
/// Headers of one request.
const MAX_HEADERS: usize = 100;
/// Bytes of one request's head, and of the read buffer.
const MAX_HEAD: usize = 64 * 1024;
/// Rest after the system refused another connection (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server did not come up.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A certificate or key that is not there or none.
    #[error("{file} ({key}): {reason}; give a PEM file")]
    Pem {
        /// The file.
        file: PathBuf,
        /// The configuration key that names it.
        key: &'static str,
        /// What was wrong.
        reason: String,
    },
    /// One of the two files only.
    #[error("`server.tls_cert` and `server.tls_key` belong together: give both, or neither for plain HTTP")]
    HalfTls,
    /// Certificate and key do not fit.
    #[error("the certificate and the key do not fit together: {0}")]
    Tls(#[from] rustls::Error),
}

/// Serves `router` on `listener` until `shutdown`, then lets requests finish for at most `drain`.
///
/// HTTPS when the configuration names a certificate. Past `server.max_connections` further ones
/// wait in the kernel's queue.
///
/// # Errors
/// A certificate or key that cannot be used; nothing has been accepted then.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: &Server,
    shutdown: CancellationToken,
    drain: Duration,
) -> Result<(), ServeError> {
    let tls = acceptor(config)?;
    if tls.is_none() && listener.local_addr().is_ok_and(|address| !address.ip().is_loopback()) {
        tracing::warn!(
            "listening beyond this machine without TLS: keys and device passwords cross the network in clear; \
             set `server.tls_cert` and `server.tls_key`, or put a TLS proxy in front"
        );
    }
    let slots = Arc::new(Semaphore::new(config.max_connections.max(1)));
    let tasks = TaskTracker::new();
    let abort = CancellationToken::new();
    loop {
        let slot = tokio::select! {
            () = shutdown.cancelled() => break,
            Ok(slot) = slots.clone().acquire_owned() => slot,
        };
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // A client that left meanwhile is nobody's problem; a full table passes.
                    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                        tracing::warn!(%error, "no connection could be accepted; trying again");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            },
        };
        let (router, tls) = (router.clone(), tls.clone());
        let (shutdown, abort) = (shutdown.clone(), abort.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = connection(stream, tls, router, shutdown) => {}
                () = abort.cancelled() => {}
            }
            drop(slot);
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(drain, tasks.wait()).await.is_err() {
        tracing::warn!(
            open = tasks.len(),
            seconds = drain.as_secs(),
            "requests did not finish in time; closing them"
        );
        abort.cancel();
        tasks.wait().await;
    }
    Ok(())
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was closed before it began");
        return;
    }
    match tls {
        None => http(Patient::new(stream), router, shutdown).await,
        Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => http(Patient::new(stream), router, shutdown).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took longer than {} s", HANDSHAKE.as_secs()),
        },
    }
}

async fn http<S>(stream: S, router: Router, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| router.clone().call(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

fn acceptor(config: &Server) -> Result<Option<TlsAcceptor>, ServeError> {
    let (cert, key) = match (&config.tls_cert, &config.tls_key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        _ => return Err(ServeError::HalfTls),
    };
    let pem = |file: &Path, key, reason: String| ServeError::Pem { file: file.to_owned(), key, reason };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|error| pem(cert, "server.tls_cert", error.to_string()))?;
    if chain.is_empty() {
        return Err(pem(cert, "server.tls_cert", "holds no certificate".into()));
    }
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| pem(key, "server.tls_key", error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(tls))))
}

/// A stream whose writes fail once the other side has read nothing for [`UNREAD`]: an answer that
/// nobody reads must not be held for ever.
struct Patient<S> {
    inner: S,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(inner: S) -> Self {
        Self { inner, stalled: None }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let deadline =
            self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + UNREAD)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client did not read its answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.judge(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.judge(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.judge(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
