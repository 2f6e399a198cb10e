//! `netpulse serve`: the server on the embedded store.

use std::path::PathBuf;

use clap::Args;
use netpulse_config::{LoadOptions, Loaded};

use crate::exit::{Exit, Failure, Outcome};
use crate::logging;
use crate::server::Server;
use crate::ui::Ui;

/// Run the server: REST API, queue and workers in one process
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  NETPULSE_SERVER__API_KEY=change-me-please netpulse serve
  netpulse serve --config /etc/netpulse/netpulse.yaml
  netpulse serve --host 0.0.0.0 --port 9000 --store /var/lib/netpulse

Ctrl-C or SIGTERM drains: nothing new is started, running jobs end within worker.drain_timeout,
sessions are closed. A second Ctrl-C ends at once; what was accepted stays on disk.")]
pub struct ServeArgs {
    /// Configuration file [default: NETPULSE_CONFIG_FILE, ./config/netpulse.yaml, ./netpulse.yaml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on (server.host)
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port to listen on, 0 for a free one (server.port)
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Folder of the store (store.path)
    #[arg(long, value_name = "FOLDER")]
    store: Option<PathBuf>,
}

pub fn run(args: ServeArgs, log_level: Option<&str>, ui: &Ui) -> Outcome {
    let mut options = LoadOptions::from_process();
    options.file = args.config.or(options.file);
    let mut set = |key: &str, value: Option<String>, flag: &str| {
        if let Some(value) = value {
            options.overrides.push((key.to_owned(), value, flag.to_owned()));
        }
    };
    set("server.host", args.host, "--host");
    set("server.port", args.port.map(|p| p.to_string()), "--port");
    set("store.path", args.store.map(|p| p.display().to_string()), "--store");
    set("log.level", log_level.map(str::to_owned), "--log-level");
    let loaded = Loaded::read(options);
    if !loaded.problems.is_empty() {
        return Err(crate::config::mistakes(&loaded));
    }
    let config = loaded.config;
    logging::start(&config.log.level, &config.log.format)?;
    for warning in loaded.warnings {
        tracing::warn!("{warning}");
    }
    crate::block_on(async {
        let mut server = Server::start(config).await?;
        ui.line(&format!("NetPulse is ready: {}  (documentation: {}/docs)", server.url, server.url));
        let ended = tokio::select! {
            signal = stop_signal() => signal.map(|name| tracing::info!("{name}: draining")),
            ended = server.ended() => ended,
        };
        tokio::select! {
            () = server.stop() => ended.map(|()| Exit::Ok),
            signal = stop_signal() => signal.map(|_| Exit::Interrupted),
        }
    })
}

/// Resolves when somebody asks this process to end.
pub(crate) async fn stop_signal() -> Result<&'static str, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let fail = |e: std::io::Error| Failure::local(format!("signals cannot be received: {e}"));
    let mut term = signal(SignalKind::terminate()).map_err(fail)?;
    let mut int = signal(SignalKind::interrupt()).map_err(fail)?;
    Ok(tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    })
}
