//! `netpulse plugin`: which plugins there are, whether a file is a sound one, and how to begin one.

mod doctor;
mod list;
mod new;
mod template;

use clap::{Args, Subcommand};

use crate::exit::Outcome;
use crate::ui::Ui;
use crate::{Global, ask};

/// List, check and write plugins
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse plugin list
  netpulse plugin info driver/acme
  netpulse plugin new driver acme --lang rust
  netpulse plugin doctor ./target/release/acme

docs/plugins.md is the guide, docs/plugin-contract.md what a plugin must do.")]
pub struct PluginArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    List(list::ListArgs),
    Info(list::InfoArgs),
    Reload(list::ReloadArgs),
    Doctor(doctor::DoctorArgs),
    New(new::NewArgs),
}

pub fn run(args: PluginArgs, global: &Global, ui: &Ui) -> Outcome {
    match args.action {
        Action::List(args) if args.local => list::local(ui),
        Action::List(_) => ask(global, async |api| list::list(api, ui).await),
        Action::Info(args) => ask(global, async |api| list::info(&args, api, ui).await),
        Action::Reload(_) => ask(global, async |api| list::reload(api, ui).await),
        Action::Doctor(args) => doctor::run(&args, ui),
        Action::New(args) => new::run(&args, ui),
    }
}
