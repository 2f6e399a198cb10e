//! HTTP by hand, to ask what a proper client never would.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::host::wire::Location;

/// For an answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Bytes of an answer that are looked at.
const MOST: usize = 4 * 1024 * 1024;

/// An answer in its parts.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Raw {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value.as_str())
    }

    /// The status with the beginning of the text, for a finding.
    pub(super) fn shown(&self) -> String {
        let text: String = self.body.chars().take(120).collect();
        format!("{} {}", self.status, text.trim())
    }
}

/// Sends bytes and reads until the other side closes.
pub(super) async fn send(location: &Location, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let exchange = async {
        match location {
            Location::Unix(path) => talk(UnixStream::connect(path).await?, bytes).await,
            Location::Tcp(address, _) => talk(TcpStream::connect(address).await?, bytes).await,
        }
    };
    tokio::time::timeout(LIMIT, exchange)
        .await
        .map_err(|_| format!("no answer within {} s", LIMIT.as_secs()))?
        .map_err(|error| format!("the connection broke: {error}"))
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    let mut piece = vec![0; 16 * 1024];
    // Not every plugin closes the connection when it is asked to.
    while answer.len() < MOST && !complete(&answer) {
        match stream.read(&mut piece).await? {
            0 => break,
            read => answer.extend_from_slice(piece.get(..read).unwrap_or_default()),
        }
    }
    Ok(answer)
}

/// Whether an answer has come to its own end.
fn complete(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let value =
        |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    if value("transfer-encoding") == Some("chunked") {
        return answer.ends_with(b"0\r\n\r\n");
    }
    match value("content-length").and_then(|length| length.parse::<usize>().ok()) {
        Some(length) => answer.len() >= end + 4 + length,
        None => false,
    }
}

/// One request with these headers; its answer.
pub(super) async fn request(
    location: &Location,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Raw, String> {
    let mut text = format!(
        "{method} {path} HTTP/1.1\r\nhost: plugin\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    if !body.is_empty() {
        text.push_str("content-type: application/json\r\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    let answer = send(location, text.as_bytes()).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| format!("no HTTP answer: `{}`", answer.chars().take(80).collect::<String>()))?;
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or("no HTTP/1.1 status line")?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned()))
        .collect();
    Ok(Raw { status, headers, body: body.to_owned() })
}
