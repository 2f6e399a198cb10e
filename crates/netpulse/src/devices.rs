//! The devices of `bulk`, from CSV, YAML or JSON.

use std::path::Path;

use serde_json::{Map, Value};

use crate::exit::Failure;

/// One device of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// What a person calls it.
    pub name: String,
    /// Who made it, as the file says.
    pub vendor: String,
    /// What the server gets: `host` and whatever differs from the others.
    pub entry: Map<String, Value>,
}

impl Device {
    /// Its address.
    pub fn host(&self) -> &str {
        self.entry.get("host").and_then(Value::as_str).unwrap_or_default()
    }

    /// Its address with its port, when it has one of its own.
    pub fn address(&self) -> String {
        match self.entry.get("port") {
            Some(port) => format!("{}:{}", self.host(), port.to_string().trim_matches('"')),
            None => self.host().to_owned(),
        }
    }
}

/// What a file gave.
#[derive(Debug, Default)]
pub struct Devices {
    /// The chosen devices, in the order of the file.
    pub chosen: Vec<Device>,
    /// How many the file has.
    pub total: usize,
    /// What a person should know about the file.
    pub warnings: Vec<String>,
}

/// The platform of each vendor that a `Vendor` column may name.
pub const VENDORS: &[(&str, &str)] = &[
    ("H3C", "hp_comware"),
    ("HUAWEI", "huawei"),
    ("CISCO", "cisco_ios"),
    ("ARISTA", "arista_eos"),
    ("FORTINET", "fortinet"),
];

/// Columns that describe a device to people; the server does not get them.
const DESCRIPTIVE: &[&str] = &["selected", "name", "site", "location", "rack", "vendor", "model"];

/// Columns of a CSV file that the server gets, by the names people write.
const COLUMNS: &[(&str, &str)] = &[
    ("ip", "host"),
    ("host", "host"),
    ("address", "host"),
    ("port", "port"),
    ("username", "username"),
    ("user", "username"),
    ("password", "password"),
    ("secret", "secret"),
    ("keepalive", "keepalive"),
    ("device_type", "device_type"),
    ("platform", "device_type"),
    ("command", "command"),
    ("config", "config"),
];

/// Reads the file. `vendor` keeps only rows of that vendor; `has_platform` says that a platform for
/// all devices is known, so that a row needs none.
pub fn read(path: &Path, vendor: Option<&str>, has_platform: bool) -> Result<Devices, Failure> {
    let name = path.display();
    let bytes = std::fs::read(path)
        .map_err(|e| Failure::usage(format!("the device file `{name}` cannot be read: {e}")))?;
    // Workbooks are archives (.xlsx) or OLE files (.xls), whatever they are called.
    if bytes.starts_with(b"PK\x03\x04")
        || bytes.starts_with(&[0xD0, 0xCF, 0x11, 0xE0])
        || ends_like_excel(path)
    {
        return Err(Failure::new(
            crate::exit::Exit::Usage,
            "excel_file",
            format!("`{name}` is an Excel workbook, which is not read"),
        )
        .hint("save the sheet as CSV (UTF-8) and give that file"));
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::usage(format!("the device file `{name}` is not UTF-8")).hint("save it as CSV (UTF-8)")
    })?;
    let text = text.trim_start_matches('\u{feff}');
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let rows = match extension.as_str() {
        "json" | "yaml" | "yml" => structured(text),
        _ => csv_rows(text),
    };
    let rows = rows.map_err(|what| Failure::usage(format!("{name}: {what}")))?;
    choose(rows, vendor, has_platform).map_err(|mistakes| {
        let count = mistakes.len();
        let mut shown: Vec<String> = mistakes.into_iter().take(20).collect();
        if count > shown.len() {
            shown.push(format!("and {} more", count - shown.len()));
        }
        let count = if count == 1 { "a mistake".to_owned() } else { format!("{count} mistakes") };
        Failure::usage(format!("{name} has {count}")).details(shown)
    })
}

