//! Fetches templates from the hosts that `template.remote_hosts` allows.

use std::sync::Arc;
use std::time::Duration;

use netpulse_template::source::Fetch;

/// The longest a template may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A fetcher, if any host is allowed.
pub(crate) fn fetcher(hosts: &[String]) -> Option<Arc<dyn Fetch>> {
    if hosts.is_empty() {
        return None;
    }
    // A redirect could lead to a host that is not allowed.
    let client =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(PATIENCE).build();
    match client {
        Ok(client) => Some(Arc::new(Http { client, runtime: tokio::runtime::Handle::current() })),
        Err(error) => {
            tracing::error!(%error, "templates cannot be fetched: no HTTP client");
            None
        }
    }
}

struct Http {
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

impl Fetch for Http {
    /// Called on a thread that may block.
    fn fetch(&self, url: &str, most: usize) -> Result<String, String> {
        self.runtime.block_on(async {
            let mut reply = self.client.get(url).send().await.map_err(|e| e.without_url().to_string())?;
            if !reply.status().is_success() {
                return Err(format!("the server answered {}", reply.status()));
            }
            let mut text = Vec::new();
            while let Some(chunk) = reply.chunk().await.map_err(|e| e.without_url().to_string())? {
                if text.len() + chunk.len() > most {
                    return Err(format!("it is larger than {most} bytes"));
                }
                text.extend_from_slice(&chunk);
            }
            String::from_utf8(text).map_err(|_| "it is no UTF-8 text".to_owned())
        })
    }
}
