//! Opening a TCP connection to a device, with an error that says what to look at.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use netpulse_model::ErrorCode;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::error::SessionError;

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn place(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Connects within `limit`, trying each address of the name in turn, without Nagle's delay.
///
/// # Errors
/// `ConnectFailed`, with what the network said.
pub(super) async fn connect(host: &str, port: u16, limit: Duration) -> Result<TcpStream, SessionError> {
    let place = place(host, port);
    let end = Instant::now() + limit;
    let failed = |text: String| SessionError::new(ErrorCode::ConnectFailed, text);
    let seconds = limit.as_secs_f32();
    let addresses: Vec<SocketAddr> = match timeout_at(end, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => {
            return Err(failed(format!(
                "the name `{host}` does not resolve ({error}): check `host`, or the name server of the machine NetPulse runs on"
            )));
        }
        Err(_) => {
            return Err(failed(format!(
                "the name `{host}` did not resolve within {seconds} s: check the name server of the machine NetPulse runs on"
            )));
        }
    };
    let mut last = None;
    for address in addresses {
        match timeout_at(end, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // A terminal's small writes must not wait for one another; a socket that cannot
                // be told so still works.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%address, %error, "no TCP_NODELAY");
                }
                return Ok(stream);
            }
            Ok(Err(error)) => last = Some(error),
            Err(_) => {
                return Err(failed(format!(
                    "{place} did not answer within {seconds} s: check address, route and firewall, or raise `conn_timeout`"
                )));
            }
        }
    }
    Err(failed(match last {
        Some(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                format!(
                    "{place} refused the connection: nothing listens on that port, or an access list rejects this machine"
                )
            }
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                format!("{place} is unreachable ({error}): check route and gateway")
            }
            io::ErrorKind::TimedOut => {
                format!("{place} did not answer: check address, route and firewall")
            }
            _ => format!("no connection to {place}: {error}"),
        },
        None => format!("the name `{host}` has no address"),
    }))
}