fn ends_like_excel(path: &Path) -> bool {
    path.extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| ["xlsx", "xls", "xlsm"].contains(&e.to_ascii_lowercase().as_str()))
}

/// A row before it is judged: where it stands, and its fields by lower-case name.
struct Row {
    place: String,
    fields: Map<String, Value>,
    /// Whether fields that we do not know are meant for the server (YAML, JSON), or for people (CSV).
    open: bool,
}

fn csv_rows(text: &str) -> Result<Vec<Row>, String> {
    let first = text.lines().next().unwrap_or_default();
    // Spreadsheets write semicolons where the comma is the decimal sign.
    let delimiter = [b',', b';', b'\t']
        .into_iter()
        .max_by_key(|d| first.bytes().filter(|b| b == d).count())
        .unwrap_or(b',');
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .flexible(true)
        .from_reader(text.as_bytes());
    let header: Vec<String> = reader
        .headers()
        .map_err(|e| e.to_string())?
        .iter()
        .map(|title| title.to_ascii_lowercase().replace([' ', '-'], "_"))
        .collect();
    if !header.iter().any(|title| ["ip", "host", "address"].contains(&title.as_str())) {
        return Err(format!(
            "line 1: there is no column IP (or Host): the columns are {}",
            header.join(", ")
        ));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| e.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        if record.iter().all(str::is_empty) {
            continue;
        }
        if record.len() > header.len() {
            return Err(format!("line {line}: has {} fields, the header has {}", record.len(), header.len()));
        }
        let fields = header
            .iter()
            .zip(record.iter())
            .filter(|(_, value)| !value.is_empty())
            .map(|(title, value)| (title.clone(), Value::from(value)))
            .collect();
        rows.push(Row { place: format!("line {line}"), fields, open: false });
    }
    Ok(rows)
}

fn structured(text: &str) -> Result<Vec<Row>, String> {
    let document: Value = yaml_serde::from_str(text).map_err(|e| e.to_string())?;
    let list = match document {
        Value::Array(list) => list,
        Value::Object(mut map) => match map.remove("devices") {
            Some(Value::Array(list)) => list,
            _ => return Err("expected a list of devices, or `devices:` with one".to_owned()),
        },
        _ => return Err("expected a list of devices".to_owned()),
    };
    let mut rows = Vec::new();
    for (index, item) in list.into_iter().enumerate() {
        let place = format!("device {}", index + 1);
        let fields = match item {
            Value::String(host) => Map::from_iter([("host".to_owned(), Value::String(host))]),
            Value::Object(map) => map
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| {
                    let known = key.to_ascii_lowercase();
                    let ours =
                        DESCRIPTIVE.contains(&known.as_str()) || COLUMNS.iter().any(|(c, _)| *c == known);
                    (if ours { known } else { key }, value)
                })
                .collect(),
            other => {
                return Err(format!("{place}: `{other}` is no device: expected an address or a mapping"));
            }
        };
        rows.push(Row { place, fields, open: true });
    }
    Ok(rows)
}

fn choose(rows: Vec<Row>, vendor: Option<&str>, has_platform: bool) -> Result<Devices, Vec<String>> {
    let (mut devices, mut mistakes) = (Devices::default(), Vec::new());
    let mut seen = std::collections::HashMap::new();
    let mut unknown_columns = std::collections::BTreeSet::new();
    for row in rows {
        devices.total += 1;
        let field = |key: &str| row.fields.get(key).map(crate::ui::plain).filter(|text| !text.is_empty());
        match field("selected").map(|text| is_yes(&text)) {
            None | Some(Some(true)) => {}
            Some(Some(false)) => continue,
            Some(None) => {
                let text = field("selected").unwrap_or_default();
                mistakes.push(format!("{}: Selected: `{text}` is neither true nor false", row.place));
                continue;
            }
        }
        let made_by = field("vendor").unwrap_or_default();
        if vendor.is_some_and(|wanted| !wanted.eq_ignore_ascii_case(&made_by)) {
            continue;
        }
        match device(&row, &made_by, has_platform, &mut unknown_columns) {
            Ok(device) => {
                if let Some(earlier) = seen.insert(device.address(), row.place.clone()) {
                    devices.warnings.push(format!(
                        "{}: {} stands already in {earlier}",
                        row.place,
                        device.address()
                    ));
                }
                devices.chosen.push(device);
            }
            Err(what) => mistakes.push(format!("{}: {what}", row.place)),
        }
    }
    if !unknown_columns.is_empty() {
        let columns = unknown_columns.into_iter().collect::<Vec<_>>().join(", ");
        devices.warnings.push(format!("these columns are not used: {columns}"));
    }
    if mistakes.is_empty() { Ok(devices) } else { Err(mistakes) }
}

