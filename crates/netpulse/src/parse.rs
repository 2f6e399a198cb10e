//! `netpulse parse`: a device's output parsed here, without a server.

use std::path::PathBuf;

use clap::Args;
use netpulse_template::{Config, Engines, ParseCall};
use serde_json::Value;

use crate::exit::{Exit, Failure, Outcome};
use crate::payload::{object, text_or_file};
use crate::render::told;
use crate::ui::Ui;
use crate::view;

/// Parse a device's output here, without a server or device
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse parse --template @version.textfsm show_version.txt
  netpulse parse --platform cisco_ios --command 'show ip interface brief' brief.txt -o json
  netpulse exec --host 192.0.2.11 ... -c 'show version' | netpulse parse --template @version.textfsm --data @-

With --platform and --command the template comes from ntc-templates: --ntc-dir, NET_TEXTFSM,
NTC_TEMPLATES_DIR, or an installed Python package.")]
pub struct ParseArgs {
    /// File with the output to parse: as --data @FILE; `-` is standard input
    #[arg(value_name = "FILE", conflicts_with = "data")]
    file: Option<PathBuf>,
    /// The template
    #[arg(short = 'T', long, value_name = "TEXT|@FILE", required_unless_present = "platform")]
    template: Option<String>,
    /// The output to parse
    #[arg(short = 'D', long, value_name = "TEXT|@FILE", default_value = "@-")]
    data: String,
    /// Parser: textfsm, ttp or regex
    #[arg(long, value_name = "NAME", default_value = "textfsm")]
    engine: String,
    /// Platform whose template of ntc-templates is wanted
    #[arg(long, value_name = "NAME", requires = "command", conflicts_with = "template")]
    platform: Option<String>,
    /// Command that gave the output
    #[arg(long, value_name = "TEXT")]
    command: Option<String>,
    /// Folder of ntc-templates
    #[arg(long, value_name = "FOLDER")]
    ntc_dir: Option<PathBuf>,
    /// Options of the parser, as JSON or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    args: Option<String>,
}

pub fn run(args: &ParseArgs, ui: &Ui) -> Outcome {
    let template = args.template.as_deref().map(|text| text_or_file("--template", text)).transpose()?;
    let text = match &args.file {
        Some(path) if path.as_os_str() != "-" => std::fs::read_to_string(path).map_err(|e| {
            Failure::new(Exit::Usage, "file_unreadable", format!("`{}` cannot be read: {e}", path.display()))
                .hint("--data takes the output itself, or @FILE")
        })?,
        Some(_) => text_or_file("FILE", "@-")?,
        None => text_or_file("--data", &args.data)?,
    };
    let options = args.args.as_deref().map(|text| object("--args", text)).transpose()?.map(Value::Object);
    let mut config = Config::default().with_environment();
    if let Some(folder) = &args.ntc_dir {
        if !folder.is_dir() {
            return Err(Failure::usage(format!("--ntc-dir: there is no folder `{}`", folder.display())));
        }
        config.ntc_dirs.insert(0, folder.clone());
    }
    let parsed = Engines::new(config)
        .parse(&ParseCall {
            name: &args.engine,
            template: template.as_deref(),
            text: &text,
            use_ntc_template: args.platform.is_some() && args.engine == "textfsm",
            use_ttp_template: args.platform.is_some() && args.engine == "ttp",
            platform: args.platform.as_deref(),
            command: args.command.as_deref(),
            args: options.as_ref(),
            ..ParseCall::default()
        })
        .map_err(told)?;
    if ui.for_people() {
        view::print_value(ui, &parsed);
    } else {
        ui.document(&parsed)?;
    }
    Ok(Exit::Ok)
}
