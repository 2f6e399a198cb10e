//! The event stream, read piece by piece and resumed where it broke.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use netpulse_model::JobId;
use netpulse_model::api::GapBody;
use netpulse_model::event::{Event, EventId, What};
use reqwest::Method;

use crate::{Client, ClientError};

/// The server sends a comment every 15 s; after so long without one it is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// Longest text of one event.
const LONGEST: usize = 4 * 1024 * 1024;
/// Tries in a row before a broken connection counts.
const TRIES: u32 = 5;

/// An item of the stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Happened {
    /// Something happened to a job.
    Event(Box<Event>),
    /// Events before this one are no longer kept; the jobs themselves still tell the truth.
    Gap(EventId),
}

/// What happens, as it happens. Ends with the job when it follows one.
pub struct Events {
    client: Client,
    job: Option<JobId>,
    after: Option<u64>,
    body: Option<BoxStream<'static, Result<Bytes, reqwest::Error>>>,
    lines: Lines,
    ready: VecDeque<Happened>,
    failures: u32,
    over: bool,
}

impl Events {
    pub(crate) fn new(client: Client, job: Option<JobId>, after: Option<u64>) -> Self {
        Self {
            client,
            job,
            after,
            body: None,
            lines: Lines::default(),
            ready: VecDeque::new(),
            failures: 0,
            over: false,
        }
    }

    /// The next item; none when the job has ended. A broken connection is opened again where it
    /// broke; only when that fails several times in a row is it an error. Safe to drop and call again.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<Happened>, ClientError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                if let Happened::Event(event) = &item {
                    self.after = Some(event.id.0);
                    self.over = self.job.is_some() && matches!(event.what, What::Ended { .. });
                }
                return Ok(Some(item));
            }
            if self.over {
                return Ok(None);
            }
            if let Err(error) = self.fill().await {
                self.body = None;
                self.lines = Lines::default();
                self.failures += 1;
                if !error.is_temporary() || self.failures >= TRIES {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_millis(100 << self.failures)).await;
            }
        }
    }

    async fn fill(&mut self) -> Result<(), ClientError> {
        let lost = |reason: &str| ClientError::Unreachable {
            url: self.client.base.clone(),
            reason: reason.to_owned(),
        };
        let Some(body) = &mut self.body else {
            self.body = Some(self.open().await?);
            return Ok(());
        };
        match tokio::time::timeout(SILENCE, body.next()).await {
            Err(_) => Err(lost("the event stream fell silent")),
            Ok(None) => Err(lost("the event stream ended")),
            Ok(Some(Err(error))) => Err(ClientError::transport(&self.client.base, &error)),
            Ok(Some(Ok(chunk))) => {
                self.failures = 0;
                self.lines.push(&chunk, &mut self.ready)
            }
        }
    }

    async fn open(&self) -> Result<BoxStream<'static, Result<Bytes, reqwest::Error>>, ClientError> {
        let id = self.job.map(|id| id.to_string()).unwrap_or_default();
        let path: &[&str] = if self.job.is_some() { &["/jobs/", &id, "/events"] } else { &["/events"] };
        let url = format!("{}{}", self.client.base, path.concat());
        // Not the ordinary request: it may last for ever.
        let mut request = self.client.http.request(Method::GET, url);
        if let Some(after) = self.after {
            request = request.header("last-event-id", after);
        }
        let response = tokio::time::timeout(SILENCE, self.client.send(request)).await.map_err(|_| {
            ClientError::Unreachable {
                url: self.client.base.clone(),
                reason: "the event stream did not open".into(),
            }
        })??;
        Ok(response.bytes_stream().boxed())
    }
}

/// The text of the stream, cut into events however the bytes are split.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    name: String,
    data: String,
}

impl Lines {
    fn push(&mut self, chunk: &[u8], ready: &mut VecDeque<Happened>) -> Result<(), ClientError> {
        for byte in chunk {
            if *byte != b'\n' {
                self.rest.push(*byte);
                if self.rest.len() > LONGEST {
                    return Err(ClientError::Broken(format!("an event is longer than {LONGEST} bytes")));
                }
                continue;
            }
            let line = std::mem::take(&mut self.rest);
            let line = String::from_utf8_lossy(&line);
            self.line(line.trim_end_matches('\r'), ready)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str, ready: &mut VecDeque<Happened>) -> Result<(), ClientError> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            if data.is_empty() {
                return Ok(());
            }
            let broken = |error: serde_json::Error| {
                ClientError::Broken(format!("an event could not be read: {error}"))
            };
            ready.push_back(if name == "gap" {
                Happened::Gap(serde_json::from_str::<GapBody>(&data).map_err(broken)?.before)
            } else {
                Happened::Event(Box::new(serde_json::from_str(&data).map_err(broken)?))
            });
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // `id` is in the data as well; an empty field name is a comment.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_however_the_bytes_are_split() {
        let id = "6c0e9d0e-7f6f-4a0e-b7e7-2f2f6d9d1e55";
        let text = format!(
            ": keep-alive\n\nid: 7\nevent: queued\ndata: {{\"id\":7,\"at\":\"2026-02-03T04:05:06Z\",\"job\":\"{id}\",\"device\":\"é\",\"event\":\"queued\",\"queue\":\"FifoQ\"}}\n\nevent: gap\r\ndata: {{\"before\":9}}\r\n\r\n"
        );
        for size in [1, 2, 3, 7, text.len()] {
            let mut lines = Lines::default();
            let mut ready = VecDeque::new();
            for chunk in text.as_bytes().chunks(size) {
                lines.push(chunk, &mut ready).unwrap();
            }
            assert_eq!(ready.len(), 2, "{size}");
            assert!(
                matches!(&ready[0], Happened::Event(e) if e.id.0 == 7 && e.device.as_deref() == Some("é"))
            );
            assert_eq!(ready[1], Happened::Gap(EventId(9)));
        }
    }
}
