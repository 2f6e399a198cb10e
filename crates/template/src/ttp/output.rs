//! `<output>` tags: conditions, functions, formatters.

use serde_json::{Map, Value};

use super::Options;
use super::error::TtpError;
use super::format;
use super::literal::{self, Call};
use super::load::load;
use super::value::{py_eq, py_str, settle};
use super::xml::Element;

/// A read output.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    pub name: Option<String>,
    attributes: Map<String, Value>,
    format: String,
    functions: Vec<Call>,
    load: Value,
    condition: Option<(String, Value)>,
    format_call: Option<Call>,
    to_self: bool,
}

/// What outputs may look at.
pub(crate) struct Scope<'a> {
    pub vars: &'a Map<String, Value>,
    /// Input names with how many texts each had, in order of the results.
    pub inputs: &'a [(String, usize)],
    pub templates: &'a [(String, Value)],
    pub per_input: bool,
}

const FUNCTIONS: &[&str] = &["is_equal", "traverse", "dict_to_list", "deepdiff"];
const FORMATS: &[&str] = &["raw", "json", "yaml", "csv", "table", "tabulate", "pprint", "jinja2"];

impl Output {
    pub fn from_tag(el: &Element, options: &Options) -> Result<Self, TtpError> {
        let mut attributes: Map<String, Value> =
            el.attrs.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect();
        let jinja = el.attr("format") == Some("jinja2");
        let loader = if jinja { "text" } else { el.attr("load").unwrap_or("python") };
        let mut text = el.text.clone();
        if let Some(path) = el.attr("include") {
            text = options
                .read(path)
                .ok_or_else(|| TtpError::new("io", format!("<output include=\"{path}\">: not to be read")))?;
        }
        let loaded = if text.trim().is_empty() { Value::Null } else { load(&text, loader, None, &el.tag)? };
        let loaded = if literal::truthy(&loaded) { loaded } else { Value::from(text) };
        if let Value::Object(m) = &loaded {
            attributes.extend(m.clone());
        }
        Self::from_attributes(attributes, loaded)
    }

    /// An output made of attributes alone, as `result(format=...)` has it.
    pub fn from_attributes(attributes: Map<String, Value>, load: Value) -> Result<Self, TtpError> {
        let mut out = Self {
            name: None,
            format: attributes.get("format").map_or_else(|| "raw".into(), py_str),
            functions: Vec::new(),
            load,
            condition: None,
            format_call: None,
            to_self: attributes
                .get("returner")
                .is_none_or(|r| py_str(r).split(',').any(|r| r.trim() == "self")),
            attributes: Map::new(),
        };
        match out.format.as_str() {
            f if FORMATS.contains(&f) => {}
            "excel" | "n2g" => {
                return Err(TtpError::new(
                    "unsupported",
                    format!("<output format=\"{}\"> writes files: use json, csv or table", out.format),
                ));
            }
            other => {
                return Err(TtpError::new(
                    "unsupported",
                    format!("<output format=\"{other}\">: formats are {}", FORMATS.join(", ")),
                ));
            }
        }
        for (k, v) in attributes {
            let text = py_str(&v);
            match k.to_ascii_lowercase().as_str() {
                "name" => out.name = Some(text),
                "returner" => {
                    if let Some(r) = text.split(',').map(str::trim).find(|r| matches!(*r, "file" | "syslog"))
                    {
                        return Err(TtpError::new(
                            "io",
                            format!("<output returner=\"{r}\"> would write outside: only self is done here"),
                        ));
                    }
                }
                "condition" => {
                    let call = literal::attribute_call("condition", &text)?;
                    match call.args.as_slice() {
                        [name, value] => out.condition = Some((py_str(name), value.clone())),
                        _ => {
                            return Err(TtpError::new(
                                "argument",
                                "<output condition=...> needs a name and a value",
                            ));
                        }
                    }
                }
                "format_attributes" => {
                    out.format_call = Some(literal::attribute_call("format_attributes", &text)?)
                }
                "functions" => {
                    for call in literal::calls(&text)? {
                        out.functions.extend(known(call)?);
                    }
                }
                "macro" | "validate" | "validate_yangson" => {
                    known(Call { name: k, args: Vec::new(), kwargs: Map::new() })?;
                }
                f if FUNCTIONS.contains(&f) => out.functions.push(literal::attribute_call(f, &text)?),
                _ => {
                    out.attributes.insert(k, v);
                }
            }
        }
        Ok(out)
    }

