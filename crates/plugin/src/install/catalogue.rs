//! Catalogues of plugins: components whose references carry the label `ocm.software/pluginInfo`.

use serde::Serialize;
use serde_json::Value;

use super::error::{InstallError, Result, Trouble};
use super::media::Limits;
use super::reference::Reference;
use super::registry::Asking;
use super::store::Store;

/// The label that makes a reference a plugin.
pub const LABEL: &str = "ocm.software/pluginInfo";

/// A plugin that a catalogue lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The name of the reference.
    pub name: String,
    /// The version.
    pub version: String,
    /// What it is for.
    pub description: String,
    /// `os/architecture`, where it says.
    pub platforms: Vec<String>,
    /// The component.
    pub component: String,
    /// How it is installed.
    pub reference: String,
    /// The catalogue.
    pub registry: String,
}

/// What a catalogue lists, in its order.
///
/// # Errors
/// It is not there, broken, or not what its digests say.
pub async fn read(catalogue: &Reference, asking: &Asking, limits: Limits) -> Result<Vec<Listed>> {
    let store = Store::open(&catalogue.repository, asking, limits).await?;
    let found = store.find(catalogue, limits).await?;
    let references = &found.descriptor.component.component_references;
    let listed = references.iter().filter_map(|reference| {
        let info = &reference.labels.iter().find(|label| label.name == LABEL)?.value;
        // Free text goes to a terminal.
        let text = |name: &str| plain(info.get(name).and_then(Value::as_str).unwrap_or_default());
        let platforms = info.get("platforms").and_then(Value::as_array).cloned().unwrap_or_default();
        Some(Listed {
            name: reference.name.clone(),
            version: reference.version.clone(),
            description: text("description"),
            platforms: platforms.iter().filter_map(platform).collect(),
            component: reference.component_name.clone(),
            reference: format!(
                "{}//{}:{}",
                found.reference.repository, reference.component_name, reference.version
            ),
            registry: found.reference.to_string(),
        })
    });
    Ok(listed.collect())
}

/// A text without what would speak to a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `linux/amd64`, or an object with both.
fn platform(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(plain(text)),
        Value::Object(parts) => {
            let part = |name: &str| parts.get(name).and_then(Value::as_str);
            Some(plain(&format!("{}/{}", part("os")?, part("architecture").or_else(|| part("arch"))?)))
        }
        _ => None,
    }
}

/// The plugins of this name, of this version where one is named.
///
/// # Errors
/// None has it; the message says what there is.
pub fn pick<'a>(all: &'a [Listed], name: &str, version: Option<&str>) -> Result<Vec<&'a Listed>> {
    let fits = |listed: &&Listed| {
        (listed.name == name || listed.component == name)
            && version.is_none_or(|version| listed.version == version)
    };
    let found: Vec<&Listed> = all.iter().filter(fits).collect();
    if found.is_empty() {
        let version = version.map(|version| format!(":{version}")).unwrap_or_default();
        let names: Vec<String> =
            all.iter().map(|listed| format!("{}:{}", listed.name, listed.version)).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(InstallError::new(
            Trouble::NotFound,
            format!("no plugin {name}{version} is listed; there is: {there}"),
        ));
    }
    Ok(found)
}
