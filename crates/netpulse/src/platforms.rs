//! `netpulse platforms`: which device types there are, and how sure we are of each.

use std::path::PathBuf;

use clap::Args;
use netpulse_config::{LoadOptions, Loaded};
use netpulse_session::platform::{Platform, PlatformError, Registry};
use serde_json::{Value, json};

use crate::config::mistakes;
use crate::exit::{Exit, Failure, Outcome};
use crate::ui::{Text, Tone, Ui};

/// List the platforms (device types), or show one
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse platforms
  netpulse platforms juniper
  netpulse platforms cisco_ios_telnet
  netpulse platforms --dir /etc/netpulse/platforms -o json

VERIFIED says how a description was checked: `real device` against the vendor's own software in our
tests, `simulator` against our simulator, `facts` written from published facts only.")]
pub struct PlatformsArgs {
    /// Only platforms whose name, alias or description has this text, or the one of this device type
    #[arg(value_name = "TEXT")]
    filter: Option<String>,
    /// Folder whose YAML files add platforms or replace built-in ones [default: platform.dir of the configuration]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub fn run(args: &PlatformsArgs, ui: &Ui) -> Outcome {
    let wrong = |error: PlatformError| Failure::new(Exit::Usage, "bad_platform", error.to_string());
    let folder = match &args.dir {
        Some(folder) => Some(folder.clone()),
        None => configured(&Loaded::read(LoadOptions::from_process()), ui)?,
    };
    let registry = match &folder {
        Some(folder) => Registry::with_folder(folder),
        None => Registry::builtin(),
    }
    .map_err(wrong)?;
    let wanted = args.filter.as_deref().unwrap_or_default().trim().to_ascii_lowercase();
    let has = |platform: &Platform| {
        let texts = registry.names_of(platform).into_iter().chain([platform.description.clone()]);
        texts.into_iter().any(|text| text.to_ascii_lowercase().contains(&wanted))
    };
    let mut platforms = registry.all().map_err(wrong)?;
    platforms.retain(|platform| has(platform));
    if platforms.is_empty() {
        // `cisco_ios_telnet` stands in no list, yet is a device type.
        let found = registry
            .find(&wanted)
            .map_err(|error| Failure::new(Exit::NotFound, "unknown_platform", error.to_string()))?;
        platforms.push(found.platform);
    }
    if !ui.for_people() {
        let list: Vec<Value> = platforms.iter().map(|platform| record(platform, &registry)).collect();
        ui.document(&list)?;
        return Ok(Exit::Ok);
    }
    let count = platforms.len();
    let rows = platforms
        .iter()
        .map(|platform| {
            let verified = platform.verified.as_str().replace('_', " ");
            let tone = if verified == "facts" { Tone::Dim } else { Tone::Good };
            vec![
                Text::from(platform.name.as_str()),
                Text(verified, tone),
                ways(platform).join(", ").into(),
                platform.aliases.join(", ").into(),
                Text(platform.description.clone(), Tone::Dim),
            ]
        })
        .collect();
    ui.table(&["PLATFORM", "VERIFIED", "REACHED BY", "ALSO CALLED", "DESCRIPTION"], rows);
    let names: usize = platforms.iter().map(|platform| registry.names_of(platform).len()).sum();
    ui.note(&format!(
        "{count} platform{}, {names} names; each takes _ssh and, where it is reached by it, _telnet",
        if count == 1 { "" } else { "s" }
    ));
    Ok(Exit::Ok)
}

/// `platform.dir` of the configuration that a server started here would read. Other mistakes in it
/// do not matter here: a `netpulse.yaml` may be a client's profile.
fn configured(loaded: &Loaded, ui: &Ui) -> Result<Option<PathBuf>, Failure> {
    if loaded.problems.iter().any(|problem| problem.key.starts_with("platform")) {
        return Err(mistakes(loaded));
    }
    for problem in loaded.problems.iter().filter(|problem| problem.key.is_empty()) {
        ui.warn(&problem.to_string());
    }
    Ok(loaded.config.platform.dir.clone())
}

fn ways(platform: &Platform) -> Vec<String> {
    [("ssh", 22, platform.transports.ssh), ("telnet", 23, platform.transports.telnet)]
        .into_iter()
        .filter_map(|(way, usual, port)| {
            let port = port?.port;
            Some(if port == usual { way.to_owned() } else { format!("{way} {port}") })
        })
        .collect()
}

fn record(platform: &Platform, registry: &Registry) -> Value {
    json!({
        "name": platform.name,
        "description": platform.description,
        "verified": platform.verified.as_str(),
        "names": registry.names_of(platform),
        "ssh_port": platform.transports.ssh.map(|port| port.port),
        "telnet_port": platform.transports.telnet.map(|port| port.port),
        "candidate": platform.has_candidate(),
        "origin": platform.origin,
    })
}
