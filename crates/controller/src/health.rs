//! Whether this process can serve, for those who ask often: probes and proxies.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::app::App;

/// How long an answer of the store stands.
const FRESH: Duration = Duration::from_secs(1);
/// Longest that a probe waits for the store.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the store said last, and when. The lock is held while it is asked: however many probes
/// come, it is asked once.
#[derive(Default)]
pub(crate) struct Readiness(Mutex<Option<(Instant, Result<(), String>)>>);

/// Whether requests should be sent here.
///
/// # Errors
/// Why not: one of few words for machines, and a sentence.
pub(crate) async fn ready(app: &App) -> Result<(), (&'static str, String)> {
    if app.draining.is_cancelled() || app.shutdown.is_cancelled() {
        return Err(("draining", "This process is about to end and takes nothing new".into()));
    }
    let mut last = app.ready.0.lock().await;
    let said = match &*last {
        Some((at, said)) if at.elapsed() < FRESH => said.clone(),
        _ => {
            let said = match tokio::time::timeout(PATIENCE, app.queue.health()).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_elapsed) => Err(format!("the store did not answer within {} s", PATIENCE.as_secs())),
            };
            *last = Some((Instant::now(), said.clone()));
            said
        }
    };
    said.map_err(|sentence| ("store", sentence))
}