fn device(
    row: &Row,
    vendor: &str,
    has_platform: bool,
    unknown_columns: &mut std::collections::BTreeSet<String>,
) -> Result<Device, String> {
    let mut entry = Map::new();
    for (key, value) in &row.fields {
        if DESCRIPTIVE.contains(&key.as_str()) {
            continue;
        }
        match COLUMNS.iter().find(|(column, _)| column == key) {
            Some((_, name)) => {
                let number = ["port", "keepalive"].contains(name);
                let value = if number { Value::from(number_of(key, value)?) } else { text_of(key, value)? };
                entry.insert((*name).to_owned(), value);
            }
            None if row.open => {
                entry.insert(key.clone(), value.clone());
            }
            None => {
                unknown_columns.insert(key.clone());
            }
        }
    }
    let host = entry.get("host").and_then(Value::as_str).unwrap_or_default().to_owned();
    if host.is_empty() {
        return Err("has no IP (or host)".to_owned());
    }
    if host.contains(|c: char| c.is_whitespace() || c == '/') {
        return Err(format!("`{host}` is no address or name of a host"));
    }
    if entry.get("port").is_some_and(|port| !(1..=65_535).contains(&port.as_u64().unwrap_or(0))) {
        return Err("port must be 1 to 65535".to_owned());
    }
    if entry.contains_key("command") && entry.contains_key("config") {
        return Err("has both command and config".to_owned());
    }
    if !entry.contains_key("device_type") {
        match VENDORS.iter().find(|(name, _)| name.eq_ignore_ascii_case(vendor)) {
            Some((_, platform)) => {
                entry.insert("device_type".to_owned(), (*platform).into());
            }
            None if has_platform => {}
            None if vendor.is_empty() => {
                return Err("has neither vendor nor device_type, and --device-type is not given".to_owned());
            }
            None => {
                let known: Vec<&str> = VENDORS.iter().map(|(name, _)| *name).collect();
                return Err(format!(
                    "vendor `{vendor}` is not known (known: {}): add a column device_type, or give --device-type",
                    known.join(", ")
                ));
            }
        }
    }
    let name = row.fields.get("name").map(crate::ui::plain).unwrap_or_default();
    Ok(Device { name, vendor: vendor.to_owned(), entry })
}

fn number_of(key: &str, value: &Value) -> Result<u64, String> {
    let text = crate::ui::plain(value);
    text.parse().map_err(|_| format!("{key}: `{text}` is no whole number"))
}

