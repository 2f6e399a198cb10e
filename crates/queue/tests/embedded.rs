//! The conformance suite on the embedded engine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use netpulse_queue::conformance::{Bounds, Factory};
use netpulse_queue::{Clock, Embedded, Faults, Options, RingSize};
use tempfile::TempDir;

struct Folder {
    folder: TempDir,
    options: Options,
}

#[async_trait]
impl Factory for Folder {
    type Engine = Embedded;

    async fn empty(bounds: Bounds) -> Self {
        let options = Options {
            lease: bounds.lease,
            max_queued: bounds.max_queued,
            max_queued_per_device: bounds.max_queued_per_device,
            max_outbox: bounds.max_outbox,
            events: RingSize { events: bounds.events, bytes: 64 << 20 },
            clock: Clock::default(),
            faults: Arc::<Faults>::default(),
            ..Options::default()
        };
        Self { folder: tempfile::tempdir().unwrap(), options }
    }

    async fn open(&self) -> Arc<Embedded> {
        Embedded::open(self.folder.path(), self.options.clone()).unwrap()
    }

    async fn crash(&self, engine: Arc<Embedded>) {
        engine.crash().await;
    }

    async fn advance(&self, by: Duration) {
        self.options.clock.advance(by);
    }

    async fn outage(&self, on: bool) {
        self.options.faults.refuse_writes(on);
    }
}

netpulse_queue::conformance_suite!(Folder);
