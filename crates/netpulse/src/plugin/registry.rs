//! `netpulse plugin registry`: what catalogues of plugins offer.

use clap::{Args, Subcommand};
use netpulse_plugin::install::{Asking, InstallError, Limits, Listed, Reference, pick, read_catalogue};

use super::{asking, failure, run_to_end};
use crate::Global;
use crate::exit::{Exit, Failure, Outcome};
use crate::ui::{Format, Text, Tone, Ui};

/// Look into catalogues of plugins
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse plugin registry list --registry ghcr.io/acme/plugins//example.org/registry
  netpulse plugin registry get acme --registry ./catalogue.ctf//example.org/registry:1.0.0 -o wide

A catalogue is a component whose references carry the label ocm.software/pluginInfo.")]
pub struct RegistryArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List every plugin
    List {
        #[command(flatten)]
        from: From,
    },
    /// Show one plugin, in all its versions
    Get {
        /// Its name or component, and :VERSION where one is meant
        #[arg(value_name = "PLUGIN[:VERSION]")]
        name: String,
        #[command(flatten)]
        from: From,
    },
}

#[derive(Debug, Args)]
struct From {
    /// The catalogues, as component references
    #[arg(long, required = true, value_name = "REFERENCE", value_delimiter = ',')]
    registry: Vec<String>,
    /// How results are printed: table, wide, json, yaml or ndjson
    #[arg(id = "output", short, long, default_value = "table", value_name = "FORMAT",
          value_parser = ["table", "wide", "json", "yaml", "ndjson"])]
    output: String,
}

pub fn run(args: RegistryArgs, global: &Global, ui: &Ui) -> Outcome {
    let (name, from) = match args.action {
        Action::List { from } => (None, from),
        Action::Get { name, from } => (Some(name), from),
    };
    let asking = asking(global)?;
    let catalogues = from
        .registry
        .iter()
        .map(|text| Reference::parse(text).map_err(failure))
        .collect::<Result<Vec<_>, _>>()?;
    let mut all = run_to_end(read(&catalogues, &asking), "nothing was read")?;
    if let Some(name) = name {
        let (name, version) =
            name.split_once(':').map_or((name.as_str(), None), |(name, version)| (name, Some(version)));
        let picked: Vec<Listed> = pick(&all, name, version).map_err(failure)?.into_iter().cloned().collect();
        all = picked;
    }
    show(&all, &from.output, ui)?;
    Ok(Exit::Ok)
}

async fn read(catalogues: &[Reference], asking: &Asking) -> Result<Vec<Listed>, InstallError> {
    let mut all = Vec::new();
    for catalogue in catalogues {
        all.extend(read_catalogue(catalogue, asking, Limits::default()).await?);
    }
    Ok(all)
}

fn show(all: &[Listed], output: &str, ui: &Ui) -> Result<(), Failure> {
    match output {
        "json" => return ui.with_format(Some(Format::Json)).document(&all),
        "yaml" => return ui.with_format(Some(Format::Yaml)).document(&all),
        "ndjson" => {
            let ui = ui.with_format(Some(Format::Json));
            return all.iter().try_for_each(|listed| ui.record(listed));
        }
        _ => {}
    }
    let wide = output == "wide";
    let mut header = vec!["PLUGIN", "VERSION", "PLATFORMS", "DESCRIPTION"];
    if wide {
        header.extend(["REFERENCE", "REGISTRY"]);
    }
    let rows = all
        .iter()
        .map(|listed| {
            let mut row = vec![
                Text(listed.name.clone(), Tone::Strong),
                listed.version.clone().into(),
                listed.platforms.join(", ").into(),
                Text(listed.description.clone(), Tone::Dim),
            ];
            if wide {
                row.extend([listed.reference.clone().into(), Text(listed.registry.clone(), Tone::Dim)]);
            }
            row
        })
        .collect();
    ui.table(&header, rows);
    Ok(())
}
