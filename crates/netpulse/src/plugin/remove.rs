//! `netpulse plugin remove`: takes a plugin away.

use std::path::PathBuf;

use clap::Args;
use netpulse_plugin::install::remove;

use super::{configured, failure, folder};
use crate::exit::{Exit, Outcome};
use crate::ui::Ui;

/// Remove an installed plugin, unless a process runs it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse plugin remove acme
  netpulse plugin remove acme --force")]
pub struct RemoveArgs {
    /// Its name, as `plugin verify` shows it
    #[arg(value_name = "PLUGIN")]
    name: String,
    /// The folder of plugins [default: plugin.directory, or ~/.config/netpulse/plugins]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Remove it even while it runs
    #[arg(long)]
    force: bool,
}

pub fn run(args: &RemoveArgs, ui: &Ui) -> Outcome {
    let folder = folder(args.dir.as_ref(), &configured(ui)?)?;
    let removed = remove(&folder, &args.name, args.force).map_err(failure)?;
    if ui.for_people() {
        let version =
            if removed.version.is_empty() { String::new() } else { format!(" {}", removed.version) };
        ui.line(&format!("{}{version} is removed", removed.plugin));
    } else {
        ui.document(&removed)?;
    }
    Ok(Exit::Ok)
}
