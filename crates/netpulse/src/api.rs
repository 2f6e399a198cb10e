//! The server as the commands see it: which one, with which key, and its refusals in words.
//!
//! Answers are handed on as JSON values: `--output json` prints what the server said, whole.

use std::time::Duration;

use netpulse_client::{Client, ClientError, Events, Happened, JobFilter, Options, WorkerFilter};
use netpulse_model::JobId;
use netpulse_model::event::Event;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Global;
use crate::exit::{Exit, Failure};
use crate::profile::{DEFAULT_URL, Profile};

/// Tries for a question that the server did not answer, as while it restarts: about ten seconds.
const TRIES: u32 = 6;

/// A server with the key to it.
pub struct Api {
    client: Client,
    profile: Profile,
}

impl Api {
    /// By flags, environment and profile, in this order.
    pub fn connect(global: &Global) -> Result<Self, Failure> {
        let profile = Profile::find(global.profile.as_deref())?;
        let url = global.url.as_deref().or(profile.base_url.as_deref()).unwrap_or(DEFAULT_URL);
        let key = global.api_key.as_deref().or(profile.api_key.as_deref()).unwrap_or_default();
        let mut builder = Client::builder(url, key).insecure(global.insecure);
        if let Some(name) = global.api_key_name.as_ref().or(profile.api_key_name.as_ref()) {
            builder = builder.key_name(name);
        }
        if let Some(path) = &global.ca {
            let pem = std::fs::read(path).map_err(|e| {
                Failure::usage(format!("the CA certificate `{}` cannot be read: {e}", path.display()))
            })?;
            builder = builder.ca(pem);
        }
        Ok(Self { client: builder.build().map_err(told)?, profile })
    }

    /// What the profile says beside server and key.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Hands over one job; comes with the job.
    pub async fn submit(&self, body: &Value) -> Result<Value, Failure> {
        json(&self.client.exec(&typed(body)?, &Options::default()).await.map_err(told)?)
    }

    /// Hands over many jobs; comes with `succeeded` and `failed`.
    pub async fn submit_bulk(&self, body: &Value) -> Result<Value, Failure> {
        json(&self.client.bulk(&typed(body)?, &Options::default()).await.map_err(told)?)
    }

    /// Tests a connection.
    pub async fn test(&self, body: &Value) -> Result<Value, Failure> {
        json(&self.client.test(&typed(body)?).await.map_err(told)?)
    }

    /// A job, held by the server for at most `hold` seconds until it ends. Asks again while the
    /// server restarts: asking changes nothing.
    pub async fn job(&self, id: &str, hold: u64) -> Result<Value, Failure> {
        let id = known(id)?;
        let hold = (hold > 0).then(|| Duration::from_secs(hold));
        let mut tried = 0;
        loop {
            match self.client.job(id, hold).await {
                Ok(job) => return json(&job),
                Err(error) if error.is_temporary() && tried + 1 < TRIES => {
                    tracing::debug!(%error, tried, "asking again");
                    tokio::time::sleep(Duration::from_millis(300 << tried)).await;
                    tried += 1;
                }
                Err(error) => return Err(told(error)),
            }
        }
    }

    /// Why a job waits, as a sentence.
    pub async fn why(&self, id: &str) -> Result<String, Failure> {
        Ok(self.client.why(known(id)?).await.map_err(told)?.reason)
    }

    /// A page of jobs, newest first, and where the next one begins.
    pub async fn jobs(
        &self,
        filter: &JobFilter,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<(Vec<Value>, Option<String>), Failure> {
        let page = self.client.jobs(filter, limit, cursor).await.map_err(told)?;
        Ok((page.jobs.iter().map(json).collect::<Result<_, _>>()?, page.next))
    }

    /// Cancels a job; whether it was running (and stops between two lines).
    pub async fn cancel(&self, id: &str) -> Result<bool, Failure> {
        Ok(self.client.cancel(known(id)?).await.map_err(told)?.canceled == "asked")
    }

    /// Cancels what waits in a queue or for a host; comes with their ids.
    pub async fn cancel_waiting(
        &self,
        queue: Option<&str>,
        host: Option<&str>,
    ) -> Result<Vec<String>, Failure> {
        let ids = self.client.cancel_waiting(queue, host).await.map_err(told)?;
        Ok(ids.iter().map(ToString::to_string).collect())
    }

    /// The plugins of every kind.
    pub async fn plugins(&self) -> Result<Vec<Value>, Failure> {
        self.client.plugins().await.map_err(told)?.iter().map(json).collect()
    }

    /// The plugins of a kind and name.
    pub async fn plugin(&self, kind: &str, name: &str) -> Result<Vec<Value>, Failure> {
        self.client.plugin(kind, name).await.map_err(told)?.iter().map(json).collect()
    }

    /// The plugins after another look into the folders.
    pub async fn reload_plugins(&self) -> Result<Vec<Value>, Failure> {
        self.client.reload_plugins().await.map_err(told)?.iter().map(json).collect()
    }

    /// The workers.
    pub async fn workers(&self, filter: &WorkerFilter) -> Result<Vec<Value>, Failure> {
        self.client.workers(filter).await.map_err(told)?.iter().map(json).collect()
    }

    /// Stops a worker.
    pub async fn stop_worker(&self, name: &str) -> Result<(), Failure> {
        self.client.stop_worker(name).await.map_err(told)?;
        Ok(())
    }

    /// Stops the workers that the filter names; comes with their names.
    pub async fn stop_workers(&self, filter: &WorkerFilter) -> Result<Vec<String>, Failure> {
        self.client.stop_workers(filter).await.map_err(told)
    }

    /// What happens to a job, or to all, from the oldest event that is kept.
    pub fn events(&self, job: Option<&str>) -> Result<Stream, Failure> {
        let job = job.map(known).transpose()?;
        Ok(Stream { events: self.client.events(job, None), missed: false })
    }
}

/// Events as they come.
pub struct Stream {
    events: Events,
    /// Whether some were no longer kept by the server.
    missed: bool,
}

impl Stream {
    /// Whether events were missed since the last time this was asked.
    pub fn missed(&mut self) -> bool {
        std::mem::take(&mut self.missed)
    }

