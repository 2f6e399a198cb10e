//! How devices are reached: the built-in drivers under the configuration's limits.

use std::sync::Arc;
use std::time::Duration;

use netpulse_config::Config;
use netpulse_driver::connect::ConnectSettings;
use netpulse_driver::netmiko::Netmiko;
use netpulse_driver::paramiko::Paramiko;
use netpulse_plugin::Driver;
use netpulse_session::platform::Registry;
use netpulse_session::transport::hostkeys::{HostKeyPolicy, HostKeys};

use crate::exit::Failure;

/// The built-in drivers under the configuration's limits, each with what it is for.
pub(super) fn drivers(config: &Config) -> Result<Vec<(Arc<dyn Driver>, &'static str)>, Failure> {
    let known_hosts =
        config.session.known_hosts.clone().unwrap_or_else(|| config.store.path.join("known_hosts"));
    let host_keys = HostKeys::open(known_hosts).map_err(|e| Failure::local(e.to_string()))?;
    let mut settings = ConnectSettings::new(host_keys);
    settings.policy = match config.session.host_keys.as_str() {
        "strict" => HostKeyPolicy::Strict,
        "off" => HostKeyPolicy::Off,
        _ => HostKeyPolicy::AcceptNew,
    };
    settings.key_dirs = config.session.key_dirs.clone().into();
    settings.connect_timeout = Duration::from_secs(config.session.connect_timeout.max(1));
    settings.max_output = config.session.max_output;
    settings.keepalive = Duration::from_secs(config.worker.keepalive.max(1));

    let platforms = match &config.platform.dir {
        Some(folder) => Registry::with_folder(folder),
        None => Registry::builtin(),
    };
    let platforms = platforms.map_err(|e| Failure::usage(e.to_string()))?;
    let netmiko: Arc<dyn Driver> = Arc::new(Netmiko::new(settings.clone(), platforms));
    let paramiko: Arc<dyn Driver> = Arc::new(Paramiko::new(settings));
    Ok(vec![
        (netmiko, "Command lines of network devices over SSH and Telnet"),
        (paramiko, "Commands on Linux servers over SSH"),
    ])
}
