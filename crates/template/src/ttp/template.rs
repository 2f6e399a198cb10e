//! A read template: groups, inputs, variables, lookups, outputs, and the work of `<extend>`.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Options;
use super::error::TtpError;
use super::line::{self, Action, Rule, Scope};
use super::literal::{self, Call};
use super::load::load;
use super::output::Output;
use super::xml::{self, Element};

/// A path item and how many asterisks ended it.
pub(crate) type Item = (String, usize);

/// A piece of a path item.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Text(String),
    /// `{{ name }}`
    Variable(String),
}

/// A path item as written.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub parts: Vec<Part>,
    pub stars: usize,
}

impl Step {
    pub fn read(item: &str) -> Self {
        let name = item.trim_end_matches('*');
        let stars = item.len() - name.len();
        let mut parts = Vec::new();
        let mut rest = name;
        while let Some((text, more)) = rest.split_once("{{") {
            let Some((variable, more)) = more.split_once("}}") else { break };
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
            parts.push(Part::Variable(variable.trim().to_owned()));
            rest = more;
        }
        if !rest.is_empty() || parts.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Self { parts, stars }
    }

    /// The steps of a path written with dots.
    pub fn dotted(path: &str) -> Vec<Self> {
        path.split('.').map(|item| Self::read(item.trim())).collect()
    }

    fn fixed(&self) -> Option<Item> {
        match self.parts.as_slice() {
            [Part::Text(text)] => Some((text.clone(), self.stars)),
            _ => None,
        }
    }
}

/// A group of lines. Groups of a template stand in one list; children are indices into it.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub path: Vec<String>,
    pub steps: Arc<[Step]>,
    /// The path where no part of it is a variable.
    pub fixed: Option<Arc<[Item]>>,
    /// Number of the path: groups with equal paths share it.
    pub path_id: usize,
    /// Dotted path, as `input groups=` names it.
    pub name: String,
    /// Name part of the group's identity.
    pub id_name: String,
    /// Number of the identity: upstream's identities may be equal for two groups.
    pub id: usize,
    pub parent: Option<usize>,
    pub defaults: Map<String, Value>,
    pub starts_by_default: bool,
    pub outputs: Vec<String>,
    pub output_ids: Vec<usize>,
    pub inputs: Vec<String>,
    pub functions: Vec<Call>,
    pub start: Vec<Rule>,
    pub end: Vec<Rule>,
    pub rules: Vec<Rule>,
    pub children: Vec<usize>,
    table: bool,
    default: Option<Value>,
}

/// Texts to parse under one name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Input {
    pub texts: Vec<Arc<str>>,
    pub groups: Vec<usize>,
    pub functions: Vec<Call>,
}

/// How the results of several inputs are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    PerInput,
    PerTemplate,
}

/// One template (of possibly several in a text).
#[derive(Debug)]
pub(crate) struct Single {
    pub name: String,
    pub vars: Map<String, Value>,
    /// Variables a getter fills per input: name, getter.
    pub getters: Vec<(String, String)>,
    /// Result path -> names of variables saved there.
    pub vars_to_results: Vec<(String, Vec<String>)>,
    pub lookups: Map<String, Value>,
    pub groups: Vec<Group>,
    pub top: Vec<usize>,
    pub inputs: Vec<(String, Input)>,
    pub outputs: Vec<Output>,
    pub group_outputs: Vec<Output>,
    pub method: Method,
    pub ids: usize,
    pub base_path: String,
    pathchar: String,
    id_numbers: HashMap<(String, usize), usize>,
    path_numbers: HashMap<Vec<String>, usize>,
}

const GETTERS: &[&str] = &[
    "gethostname",
    "getfilename",
    "get_time",
    "get_date",
    "get_timestamp",
    "get_timestamp_ms",
    "get_timestamp_iso",
    "get_time_ns",
];
const MAX_RULES: usize = 20_000;

