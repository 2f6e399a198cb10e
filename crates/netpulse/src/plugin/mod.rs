//! `netpulse plugin`: which plugins there are, how to begin one, and its way from its maker to
//! this machine.

mod doctor;
mod install;
mod list;
mod new;
mod pack;
mod push;
mod registry;
mod remove;
mod template;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use netpulse_config::{LoadOptions, Loaded};
use netpulse_plugin::install::{Asking, InstallError, Trouble, Trust, Watch, credential_files};
use parking_lot::Mutex;

use crate::config::mistakes;
use crate::exit::{Exit, Failure, Outcome};
use crate::ui::{Format, Ui};
use crate::{Global, ask, block_on};

pub use install::InstallArgs;

/// List, write, check, pack, publish and install plugins
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse plugin list
  netpulse plugin info driver/acme
  netpulse plugin new driver acme --lang rust
  netpulse plugin doctor ./target/release/acme
  netpulse plugin install ghcr.io/acme/plugins//example.org/drivers/acme:0.2.0
  netpulse plugin verify
  netpulse plugin pack constructor.yaml --version 0.2.0 --output acme.ctf
  netpulse plugin push acme.ctf ghcr.io/acme/plugins

`netpulse plugin COMMAND --help` shows each with examples. docs/plugins.md is the guide,
docs/plugin-contract.md what a plugin must do.")]
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
    Install(InstallArgs),
    Remove(remove::RemoveArgs),
    Verify(verify::VerifyArgs),
    Registry(registry::RegistryArgs),
    Pack(pack::PackArgs),
    Push(push::PushArgs),
}

/// `plugin install` by the name that OCM's own tools give it
#[derive(Debug, Args)]
#[command(after_help = "Example:
  netpulse download plugin ghcr.io/acme/plugins//example.org/drivers/acme:0.2.0")]
pub struct DownloadArgs {
    #[command(subcommand)]
    what: Download,
}

#[derive(Debug, Subcommand)]
enum Download {
    /// The same as `netpulse plugin install`
    Plugin(InstallArgs),
}

pub fn run(args: PluginArgs, global: &Global, ui: &Ui) -> Outcome {
    match args.action {
        Action::List(args) if args.local => list::local(ui),
        Action::List(_) => ask(global, async |api| list::list(api, ui).await),
        Action::Info(args) => ask(global, async |api| list::info(&args, api, ui).await),
        Action::Reload(_) => ask(global, async |api| list::reload(api, ui).await),
        Action::Doctor(args) => doctor::run(&args, ui),
        Action::New(args) => new::run(&args, ui),
        Action::Install(args) => install::run(args, global, ui),
        Action::Remove(args) => remove::run(&args, ui),
        Action::Verify(args) => verify::run(&args, ui),
        Action::Registry(args) => registry::run(args, global, ui),
        Action::Pack(args) => pack::run(args, global, ui),
        Action::Push(args) => push::run(&args, global, ui),
    }
}

pub fn download(args: DownloadArgs, global: &Global, ui: &Ui) -> Outcome {
    let Download::Plugin(args) = args.what;
    install::run(args, global, ui)
}

/// `--output`, which is a format everywhere, and a folder or file too where one is made.
pub(crate) fn format_or_place(text: Option<&str>) -> (Option<Format>, Option<PathBuf>) {
    match text.map(|text| (text, <Format as clap::ValueEnum>::from_str(text, true))) {
        None => (None, None),
        Some((_, Ok(format))) => (Some(format), None),
        Some((text, Err(_))) => (None, Some(text.into())),
    }
}

/// What a failure below means for the exit code.
pub(crate) fn failure(error: InstallError) -> Failure {
    let exit = match error.trouble {
        Trouble::BadInput => Exit::Usage,
        Trouble::NotFound => Exit::NotFound,
        Trouble::Unreachable => Exit::Unreachable,
        Trouble::Denied => Exit::Denied,
        Trouble::Untrusted | Trouble::BadContent | Trouble::NotAPlugin | Trouble::InTheWay => Exit::Refused,
        Trouble::Local => Exit::Local,
    };
    // What a registry or a descriptor said may be part of it, and must not speak to the terminal.
    let plain = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    let message: String = error.message.chars().map(plain).collect();
    let new = Failure::new(exit, error.trouble.code(), message);
    match error.hint {
        Some(hint) => new.hint(hint),
        None => new,
    }
}

