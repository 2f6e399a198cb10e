//! What to simulate: how many of what, where, and who may come in.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

use crate::fault::Faults;
use crate::journal::JournalOptions;

/// Where the devices listen.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Each device has its own address, counting up from `bind`, all on the same port (0: a free one each).
    Addresses,
    /// All devices share the address `bind`; ports count up from the first (0: a free one each).
    Ports,
}

/// A plan for [`crate::Simulator::start`].
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// Personas by name, given to the devices in turn.
    pub personas: Vec<String>,
    /// A folder with more of them, which win over the embedded ones.
    pub persona_dir: Option<PathBuf>,
    /// How many devices.
    pub devices: u32,
    /// The first address. On Linux every address of 127.0.0.0/8 can be bound.
    pub bind: IpAddr,
    /// Own addresses or own ports.
    pub layout: Layout,
    /// The SSH port (the first one with [`Layout::Ports`]; 0 is any free one); none: no SSH.
    pub ssh_port: Option<u16>,
    /// The Telnet port, likewise.
    pub telnet_port: Option<u16>,
    /// User names and passwords.
    pub users: HashMap<String, String>,
    /// The enable secret; empty: `enable` asks for nothing.
    pub enable: String,
    /// Every public key of a known user is good.
    pub any_key: bool,
    /// OpenSSH public keys that are good for every known user.
    pub keys: Vec<String>,
    /// The mode after login, where it is not the persona's first (`privileged`).
    pub start: Option<String>,
    /// Each device has its own host key; otherwise all share one.
    pub own_host_keys: bool,
    /// Host keys come from this number, so that they are the same at every start; none: new ones.
    pub host_key_seed: Option<u64>,
    /// Only old algorithms are offered (SHA-1 key exchange, CBC, ssh-rsa not included), as on gear of 2010.
    pub legacy: bool,
    /// What goes wrong, on every device.
    pub faults: Faults,
    /// Where to write down what the devices receive.
    pub journal: JournalOptions,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            personas: vec!["cisco_ios".into()],
            persona_dir: None,
            devices: 1,
            bind: IpAddr::V4(Ipv4Addr::new(127, 1, 0, 0)),
            layout: Layout::Addresses,
            ssh_port: Some(0),
            telnet_port: None,
            users: HashMap::from([("admin".to_owned(), "admin".to_owned())]),
            enable: "enable".into(),
            any_key: false,
            keys: Vec::new(),
            start: None,
            own_host_keys: false,
            host_key_seed: None,
            legacy: false,
            faults: Faults::default(),
            journal: JournalOptions::default(),
        }
    }
}

impl Plan {
    /// A plan for `devices` of one persona on loopback with free ports: what a test wants.
    pub fn of(persona: &str, devices: u32) -> Plan {
        Plan {
            personas: vec![persona.to_owned()],
            devices,
            layout: Layout::Ports,
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ..Plan::default()
        }
    }

    /// The address of device `index` for a first port, counting as the layout says; none past the end.
    pub(crate) fn address(&self, index: u32, port: u16) -> Option<SocketAddr> {
        Some(match self.layout {
            Layout::Addresses => {
                let ip = match self.bind {
                    IpAddr::V4(ip) => IpAddr::V4(u32::from(ip).checked_add(index)?.into()),
                    IpAddr::V6(ip) => IpAddr::V6(u128::from(ip).checked_add(u128::from(index))?.into()),
                };
                SocketAddr::new(ip, port)
            }
            Layout::Ports if port == 0 => SocketAddr::new(self.bind, 0),
            Layout::Ports => SocketAddr::new(self.bind, u16::try_from(u32::from(port) + index).ok()?),
        })
    }
}
