//! `netpulse serve`, `controller` and `worker`: the server, whole or one role of it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use netpulse_config::{Config, ConfigErrors, LoadOptions};

use crate::exit::{Exit, Failure, Outcome};
use crate::logging;
use crate::server::{Server, Shape};
use crate::stop::Stop;
use crate::ui::Ui;

/// Run the server: REST API, queue and workers in one process
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  NETPULSE_SERVER__API_KEY=change-me-please netpulse serve
  netpulse serve --config /etc/netpulse/netpulse.yaml
  netpulse serve --host 0.0.0.0 --port 9443 --store /var/lib/netpulse
  netpulse serve --engine redis

With `--engine redis` jobs wait in the Redis of `redis.*`, and other processes may join: further ones like
this, or `netpulse controller` and `netpulse worker`.

`netpulse config check` tests the configuration without starting. Ctrl-C or SIGTERM ends: nothing new
is started, running jobs may finish for worker.drain_timeout seconds. A second Ctrl-C ends at once; what
was accepted stays on disk.")]
pub struct ServeArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    socket: Socket,
}

/// Run the REST API alone, for workers on other machines
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse controller --config /etc/netpulse/netpulse.yaml
  NETPULSE_STORE__ENGINE=redis NETPULSE_REDIS__HOST=redis-1 netpulse controller --host 0.0.0.0
  curl http://127.0.0.1:9000/health/ready

Run two or more behind a proxy: they share nothing but Redis, and any of them answers anything. It waits
for Redis when it starts. SIGTERM: requests in hand are answered, new ones get 503 with Retry-After, and
/health/ready says so.")]
pub struct ControllerArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    socket: Socket,
}

/// Run a worker alone: a node that owns devices, or slots for FifoQ
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse worker node --config /etc/netpulse/netpulse.yaml
  netpulse worker node --name node-b --work-dir /var/lib/netpulse/node-b
  netpulse worker fifo

A work folder holds one node and one FIFO worker, guarded by node.lock and fifo.lock; a second one ends
with exit code 1. SIGTERM: nothing new is taken, idle devices go to other nodes at once, running jobs may
finish for worker.drain_timeout seconds.")]
pub struct WorkerArgs {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Own devices: a session each, their jobs in order
    #[command(after_help = "Examples:
  netpulse worker node --config /etc/netpulse/netpulse.yaml
  netpulse worker node --name node-b --work-dir /var/lib/netpulse/node-b")]
    Node(WorkerFlags),
    /// Serve FifoQ: many jobs at a time, a session for each
    #[command(after_help = "Examples:
  netpulse worker fifo --config /etc/netpulse/netpulse.yaml
  NETPULSE_WORKER__FIFO_CONCURRENCY=200 netpulse worker fifo")]
    Fifo(WorkerFlags),
}

#[derive(Debug, Args)]
struct WorkerFlags {
    #[command(flatten)]
    common: Common,
    /// Its name, the host's by default (worker.node)
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Folder of its lock file (worker.work_dir)
    #[arg(long, value_name = "FOLDER")]
    work_dir: Option<PathBuf>,
}

/// Where jobs wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// In this process' own folder
    Embedded,
    /// In Redis, shared with other processes
    Redis,
}

#[derive(Debug, Args)]
struct Common {
    /// Configuration file [default: NETPULSE_CONFIG_FILE, config/netpulse.yaml or netpulse.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the embedded store and of known host keys (store.path)
    #[arg(long, value_name = "FOLDER")]
    store: Option<PathBuf>,
    /// Where jobs wait (store.engine)
    #[arg(long, value_enum)]
    engine: Option<Engine>,
}

#[derive(Debug, Args)]
struct Socket {
    /// Address to listen on (server.host)
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port to listen on; 0 takes a free one (server.port)
    #[arg(short, long)]
    port: Option<u16>,
}

/// A key that a flag may set: its path, the value, the flag's name.
pub type Flag = (&'static str, Option<String>, &'static str);

impl Common {
    fn flags(&self) -> Vec<Flag> {
        let engine = self.engine.and_then(|engine| engine.to_possible_value());
        vec![
            ("store.path", self.store.as_ref().map(|path| path.display().to_string()), "--store"),
            ("store.engine", engine.map(|engine| engine.get_name().to_owned()), "--engine"),
        ]
    }
}

