//! `netpulse render`: a template rendered here, without a server.

use clap::Args;
use netpulse_template::{Config, Engines, TemplateError};
use serde_json::Value;

use crate::exit::{Exit, Failure, Outcome};
use crate::payload::{object, text_or_file};
use crate::ui::Ui;

/// Render a template here, without a server or device
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse render --template @vlan.j2 --data @site.yaml
  netpulse render --template 'vlan {{ id }}' --data '{\"id\": 30}'
  netpulse render --template @vlan.j2 --data @site.yaml | netpulse exec --host 192.0.2.20 ... --config @-")]
pub struct RenderArgs {
    /// The template
    #[arg(short = 'T', long, value_name = "TEXT|@FILE")]
    template: String,
    /// The values, as JSON or @FILE (JSON or YAML)
    #[arg(short = 'D', long, value_name = "JSON|@FILE")]
    data: Option<String>,
    /// Renderer: jinja2 or string
    #[arg(long, value_name = "NAME", default_value = "jinja2")]
    engine: String,
    /// Options of the renderer (trim_blocks, lstrip_blocks, ...), as JSON or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    args: Option<String>,
}

pub fn run(args: &RenderArgs, ui: &Ui) -> Outcome {
    let template = text_or_file("--template", &args.template)?;
    let data = match &args.data {
        Some(data) => Value::Object(object("--data", data)?),
        None => Value::Null,
    };
    let options = args.args.as_deref().map(|text| object("--args", text)).transpose()?.map(Value::Object);
    let engines = Engines::new(Config::default());
    let text = engines.render(&args.engine, &template, &data, options.as_ref()).map_err(told)?;
    if ui.for_people() {
        ui.line(text.strip_suffix('\n').unwrap_or(&text));
    } else {
        ui.document(&text)?;
    }
    Ok(Exit::Ok)
}

/// An engine's error with the line of the template.
pub fn told(error: TemplateError) -> Failure {
    // Some engines say it themselves.
    let line = error.line.filter(|_| !error.message.contains("line "));
    let line = line.map(|line| format!("line {line} of the template: ")).unwrap_or_default();
    Failure::new(Exit::Usage, error.code, format!("{}: {line}{}", error.engine, error.message))
}
