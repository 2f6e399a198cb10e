//! `netpulse plugin push`: from an archive to a registry.

use std::path::{Path, PathBuf};

use clap::Args;
use netpulse_plugin::install::{Base, Limits, Local, Repository, push};

use super::{Bar, asking, failure, run_to_end};
use crate::Global;
use crate::exit::{Exit, Failure, Outcome};
use crate::ui::Ui;

/// What it means when a push is given up.
const INTERRUPTED: &str = "the version under way is not published; what was sent is not sent again next time";

/// Push an archive of component versions to an OCI registry
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse plugin push acme.ctf ghcr.io/acme/plugins
  netpulse plugin push acme.tgz http://127.0.0.1:5000/plugins

What the registry has already is not sent again. A version appears when all of it is there.
Credentials are those that `docker login` stored.")]
pub struct PushArgs {
    /// The archive: CTF or OCI layout, a folder, .tar or .tgz
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    /// The registry and the path below it
    #[arg(value_name = "REGISTRY")]
    registry: String,
}

pub fn run(args: &PushArgs, global: &Global, ui: &Ui) -> Outcome {
    send(&args.archive, base(&args.registry)?, global, ui)
}

/// The place in a registry that the user named.
pub(super) fn base(text: &str) -> Result<Base, Failure> {
    let wrong = |why: &str| {
        Failure::usage(format!("`{text}` is no place in a registry: {why}")).hint(
            "write host[:port][/path], for example ghcr.io/acme/plugins or http://127.0.0.1:5000/plugins",
        )
    };
    match Repository::parse(text) {
        Ok(Repository::Registry(base)) => Ok(base),
        Ok(Repository::Archive(_)) => Err(wrong("it looks like a path on this machine")),
        Err(why) => Err(wrong(&why)),
    }
}

pub(super) fn send(archive: &Path, base: Base, global: &Global, ui: &Ui) -> Outcome {
    let limits = Limits::default();
    let local = Local::open(archive, limits).map_err(failure)?;
    let pushed = run_to_end(push(local, base, asking(global)?, Bar::new(ui), limits), INTERRUPTED)?;
    if !ui.for_people() {
        ui.document(&pushed)?;
        return Ok(Exit::Ok);
    }
    for pushed in &pushed {
        ui.line(&format!("{} {}", pushed.reference, pushed.digest));
        ui.note(&match (pushed.sent, pushed.blobs - pushed.sent) {
            (sent, 0) => format!("{sent} blobs sent"),
            (0, there) => format!("all {there} blobs were there"),
            (sent, there) => format!("{sent} blobs sent, {there} were there"),
        });
    }
    Ok(Exit::Ok)
}
