//! How devices are reached: the built-in drivers under the configuration's limits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use netpulse_config::Config;
use netpulse_driver::connect::ConnectSettings;
use netpulse_driver::netmiko::Netmiko;
use netpulse_driver::paramiko::Paramiko;
use netpulse_plugin::{Driver, Kind, Plugins, Scanned, platform_files};
use netpulse_session::platform::{LeftOut, PlatformError, Registry};
use netpulse_session::transport::hostkeys::{HostKeyPolicy, HostKeys};

use crate::exit::Failure;

/// Registers the built-in drivers under the configuration's limits.
pub(super) fn drivers(config: &Config, plugins: &Plugins) -> Result<(), Failure> {
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

    let paramiko: Arc<dyn Driver> = Arc::new(Paramiko::new(settings.clone()));
    let folder = config.platform.dir.clone();
    let files =
        if config.plugin.external { platform_files(&crate::plugins::folders(config)) } else { Vec::new() };
    let (driver, errors) =
        netmiko(&settings, folder.as_deref(), &files).map_err(|e| Failure::usage(e.to_string()))?;
    for (_, error) in errors {
        tracing::warn!(target: "plugin", "platform not used: {error}");
    }
    plugins.register_driver(driver, NETMIKO);
    plugins.register_driver(paramiko, "Commands on Linux servers over SSH");
    // When folders are looked into again, the platforms in them are, too.
    plugins.on_scan(Arc::new(move |data| {
        let of_platforms = data.iter().filter(|(kind, _)| *kind == Kind::Platform);
        let files: Vec<PathBuf> = of_platforms.map(|(_, path)| path.clone()).collect();
        match netmiko(&settings, folder.as_deref(), &files) {
            Ok((driver, errors)) => Scanned {
                errors: errors
                    .into_iter()
                    .map(|(path, error)| (path, format!("is no platform: {error}")))
                    .collect(),
                drivers: vec![(driver, NETMIKO)],
            },
            Err(error) => {
                tracing::warn!(target: "plugin", %error, "the platforms are left as they were");
                Scanned::default()
            }
        }
    }));
    Ok(())
}

/// What the list says of it.
const NETMIKO: &str = "Command lines of network devices over SSH and Telnet";

/// A driver, and the files that are no platforms.
type Known = (Arc<dyn Driver>, LeftOut);

/// The driver with every platform: built in, of the folder, and of plugin folders.
fn netmiko(
    settings: &ConnectSettings,
    folder: Option<&Path>,
    files: &[PathBuf],
) -> Result<Known, PlatformError> {
    let (platforms, errors) = Registry::with_files(folder, files)?;
    Ok((Arc::new(Netmiko::new(settings.clone(), platforms)), errors))
}
