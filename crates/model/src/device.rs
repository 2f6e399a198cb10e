//! Who a device is, and the names of the queues.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A device is its host *and* port: two consoles behind one address are two devices.
///
/// Written `host` on the driver's default port and `host:port` (or `[v6]:port`) elsewhere, so that
/// the queue names of the common case read as they always did (`HostQ_192.0.2.11`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceKey(String);

impl DeviceKey {
    /// The key of `host` reached on `port`, where `default_port` is what the driver uses unasked.
    /// Host names compare without case.
    #[must_use]
    pub fn new(host: &str, port: u16, default_port: u16) -> Self {
        let host = host.trim().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if port == default_port {
            Self(host)
        } else if host.contains(':') {
            Self(format!("[{host}]:{port}"))
        } else {
            Self(format!("{host}:{port}"))
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host without its port.
    #[must_use]
    pub fn host(&self) -> &str {
        if let Some(rest) = self.0.strip_prefix('[') {
            return rest.split(']').next().unwrap_or(rest);
        }
        match self.0.matches(':').count() {
            1 => self.0.split(':').next().unwrap_or(&self.0),
            _ => &self.0,
        }
    }

    /// Whether a `host` filter means this device: the host alone finds every port of it, and
    /// `host:port` finds exactly that one.
    #[must_use]
    pub fn matches_host(&self, filter: &str) -> bool {
        let filter = filter.trim().to_ascii_lowercase();
        self.0 == filter || self.host() == filter.trim_start_matches('[').trim_end_matches(']')
    }
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The queue a job waits in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum QueueName {
    /// `FifoQ`: any free slot takes the next job.
    Fifo,
    /// `HostQ_<device>`: the device's owner takes them one by one.
    Host(DeviceKey),
    /// `NodeQ_<node>`: a node's own errands; nothing waits here, workers are listed under it.
    Node(String),
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fifo => f.write_str("FifoQ"),
            Self::Host(device) => write!(f, "HostQ_{device}"),
            Self::Node(node) => write!(f, "NodeQ_{node}"),
        }
    }
}

/// A text that is no queue name.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no queue name: expected `FifoQ`, `HostQ_<host>[:<port>]` or `NodeQ_<node>`")]
pub struct NotAQueue(String);

impl FromStr for QueueName {
    type Err = NotAQueue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "FifoQ" {
            Ok(Self::Fifo)
        } else if let Some(device) = text.strip_prefix("HostQ_").filter(|d| !d.is_empty()) {
            Ok(Self::Host(DeviceKey(device.to_ascii_lowercase())))
        } else if let Some(node) = text.strip_prefix("NodeQ_").filter(|n| !n.is_empty()) {
            Ok(Self::Node(node.to_owned()))
        } else {
            Err(NotAQueue(text.to_owned()))
        }
    }
}

impl Serialize for QueueName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for QueueName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d15_two_ports_of_one_host_are_two_devices() {
        let ssh = DeviceKey::new("192.0.2.1", 22, 22);
        let console = DeviceKey::new("192.0.2.1", 2001, 22);
        assert_ne!(ssh, console);
        assert_eq!(QueueName::Host(ssh.clone()).to_string(), "HostQ_192.0.2.1");
        assert_eq!(QueueName::Host(console.clone()).to_string(), "HostQ_192.0.2.1:2001");
        assert!(ssh.matches_host("192.0.2.1") && console.matches_host("192.0.2.1"));
        assert!(console.matches_host("192.0.2.1:2001") && !ssh.matches_host("192.0.2.1:2001"));
    }

    #[test]
    fn ipv6_hosts_keep_their_colons() {
        let default = DeviceKey::new("2001:DB8::1", 22, 22);
        let other = DeviceKey::new("[2001:db8::1]", 2222, 22);
        assert_eq!(default.as_str(), "2001:db8::1");
        assert_eq!(other.as_str(), "[2001:db8::1]:2222");
        assert_eq!(default.host(), other.host());
        assert!(other.matches_host("2001:db8::1"));
    }

    #[test]
    fn queue_names_read_back() {
        for text in ["FifoQ", "HostQ_sw1", "HostQ_sw1:2222", "HostQ_[::1]:22", "NodeQ_a"] {
            assert_eq!(text.parse::<QueueName>().unwrap().to_string(), text);
        }
        assert!("HostQ_".parse::<QueueName>().is_err());
    }
}
