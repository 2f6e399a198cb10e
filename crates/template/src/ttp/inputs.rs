//! Inputs of a template: `<input>` tags, texts of the caller, which groups read which; and the
//! outputs that groups name.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::TtpError;
use super::literal::{self, Call};
use super::load::load;
use super::template::{Group, Input, Single};
use super::xml::Element;
use super::{Options, value};

impl Single {
    fn groups_for(&self, input: &str, wanted: &[String]) -> Vec<usize> {
        let own: Vec<usize> = self.indices(|g| g.inputs.iter().any(|i| i == input));
        if !own.is_empty() {
            return own;
        }
        if wanted.iter().any(|w| w == "all") {
            self.indices(|g| g.inputs.is_empty())
        } else {
            self.indices(|g| g.inputs.is_empty() && wanted.contains(&g.name))
        }
    }

    fn indices(&self, keep: impl Fn(&Group) -> bool) -> Vec<usize> {
        self.top
            .iter()
            .enumerate()
            .filter(|(_, g)| self.groups.get(**g).is_some_and(&keep))
            .map(|(i, _)| i)
            .collect()
    }

    /// Adds texts under an input name. `groups` names the groups to use (`all`).
    pub fn input(
        &self,
        inputs: &mut Vec<(String, Input)>,
        name: &str,
        texts: &[Arc<str>],
        groups: &[String],
    ) {
        let all = ["all".to_owned()];
        let wanted = if groups.is_empty() { &all[..] } else { groups };
        let indexes = self.groups_for(name, wanted);
        merge(inputs, name, Input { texts: texts.to_vec(), groups: indexes, functions: Vec::new() });
    }

    pub(super) fn add_input_tag(&mut self, el: &Element, options: &Options) -> Result<(), TtpError> {
        let name = el.attr("name").unwrap_or("Default_Input").trim().to_owned();
        let loader = el.attr("load").unwrap_or("python").trim().to_owned();
        let mut attrs: Vec<(String, Value)> = Vec::new();
        for (k, v) in &el.attrs {
            attrs.push((k.clone(), Value::from(v.clone())));
        }
        if loader != "text"
            && !el.text.trim().is_empty()
            && let Value::Object(m) = load(&el.text, &loader, None, &el.tag)?
        {
            // What the tag's text says wins over its attributes, except the groups attribute,
            // which the reference reads last.
            attrs.extend(m.into_iter().filter(|(k, _)| k != "groups" || el.attr("groups").is_none()));
        }
        let strings = |v: &Value| -> Vec<String> {
            match v {
                Value::Array(a) => a.iter().map(value::py_str).collect(),
                other => vec![value::py_str(other)],
            }
        };
        let (mut urls, mut extensions, mut filters) = (Vec::new(), Vec::new(), Vec::new());
        let mut groups = vec!["all".to_owned()];
        let mut input = Input::default();
        for (k, v) in &attrs {
            match k.to_ascii_lowercase().as_str() {
                "groups" => {
                    groups = match v {
                        Value::Array(_) => strings(v),
                        other => value::py_str(other).split(',').map(|s| s.trim().to_owned()).collect(),
                    }
                }
                "extensions" => extensions = strings(v),
                "filters" => filters = strings(v),
                "url" => urls = strings(v),
                "functions" => {
                    for call in literal::calls(&value::py_str(v))? {
                        input.functions.extend(input_function(call)?);
                    }
                }
                "extract_commands" => {
                    let args = value::py_str(v)
                        .split(',')
                        .map(str::trim)
                        .filter(|s| !s.is_empty())
                        .map(Value::from)
                        .collect();
                    input.functions.push(Call { name: "extract_commands".into(), args, kwargs: Map::new() });
                }
                "macro" => return Err(TtpError::python(format_args!("<{} macro=...>", el.tag))),
                _ => {}
            }
        }
        input.groups = self.groups_for(&name, &groups);
        if loader == "text" && !el.text.is_empty() {
            input.texts.push(Arc::from(el.text.as_str()));
        } else {
            for url in urls {
                input.texts.extend(self.fetch(&url, &extensions, &filters, options)?);
            }
        }
        merge(&mut self.inputs, &name, input);
        Ok(())
    }

