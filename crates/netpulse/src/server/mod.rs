//! A process put together: store, drivers, templates, node, REST API, in the parts that its role
//! has. `serve`, `controller`, `worker` and `demo` use it.

mod credentials;
mod devices;
pub(crate) mod lock;
pub(crate) mod store;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use netpulse_config::Config;
use netpulse_controller::{Controller, Parts, ServeError, serve};
use netpulse_plugin::{AllTemplates, Drivers, Implementation, Kind, Plugins, Scheduler, Templates, Webhooks};
use netpulse_queue::{Queue, QueueError};
use netpulse_webhook::{Basic, BasicOptions, Courier, CourierOptions};
use netpulse_worker::{BuiltInTemplates, Metrics, Node, NodeParts, Serves};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::exit::{Exit, Failure};
use lock::Lock;

/// Longest that answers may take once everything else has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// Longest that webhooks in flight may take.
const LAST_MESSAGES: Duration = Duration::from_secs(5);

/// Which parts a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// All of them.
    All,
    /// The REST API alone.
    Controller,
    /// A node for devices.
    Devices,
    /// A node for `FifoQ`.
    Fifo,
}

impl Shape {
    fn has_api(self) -> bool {
        matches!(self, Self::All | Self::Controller)
    }

    fn serves(self) -> Option<Serves> {
        match self {
            Self::All => Some(Serves::All),
            Self::Controller => None,
            Self::Devices => Some(Serves::Devices),
            Self::Fifo => Some(Serves::Fifo),
        }
    }

    /// The lock files of what may run once on a work folder.
    fn locks(self) -> &'static [&'static str] {
        match self {
            Self::All => &["node.lock", "fifo.lock"],
            Self::Controller => &[],
            Self::Devices => &["node.lock"],
            Self::Fifo => &["fifo.lock"],
        }
    }

    /// The command that starts it.
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::All => "netpulse serve",
            Self::Controller => "netpulse controller",
            Self::Devices => "netpulse worker node",
            Self::Fifo => "netpulse worker fifo",
        }
    }
}

/// A server that runs in this process.
pub(crate) struct Server {
    /// `http://` or `https://` with host and port; empty when nothing listens.
    pub(crate) url: String,
    /// The name that its node joined by; empty without one.
    pub(crate) node_name: String,
    patience: Duration,
    queue: Arc<dyn Queue>,
    plugins: Plugins,
    node: Option<Node>,
    courier: Option<Courier>,
    api: Option<Api>,
    draining: CancellationToken,
    shutdown: CancellationToken,
    /// Holds the lock files, free again when it has ended.
    pulse: JoinHandle<()>,
}

/// The REST API as it runs.
struct Api {
    http: JoinHandle<Result<(), ServeError>>,
    requests: TaskTracker,
}

