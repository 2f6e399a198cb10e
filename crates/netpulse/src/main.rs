//! The `netpulse` binary: reads flags, runs one subcommand, says how it went.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod api;
mod completions;
mod config;
mod devices;
mod exit;
mod logging;
mod payload;
mod profile;
mod ui;
mod view;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::exit::Outcome;
use crate::ui::{Format, Ui};

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
        "Which server, with which key: --url and --api-key, else NETPULSE_URL and NETPULSE_API_KEY, else the \
         profile\nin ./netpulse.yaml or ~/.netpulse/config.yaml (as the Python client: `default:` and \
         `profiles:`), else\n{}.\n\n{}",
        profile::DEFAULT_URL,
        exit::help()
    )
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "For every command")]
pub struct Global {
    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// The server [default: the profile's, or http://127.0.0.1:9000]
    #[arg(long, global = true, alias = "endpoint", env = "NETPULSE_URL", hide_env_values = true)]
    url: Option<String>,
    /// The key of the server
    #[arg(long, global = true, env = "NETPULSE_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
    /// Profile of ./netpulse.yaml or ~/.netpulse/config.yaml
    #[arg(long, global = true, env = "NETPULSE_PROFILE", hide_env_values = true, value_name = "NAME")]
    profile: Option<String>,
    /// Log this command's own work: DEBUG, INFO, WARNING, ERROR, or a filter
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Config(config::ConfigArgs),
    Completions(completions::CompletionsArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ui = Ui::new(cli.global.output);
    match run(cli, &ui) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            ui.failure(&failure);
            failure.exit.into()
        }
    }
}

fn run(cli: Cli, ui: &Ui) -> Outcome {
    match cli.command {
        Command::Config(args) => config::run(args, ui),
        Command::Completions(args) => completions::run(&args, ui),
    }
}
