//! The bounded queue between the task that drains a carrier and the conversation that reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

/// Bytes held for a conversation that is busy elsewhere. A carrier that brings more has to wait,
/// and is cut when nobody takes anything for [`PATIENCE`].
pub(super) const CAPACITY: usize = 4 * 1024 * 1024;

/// How long a full queue may stand untouched before its carrier is cut.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

struct Level {
    bytes: AtomicUsize,
    taken: Notify,
}

/// The end that the draining task fills.
pub(super) struct Filler {
    chunks: mpsc::UnboundedSender<Bytes>,
    level: Arc<Level>,
}

/// The end that the conversation reads.
pub(super) struct Inbox {
    chunks: mpsc::UnboundedReceiver<Bytes>,
    level: Arc<Level>,
}

/// Why a chunk was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// The conversation is gone.
    NobodyThere,
    /// The queue stood full and untouched for [`PATIENCE`].
    Flooded,
}

pub(super) fn inbox() -> (Filler, Inbox) {
    let (tx, rx) = mpsc::unbounded_channel();
    let level = Arc::new(Level { bytes: AtomicUsize::new(0), taken: Notify::new() });
    (Filler { chunks: tx, level: Arc::clone(&level) }, Inbox { chunks: rx, level })
}

impl Filler {
    /// Queues a chunk, then waits while the queue is over its bound.
    pub(super) async fn put(&self, chunk: Bytes) -> Result<(), NotTaken> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.level.bytes.fetch_add(chunk.len(), Ordering::AcqRel);
        self.chunks.send(chunk).map_err(|_| NotTaken::NobodyThere)?;
        while self.level.bytes.load(Ordering::Acquire) > CAPACITY {
            // A permit left by an earlier take makes one round too many, never one too few.
            tokio::select! {
                () = self.level.taken.notified() => {}
                () = self.chunks.closed() => return Err(NotTaken::NobodyThere),
                () = tokio::time::sleep(PATIENCE) => return Err(NotTaken::Flooded),
            }
        }
        Ok(())
    }

    /// Resolves when the conversation is gone.
    pub(super) async fn abandoned(&self) {
        self.chunks.closed().await;
    }
}

impl Inbox {
    /// The next chunk; `None` when the carrier has ended and all was read. Safe to drop.
    pub(super) async fn take(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.recv().await?;
        self.level.bytes.fetch_sub(chunk.len(), Ordering::AcqRel);
        self.level.taken.notify_one();
        Some(chunk)
    }

    /// Takes no more; the draining task ends.
    pub(super) fn shut(&mut self) {
        self.chunks.close();
        while self.chunks.try_recv().is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_nobody_reads_is_cut_and_one_that_is_read_is_not() {
        let (filler, mut inbox) = inbox();
        let chunk = Bytes::from(vec![0u8; CAPACITY]);
        filler.put(chunk.clone()).await.unwrap();
        assert_eq!(filler.put(chunk.clone()).await, Err(NotTaken::Flooded));

        let reader = tokio::spawn(async move {
            let mut total = 0;
            while let Some(chunk) = inbox.take().await {
                total += chunk.len();
                tokio::time::sleep(PATIENCE / 2).await;
            }
            total
        });
        for _ in 0..4 {
            filler.put(chunk.clone()).await.unwrap();
        }
        drop(filler);
        assert_eq!(reader.await.unwrap(), CAPACITY * 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_left_frees_a_waiting_filler() {
        let (filler, inbox) = inbox();
        let filling = tokio::spawn(async move {
            loop {
                if let Err(why) = filler.put(Bytes::from(vec![0u8; CAPACITY])).await {
                    return why;
                }
            }
        });
        tokio::task::yield_now().await;
        drop(inbox);
        assert_eq!(filling.await.unwrap(), NotTaken::NobodyThere);
    }
}