impl Socket {
    fn flags(&self) -> Vec<Flag> {
        vec![
            ("server.host", self.host.clone(), "--host"),
            ("server.port", self.port.map(|port| port.to_string()), "--port"),
        ]
    }
}

/// The configuration by these flags, the environment and files; warnings are told.
pub fn configuration(file: Option<PathBuf>, flags: Vec<Flag>, ui: &Ui) -> Result<Config, Failure> {
    let mut options = LoadOptions::from_process().with_file(file);
    for (key, value, flag) in flags {
        if let Some(value) = value {
            options = options.with_override(key, value, flag);
        }
    }
    let (config, warnings) = Config::load(options).map_err(|ConfigErrors(problems)| {
        let count =
            if problems.len() == 1 { "a mistake".to_owned() } else { format!("{} mistakes", problems.len()) };
        Failure::new(Exit::Usage, "bad_config", format!("the configuration has {count}"))
            .details(problems.iter().map(ToString::to_string).collect())
            .hint("`netpulse config reference` prints every key with its default")
    })?;
    warnings.iter().for_each(|warning| ui.warn(&warning.to_string()));
    Ok(config)
}

pub fn run(args: &ServeArgs, log_level: Option<&str>, ui: &Ui) -> Outcome {
    let flags = [args.common.flags(), args.socket.flags()].concat();
    start(Shape::All, args.common.config.clone(), flags, log_level, ui)
}

pub fn controller(args: &ControllerArgs, log_level: Option<&str>, ui: &Ui) -> Outcome {
    let flags = [args.common.flags(), args.socket.flags()].concat();
    start(Shape::Controller, args.common.config.clone(), flags, log_level, ui)
}

pub fn worker(args: &WorkerArgs, log_level: Option<&str>, ui: &Ui) -> Outcome {
    let (shape, args) = match &args.kind {
        Kind::Node(args) => (Shape::Devices, args),
        Kind::Fifo(args) => (Shape::Fifo, args),
    };
    let mut flags = args.common.flags();
    flags.push(("worker.node", args.name.clone(), "--name"));
    let folder = args.work_dir.as_ref().map(|path| path.display().to_string());
    flags.push(("worker.work_dir", folder, "--work-dir"));
    start(shape, args.common.config.clone(), flags, log_level, ui)
}

fn start(
    shape: Shape,
    file: Option<PathBuf>,
    mut flags: Vec<Flag>,
    log_level: Option<&str>,
    ui: &Ui,
) -> Outcome {
    flags.push(("log.level", log_level.map(str::to_owned), "--log-level"));
    let config = configuration(file, flags, ui)?;
    logging::start(&config.log.level, &config.log.format)?;
    crate::block_on(async {
        let mut stop = Stop::listen()?;
        let mut server = tokio::select! {
            server = Box::pin(Server::start(config, shape)) => server?,
            // It was still waiting for its store: nothing has begun.
            () = stop.asked() => return Ok(Exit::Ok),
        };
        ui.announce(&ready(shape, &server));
        let ended = tokio::select! {
            () = stop.asked() => Ok(()),
            ended = server.ended() => ended,
        };
        tracing::info!("draining: nothing new is started");
        tokio::select! {
            () = server.stop() => ended.map(|()| Exit::Ok),
            () = stop.asked() => Ok(Exit::Interrupted),
        }
    })
}

fn ready(shape: Shape, server: &Server) -> String {
    match shape {
        Shape::All => {
            format!("NetPulse is ready: {url}  (documentation: {url}/docs)", url = server.url)
        }
        Shape::Controller => {
            format!("NetPulse controller is ready: {url}  (documentation: {url}/docs)", url = server.url)
        }
        Shape::Devices => {
            format!("NetPulse node `{}` is ready for devices{}", server.node_name, figures(server))
        }
        Shape::Fifo => {
            format!("NetPulse worker `{}` is ready for FifoQ{}", server.node_name, figures(server))
        }
    }
}

/// Where a worker's figures are, if anywhere.
fn figures(server: &Server) -> String {
    if server.url.is_empty() { String::new() } else { format!("  (figures: {}/metrics)", server.url) }
}
