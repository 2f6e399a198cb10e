//! The table of keys as a file to start from and as a page to read.

use serde_json::Value;

use crate::compat;
use crate::keys::{Config, KEYS, SECTIONS};
use crate::table::{Key, Rule};

fn default_of(key: &Key) -> Value {
    serde_json::to_value(Config::default()).ok().and_then(|tree| key.find(&tree).cloned()).unwrap_or_default()
}

/// A configuration file with every key at its default, one line each.
#[must_use]
pub fn reference_yaml() -> String {
    let mut out = String::from(
        "# NetPulse: every key with its default. Only server.api_key must be set.\n\
         #\n\
         # Each key can also be set by an environment variable, which wins over this file:\n\
         # server.port is NETPULSE_SERVER__PORT. Lists are written as JSON or a,b there.\n\
         # ${VAR} and ${VAR:-default} in a text are replaced from the environment or from .env.\n\
         # `netpulse config check` tests a file, `netpulse config show` says where each value comes from.\n",
    );
    for (section, doc) in SECTIONS {
        let depth = section.matches('.').count();
        let (name, indent) = (section.rsplit('.').next().unwrap_or(section), "  ".repeat(depth));
        let gap = if depth == 0 { "\n" } else { "" };
        out.push_str(&format!("{gap}{indent}# {}\n{indent}{name}:\n", doc.trim()));
        for key in KEYS.iter().filter(|key| key.section == *section) {
            let setting = format!("{indent}  {}: {}", key.name, default_of(key));
            out.push_str(&format!("{setting:<34}  # {}\n", key.summary()));
        }
    }
    out
}

/// The page that documents every key.
#[must_use]
pub fn reference_markdown() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         Made from the table of keys in the program; `netpulse config reference --markdown` prints it.\n\n\
         A value is taken from the first of these that has it:\n\n\
         1. a flag of `netpulse serve`,\n\
         2. the environment: `NETPULSE_<SECTION>__<KEY>`, for example `NETPULSE_SERVER__PORT=9443` \
         or `NETPULSE_REDIS__TLS__ENABLED=true`,\n\
         3. a `.env` file in the working directory,\n\
         4. the YAML file: `--config`, else `NETPULSE_CONFIG_FILE`, else `config/netpulse.yaml` or `netpulse.yaml`,\n\
         5. the default.\n\n\
         In the environment a list is JSON (`[\"a\",\"b\"]`) or separated by commas (`a,b`), a mapping is JSON or \
         `name=value,...`. In the file `${VAR}` and `${VAR:-default}` are replaced inside texts; `$${` stands for \
         `${`.\n\n\
         An unknown key is an error, and all errors are told at once with file and line: run \
         `netpulse config check`. `netpulse config show` prints every value and where it comes from.\n",
    );
    for (section, doc) in SECTIONS {
        out.push_str(&format!("\n## {section}\n\n{}\n\n", doc.trim()));
        out.push_str("| Key | Type | Default | Meaning |\n|---|---|---|---|\n");
        for key in KEYS.iter().filter(|key| key.section == *section) {
            let default = match default_of(key) {
                _ if key.rules.contains(&Rule::Required) => "**required**".to_owned(),
                Value::Null => "none".to_owned(),
                value => format!("`{value}`"),
            };
            out.push_str(&format!(
                "| `{}` | {}{} | {default} | {} |\n",
                key.path(),
                key.kind.word(),
                bounds(key),
                key.summary().replace('|', "\\|")
            ));
        }
    }
    out.push_str(
        "\n## Keys of the Python system\n\nA file of the Python system loads. These keys mean one of ours:\n\n",
    );
    for (old, new) in compat::ALIASES {
        out.push_str(&format!("- `{old}`: `{new}`\n"));
    }
    for (variable, key) in compat::ENV_ALIASES {
        out.push_str(&format!("- environment variable `{variable}`: `{key}`\n"));
    }
    out.push_str(&format!(
        "- environment variable `{}` (1, true, yes or on): `store.engine: embedded`, whatever else says\n",
        compat::FAKE_REDIS
    ));
    for (variable, key) in compat::ENV_FALLBACKS {
        out.push_str(&format!("- environment variable `{variable}`: `{key}`, where nothing else sets it\n"));
    }
    out.push_str("\nThese are accepted, do nothing, and are named in a warning at the start:\n\n");
    for (key, reason) in compat::IGNORED.iter().filter(|(key, _)| *key != "server.tls") {
        out.push_str(&format!("- `{key}`: {reason}\n"));
    }
    out
}

fn bounds(key: &Key) -> String {
    key.rules
        .iter()
        .find_map(|rule| match rule {
            Rule::Range(low, high) => Some(format!(", {low} to {high}")),
            Rule::OneOf(words) | Rule::ValuesOneOf(words) => Some(format!(": {}", words.join(", "))),
            Rule::ExistingFile => Some(" of a file that exists".to_owned()),
            Rule::ExistingFolder => Some(" of folders that exist".to_owned()),
            _ => None,
        })
        .unwrap_or_default()
}
