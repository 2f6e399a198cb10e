//! The server put together: store, drivers, templates, node, REST API. `serve`, `demo` use it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use netpulse_config::Config;
use netpulse_controller::{Controller, Parts, serve};
use netpulse_driver::connect::ConnectSettings;
use netpulse_driver::netmiko::Netmiko;
use netpulse_driver::paramiko::Paramiko;
use netpulse_plugin::{AllTemplates, Driver, Drivers, Kind, Plugins, Scanned, platform_files};
use netpulse_queue::{Embedded, OpenError, Options, Queue, RingSize};
use netpulse_session::platform::{LeftOut, PlatformError, Registry};
use netpulse_session::transport::hostkeys::{HostKeyPolicy, HostKeys};
use netpulse_worker::{BuiltInTemplates, Node, NodeParts};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};

/// A server that runs in this process.
pub(crate) struct Server {
    /// `http://` or `https://` with host and port.
    pub(crate) url: String,
    node: Node,
    queue: Arc<Embedded>,
    plugins: Plugins,
    http: JoinHandle<Result<(), netpulse_controller::ServeError>>,
    shutdown: CancellationToken,
}

impl Server {
    /// Opens the store, binds the socket, and begins to take requests and jobs.
    pub(crate) async fn start(config: Config) -> Result<Self, Failure> {
        let config = Arc::new(config);
        let listener = bind(&config).await?;
        let address = listener.local_addr().map_err(|e| Failure::local(format!("no address: {e}")))?;
        let queue = open_store(&config)?;
        let plugins = crate::plugins::registry(&config)?;
        crate::plugins::list_built_in(&plugins);
        drivers(&config, &plugins)?;
        let drivers = Drivers::of(plugins.clone());
        let fetch = crate::fetch::fetcher(&config.template.remote_hosts);
        let built_in = Arc::new(BuiltInTemplates::new(&config.template, fetch));
        let templates = Arc::new(AllTemplates::new(built_in, plugins.clone()));
        let parts = NodeParts {
            config: Arc::clone(&config),
            queue: queue.clone(),
            drivers: drivers.clone(),
            templates: templates.clone(),
        };
        let node = Node::start(parts).await.map_err(|e| Failure::new(Exit::Local, "store", e.to_string()))?;
        let shutdown = CancellationToken::new();
        let controller = Controller::new(Parts {
            config: Arc::clone(&config),
            queue: queue.clone(),
            drivers,
            templates: Some(templates),
            self_healing: node.counters().self_healing,
            shutdown: shutdown.clone(),
        });
        let (router, token) = (controller.router(), shutdown.clone());
        let server_config = config.server.clone();
        let http = tokio::spawn(async move {
            serve(listener, router, &server_config, token, Duration::from_secs(5)).await
        });
        let scheme = if config.server.tls_cert.is_some() { "https" } else { "http" };
        Ok(Self { url: format!("{scheme}://{address}"), node, queue, plugins, http, shutdown })
    }

    /// Resolves when the API ended by itself, or the node was told to stop by a request.
    pub(crate) async fn ended(&mut self) -> Result<(), Failure> {
        tokio::select! {
            () = self.node.asked_to_stop() => Ok(()),
            end = &mut self.http => match end {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(Failure::usage(error.to_string())),
                Err(crash) => Err(Failure::new(Exit::Refused, "internal", format!("the API crashed: {crash}"))),
            },
        }
    }

    /// Takes nothing new, lets running jobs end, closes sessions, store and socket.
    pub(crate) async fn stop(self) {
        // Requests that wait for a running job get their answer before the socket closes.
        self.node.drain().await;
        self.shutdown.cancel();
        if !self.http.is_finished() {
            let _ = tokio::time::timeout(Duration::from_secs(10), self.http).await;
        }
        self.plugins.stop().await;
        self.queue.close().await;
    }
}

async fn bind(config: &Config) -> Result<TcpListener, Failure> {
    let at = (config.server.host.as_str(), config.server.port);
    TcpListener::bind(at).await.map_err(|error| {
        Failure::local(format!("cannot listen on {}:{}: {error}", at.0, at.1))
            .hint("another server may run there: choose `server.host` and `server.port`")
    })
}

fn open_store(config: &Config) -> Result<Arc<Embedded>, Failure> {
    let options = Options {
        lease: Duration::from_secs(config.worker.lease.max(1)),
        max_queued: config.store.max_queued,
        max_queued_per_device: config.store.max_queued_per_device,
        result_cache: config.store.result_cache,
        events: RingSize { events: config.store.events, ..Options::default().events },
        audit_retention: Duration::from_secs(config.audit.retention_days.saturating_mul(24 * 3600)),
        canceled_ttl: Duration::from_secs(config.job.ttl),
        ..Options::default()
    };
    Embedded::open(&config.store.path, options).map_err(|error| {
        let code = if matches!(error, OpenError::InUse { .. }) { "store_in_use" } else { "store" };
        Failure::new(Exit::Local, code, error.to_string())
    })
}

/// Registers the built-in drivers under the configuration's limits.
fn drivers(config: &Config, plugins: &Plugins) -> Result<(), Failure> {
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