    /// Runs functions and formatter; gives the data as it was where the output does not apply.
    pub fn run(&self, data: Value, scope: &Scope<'_>) -> Result<Value, TtpError> {
        if let Some((name, value)) = &self.condition
            && !scope.vars.get(name).is_some_and(|v| py_eq(v, value))
        {
            return Ok(data);
        }
        let mut made = data.clone();
        settle(&mut made);
        for call in &self.functions {
            made = self.function(call, made, scope)?;
        }
        let made = match self.format.as_str() {
            "json" => Value::from(format::json(&made)?),
            "yaml" => Value::from(format::yaml(&made)),
            "pprint" => Value::from(format::pprint(&made)),
            "table" => Value::Array(self.table(&made)?.into_iter().map(Value::Array).collect()),
            "csv" => Value::from(format::csv(
                &self.table(&made)?,
                &self.text("sep", ","),
                &self.text("quote", "\""),
            )),
            "tabulate" => Value::from(format::tabulate(&self.table(&made)?, self.format_call.as_ref())?),
            "jinja2" => Value::from(self.jinja(&made)?),
            _ => made,
        };
        Ok(if self.to_self { made } else { data })
    }

    fn text(&self, key: &str, default: &str) -> String {
        self.attributes.get(key).map_or_else(|| default.to_owned(), py_str)
    }

    fn jinja(&self, data: &Value) -> Result<String, TtpError> {
        let mut env = minijinja::Environment::new();
        let syntax = minijinja::syntax::SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|e| TtpError::new("unsupported", e.to_string()))?;
        env.set_syntax(syntax);
        env.set_fuel(Some(5_000_000));
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        let template = py_str(&self.load);
        env.render_str(&template, minijinja::context! { _data_ => minijinja::value::Serde(data) })
            .map_err(|e| TtpError::new("data", format!("<output format=\"jinja2\">: {e}")))
    }

    fn function(&self, call: &Call, data: Value, scope: &Scope<'_>) -> Result<Value, TtpError> {
        Ok(match call.name.as_str() {
            "is_equal" => {
                let compared = data.get("_anonymous_").unwrap_or(&data);
                let mut load = self.load.clone();
                settle(&mut load);
                let mut out = Map::new();
                out.insert("output_name".into(), self.name.clone().map_or(Value::Null, Value::from));
                out.insert("output_description".into(), Value::from(self.text("description", "None")));
                out.insert("is_equal".into(), Value::Bool(py_eq(compared, &load)));
                Value::Object(out)
            }
            "traverse" => {
                let path = path_of(call.arg(0, "path"));
                traverse(&data, &path, call.flag(1, "strict", true))?
            }
            "dict_to_list" => {
                let key = call.text(0, "key_name").unwrap_or("key");
                let path = call.arg(1, "path").filter(|p| literal::truthy(p)).map(|p| path_of(Some(p)));
                let data = match path {
                    Some(p) => traverse(&data, &p, call.flag(2, "strict", false))?,
                    None => data,
                };
                dict_to_list(data, key)
            }
            "deepdiff" => self.deepdiff(call, data, scope)?,
            _ => data,
        })
    }

    fn deepdiff(&self, call: &Call, data: Value, scope: &Scope<'_>) -> Result<Value, TtpError> {
        let pick = |name: &str| -> Value {
            let mut at = 0;
            for (n, count) in scope.inputs {
                if n == name {
                    let items = (at..at + count).filter_map(|i| data.get(i).cloned()).collect();
                    return Value::Array(items);
                }
                at += count;
            }
            Value::Array(Vec::new())
        };
        let lacking = || {
            TtpError::new(
                "argument",
                "deepdiff needs input_before, template_before or var_before that names data",
            )
        };
        let before = if let Some(name) = call.text(0, "input_before") {
            if !scope.per_input {
                return Ok(data);
            }
            pick(name)
        } else if let Some(name) = call.text(2, "template_before") {
            scope.templates.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).ok_or_else(lacking)?
        } else {
            let name = call.text(5, "var_before").ok_or_else(lacking)?;
            scope.vars.get(name).cloned().ok_or_else(lacking)?
        };
        let after = call.text(1, "input_after").map_or_else(|| data.clone(), pick);
        let ignore_order = call.kwargs.get("ignore_order").is_some_and(literal::truthy);
        let verbose = call.kwargs.get("verbose_level").and_then(Value::as_i64) == Some(2);
        let result = match call.text(3, "mode").unwrap_or("bulk") {
            "iterate" => {
                let first = before.get(0).cloned().unwrap_or(Value::Null);
                match &after {
                    Value::Array(a) => Value::Array(
                        a.iter().map(|x| format::deepdiff(&first, x, ignore_order, verbose)).collect(),
                    ),
                    other => Value::Array(vec![format::deepdiff(&first, other, ignore_order, verbose)]),
                }
            }
            "bulk" => format::deepdiff(&before, &after, ignore_order, verbose),
            _ => return Ok(data),
        };
        let Some(field) = call.arg(4, "add_field").filter(|f| literal::truthy(f)).map(py_str) else {
            return Ok(result);
        };
        Ok(match data {
            Value::Array(mut a) => {
                a.push(Value::Object(Map::from_iter([(field, result)])));
                Value::Array(a)
            }
            Value::Object(mut m) => {
                m.insert(field, result);
                Value::Object(m)
            }
            other => other,
        })
    }

    /// Header row and rows of the data at `path`.
    fn table(&self, data: &Value) -> Result<Vec<Vec<Value>>, TtpError> {
        let path = path_of(self.attributes.get("path"));
        let missing = self.attributes.get("missing").cloned().unwrap_or_else(|| Value::from(""));
        let key = self.text("key", "");
        let strict = self.attributes.get("strict").is_none_or(literal::truthy);
        let sources: Vec<&Value> = match data {
            Value::Array(a) => a.iter().collect(),
            Value::Object(_) => vec![data],
            _ => Vec::new(),
        };
        let mut rows: Vec<Map<String, Value>> = Vec::new();
        let mut add = |v: Value| {
            if let Value::Object(m) = v {
                rows.push(m);
            }
        };
        for source in sources {
            match traverse(source, &path, strict)? {
                Value::Array(a) => a.into_iter().for_each(&mut add),
                Value::Object(m) if m.is_empty() => {}
                Value::Object(m) if !key.is_empty() => match dict_to_list(Value::Object(m), &key) {
                    Value::Array(a) => a.into_iter().for_each(&mut add),
                    other => add(other),
                },
                other => add(other),
            }
        }
        let headers: Vec<String> = match self.attributes.get("headers") {
            Some(Value::Array(a)) if !a.is_empty() => a.iter().map(py_str).collect(),
            Some(Value::String(s)) if !s.is_empty() => s.split(',').map(|h| h.trim().to_owned()).collect(),
            _ => {
                let mut names: Vec<String> = rows.iter().flat_map(|r| r.keys().cloned()).collect();
                names.sort();
                names.dedup();
                names
            }
        };
        let mut out = vec![headers.iter().cloned().map(Value::from).collect::<Vec<_>>()];
        for row in rows {
            out.push(
                headers.iter().map(|h| row.get(h).cloned().unwrap_or_else(|| missing.clone())).collect(),
            );
        }
        Ok(out)
    }
}

