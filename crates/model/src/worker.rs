//! Workers and nodes, as they report themselves.

use serde::{Deserialize, Serialize};

use crate::device::QueueName;
use crate::time::Timestamp;

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// Has just come up.
    Started,
    /// Takes nothing (draining).
    Suspended,
    /// Runs a job.
    Busy,
    /// Waits for one.
    Idle,
}

/// One worker: a node, its FIFO worker, or the owner of one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WorkerRecord {
    /// `<node>`, `<node>_FifoQ` or `<node>_HostQ_<device>`.
    pub name: String,
    /// What it is doing.
    pub status: WorkerState,
    /// The process that holds it.
    pub pid: u32,
    /// The node's name.
    pub hostname: String,
    /// The queues it serves.
    #[schema(value_type = Vec<String>)]
    pub queues: Vec<QueueName>,
    /// When it last said that it lives.
    #[schema(value_type = String, format = DateTime)]
    pub last_heartbeat: Timestamp,
    /// When it came up.
    #[schema(value_type = String, format = DateTime)]
    pub birth_at: Timestamp,
    /// Jobs that ended `finished`.
    pub successful_job_count: u64,
    /// Jobs that ended `failed`.
    pub failed_job_count: u64,
    /// How often it repaired something without a human since it came up; a node's speaks for all
    /// its workers (added).
    #[serde(default)]
    pub self_healing: u64,
}

/// A node as the schedulers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The node's name.
    pub hostname: String,
    /// Devices it owns.
    pub count: usize,
    /// Devices it may own.
    pub capacity: usize,
    /// `NodeQ_<hostname>`.
    pub queue: QueueName,
}
