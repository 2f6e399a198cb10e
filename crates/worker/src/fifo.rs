//! The FIFO worker: a bounded set of slots, jobs started in queue order, a session of its own for
//! each.

use std::sync::Arc;
use std::time::Instant;

use netpulse_model::JobKind;
use netpulse_queue::Claim;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::fence::Fence;
use crate::job;
use crate::node::Inner;

/// Takes jobs while there are slots, until the node stops. Ends when the last job has ended.
pub(crate) async fn run(node: Arc<Inner>) {
    let slots = Arc::new(Semaphore::new(node.config.worker.fifo_concurrency.max(1)));
    let name = node.fifo_name();
    loop {
        let permit = tokio::select! {
            biased;
            () = node.stopping.cancelled() => break,
            permit = Arc::clone(&slots).acquire_owned() => match permit {
                Ok(permit) => permit,
                Err(_closed) => break,
            },
        };
        let claim = loop {
            if node.stopping.is_cancelled() {
                drop(permit);
                return wait_all(&slots, &node).await;
            }
            let woken = node.fifo_wake.notified();
            match node.queue.claim_fifo(&node.name, node.config.worker.sessions_per_device.max(1)).await {
                Ok(Some(claim)) => break claim,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(worker = name, %error, "cannot take a job from FifoQ; trying again");
                    node.store_pause().await;
                    continue;
                }
            }
            tokio::select! {
                biased;
                () = node.stopping.cancelled() => {
                    drop(permit);
                    return wait_all(&slots, &node).await;
                }
                () = woken => {}
            }
        };
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            one(&node, claim).await;
            drop(permit);
            // A job of the same device may have been waiting for this one.
            node.fifo_wake.notify_one();
        });
    }
    wait_all(&slots, &node).await;
}

/// Waits for the slots that are taken; the node's own deadline cuts the wait.
async fn wait_all(slots: &Semaphore, node: &Inner) {
    let all = u32::try_from(node.config.worker.fifo_concurrency.max(1)).unwrap_or(u32::MAX);
    if slots.acquire_many(all).await.is_ok() {
        slots.close();
    }
}

async fn one(node: &Arc<Inner>, claim: Claim) {
    let name = node.fifo_name();
    let lost = CancellationToken::new();
    // The claim of a modification holds its device's lease; a query changes nothing, and whoever
    // owns the device next may run it as well.
    let watched = match (&claim.job.device, claim.job.kind) {
        (Some(device), JobKind::Modification) => {
            Some((device.clone(), node.watch_lease(device, lost.clone())))
        }
        _ => None,
    };
    let fence = Fence::new(&node.clock, Instant::now(), lost);
    let ended = Box::pin(job::run(node, &name, claim, None, &fence, None)).await;
    node.fifo_ended(ended.succeeded);
    if let Some((device, ticket)) = watched {
        node.unwatch_lease(&device, ticket);
    }
    if let Some(mut held) = ended.held {
        held.session.close().await;
    }
}