    /// The next event; none when the followed job has ended. Where events are no longer kept, what
    /// is left of them comes.
    pub async fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            match self.events.next().await.map_err(told)? {
                None => return Ok(None),
                Some(Happened::Event(event)) => return Ok(Some(*event)),
                Some(Happened::Gap(before)) => {
                    tracing::debug!(before = before.0, "events are no longer kept");
                    self.missed = true;
                }
            }
        }
    }
}

fn known(id: &str) -> Result<JobId, Failure> {
    id.parse().map_err(|_| Failure::usage(format!("`{id}` is no job's id")))
}

fn json(value: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(value).map_err(|e| Failure::new(Exit::Refused, "internal", e.to_string()))
}

/// Our JSON as the client's body; what does not fit is a flag's fault.
fn typed<T: DeserializeOwned>(body: &Value) -> Result<T, Failure> {
    serde_json::from_value(body.clone())
        .map_err(|e| Failure::usage(format!("the request cannot be made: {e}")))
}

/// A client's error in the words and with the exit code of the command line.
fn told(error: ClientError) -> Failure {
    let what = error.to_string();
    match error {
        ClientError::Setup(_) => Failure::usage(what),
        ClientError::Unreachable { .. } => Failure::new(Exit::Unreachable, "unreachable", what)
            .hint("is `netpulse serve` running there? --url or NETPULSE_URL says where to look"),
        ClientError::Refused(_) => Failure::new(Exit::Denied, "api_key_refused", what)
            .hint("--api-key, NETPULSE_API_KEY or the profile's api_key must be the server's server.api_key"),
        ClientError::Answered { status: 404, .. } => Failure::new(Exit::NotFound, "not_found", what),
        ClientError::Answered { status: 400, ref sentence, .. }
            if sentence.starts_with("Unsupported driver") =>
        {
            Failure::new(Exit::Usage, "unsupported_driver", what)
                .hint(format!("this version has the drivers {}", crate::payload::DRIVERS.join(" and ")))
        }
        ClientError::Answered { status: 400..=428, .. } => Failure::new(Exit::Usage, "refused_request", what),
        ClientError::Answered { status, retry_after, .. } => {
            let failure = Failure::new(Exit::Refused, format!("http_{status}"), what);
            match retry_after {
                Some(after) => failure.hint(format!("try again in {} s", after.as_secs())),
                None => failure,
            }
        }
        _ => Failure::new(Exit::Unreachable, "bad_answer", what)
            .hint("is that a NetPulse server? --url or NETPULSE_URL says where to look"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_exit_code() {
        let answered = |status| ClientError::Answered { status, sentence: "no".into(), retry_after: None };
        for (error, exit) in [
            (ClientError::Setup("x".into()), Exit::Usage),
            (ClientError::Unreachable { url: "u".into(), reason: "r".into() }, Exit::Unreachable),
            (ClientError::Refused("x".into()), Exit::Denied),
            (answered(404), Exit::NotFound),
            (answered(400), Exit::Usage),
            (answered(422), Exit::Usage),
            (answered(429), Exit::Refused),
            (answered(503), Exit::Refused),
            (ClientError::Broken("x".into()), Exit::Unreachable),
        ] {
            assert_eq!(told(error.clone()).exit, exit, "{error}");
        }
        let driver = ClientError::Answered {
            status: 400,
            sentence: "Unsupported driver: napalm".into(),
            retry_after: None,
        };
        let driver = told(driver);
        assert_eq!(
            (driver.exit, driver.hint.unwrap().ends_with("netmiko and paramiko")),
            (Exit::Usage, true)
        );
        let busy = ClientError::Answered {
            status: 429,
            sentence: "full".into(),
            retry_after: Some(Duration::from_secs(7)),
        };
        assert_eq!(told(busy).hint.unwrap(), "try again in 7 s");
    }
}
