//! The records of workers.

use std::sync::Arc;

use netpulse_model::worker::WorkerRecord;

use super::lane::Item;
use super::record::{items, text};
use super::{Shared, unavailable};
use crate::api::QueueError;

impl Shared {
    pub(super) fn put_worker(&self, record: &WorkerRecord) {
        let json = match serde_json::to_string(record) {
            Ok(json) => json,
            Err(error) => {
                tracing::error!(worker = record.name, %error, "a worker's record cannot be written");
                return;
            }
        };
        let known = self.workers.lock().insert(record.name.clone(), record.hostname.clone());
        let mut put = redis::cmd("HSET");
        put.arg(self.key("workers")).arg(&record.name).arg(json);
        let mut commands = vec![put];
        if known.is_none() {
            let mut list = redis::cmd("SADD");
            list.arg(self.key(&format!("workers:{}", record.hostname))).arg(&record.name);
            commands.push(list);
        }
        self.lane.push(Item::Plain(commands));
    }

    pub(super) fn remove_worker(&self, name: &str) {
        let node = self.workers.lock().remove(name);
        let mut strike = redis::cmd("HDEL");
        strike.arg(self.key("workers")).arg(name);
        let mut commands = vec![strike];
        if let Some(node) = node {
            let mut unlist = redis::cmd("SREM");
            unlist.arg(self.key(&format!("workers:{node}"))).arg(name);
            let mut untell = redis::cmd("SREM");
            untell.arg(self.key(&format!("wake:{node}"))).arg(format!("s:{name}"));
            commands.extend([unlist, untell]);
        }
        self.lane.push(Item::Plain(commands));
    }

    pub(super) async fn workers(self: &Arc<Self>) -> Result<Vec<WorkerRecord>, QueueError> {
        self.prepare().await;
        self.lane.barrier(self.options.deadline).await;
        let mut call = redis::cmd("HVALS");
        call.arg(self.key("workers"));
        let answer = self.link.one(call, self.until()).await.map_err(unavailable)?;
        let mut records: Vec<WorkerRecord> = items(&answer)
            .iter()
            .filter_map(text)
            .filter_map(|json| serde_json::from_str(json).ok())
            .collect();
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }
}