/// Compiles a template text into its templates.
pub(crate) fn compile(text: &str, name: &str, options: &Options) -> Result<Vec<Single>, TtpError> {
    if text.len() > options.max_template {
        return Err(TtpError::limit(format_args!(
            "the template has {} bytes, more than the allowed {}",
            text.len(),
            options.max_template
        )));
    }
    // As the reference has it, no text is no template.
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let root = xml::root(text)?;
    let (own, nested) = single(root, name, &options.base_path, &options.filters, options, 0)?;
    Ok(if nested.is_empty() { vec![own] } else { nested })
}

fn single(
    mut root: Element,
    name: &str,
    base_path: &str,
    filters: &[String],
    options: &Options,
    depth: usize,
) -> Result<(Single, Vec<Single>), TtpError> {
    if depth > 8 {
        return Err(TtpError::limit("<template> is nested deeper than 8 levels").at(root.line));
    }
    let mut budget = 200;
    extend(&mut root, true, options, &mut budget, 0)?;
    if root.children.is_empty() {
        root = xml::anonymous(root, true);
    }
    let mut t = Single {
        name: name.to_owned(),
        vars: options.vars.clone(),
        getters: Vec::new(),
        vars_to_results: Vec::new(),
        lookups: Map::new(),
        groups: Vec::new(),
        top: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        group_outputs: Vec::new(),
        method: Method::PerInput,
        ids: 0,
        base_path: base_path.to_owned(),
        pathchar: ".".into(),
        id_numbers: HashMap::new(),
        path_numbers: HashMap::new(),
    };
    for (key, v) in &root.attrs {
        match key.as_str() {
            "name" => t.name = v.clone(),
            "base_path" => t.base_path = v.clone(),
            "results" => {
                t.method = match v.as_str() {
                    "per_input" => Method::PerInput,
                    "per_template" => Method::PerTemplate,
                    other => {
                        return Err(TtpError::new(
                            "argument",
                            format!("<template results=\"{other}\">: per_input or per_template"),
                        )
                        .at(root.line));
                    }
                }
            }
            "pathchar" if !v.is_empty() => t.pathchar = v.clone(),
            _ => {}
        }
    }
    if !filters.is_empty() && !filters.contains(&t.name) {
        return Ok((t, Vec::new()));
    }
    let mut nested = Vec::new();
    let named = |e: &Element, names: &[&str]| names.contains(&e.tag.as_str());
    if let Some(el) = root.children.iter().find(|e| e.tag == "macro") {
        return Err(TtpError::python("<macro>").at(el.line));
    }
    for (i, el) in root.children.iter().filter(|e| e.tag == "template").enumerate() {
        if !filters.is_empty() && !el.attr("name").is_some_and(|n| filters.iter().any(|f| f == n)) {
            continue;
        }
        let child = if el.children.is_empty() {
            Element { attrs: el.attrs.clone(), ..xml::anonymous(el.clone(), false) }
        } else {
            el.clone()
        };
        nested.push(single(child, &i.to_string(), &t.base_path, &[], options, depth + 1)?.0);
    }
    for el in root.children.iter().filter(|e| named(e, &["vars", "variables", "v"])) {
        t.add_vars(el, options).map_err(|e| e.at(el.line))?;
    }
    for el in root.children.iter().filter(|e| named(e, &["output", "out", "o"])) {
        t.outputs.push(Output::from_tag(el, options).map_err(|e| e.at(el.line))?);
    }
    for el in root.children.iter().filter(|e| e.tag == "lookup") {
        t.add_lookup(el, options).map_err(|e| e.at(el.line))?;
    }
    for (i, el) in root.children.iter().filter(|e| named(e, &["group", "grp", "g"])).enumerate() {
        let id = t.add_group(el, None, i, 0)?;
        t.top.push(id);
    }
    for el in root.children.iter().filter(|e| named(e, &["input", "in", "i"])) {
        t.add_input_tag(el, options).map_err(|e| e.at(el.line))?;
    }
    t.inputs_of_groups(options)?;
    t.outputs_of_groups();
    for (name, v) in &t.vars {
        if let Value::String(s) = v
            && GETTERS.contains(&s.as_str())
        {
            t.getters.push((name.clone(), s.clone()));
        }
    }
    for (name, _) in &t.getters {
        t.vars.shift_remove(name);
    }
    t.ids = t.id_numbers.len();
    Ok((t, nested))
}