fn known(call: Call) -> Result<Option<Call>, TtpError> {
    match call.name.as_str() {
        "macro" => Err(TtpError::python("<output macro=...>")),
        "validate" | "validate_yangson" => Err(TtpError::new(
            "unsupported",
            format!("the output function {} needs a Python library", call.name),
        )),
        name if FUNCTIONS.contains(&name) => Ok(Some(call)),
        // The reference only logs an unknown function.
        other => {
            tracing::warn!(function = other, "unknown output function");
            Ok(None)
        }
    }
}

fn path_of(v: Option<&Value>) -> Vec<String> {
    match v {
        Some(Value::Array(a)) => a.iter().map(py_str).collect(),
        Some(Value::String(s)) if !s.is_empty() => s.split('.').map(|p| p.trim().to_owned()).collect(),
        _ => Vec::new(),
    }
}

fn traverse(data: &Value, path: &[String], strict: bool) -> Result<Value, TtpError> {
    match data {
        Value::Object(_) => {
            let mut at = data;
            for step in path {
                match at.get(step) {
                    Some(v) => at = v,
                    None if strict => {
                        return Err(TtpError::new(
                            "data",
                            format!("the results have nothing at path '{}'", path.join(".")),
                        ));
                    }
                    None => return Ok(Value::Object(Map::new())),
                }
            }
            Ok(at.clone())
        }
        Value::Array(a) => {
            Ok(Value::Array(a.iter().map(|v| traverse(v, path, strict)).collect::<Result<_, _>>()?))
        }
        other => Ok(other.clone()),
    }
}

fn dict_to_list(data: Value, key: &str) -> Value {
    match data {
        Value::Object(m) => {
            if !m.values().all(Value::is_object) {
                // Stays as it is, but for the values in front of the first that is no map.
                let mut m = m;
                let mut in_front = true;
                for (k, v) in &mut m {
                    match v {
                        Value::Object(inner) if in_front => {
                            inner.insert(key.to_owned(), Value::from(k.clone()));
                        }
                        _ => in_front = false,
                    }
                }
                return Value::Object(m);
            }
            let items = m.into_iter().map(|(k, v)| match v {
                Value::Object(mut inner) => {
                    inner.insert(key.to_owned(), Value::from(k));
                    Value::Object(inner)
                }
                other => other,
            });
            Value::Array(items.collect())
        }
        Value::Array(a) => Value::Array(a.into_iter().map(|v| dict_to_list(v, key)).collect()),
        _ => Value::Array(Vec::new()),
    }
}
