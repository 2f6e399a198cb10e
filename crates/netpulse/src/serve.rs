//! `netpulse serve`: the server on the embedded store.

use std::path::PathBuf;

use clap::Args;
use netpulse_config::{Config, ConfigErrors, LoadOptions};

use crate::exit::{Exit, Failure, Outcome};
use crate::logging;
use crate::server::Server;
use crate::stop::Stop;
use crate::ui::Ui;

/// Run the server: REST API, queue and workers in one process
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  NETPULSE_SERVER__API_KEY=change-me-please netpulse serve
  netpulse serve --config /etc/netpulse/netpulse.yaml
  netpulse serve --host 0.0.0.0 --port 9443 --store /var/lib/netpulse

`netpulse config check` tests the configuration without starting. Ctrl-C or SIGTERM ends: nothing new
is started, running jobs may finish for worker.drain_timeout seconds. A second Ctrl-C ends at once; what
was accepted stays on disk.")]
pub struct ServeArgs {
    /// Configuration file [default: NETPULSE_CONFIG_FILE, config/netpulse.yaml or netpulse.yaml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address to listen on (server.host)
    #[arg(long, value_name = "ADDRESS")]
    pub host: Option<String>,
    /// Port to listen on; 0 takes a free one (server.port)
    #[arg(short, long)]
    pub port: Option<u16>,
    /// Folder of the store (store.path)
    #[arg(long, value_name = "FOLDER")]
    pub store: Option<PathBuf>,
}

impl ServeArgs {
    /// The configuration by these flags, the environment and files; warnings are told.
    pub fn configuration(&self, log_level: Option<&str>, ui: &Ui) -> Result<Config, Failure> {
        let mut options = LoadOptions::from_process().with_file(self.config.clone());
        let store = self.store.as_ref().map(|path| path.display().to_string());
        for (key, value, flag) in [
            ("server.host", self.host.clone(), "--host"),
            ("server.port", self.port.map(|port| port.to_string()), "--port"),
            ("store.path", store, "--store"),
            ("log.level", log_level.map(str::to_owned), "--log-level"),
        ] {
            if let Some(value) = value {
                options = options.with_override(key, value, flag);
            }
        }
        let (config, warnings) = Config::load(options).map_err(|ConfigErrors(problems)| {
            let count = if problems.len() == 1 {
                "a mistake".to_owned()
            } else {
                format!("{} mistakes", problems.len())
            };
            Failure::new(Exit::Usage, "bad_config", format!("the configuration has {count}"))
                .details(problems.iter().map(ToString::to_string).collect())
                .hint("`netpulse config reference` prints every key with its default")
        })?;
        warnings.iter().for_each(|warning| ui.warn(&warning.to_string()));
        Ok(config)
    }
}

pub fn run(args: &ServeArgs, log_level: Option<&str>, ui: &Ui) -> Outcome {
    let config = args.configuration(log_level, ui)?;
    logging::start(&config.log.level, &config.log.format)?;
    crate::block_on(async {
        let mut stop = Stop::listen()?;
        let mut server = Server::start(config).await?;
        ui.line(&format!("NetPulse is ready: {url}  (documentation: {url}/docs)", url = server.url));
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