/// Replaces `<extend>` tags by what they name, also inside groups.
fn extend(
    el: &mut Element,
    top: bool,
    options: &Options,
    budget: &mut usize,
    depth: usize,
) -> Result<(), TtpError> {
    if depth > 20 {
        return Err(TtpError::limit("<extend> is nested deeper than 20 levels").at(el.line));
    }
    let mut i = 0;
    while i < el.children.len() {
        let tag = el.children[i].tag.clone();
        if tag == "group" || tag == "grp" || tag == "g" {
            extend(&mut el.children[i], false, options, budget, depth + 1)?;
        } else if tag == "extend" {
            if *budget == 0 {
                return Err(TtpError::limit("more than 200 <extend> tags: does a template extend itself?")
                    .at(el.children[i].line));
            }
            *budget -= 1;
            let child = el.children.remove(i);
            let at = child.line;
            if child.attr("macro").is_some() {
                return Err(TtpError::python("<extend macro=...>").at(at));
            }
            let path = child.attr("template").unwrap_or("");
            let text = options.read(path).ok_or_else(|| {
                TtpError::new("io", format!("<extend template=\"{path}\">: there is no such template to read, or reading is not allowed"))
                    .at(at)
            })?;
            let ext = xml::root(&text)
                .map_err(|e| TtpError::new(e.code, format!("<extend template=\"{path}\">: {e}")).at(at))?;
            let lone = ext.children.len() == 1 && ext.children[0].attr("name") == Some("_anonymous_");
            if lone {
                // Its text becomes text of the extended tag; removing a tag drops its tail, as
                // the reference does.
                el.text.push_str(&ext.children[0].text);
                continue;
            }
            if top && ext.attr("name").is_some() {
                el.children.insert(i, ext);
                i += 1;
                continue;
            }
            let mut kept = Element { children: filter(ext, &child, top), ..Element::default() };
            extend(&mut kept, false, options, budget, depth + 1)?;
            let n = kept.children.len();
            el.children.splice(i..i, kept.children);
            i += n;
            continue;
        }
        i += 1;
    }
    Ok(())
}

fn filter(ext: Element, tag: &Element, top: bool) -> Vec<Element> {
    if top && tag.attrs.len() == 1 {
        return ext.children;
    }
    let list = |name: &str| -> Vec<String> {
        tag.attr(name)
            .map(|v| v.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect())
            .unwrap_or_default()
    };
    let groups = list("groups");
    let by_kind = [
        (vec!["i", "in", "input"], list("inputs")),
        (vec!["v", "vars", "variables"], list("vars")),
        (vec!["lookup"], list("lookups")),
        (vec!["o", "out", "output"], list("outputs")),
    ];
    let mut index = 0;
    ext.children
        .into_iter()
        .filter(|t| {
            let tag = t.tag.as_str();
            let name = t.attr("name").unwrap_or("");
            if matches!(tag, "g" | "grp" | "group") {
                if groups.is_empty() {
                    return true;
                }
                index += 1;
                return groups.iter().any(|g| g == name || *g == (index - 1).to_string());
            }
            if !top {
                return tag == "extend";
            }
            by_kind
                .iter()
                .find(|(tags, wanted)| tags.contains(&tag) && !wanted.is_empty())
                .is_none_or(|(_, wanted)| wanted.iter().any(|w| w == name))
        })
        .collect()
}

/// Text of a tag with what its `include` names.
fn with_include(el: &Element, options: &Options) -> Result<String, TtpError> {
    let mut text = el.text.clone();
    if let Some(path) = el.attr("include") {
        let more = options.read(path).ok_or_else(|| {
            TtpError::new(
                "io",
                format!(
                    "<{} include=\"{path}\">: there is no such text to read, or reading is not allowed",
                    el.tag
                ),
            )
        })?;
        text.push('\n');
        text.push_str(&more);
    }
    Ok(text)
}

