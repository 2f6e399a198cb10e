//! The `netpulse` binary: reads flags, runs one subcommand, says how it went.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod api;
mod bench;
mod bulk;
mod cancel;
mod completions;
mod config;
mod demo;
mod devices;
mod doctor;
mod exec;
mod exit;
mod fetch;
mod follow;
mod health;
#[cfg(test)]
mod help;
mod job;
mod jobs;
mod logging;
mod parse;
mod payload;
mod platforms;
mod plugin;
mod plugins;
mod profile;
mod render;
mod serve;
mod server;
mod simulate;
mod stop;
mod test;
mod ui;
mod view;
mod watch;
mod webhook_dev;
mod workers;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::api::Api;
use crate::exit::{Failure, Outcome};
use crate::ui::Ui;

/// Network devices behind one REST API: the server, and the command line to it
#[derive(Debug, Parser)]
#[command(
    name = "netpulse",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_long_help = after_help(),
    after_help = "`netpulse help COMMAND` shows a command with examples; `netpulse --help` the exit codes."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

fn after_help() -> String {
    format!(
        "Which server, with which key:\n  1. --url and --api-key\n  2. NETPULSE_URL and NETPULSE_API_KEY\n  \
         3. the profile (--profile) in ./netpulse.yaml or ~/.netpulse/config.yaml, as for the Python\n     client: \
         `default:` and `profiles:` with base_url, api_key, driver, connection_args\n  4. {}\n\n{}",
        profile::DEFAULT_URL,
        exit::help()
    )
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "For every command")]
pub struct Global {
    /// How results are printed
    // A text, because some commands give `--output` a wider meaning: a folder or file to make.
    #[arg(short, long, global = true, default_value = "table", value_name = "FORMAT",
          value_parser = ["table", "json", "yaml"])]
    output: String,
    /// The server [default: the profile's, or http://127.0.0.1:9000] [environment: NETPULSE_URL]
    #[arg(long, global = true, alias = "endpoint")]
    url: Option<String>,
    /// The key of the server [environment: NETPULSE_API_KEY]
    #[arg(long, global = true, value_name = "KEY")]
    api_key: Option<String>,
    /// The header that carries the key [default: the profile's, or X-API-KEY] [environment: NETPULSE_API_KEY_NAME]
    #[arg(long, global = true, value_name = "HEADER", hide_short_help = true)]
    api_key_name: Option<String>,
    /// Profile of ./netpulse.yaml or ~/.netpulse/config.yaml [environment: NETPULSE_PROFILE]
    #[arg(long, global = true, value_name = "NAME")]
    profile: Option<String>,
    /// Certificate (PEM) that must have signed the server's [environment: NETPULSE_CA]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    ca: Option<PathBuf>,
    /// Trust any certificate: for a first look, never for work
    #[arg(long, global = true, conflicts_with = "ca", hide_short_help = true)]
    insecure: bool,
    /// Log this command's own work: DEBUG, INFO, WARNING, ERROR, or a filter
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl Global {
    /// What flags do not say and the environment does. Read here, not by the parser: it would show
    /// every flag set by the environment as required in the usage line of an error.
    fn with_environment(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        self.url = self.url.or_else(|| variable("NETPULSE_URL"));
        self.api_key = self.api_key.or_else(|| variable("NETPULSE_API_KEY"));
        self.api_key_name = self.api_key_name.or_else(|| variable("NETPULSE_API_KEY_NAME"));
        self.profile = self.profile.or_else(|| variable("NETPULSE_PROFILE"));
        if !self.insecure {
            self.ca = self.ca.or_else(|| variable("NETPULSE_CA").map(PathBuf::from));
        }
        self
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Controller(serve::ControllerArgs),
    Worker(serve::WorkerArgs),
    Doctor(doctor::DoctorArgs),
    Health(health::HealthArgs),
    Demo(demo::DemoArgs),
    Bench(bench::BenchArgs),
    Exec(exec::ExecArgs),
    Bulk(bulk::BulkArgs),
    Test(test::TestArgs),
    Jobs(jobs::JobsArgs),
    Job(job::JobArgs),
    Watch(watch::WatchArgs),
    Cancel(cancel::CancelArgs),
    Workers(workers::WorkersArgs),
    Platforms(platforms::PlatformsArgs),
    Plugin(plugin::PluginArgs),
    Download(plugin::DownloadArgs),
    Render(render::RenderArgs),
    Parse(parse::ParseArgs),
    Simulate(simulate::SimulateArgs),
    WebhookDev(webhook_dev::WebhookDevArgs),
    Config(config::ConfigArgs),
    Completions(completions::CompletionsArgs),
}

fn main() -> ExitCode {
    // Before anything else: it is started with every plugin, and must be quick.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == plugins::GUARD) {
        let status = netpulse_plugin::guard::run(arguments);
        return ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX));
    }
    let mut cli = Cli::parse();
    cli.global = cli.global.with_environment(|name| std::env::var(name).ok());
    let ui = Ui::new(plugin::format_or_place(Some(&cli.global.output)).0.unwrap_or_default());
    match run(cli, &ui) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            ui.failure(&failure);
            failure.exit.into()
        }
    }
}