impl Server {
    /// Opens the store, binds the socket, and begins to take requests and jobs, as far as `shape`
    /// has these parts. Safe to drop while it waits for its store.
    pub(crate) async fn start(config: Config, shape: Shape) -> Result<Self, Failure> {
        let config = Arc::new(config);
        let shared = config.store.engine == "redis";
        if shape != Shape::All && !shared {
            return Err(needs_redis(shape));
        }
        let plugins = crate::plugins::registry(&config)?;
        crate::plugins::list_built_in(&plugins);
        devices::drivers(&config, &plugins)?;
        let drivers = Drivers::of(plugins.clone());
        let scheduler = scheduler(&config, &plugins).await?;
        webhooks(&config, &plugins)?;
        let webhooks = Webhooks::of(plugins.clone());
        let listener = match (shape.has_api(), config.metrics.port) {
            (true, _) => Some(bind("server", &config.server.host, config.server.port).await?),
            (false, Some(port)) => Some(bind("metrics", &config.metrics.host, port).await?),
            (false, None) => None,
        };
        let mut locks = Vec::new();
        // The embedded store keeps others out by itself.
        if shared {
            for name in shape.locks() {
                locks.push(Lock::take(&lock::work_dir(&config), name).await?);
            }
        }
        let queue = store::open(&config, shape, scheduler).await?;
        let fetch = crate::fetch::fetcher(&config.template.remote_hosts);
        let built_in = Arc::new(BuiltInTemplates::new(&config.template, fetch));
        let templates: Arc<dyn Templates> = Arc::new(AllTemplates::new(built_in, plugins.clone()));
        let credentials = credentials::open(&config, &plugins).await?;
        let mut registry = Registry::with_labels(labels(shape).into_iter());
        let node = match shape.serves() {
            None => None,
            Some(serves) => {
                let parts = NodeParts {
                    metrics: Metrics::registered(&mut registry),
                    serves,
                    config: Arc::clone(&config),
                    queue: Arc::clone(&queue),
                    drivers: drivers.clone(),
                    templates: Arc::clone(&templates),
                    credentials: credentials.clone(),
                };
                Some(Node::start(parts).await.map_err(refused)?)
            }
        };
        // Where a node listens, one also empties the outbox.
        let courier = node.as_ref().map(|node| {
            Courier::start(Arc::clone(&queue), webhooks.clone(), node.outbox(), courier_options(&config))
        });
        let renewals = node.as_ref().map(Node::renewals);
        let pulse = tokio::spawn(async move {
            let Some(mut renewals) = renewals else { return };
            while renewals.changed().await.is_ok() {
                for lock in &locks {
                    if let Err(error) = lock.touch() {
                        tracing::warn!(%error, "`netpulse health` will not see that this process works");
                    }
                }
            }
        });
        let mut server = Self {
            url: String::new(),
            node_name: node.as_ref().map(|node| node.name().to_owned()).unwrap_or_default(),
            patience: Duration::from_secs(config.worker.drain_timeout),
            queue,
            plugins,
            node,
            courier,
            api: None,
            draining: CancellationToken::new(),
            shutdown: CancellationToken::new(),
            pulse,
        };
        let parts = Parts {
            config: Arc::clone(&config),
            queue: Arc::clone(&server.queue),
            drivers,
            webhooks,
            templates: Some(templates),
            credentials,
            registry,
            draining: server.draining.clone(),
            shutdown: server.shutdown.clone(),
        };
        if let Some(listener) = listener {
            server.serve(parts, listener, shape.has_api())?;
        }
        Ok(server)
    }

    /// Puts the API on its socket; without it, what monitoring asks.
    fn serve(&mut self, parts: Parts, listener: TcpListener, api: bool) -> Result<(), Failure> {
        let address = listener.local_addr().map_err(|e| Failure::local(format!("no address: {e}")))?;
        let (token, server) = (self.shutdown.clone(), parts.config.server.clone());
        let controller = Controller::new(parts);
        let router = if api { controller.router() } else { controller.probes() };
        let scheme = if server.tls_cert.is_some() { "https" } else { "http" };
        let http =
            tokio::spawn(
                async move { serve(listener, router, &server, token, Duration::from_secs(5)).await },
            );
        self.url = format!("{scheme}://{address}");
        self.api = Some(Api { http, requests: controller.requests() });
        Ok(())
    }