impl Single {
    fn add_vars(&mut self, el: &Element, options: &Options) -> Result<(), TtpError> {
        let text = with_include(el, options)?;
        let loaded = load(&text, el.attr("load").unwrap_or("python"), el.attr("key"), &el.tag)?;
        let vars = match loaded {
            Value::Object(m) => m,
            Value::Null => Map::new(),
            Value::String(s) if s.trim().is_empty() => Map::new(),
            _ => return Err(TtpError::new("data", format!("<{}> must hold names with values", el.tag))),
        };
        if let Some(path) = el.attr("name") {
            let keys: Vec<String> = vars.keys().cloned().collect();
            match self.vars_to_results.iter_mut().find(|(p, _)| p == path) {
                Some((_, names)) => names.extend(keys),
                None => self.vars_to_results.push((path.to_owned(), keys)),
            }
        }
        self.vars.extend(vars);
        Ok(())
    }

    fn add_lookup(&mut self, el: &Element, options: &Options) -> Result<(), TtpError> {
        let Some(name) = el.attr("name") else {
            tracing::debug!(line = el.line, "a lookup without a name is skipped");
            return Ok(());
        };
        if el.attr("database").is_some() {
            return Err(TtpError::new(
                "io",
                format!(
                    "<lookup name=\"{name}\" database=...> needs a database file, which parsing never opens"
                ),
            ));
        }
        let text = with_include(el, options)?;
        let loaded = load(&text, el.attr("load").unwrap_or("python"), el.attr("key"), &el.tag)?;
        self.lookups.insert(name.to_owned(), loaded);
        Ok(())
    }

    fn number(&mut self, name: &str, index: usize) -> usize {
        let next = self.id_numbers.len();
        *self.id_numbers.entry((name.to_owned(), index)).or_insert(next)
    }

    fn add_group(
        &mut self,
        el: &Element,
        parent: Option<usize>,
        index: usize,
        depth: usize,
    ) -> Result<usize, TtpError> {
        if depth > 32 {
            return Err(TtpError::limit("groups are nested deeper than 32 levels").at(el.line));
        }
        let top = parent.is_none();
        let parent_path: Vec<String> =
            parent.and_then(|p| self.groups.get(p)).map(|g| g.path.clone()).unwrap_or_default();
        let parent_id = parent.and_then(|p| self.groups.get(p)).map(|g| g.id);
        let mut path = parent_path.clone();
        let mut named = false;
        let mut g = Group { parent: parent_id, ..Group::default() };
        let listed = |v: &str| v.split(',').map(|s| s.trim().to_owned()).collect::<Vec<_>>();
        for (key, v) in &el.attrs {
            match key.to_ascii_lowercase().as_str() {
                "method" => g.table = v.trim().eq_ignore_ascii_case("table"),
                "input" if top => g.inputs = listed(v),
                "output" if top => g.outputs = listed(v),
                "input" | "output" => {}
                "name" => {
                    named = true;
                    let split =
                        |s: &str| s.split(self.pathchar.as_str()).map(str::to_owned).collect::<Vec<_>>();
                    if let Some(absolute) = v.strip_prefix('/') {
                        let absolute = absolute.trim_start_matches('/');
                        if path.iter().any(|p| p == "_anonymous_") {
                            path = vec!["_anonymous_*".into()];
                            path.extend(split(absolute));
                        } else if v == "/" {
                            path = vec!["_anonymous_*".into()];
                        } else {
                            path = split(absolute);
                        }
                    } else {
                        path.extend(split(v));
                    }
                }
                "default" => {
                    g.default = Some(self.vars.get(v).cloned().unwrap_or_else(|| Value::from(v.clone())))
                }
                "chain" | "functions" => {
                    let chain = self.vars.get(v).cloned().unwrap_or_else(|| Value::from(v.clone()));
                    for call in line::chain_calls(&chain).map_err(|e| e.at(el.line))? {
                        match super::group_functions::check(&call) {
                            Ok(()) => g.functions.push(call),
                            // The reference only logs an unknown function of a chain.
                            Err(e) if e.code == "function" => tracing::warn!(line = el.line, "{e}"),
                            Err(e) => return Err(e.at(el.line)),
                        }
                    }
                }
                _ => {
                    let call = literal::attribute_call(key, v).map_err(|e| e.at(el.line))?;
                    super::group_functions::check(&call).map_err(|e| e.at(el.line))?;
                    g.functions.push(call);
                }
            }
        }
        if named && !path.join(".").is_empty() {
            g.name = path.join(".");
            g.id_name = g.name.clone();
        } else {
            if top {
                path = vec!["_anonymous_*".into()];
            }
            g.name = path.join(".");
            g.id_name = format!("{}._anonymous_", g.name);
        }
        if path.len() > 64 {
            return Err(TtpError::limit("a group's path has more than 64 items").at(el.line));
        }
        g.id = self.number(&g.id_name.clone(), index);
        let next = self.path_numbers.len();
        g.path_id = *self.path_numbers.entry(path.clone()).or_insert(next);
        g.steps = path.iter().map(|item| Step::read(item)).collect();
        g.fixed = g.steps.iter().map(Step::fixed).collect();
        g.path = path;
        let at = self.groups.len();
        self.lines(&mut g, &el.text, el.text_line, false)?;
        self.groups.push(g);
        for (i, child) in el.children.iter().enumerate() {
            if child.tag == "macro" {
                return Err(TtpError::python("<macro>").at(child.line));
            }
            let id = self.add_group(child, Some(at), i, depth + 1)?;
            let Some(slot) = self.groups.get_mut(at) else { continue };
            slot.children.push(id);
            if !child.tail.trim().is_empty() {
                // The group is taken out while its lines are read: they only touch itself.
                let mut g = std::mem::take(slot);
                let done = self.lines(&mut g, &child.tail, child.tail_line, true);
                if let Some(slot) = self.groups.get_mut(at) {
                    *slot = g;
                }
                done?;
            }
        }
        Ok(at)
    }

