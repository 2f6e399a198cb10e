//! The conformance suite on the Redis engine, each test on a real server of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use netpulse_queue::conformance::{Bounds, Factory};
use netpulse_queue::{Clock, Redis, RedisOptions, RingSize};
use server::Server;

struct Store {
    server: Server,
    options: RedisOptions,
}

#[async_trait]
impl Factory for Store {
    type Engine = Redis;

    async fn empty(bounds: Bounds) -> Self {
        let server = Server::start(&[]).await;
        // The tests' own hand on the server, which an outage does not bind.
        server.admin(&["ACL", "SETUSER", "tests", "on", ">tests", "~*", "&*", "+@all"]).await;
        let options = RedisOptions {
            lease: bounds.lease,
            max_queued: bounds.max_queued,
            max_queued_per_device: bounds.max_queued_per_device,
            max_outbox: bounds.max_outbox,
            events: RingSize { events: bounds.events, bytes: 64 << 20 },
            clock: Clock::default(),
            ..server.options()
        };
        Self { server, options }
    }

    async fn open(&self) -> Arc<Redis> {
        Redis::open(self.options.clone()).await.unwrap()
    }

    async fn crash(&self, engine: Arc<Redis>) {
        engine.crash().await;
    }

    async fn advance(&self, by: Duration) {
        self.options.clock.advance(by);
    }

    /// The server refuses to write jobs: leases live on, as the suite wants it. Outages of the whole
    /// server are tested in `redis_outages.rs`.
    async fn outage(&self, on: bool) {
        let rules: &[&str] = if on {
            &["resetkeys", "%R~*", "~np:{0}:n*", "~np:{0}:[^jn]*", "~netpulse:*"]
        } else {
            &["resetkeys", "~*"]
        };
        let mut command = vec!["ACL", "SETUSER", "default"];
        command.extend_from_slice(rules);
        self.server.admin_as(Some(("tests", "tests")), &command).await;
    }
}

netpulse_queue::conformance_suite!(Store);
