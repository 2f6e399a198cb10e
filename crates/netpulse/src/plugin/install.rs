//! `netpulse plugin install`: from a reference to a program in the folder of plugins.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use netpulse_plugin::install::{
    Change, Installed, Order, PLUGIN_TYPE, Target, Wanted, identity_text, install,
};

use super::{Bar, asking, configured, failure, folder, format_or_place, run_to_end, trust};
use crate::Global;
use crate::exit::{Exit, Failure, Outcome};
use crate::ui::{Format, Text, Tone, Ui};

/// Install a plugin from a registry, an archive or a file
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse plugin install ghcr.io/acme/plugins//example.org/drivers/acme:0.2.0
  netpulse plugin install http://127.0.0.1:5000/plugins//example.org/drivers/acme
  netpulse plugin install ./acme.ctf//example.org/drivers/acme:0.2.0
  netpulse plugin install ./acme.tgz --dir /opt/netpulse/plugins
  netpulse plugin install ./target/release/acme
  netpulse plugin install ./acme.tgz --extra-identity arch=arm64 --skip-validation --dir ./for-the-pi

A reference is [oci::|ctf::]REPOSITORY//COMPONENT[:VERSION][@DIGEST]; without a version it is the
newest. Registries are asked over HTTPS unless http:// is written, with the credentials that
`docker login` stored; --ca FILE names a certificate that signed a registry's own. Digests and the signature (plugin.keys) are checked before anything is run;
then the plugin is asked for its capabilities, and only then it appears in the folder. The same
version again changes nothing.")]
pub struct InstallArgs {
    /// The component, an archive with one component, or a program on this machine
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// The folder of plugins [default: plugin.directory, or ~/.config/netpulse/plugins]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The same, as OCM's own tools call it; or table, json or yaml: how the result is printed
    #[arg(id = "output", short, long, value_name = "DIR|FORMAT", conflicts_with = "dir")]
    output: Option<String>,
    /// How the result is printed: table, json or yaml
    #[arg(short = 'f', long, value_enum, value_name = "FORMAT")]
    output_format: Option<Format>,
    /// What the resource must be identified by: os, architecture, ... [default: this machine's platform]
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    extra_identity: Vec<String>,
    /// The resource, where the component has several plugins
    #[arg(long, value_name = "NAME")]
    resource_name: Option<String>,
    /// The resource's version, where it differs from the component's
    #[arg(long, value_name = "VERSION")]
    resource_version: Option<String>,
    /// The type that resources with plugins have
    #[arg(long, value_name = "TYPE", default_value = PLUGIN_TYPE)]
    plugin_type: String,
    /// Name of the installed file [default: the last part of the component's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Do not run it to see that it is a plugin
    #[arg(long)]
    skip_validation: bool,
}

pub fn run(args: InstallArgs, global: &Global, ui: &Ui) -> Outcome {
    let (format, place) = format_or_place(args.output.as_deref());
    let ui = &ui.with_format(args.output_format.or(format));
    let loaded = configured(ui)?;
    let target = Target::parse(&args.reference).map_err(failure)?;
    let mut order = Order::new(target, folder(args.dir.as_ref().or(place.as_ref()), &loaded)?);
    order.wanted = Wanted {
        kind: args.plugin_type,
        name: args.resource_name,
        version: args.resource_version,
        identity: identity(&args.extra_identity)?,
    };
    order.name = args.name;
    order.trust = trust(&loaded)?;
    order.validate = !args.skip_validation;
    order.asking = asking(global)?;
    let bar = Bar::new(ui);
    let installed = run_to_end(install(&order, bar), "nothing half done is left behind")?;
    installed.warnings.iter().for_each(|warning| ui.warn(warning));
    show(&installed, ui)?;
    Ok(Exit::Ok)
}

fn identity(pairs: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(Failure::usage(format!("--extra-identity `{text}`: expected KEY=VALUE, like os=linux"))),
    };
    pairs.iter().map(pair).collect()
}

fn show(installed: &Installed, ui: &Ui) -> Result<(), Failure> {
    if !ui.for_people() {
        return ui.document(installed);
    }
    let row = vec![
        Text(installed.plugin.clone(), Tone::Strong),
        installed.version.clone().into(),
        installed.source.clone().into(),
        installed.kind.clone().into(),
        identity_text(&installed.identity).into(),
        installed.location.display().to_string().into(),
    ];
    ui.table(&["PLUGIN", "VERSION", "SOURCE", "TYPE", "IDENTITY", "LOCATION"], vec![row]);
    let name = &installed.plugin;
    let signed = installed.signer.as_ref().map(|signer| format!(", signed by {signer}")).unwrap_or_default();
    match (installed.change, &installed.replaced) {
        (Change::Unchanged, _) => ui.note(&format!("{name} was there already: nothing to do{signed}")),
        (Change::Installed, _) => ui.note_toned(&format!("{name} is installed{signed}"), Tone::Good),
        (Change::Replaced, Some(old)) => {
            ui.note_toned(&format!("{name} is installed in place of version {old}{signed}"), Tone::Good);
        }
        (Change::Replaced, None) => ui.note_toned(&format!("{name} is installed again{signed}"), Tone::Good),
    }
    Ok(())
}