fn text_of(key: &str, value: &Value) -> Result<Value, String> {
    match value {
        Value::String(_) => Ok(value.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(Value::String(value.to_string())),
        // Commands may be a list, and values of a template a mapping.
        Value::Array(_) | Value::Object(_) if ["command", "config"].contains(&key) => Ok(value.clone()),
        _ => Err(format!("{key}: expected a text")),
    }
}

fn is_yes(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "y" | "x" | "1" => Some(true),
        "false" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(name: &str, text: impl AsRef<[u8]>) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    const SHEET: &str = "Selected,Name,Site,Location,Rack,Vendor,Model,IP,Port,Username,Password,Keepalive\n\
        TRUE,edge1,hq,room 1,r4,CISCO,C9300,192.0.2.1,22,ops,pw,60\n\
        FALSE,edge2,hq,room 1,r4,CISCO,C9300,192.0.2.2,22,ops,pw,60\n\
        true,core1,hq,room 2,r1,Huawei,S6730,192.0.2.3,2222,ops,pw,\n";

    #[test]
    fn the_sheet_of_the_python_command_line_is_read() {
        let (_folder, path) = file("d.csv", SHEET);
        let devices = read(&path, None, false).unwrap();
        assert_eq!((devices.total, devices.chosen.len(), devices.warnings.len()), (3, 2, 0));
        assert_eq!(
            Value::Object(devices.chosen[0].entry.clone()),
            json!({"host": "192.0.2.1", "port": 22, "username": "ops", "password": "pw", "keepalive": 60,
                   "device_type": "cisco_ios"})
        );
        let core = &devices.chosen[1];
        assert_eq!((core.name.as_str(), core.address().as_str()), ("core1", "192.0.2.3:2222"));
        assert_eq!(core.entry["device_type"], "huawei");
        assert_eq!(read(&path, Some("huawei"), false).unwrap().chosen.len(), 1);
    }

    #[test]
    fn only_the_address_is_needed_and_semicolons_do() {
        let (_folder, path) = file("d.csv", "\u{feff}Host;Colour\n192.0.2.1;red\n\n192.0.2.1;\n");
        let devices = read(&path, None, true).unwrap();
        assert_eq!(devices.chosen.len(), 2);
        assert!(devices.warnings.iter().any(|w| w.contains("colour")), "{:?}", devices.warnings);
        assert!(
            devices.warnings.iter().any(|w| w.contains("stands already in line 2")),
            "{:?}",
            devices.warnings
        );
    }

    #[test]
    fn yaml_and_json_pass_everything_on() {
        let yaml = "devices:\n  - 192.0.2.1\n  - {name: b, host: 192.0.2.2, port: 23, timeout: 9, command: [a, b]}\n  - {ip: 192.0.2.9, selected: no}\n";
        let (_folder, path) = file("d.yaml", yaml);
        let devices = read(&path, None, true).unwrap();
        assert_eq!(devices.chosen.len(), 2);
        assert_eq!(
            Value::Object(devices.chosen[1].entry.clone()),
            json!({"host": "192.0.2.2", "port": 23, "timeout": 9, "command": ["a", "b"]})
        );
        let (_folder, path) = file("d.json", r#"[{"host": "h", "vendor": "ARISTA"}]"#);
        assert_eq!(read(&path, None, false).unwrap().chosen[0].entry["device_type"], "arista_eos");
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        let text = "IP,Port,Vendor,Selected\n192.0.2.1,x,CISCO,yes\n,22,CISCO,yes\nh h,22,CISCO,\nh,22,NOKIA,\nh,70000,CISCO,\nh,,CISCO,maybe\n";
        let (_folder, path) = file("d.csv", text);
        let error = read(&path, None, false).unwrap_err();
        let what = format!("{}\n{}", error.what, error.details.join("\n"));
        for part in [
            "has 6 mistakes",
            "line 2: port: `x` is no whole number",
            "line 3: has no IP",
            "line 4: `h h` is no address",
            "line 5: vendor `NOKIA` is not known",
            "line 6: port must be 1 to 65535",
            "line 7: Selected: `maybe` is neither",
        ] {
            assert!(what.contains(part), "missing {part:?} in {what}");
        }
        let (_folder, path) = file("d.csv", "Name,Vendor\na,CISCO\n");
        assert!(read(&path, None, false).unwrap_err().what.contains("no column IP"));
    }

    #[test]
    fn excel_is_refused_with_a_sentence() {
        let (_folder, path) = file("d.xlsx", b"PK\x03\x04rest");
        let error = read(&path, None, false).unwrap_err();
        assert!(error.hint.unwrap().contains("CSV"));
        let (_folder, path) = file("d.csv", [0xD0, 0xCF, 0x11, 0xE0, 0xA1]);
        assert_eq!(read(&path, None, false).unwrap_err().code, "excel_file");
    }
}
