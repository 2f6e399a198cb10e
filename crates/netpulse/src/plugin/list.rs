//! `netpulse plugin list`, `info` and `reload`.

use clap::Args;
use netpulse_config::{LoadOptions, Loaded};
use serde_json::{Value, json};

use crate::api::Api;
use crate::exit::{Exit, Failure, Outcome};
use crate::plugins;
use crate::ui::{Text, Tone, Ui, plain, tone_of};

/// List the plugins of every kind
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Without a server: what this machine's configuration finds
    #[arg(long)]
    pub local: bool,
}

/// Show one plugin
#[derive(Debug, Args)]
pub struct InfoArgs {
    /// Kind and name, as in driver/acme
    #[arg(value_name = "KIND/NAME")]
    plugin: String,
}

/// Let the server look into its plugin folders again; running jobs go on
#[derive(Debug, Args)]
pub struct ReloadArgs {}

/// The server's plugins.
pub async fn list(api: &Api, ui: &Ui) -> Outcome {
    table(&api.plugins().await?, ui)
}

/// The server's plugins after another look.
pub async fn reload(api: &Api, ui: &Ui) -> Outcome {
    table(&api.reload_plugins().await?, ui)
}

/// What this machine's configuration finds.
pub fn local(ui: &Ui) -> Outcome {
    let loaded = Loaded::read(LoadOptions::from_process());
    let registry = plugins::registry(&loaded.config)?;
    plugins::list_built_in(&registry);
    let handles = crate::block_on(async { Ok(registry.list().await) })?;
    let rows: Vec<Value> = handles
        .iter()
        .map(|handle| serde_json::to_value(handle).map_err(|e| Failure::local(e.to_string())))
        .collect::<Result<_, _>>()?;
    table(&rows, ui)
}

/// One plugin, and those that it stands before.
pub async fn info(args: &InfoArgs, api: &Api, ui: &Ui) -> Outcome {
    let (kind, name) = plugins::kind_and_name(&args.plugin)?;
    let found = api.plugin(kind.as_str(), name).await?;
    if !ui.for_people() {
        ui.document(&found)?;
        return Ok(Exit::Ok);
    }
    for plugin in &found {
        let rows = plugin.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()).map(
            |(key, value)| {
                let shown = match value {
                    Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
                    other => plain(other),
                };
                vec![Text(key.clone(), Tone::Dim), Text(shown, Tone::Plain)]
            },
        );
        ui.table(&["FIELD", "VALUE"], rows.collect());
    }
    Ok(Exit::Ok)
}

fn table(list: &[Value], ui: &Ui) -> Outcome {
    if !ui.for_people() {
        ui.document(&list)?;
        return Ok(Exit::Ok);
    }
    let rows = list.iter().map(|plugin| {
        let text =
            |key: &str| plugin.get(key).filter(|value| !value.is_null()).map(plain).unwrap_or_default();
        let state = text("state");
        let tone = if state == "declared" { Tone::Plain } else { tone_of(&state) };
        let more = if text("error").is_empty() { text("description") } else { text("error") };
        vec![
            Text(text("kind"), Tone::Plain),
            Text(text("name"), Tone::Strong),
            Text(text("version"), Tone::Plain),
            Text(text("source"), Tone::Dim),
            Text(state, tone),
            Text(more, Tone::Plain),
        ]
    });
    ui.table(&["KIND", "NAME", "VERSION", "SOURCE", "STATE", ""], rows.collect());
    let failed = list.iter().filter(|plugin| plugin.get("state") == Some(&json!("failed"))).count();
    if failed > 0 {
        ui.note(&format!("{failed} cannot be used; `netpulse plugin doctor <file>` says more"));
    }
    Ok(Exit::Ok)
}