/// The configuration that a server started here would read; only what it says of plugins matters.
pub(crate) fn configured(ui: &Ui) -> Result<Loaded, Failure> {
    let loaded = Loaded::read(LoadOptions::from_process());
    if loaded.problems.iter().any(|problem| problem.key.starts_with("plugin")) {
        return Err(mistakes(&loaded));
    }
    for problem in loaded.problems.iter().filter(|problem| problem.key.is_empty()) {
        ui.warn(&problem.to_string());
    }
    Ok(loaded)
}

/// The folder of plugins: the flag, the configuration, or the user's own.
pub(crate) fn folder(flag: Option<&PathBuf>, loaded: &Loaded) -> Result<PathBuf, Failure> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config/netpulse/plugins"));
    flag.cloned().or_else(|| loaded.config.plugin.directory.clone()).or_else(home).ok_or_else(|| {
        Failure::usage("no folder of plugins: neither --dir nor plugin.directory nor HOME is set")
    })
}

pub(crate) fn trust(loaded: &Loaded) -> Result<Trust, Failure> {
    let plugin = &loaded.config.plugin;
    Trust::read(&plugin.keys, plugin.require_signature).map_err(failure)
}

/// How registries are asked: with docker's credentials, and the certificate that the flags name.
pub(crate) fn asking(global: &Global) -> Result<Asking, Failure> {
    let ca = match &global.ca {
        Some(file) => {
            Some(std::fs::read(file).map_err(|e| Failure::usage(format!("--ca {}: {e}", file.display())))?)
        }
        None => None,
    };
    Ok(Asking {
        credentials: credential_files(|name| std::env::var(name).ok()),
        ca,
        insecure: global.insecure,
    })
}

/// Runs it to its end, or until Ctrl-C or SIGTERM: then what is under way is given up, and `so` says
/// what that means.
pub(crate) fn run_to_end<T>(
    work: impl Future<Output = Result<T, InstallError>>,
    so: &str,
) -> Result<T, Failure> {
    block_on(async {
        tokio::select! {
            result = work => result.map_err(failure),
            stopped = stopped() => {
                stopped.and(Err(Failure::new(Exit::Interrupted, "interrupted", format!("interrupted: {so}"))))
            }
        }
    })
}

async fn stopped() -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::local(format!("signals cannot be awaited: {e}"));
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminated = signal(SignalKind::terminate()).map_err(failed)?;
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed.map_err(failed),
            _ = terminated.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.map_err(failed)
}

/// Small transfers are over before a bar could be read.
const WORTH_A_BAR: u64 = 256 * 1024;

/// A bar on the terminal for every long transfer.
#[derive(Debug)]
pub(crate) struct Bar {
    ui: Ui,
    bar: Mutex<Option<ProgressBar>>,
    pending: AtomicU64,
}

impl Bar {
    pub(crate) fn new(ui: &Ui) -> Arc<Self> {
        Arc::new(Self { ui: *ui, bar: Mutex::new(None), pending: AtomicU64::new(0) })
    }
}

impl Watch for Bar {
    fn begins(&self, what: &str, total: u64) {
        self.pending.store(0, Ordering::Relaxed);
        if total >= WORTH_A_BAR {
            *self.bar.lock() = Some(self.ui.transfer(total, what));
        }
    }

    fn moved(&self, bytes: u64) {
        let moved = self.pending.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(bar) = &*self.bar.lock() {
            bar.set_position(moved);
        }
    }

    fn ends(&self) {
        if let Some(bar) = self.bar.lock().take() {
            bar.finish_and_clear();
        }
    }
}
