//! Texts of `<vars>`, `<lookup>`, `<input>` and `<output>` tags into values: python, yaml, json,
//! csv, ini, text.

use serde_json::{Map, Value};

use super::error::TtpError;
use super::literal;

/// Loads `text` with the named loader. `key` is the csv column that names the rows.
pub(crate) fn load(text: &str, loader: &str, key: Option<&str>, tag: &str) -> Result<Value, TtpError> {
    match loader.to_ascii_lowercase().as_str() {
        "python" => literal::assignments(text, tag),
        "yaml" => {
            if text.trim().is_empty() {
                return Ok(Value::Null);
            }
            super::yaml::read(text)
                .map_err(|e| TtpError::new("data", format!("the text of <{tag}> is not YAML: {e}")))
        }
        "json" => serde_json::from_str(text)
            .map_err(|e| TtpError::new("data", format!("the text of <{tag}> is not JSON: {e}"))),
        "csv" => csv_rows(text, key, tag),
        "ini" => ini(text, tag),
        "text" => Ok(Value::String(text.to_owned())),
        other => Err(TtpError::new(
            "unsupported",
            format!("<{tag} load=\"{other}\">: loaders are python (literals), yaml, json, csv, ini, text"),
        )),
    }
}

fn csv_rows(text: &str, key: Option<&str>, tag: &str) -> Result<Value, TtpError> {
    let mut out = Map::new();
    let mut headers: Vec<String> = Vec::new();
    let mut key_at = 0;
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    for record in reader.records() {
        let record =
            record.map_err(|e| TtpError::new("data", format!("the text of <{tag}> is not CSV: {e}")))?;
        if record.is_empty() || record.len() == 1 && record.get(0).is_some_and(str::is_empty) {
            continue;
        }
        if headers.is_empty() {
            headers = record.iter().map(str::to_owned).collect();
            if let Some(key) = key {
                match headers.iter().position(|h| h == key) {
                    Some(i) => key_at = i,
                    None => return Ok(Value::Object(out)),
                }
            }
            continue;
        }
        if record.len() > headers.len() {
            return Err(TtpError::new(
                "data",
                format!("<{tag}>: a CSV row has more columns than the header"),
            ));
        }
        let mut row = Map::new();
        let mut name = None;
        for (i, cell) in record.iter().enumerate() {
            if i == key_at {
                name = Some(cell.to_owned());
            } else if let Some(h) = headers.get(i) {
                row.insert(h.clone(), Value::String(cell.to_owned()));
            }
        }
        if let Some(name) = name {
            out.insert(name, Value::Object(row));
        }
    }
    Ok(Value::Object(out))
}

/// Python's configparser with case kept: sections, `=` or `:`, continuation lines, DEFAULT, `%(x)s`.
fn ini(text: &str, tag: &str) -> Result<Value, TtpError> {
    let mut sections: Map<String, Value> = Map::new();
    let mut defaults: Map<String, Value> = Map::new();
    let mut section: Option<String> = None;
    let mut last: Option<String> = None;
    for (n, raw) in text.lines().enumerate() {
        let line = raw.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let bad = || TtpError::new("data", format!("<{tag}>: line {} is not INI: '{line}'", n + 1));
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.find(']').and_then(|e| l.get(..e))) {
            section = Some(name.to_owned());
            last = None;
            if name != "DEFAULT" {
                sections.entry(name.to_owned()).or_insert_with(|| Value::Object(Map::new()));
            }
            continue;
        }
        let Some(name) = &section else { return Err(bad()) };
        let target = if name == "DEFAULT" {
            &mut defaults
        } else {
            match sections.get_mut(name) {
                Some(Value::Object(m)) => m,
                _ => return Err(bad()),
            }
        };
        if raw.starts_with([' ', '\t'])
            && let Some(Value::String(s)) = last.as_ref().and_then(|l| target.get_mut(l))
        {
            s.push('\n');
            s.push_str(line);
            continue;
        }
        let at = line.find(['=', ':']).ok_or_else(bad)?;
        let key = line.get(..at).unwrap_or("").trim().to_owned();
        let value = line.get(at + 1..).unwrap_or("").trim().to_owned();
        target.insert(key.clone(), Value::String(value));
        last = Some(key);
    }
    let mut out = Map::new();
    if !defaults.is_empty() {
        out.insert("DEFAULT".into(), Value::Object(defaults.clone()));
    }
    for (name, body) in sections {
        let mut full = defaults.clone();
        if let Value::Object(m) = body {
            full.extend(m);
        }
        out.insert(name, Value::Object(full));
    }
    for body in out.values_mut() {
        if let Value::Object(m) = body {
            let source = m.clone();
            for v in m.values_mut() {
                if let Value::String(s) = v
                    && s.contains('%')
                {
                    let mut text = s.clone();
                    for _ in 0..10 {
                        let Some(start) = text.find("%(") else { break };
                        let Some(len) = text.get(start..).and_then(|t| t.find(")s")) else { break };
                        let name = text.get(start + 2..start + len).unwrap_or("");
                        let Some(Value::String(by)) = source.get(name) else { break };
                        if text.len() + by.len() > 65_536 {
                            break;
                        }
                        text = format!(
                            "{}{}{}",
                            text.get(..start).unwrap_or(""),
                            by,
                            text.get(start + len + 2..).unwrap_or("")
                        );
                    }
                    *s = text.replace("%%", "%");
                }
            }
        }
    }
    Ok(Value::Object(out))
}