    /// Texts an input names by path, through the caller's files.
    fn fetch(
        &self,
        url: &str,
        extensions: &[String],
        filters: &[String],
        options: &Options,
    ) -> Result<Vec<Arc<str>>, TtpError> {
        let url = format!("{}{url}", self.base_path);
        if let Some(text) = options.read(&url) {
            return Ok(vec![Arc::from(text)]);
        }
        let Some(names) = options.list(&url) else {
            return Err(TtpError::new(
                "io",
                format!("<input url=\"{url}\">: there is no such text to read, or reading is not allowed"),
            ));
        };
        let searches = filters.iter().map(|f| super::regex::Search::new(f)).collect::<Result<Vec<_>, _>>()?;
        let mut out = Vec::new();
        for name in names {
            if !extensions.is_empty()
                && !extensions.iter().any(|e| name.rsplit('.').next() == Some(e.as_str()))
            {
                continue;
            }
            let mut keep = true;
            for s in &searches {
                keep &= s.is_match(&name)?;
            }
            if keep && let Some(text) = options.read(&format!("{}/{name}", url.trim_end_matches('/'))) {
                out.push(Arc::from(text));
            }
        }
        Ok(out)
    }

    /// A group's `input` that no tag defines is a path, or waits for texts given at run time.
    pub(super) fn inputs_of_groups(&mut self, options: &Options) -> Result<(), TtpError> {
        let mut wanted: Vec<String> = Vec::new();
        for g in self.top.iter().filter_map(|g| self.groups.get(*g)) {
            wanted.extend(g.inputs.iter().cloned());
        }
        for name in wanted {
            if !self.inputs.iter().any(|(n, _)| *n == name) {
                let texts = self.fetch(&name, &[], &[], options).unwrap_or_default();
                let groups = self.groups_for(&name, &["all".to_owned()]);
                merge(&mut self.inputs, &name, Input { texts, groups, functions: Vec::new() });
            }
        }
        Ok(())
    }

    /// Moves outputs that a group names from the template to the group.
    pub(super) fn outputs_of_groups(&mut self) {
        for top in self.top.clone() {
            let names = self.groups.get(top).map(|g| g.outputs.clone()).unwrap_or_default();
            let mut ids = Vec::new();
            for name in names {
                if let Some(i) = self.outputs.iter().position(|o| o.name.as_deref() == Some(name.as_str())) {
                    self.group_outputs.push(self.outputs.remove(i));
                    ids.push(self.group_outputs.len() - 1);
                } else if let Some(i) =
                    self.group_outputs.iter().position(|o| o.name.as_deref() == Some(name.as_str()))
                {
                    ids.push(i);
                } else {
                    tracing::debug!(output = %name, "a group names an output that is not there");
                }
            }
            if let Some(g) = self.groups.get_mut(top) {
                g.output_ids = ids;
            }
        }
    }
}

fn merge(inputs: &mut Vec<(String, Input)>, name: &str, input: Input) {
    match inputs.iter_mut().find(|(n, _)| n == name) {
        Some((_, have)) => {
            for t in input.texts {
                // The same text twice is parsed once.
                if !have.texts.contains(&t) {
                    have.texts.push(t);
                }
            }
            for g in input.groups {
                if !have.groups.contains(&g) {
                    have.groups.push(g);
                }
            }
            have.groups.sort_unstable();
        }
        None => inputs.push((name.to_owned(), input)),
    }
}

fn input_function(call: Call) -> Result<Option<Call>, TtpError> {
    match call.name.as_str() {
        "extract_commands" => Ok(Some(call)),
        "macro" => Err(TtpError::python("the input function macro")),
        // The reference only logs an unknown one; its `test` only prints.
        other => {
            tracing::warn!(function = other, "unknown input function");
            Ok(None)
        }
    }
}
