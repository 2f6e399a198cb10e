//! `netpulse config`: what the server would read, and whether it is in order.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use netpulse_config::{LoadOptions, Loaded, Origin, Problem, reference_markdown, reference_yaml};
use netpulse_session::platform::Registry;
use serde_json::json;

use crate::exit::{Exit, Failure, Outcome};
use crate::ui::{Format, Text, Tone, Ui};

/// Check or show the server's configuration
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse config check
  netpulse config check /etc/netpulse/netpulse.yaml
  netpulse config show --changed
  netpulse config reference > netpulse.yaml

Exits 0 when the configuration is in order, 2 when it has mistakes.")]
pub struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Find every mistake and name its file and line
    Check {
        /// File to read [default: NETPULSE_CONFIG_FILE, config/netpulse.yaml or netpulse.yaml]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print every key with its value and where it comes from; secrets are masked
    Show {
        /// File to read [default: NETPULSE_CONFIG_FILE, config/netpulse.yaml or netpulse.yaml]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Only what is not at its default
        #[arg(long)]
        changed: bool,
    },
    /// Print a configuration file with every key at its default
    Reference {
        /// The page that documents every key instead
        #[arg(long)]
        markdown: bool,
    },
}

pub fn run(args: ConfigArgs, ui: &Ui) -> Outcome {
    match args.action {
        Action::Check { file } => {
            let mut loaded = Loaded::read(LoadOptions::from_process().with_file(file));
            read_platforms(&mut loaded);
            check(&loaded, ui)
        }
        Action::Show { file, changed } => {
            show(&Loaded::read(LoadOptions::from_process().with_file(file)), changed, ui)
        }
        Action::Reference { markdown } => {
            ui.line(if markdown { reference_markdown() } else { reference_yaml() }.trim_end());
            Ok(Exit::Ok)
        }
    }
}

/// Reads the platform files too, as a server does when it starts; their mistakes join the others.
fn read_platforms(loaded: &mut Loaded) {
    let Some(folder) = &loaded.config.platform.dir else { return };
    // A folder that is wrong as a value has been told already.
    if loaded.problems.iter().any(|problem| problem.key.starts_with("platform")) {
        return;
    }
    if let Err(error) = Registry::with_folder(folder) {
        let setting = loaded.settings.iter().find(|setting| setting.key.path() == "platform.dir");
        let origin = setting.map_or(Origin::Default, |setting| setting.origin.clone());
        loaded.problems.push(Problem { key: "platform.dir".to_owned(), origin, message: error.to_string() });
    }
}

fn check(loaded: &Loaded, ui: &Ui) -> Outcome {
    let source = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => "no file, only the environment and defaults".to_owned(),
    };
    if ui.for_people() {
        loaded.warnings.iter().for_each(|warning| ui.warn(&warning.to_string()));
        if loaded.problems.is_empty() {
            ui.toned(&format!("in order: {source}"), Tone::Good);
        }
    } else {
        ui.document(&json!({
            "file": loaded.file,
            "ok": loaded.problems.is_empty(),
            "errors": loaded.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "warnings": loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }))?;
    }
    if loaded.problems.is_empty() { Ok(Exit::Ok) } else { Err(mistakes(loaded)) }
}

/// What to tell about a configuration that cannot be used.
pub fn mistakes(loaded: &Loaded) -> Failure {
    let list: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    let count = match list.len() {
        1 => "a mistake".to_owned(),
        n => format!("{n} mistakes"),
    };
    Failure::new(Exit::Usage, "bad_config", format!("the configuration has {count}"))
        .details(list)
        .hint("`netpulse config reference` prints every key with its default")
}

fn show(loaded: &Loaded, changed: bool, ui: &Ui) -> Outcome {
    let settings = loaded.settings.iter().filter(|s| !changed || s.origin != Origin::Default);
    if ui.format == Format::Table {
        let rows = settings
            .map(|setting| {
                let tone = if setting.origin == Origin::Default { Tone::Dim } else { Tone::Plain };
                vec![
                    Text::from(setting.key.path()),
                    Text(setting.value.to_string(), tone),
                    Text(setting.origin.to_string(), tone),
                ]
            })
            .collect();
        ui.table(&["KEY", "VALUE", "FROM"], rows);
        loaded.warnings.iter().for_each(|warning| ui.warn(&warning.to_string()));
    } else {
        let list: Vec<_> = settings
            .map(|s| json!({"key": s.key.path(), "value": s.value, "from": s.origin.to_string(), "env": s.key.env()}))
            .collect();
        ui.document(&list)?;
    }
    if loaded.problems.is_empty() { Ok(Exit::Ok) } else { Err(mistakes(loaded)) }
}