    fn lines(&mut self, g: &mut Group, text: &str, first_line: usize, tail: bool) -> Result<(), TtpError> {
        let default = g.default.clone();
        let default = default.as_ref().filter(|d| d.is_string());
        let mut compiled: Vec<Rule> = Vec::new();
        for (i, raw) in crate::python::lines(text).enumerate() {
            let trimmed = raw.trim();
            if trimmed.is_empty() || trimmed.starts_with("##") {
                continue;
            }
            let mut scope = Scope { vars: &self.vars, defaults: &mut g.defaults, default };
            let at = if first_line > 0 { first_line + i } else { 0 };
            if let Some(rule) = line::compile(raw, at, &mut scope).map_err(|e| e.at(at))? {
                compiled.push(rule);
            }
            if compiled.len() > MAX_RULES {
                return Err(TtpError::limit("a group has more than 20000 lines").at(at));
            }
        }
        for (i, mut rule) in compiled.into_iter().enumerate() {
            if rule.action == Action::End {
                g.end.push(rule);
            } else if tail {
                g.rules.push(rule);
            } else if i == 0 || g.table {
                if !rule.action.starts() {
                    rule.action = Action::Start;
                }
                g.start.push(rule);
            } else if rule.action.starts() {
                g.start.push(rule);
            } else {
                g.rules.push(rule);
            }
        }
        if let Some(Value::Object(d)) = &g.default {
            g.defaults.extend(d.clone());
            if g.start.is_empty() {
                g.starts_by_default = true;
            }
        }
        if !g.starts_by_default {
            g.starts_by_default = g.start.iter().any(|r| r.names.iter().any(|n| g.defaults.contains_key(n)));
        }
        Ok(())
    }
}

/// The defaults of a group for one run: a default that is a variable's name takes its value.
pub(crate) fn runs(defaults: &Map<String, Value>, scopes: [&Map<String, Value>; 2]) -> Map<String, Value> {
    let mut out = defaults.clone();
    for v in out.values_mut() {
        for vars in scopes {
            let known = matches!(v, Value::String(s) if vars.contains_key(s.as_str()));
            if !known {
                continue;
            }
            // A replaced value may itself be the name of a later variable.
            for (name, by) in vars {
                if matches!(v, Value::String(s) if s == name) {
                    *v = by.clone();
                }
            }
        }
    }
    out
}
