//! `netpulse plugin pack`: from a constructor file to an archive that can be pushed and installed.

use std::path::PathBuf;

use clap::Args;
use netpulse_plugin::install::{Limits, Packing, pack};

use super::{failure, format_or_place, push};
use crate::Global;
use crate::exit::{Exit, Failure, Outcome};
use crate::ui::Ui;

/// Pack programs into an archive of component versions (CTF)
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse plugin pack constructor.yaml --version 0.2.0 --output acme.ctf
  netpulse plugin pack constructor.yaml --version 0.2.0 --output acme.tgz --sign key.pem
  netpulse plugin pack constructor.yaml --output acme.ctf --push ghcr.io/acme/plugins

A constructor file:
  name: example.org/drivers/acme
  provider: {name: example.org}
  resources:
  - name: acme
    type: ocmPlugin
    extraIdentity: {os: linux, architecture: amd64}
    input: {type: file, path: target/release/acme}

Paths are relative to the file. The same input gives the same bytes. A key is made by
`openssl genpkey -algorithm ed25519 -out key.pem`; who installs needs the public one
(`openssl pkey -in key.pem -pubout -out acme.pem`) in plugin.keys.")]
pub struct PackArgs {
    /// The constructor file: components, their resources and where the bytes are
    #[arg(value_name = "CONSTRUCTOR")]
    constructor: PathBuf,
    /// The version of components that name none
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// The archive: a folder, or a file when it ends in .tar, .tgz or .tar.gz [default: plugin.ctf]
    #[arg(id = "output", short, long, value_name = "FILE")]
    output: Option<String>,
    /// How the result is printed: table, json or yaml
    #[arg(short = 'f', long, value_enum, value_name = "FORMAT")]
    output_format: Option<crate::ui::Format>,
    /// Sign with this private key (ed25519, PEM)
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// Push the archive to this place in a registry when it is made
    #[arg(long, value_name = "REGISTRY")]
    push: Option<String>,
    /// Replace an archive that is there
    #[arg(long)]
    force: bool,
}

pub fn run(args: PackArgs, global: &Global, ui: &Ui) -> Outcome {
    let (format, place) = format_or_place(args.output.as_deref());
    let ui = &ui.with_format(args.output_format.or(format));
    let output = place.unwrap_or_else(|| PathBuf::from("plugin.ctf"));
    // Before anything is written.
    let base = args.push.as_deref().map(push::base).transpose()?;
    let packing = Packing {
        constructor: args.constructor,
        version: args.version,
        output: output.clone(),
        key: args.sign,
        force: args.force,
        limits: Limits::default(),
    };
    let packed = pack(&packing).map_err(failure)?;
    if ui.for_people() {
        for packed in &packed {
            let signed = if packed.signed.is_some() { ", signed" } else { "" };
            let count = packed.resources;
            let resources = if count == 1 { "1 resource".to_owned() } else { format!("{count} resources") };
            ui.line(&format!(
                "{}:{} ({resources}{signed}) {}",
                packed.component, packed.version, packed.digest
            ));
        }
        ui.note(&format!("packed into {}", output.display()));
    } else if base.is_none() {
        ui.document(&packed)?;
    }
    match base {
        Some(base) => push::send(&output, base, global, ui),
        None => Ok::<_, Failure>(Exit::Ok),
    }
}