    /// Resolves when the API ended by itself, or the node was told to stop by a request.
    pub(crate) async fn ended(&mut self) -> Result<(), Failure> {
        let node = async {
            match &self.node {
                Some(node) => node.asked_to_stop().await,
                None => std::future::pending().await,
            }
        };
        let http = async {
            match &mut self.api {
                Some(api) => (&mut api.http).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = node => Ok(()),
            end = http => match end {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(Failure::usage(error.to_string())),
                Err(crash) => Err(Failure::new(Exit::Refused, "internal", format!("the API crashed: {crash}"))),
            },
        }
    }

    /// Takes nothing new, lets running jobs and requests end, closes sessions, store and socket.
    pub(crate) async fn stop(mut self) {
        self.draining.cancel();
        if let Some(node) = self.node.take() {
            // Requests that wait for a running job get their answer before the socket closes.
            node.drain().await;
        } else if let Some(api) = &self.api {
            api.requests.close();
            if tokio::time::timeout(self.patience, api.requests.wait()).await.is_err() {
                tracing::info!(
                    requests = api.requests.len(),
                    "answering requests that still wait with the job as it stands"
                );
            }
        }
        if let Some(courier) = self.courier.take() {
            courier.drain(LAST_MESSAGES).await;
        }
        self.shutdown.cancel();
        if let Some(Api { http, .. }) = self.api.take().filter(|api| !api.http.is_finished()) {
            let _ = tokio::time::timeout(LAST_ANSWERS, http).await;
        }
        self.plugins.stop().await;
        self.queue.close().await;
        self.pulse.abort();
    }
}

/// The scheduler that `worker.scheduler` names, built in or among `plugins`.
///
/// # Errors
/// Nobody has that name: the start stops (promise 14).
pub(crate) async fn scheduler(config: &Config, plugins: &Plugins) -> Result<Arc<dyn Scheduler>, Failure> {
    let name = &config.worker.scheduler;
    let built_in = netpulse_scheduler::built_in().iter().any(|scheduler| scheduler.name() == name);
    let external = if built_in { None } else { plugins.scheduler(name).await };
    netpulse_scheduler::choose(name, &external.into_iter().collect::<Vec<_>>()).map_err(|unknown| {
        Failure::new(Exit::Usage, "unknown_scheduler", format!("worker.scheduler: {unknown}"))
            .hint("set `worker.scheduler` in the configuration or NETPULSE_WORKER__SCHEDULER")
    })
}

fn needs_redis(shape: Shape) -> Failure {
    let sentence = format!(
        "`{}` works with other processes through Redis, and `store.engine` is `embedded`",
        shape.command()
    );
    Failure::new(Exit::Usage, "needs_redis", sentence).hint(
        "set `store.engine: redis` and `redis.host` (NETPULSE_FAKE_REDIS must not be set), or run `netpulse serve`, which is all \
         roles in one process",
    )
}

fn refused(error: QueueError) -> Failure {
    match &error {
        QueueError::NameTaken(_) => Failure::new(Exit::JobFailed, "name_taken", error.to_string())
            .hint("`GET /nodes` shows who has joined; a node that was killed is forgotten after its lease"),
        _ => Failure::new(Exit::Local, "store", error.to_string()),
    }
}

async fn bind(section: &str, host: &str, port: u16) -> Result<TcpListener, Failure> {
    TcpListener::bind((host, port)).await.map_err(|error| {
        Failure::local(format!("cannot listen on {host}:{port}: {error}"))
            .hint(format!("another server may run there: choose `{section}.host` and `{section}.port`"))
    })
}

/// What every figure of this process carries.
fn labels(shape: Shape) -> [(Cow<'static, str>, Cow<'static, str>); 1] {
    let role = match shape {
        Shape::All => "all",
        Shape::Controller => "controller",
        Shape::Devices => "node",
        Shape::Fifo => "fifo",
    };
    [(Cow::Borrowed("role"), Cow::Borrowed(role))]
}

/// Registers the built-in webhook kind under the configuration's rules.
fn webhooks(config: &Config, plugins: &Plugins) -> Result<(), Failure> {
    let basic = Basic::new(BasicOptions {
        allow_private: config.webhook.allow_private.clone(),
        secret: config.webhook.secret.clone(),
        ca: config.webhook.ca.clone(),
    });
    let basic = basic.map_err(|error| Failure::usage(error.to_string()))?;
    plugins.register(Kind::Webhook, "basic", "JSON over HTTP", Implementation::Webhook(Arc::new(basic)));
    Ok(())
}

fn courier_options(config: &Config) -> CourierOptions {
    CourierOptions {
        concurrency: config.webhook.concurrency,
        per_receiver: config.webhook.per_receiver,
        legacy: config.webhook.format == "legacy",
    }
}