fn run(cli: Cli, ui: &Ui) -> Outcome {
    let global = &cli.global;
    // A server logs as its configuration says; the flag is part of that.
    let serves = matches!(cli.command, Command::Serve(_) | Command::Controller(_) | Command::Worker(_));
    if let (Some(level), false) = (&global.log_level, serves) {
        logging::start(level, "text")?;
    }
    match cli.command {
        Command::Serve(args) => serve::run(&args, global.log_level.as_deref(), ui),
        Command::Controller(args) => serve::controller(&args, global.log_level.as_deref(), ui),
        Command::Worker(args) => serve::worker(&args, global.log_level.as_deref(), ui),
        Command::Doctor(args) => doctor::run(&args, ui),
        Command::Health(args) => health::run(&args, ui),
        Command::Bench(args) => bench::run(&args, ui),
        Command::Demo(args) => demo::run(&args, ui),
        Command::Config(args) => config::run(args, ui),
        Command::Completions(args) => completions::run(&args, ui),
        Command::Platforms(args) => platforms::run(&args, ui),
        Command::Plugin(args) => plugin::run(args, global, ui),
        Command::Download(args) => plugin::download(args, global, ui),
        Command::Render(args) => render::run(&args, ui),
        Command::Parse(args) => parse::run(&args, ui),
        Command::Simulate(args) => simulate::run(args, ui),
        Command::WebhookDev(args) => webhook_dev::run(args, ui),
        Command::Exec(args) => ask(global, async |api| exec::run(args, api, ui).await),
        Command::Bulk(args) => ask(global, async |api| bulk::run(args, api, ui).await),
        Command::Test(args) => ask(global, async |api| test::run(args, api, ui).await),
        Command::Jobs(args) => ask(global, async |api| jobs::run(args, api, ui).await),
        Command::Job(args) => ask(global, async |api| job::run(args, api, ui).await),
        Command::Watch(args) => ask(global, async |api| watch::run(args, api, ui).await),
        Command::Cancel(args) => ask(global, async |api| cancel::run(args, api, ui).await),
        Command::Workers(args) => ask(global, async |api| workers::run(args, api, ui).await),
    }
}

/// Runs asynchronous work to its end on all cores.
fn block_on<T>(work: impl Future<Output = Result<T, exit::Failure>>) -> Result<T, exit::Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| exit::Failure::local(format!("no threads: {error}")))?
        .block_on(work)
}

/// Runs what asks a server: one thread is plenty.
fn ask(global: &Global, work: impl AsyncFnOnce(&Api) -> Outcome) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::local(format!("cannot start: {e}")))?;
    runtime.block_on(async {
        let api = Api::connect(global)?;
        work(&api).await
    })
}
