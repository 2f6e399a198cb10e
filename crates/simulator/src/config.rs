//! A device's configuration: a tree of lines that really changes, rendered the way the vendor prints it.

use serde::Deserialize;

/// How a platform stores and edits its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// Lines and indented sub-sections (`interface X` / ` description Y`), negated with `no` or `undo`.
    #[default]
    Section,
    /// Paths of words (`set a b c`, `delete a b`), shown as curly braces or as set lines.
    Set,
    /// Fortinet's `config ... / edit ... / set ... / next / end`.
    Block,
}

/// The vendor's rules for editing and printing.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// How lines are stored and edited.
    pub style: Style,
    /// The word that deletes (`no`, `undo`, `unset`). Unused by the set style.
    pub negate: String,
    /// Beginnings of lines (or, in the set style, ends of paths) that hold one value: a second one replaces the first.
    pub single: Vec<String>,
    /// Printed between groups of lines (`!`, `#`); nothing when empty.
    pub separator: String,
    /// Spaces per level.
    pub indent: usize,
    /// Set style: words followed by a name on the same line in the curly form (`unit 0 {`).
    pub keyed: Vec<String>,
    /// Set style: what ends a leaf in the curly form (`;` on Junos, nothing on VyOS).
    pub leaf_end: String,
    /// Set style: what a set line begins with (`set `, `set / `).
    pub set_prefix: String,
}

/// One line (section style) or one word (set style) and what is below it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// The line or word.
    pub text: String,
    /// Lines or words below it, in the order entered.
    pub children: Vec<Node>,
    /// Ordered to print as a section even when empty (`interface X`).
    pub section: bool,
}

/// A whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// Top level lines.
    pub nodes: Vec<Node>,
}

/// What an edit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// Something is different now.
    Changed,
    /// It already was so.
    Same,
    /// Asked to delete what is not there.
    Missing,
}

/// True when `line` begins with the words of `key`, whole words only.
pub fn has_words(line: &str, key: &str) -> bool {
    line.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

fn find_mut<'a>(nodes: &'a mut Vec<Node>, text: &str, create: bool, section: bool) -> Option<&'a mut Node> {
    let at = match nodes.iter().position(|n| n.text == text) {
        Some(at) => at,
        None if create => {
            nodes.push(Node { text: text.to_owned(), children: Vec::new(), section });
            nodes.len() - 1
        }
        None => return None,
    };
    nodes.get_mut(at)
}

/// Splits into words, keeping quoted strings and bracketed lists whole.
pub fn words(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    for c in line.chars() {
        match quote {
            Some(q) => {
                word.push(c);
                if c == q {
                    quote = None;
                }
            }
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.push(c);
            }
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    out.push(std::mem::take(&mut word));
                }
            }
            None => word.push(c),
        }
    }
    if !word.is_empty() {
        out.push(word);
    }
    out
}

impl Config {
    /// Reads a configuration printed in the section or block style by its indentation, or as set lines.
    pub fn parse(rules: &Rules, text: &str) -> Config {
        let mut config = Config::default();
        if rules.style == Style::Set {
            for line in text.lines() {
                let line = line.trim();
                if let Some(rest) = line.strip_prefix(rules.set_prefix.trim_end()) {
                    config.set(rules, &[], rest);
                }
            }
            return config;
        }
        let mut path: Vec<(usize, String)> = Vec::new();
        for raw in text.lines() {
            let line = raw.trim();
            if line.is_empty()
                || line == rules.separator
                || (rules.style == Style::Block && (line == "next" || line == "end"))
            {
                continue;
            }
            let depth = raw.len() - raw.trim_start().len();
            while path.last().is_some_and(|(d, _)| *d >= depth) {
                path.pop();
            }
            let above: Vec<String> = path.iter().map(|(_, t)| t.clone()).collect();
            if let Some(nodes) = config.level(&above, true) {
                nodes.push(Node {
                    text: line.to_owned(),
                    children: Vec::new(),
                    section: rules.style == Style::Block && !line.starts_with("set "),
                });
            }
            path.push((depth, line.to_owned()));
        }
        config
    }

    fn level(&mut self, path: &[String], create: bool) -> Option<&mut Vec<Node>> {
        let mut nodes = &mut self.nodes;
        for part in path {
            nodes = &mut find_mut(nodes, part, create, true)?.children;
        }
        Some(nodes)
    }

    /// Makes sure that the section at `path` exists; true when it is new.
    pub fn enter(&mut self, path: &[String]) -> bool {
        let mut fresh = false;
        let mut nodes = &mut self.nodes;
        for part in path {
            fresh = !nodes.iter().any(|n| &n.text == part);
            match find_mut(nodes, part, true, true) {
                Some(node) => nodes = &mut node.children,
                None => return fresh,
            }
        }
        fresh
    }

    /// Section and block style: puts one line under `path`, or deletes when it begins with the negating word.
    pub fn line(&mut self, rules: &Rules, path: &[String], line: &str) -> Edit {
        if let Some(rest) = line.strip_prefix(rules.negate.as_str()).and_then(|r| r.strip_prefix(' ')) {
            let rest = rest.trim();
            let full = if rules.style == Style::Block { format!("set {rest}") } else { rest.to_owned() };
            let Some(nodes) = self.level(path, false) else { return Edit::Missing };
            let before = nodes.len();
            // What a vendor deletes when values are given that differ is the value-less form; a longer one must match whole.
            nodes.retain(|n| !has_words(&n.text, &full));
            return if nodes.len() < before { Edit::Changed } else { Edit::Missing };
        }
        let Some(nodes) = self.level(path, true) else { return Edit::Missing };
        let key = if rules.style == Style::Block {
            // `set <key> <value>` always holds one value.
            line.split(' ').take(2).collect::<Vec<_>>().join(" ")
        } else {
            rules
                .single
                .iter()
                .filter(|k| has_words(line, k))
                .max_by_key(|k| k.len())
                .cloned()
                .unwrap_or_default()
        };
        if !key.is_empty() {
            if let Some(node) = nodes.iter_mut().find(|n| has_words(&n.text, &key)) {
                if node.text == line {
                    return Edit::Same;
                }
                node.text = line.to_owned();
                return Edit::Changed;
            }
        } else if nodes.iter().any(|n| n.text == line) {
            return Edit::Same;
        }
        nodes.push(Node { text: line.to_owned(), children: Vec::new(), section: false });
        Edit::Changed
    }

    /// Set style: puts the path of words `base` + `rest`.
    pub fn set(&mut self, rules: &Rules, base: &[String], rest: &str) -> Edit {
        let path: Vec<String> =
            base.iter().flat_map(|b| words(b)).chain(words(rest)).filter(|w| w != "/").collect();
        let single = rules.single.iter().any(|s| {
            let end = words(s);
            path.len() > end.len() && path[..path.len() - 1].ends_with(&end)
        });
        let mut nodes = &mut self.nodes;
        let mut edit = Edit::Same;
        let last = path.len().saturating_sub(1);
        for (at, word) in path.iter().enumerate() {
            if at == last && single && nodes.iter().any(|n| &n.text != word) {
                nodes.clear();
            }
            if !nodes.iter().any(|n| &n.text == word) {
                edit = Edit::Changed;
            }
            match find_mut(nodes, word, true, false) {
                Some(node) => nodes = &mut node.children,
                None => return edit,
            }
        }
        edit
    }

    /// Set style: deletes the path of words and what became empty above it.
    pub fn delete(&mut self, base: &[String], rest: &str) -> Edit {
        fn cut(nodes: &mut Vec<Node>, path: &[String]) -> bool {
            let Some((word, below)) = path.split_first() else { return false };
            let Some(at) = nodes.iter().position(|n| &n.text == word) else { return false };
            let Some(node) = nodes.get_mut(at) else { return false };
            if below.is_empty() {
                nodes.remove(at);
                return true;
            }
            let done = cut(&mut node.children, below);
            if done && node.children.is_empty() {
                nodes.remove(at);
            }
            done
        }
        let path: Vec<String> =
            base.iter().flat_map(|b| words(b)).chain(words(rest)).filter(|w| w != "/").collect();
        if cut(&mut self.nodes, &path) { Edit::Changed } else { Edit::Missing }
    }

    /// Deletes every line below `path` that begins with `line`, quotes aside; false when there is none.
    pub fn remove(&mut self, path: &[String], line: &str) -> bool {
        let plain = |t: &str| t.replace('"', "");
        let line = plain(line);
        let Some(nodes) = self.level(path, false) else { return false };
        let before = nodes.len();
        nodes.retain(|n| !has_words(&plain(&n.text), &line));
        nodes.len() < before
    }

    /// The value of a named place: `a > b <x>` means the line beginning with `b` in section `a`.
    pub fn value(&self, rules: &Rules, place: &str) -> Option<String> {
        let mut nodes = &self.nodes;
        if rules.style == Style::Set {
            for word in words(place) {
                nodes = &nodes.iter().find(|n| n.text == word)?.children;
            }
            return nodes.last().map(|n| unquote(&n.text));
        }
        let mut parts: Vec<&str> = place.split('>').map(str::trim).collect();
        let key = parts.pop()?;
        for part in parts {
            nodes = &nodes.iter().find(|n| n.text == part)?.children;
        }
        let value = |n: &Node| {
            let value = n.text[key.len()..].trim();
            // RouterOS writes `set name=X`.
            unquote(value.strip_prefix("name=").unwrap_or(value))
        };
        nodes.iter().rev().find(|n| has_words(&n.text, key)).map(value)
    }

    /// As the vendor's `show running-config` prints it, lines joined by `\n`, none at the end.
    pub fn render(&self, rules: &Rules) -> String {
        let mut out = String::new();
        match rules.style {
            Style::Set => render_curly(&self.nodes, rules, 0, &mut out),
            Style::Section => render_section(&self.nodes, rules, 0, &mut out),
            Style::Block => render_block(&self.nodes, rules, 0, &mut out),
        }
        out.truncate(out.trim_end_matches('\n').len());
        out
    }

    /// Set style: one `set` line per leaf.
    pub fn render_set(&self, rules: &Rules) -> String {
        fn walk(nodes: &[Node], path: &mut Vec<String>, prefix: &str, out: &mut String) {
            for node in nodes {
                path.push(node.text.clone());
                if node.children.is_empty() {
                    out.push_str(prefix);
                    out.push_str(&path.join(" "));
                    out.push('\n');
                } else {
                    walk(&node.children, path, prefix, out);
                }
                path.pop();
            }
        }
        let mut out = String::new();
        walk(&self.nodes, &mut Vec::new(), &rules.set_prefix, &mut out);
        out.truncate(out.trim_end_matches('\n').len());
        out
    }

    /// The part below `path`, for `show` inside a section; nothing when there is no such section.
    pub fn at(&self, path: &[String], style: Style) -> Config {
        let mut nodes = &self.nodes;
        for part in path {
            let steps = if style == Style::Set { words(part) } else { vec![part.clone()] };
            for step in steps {
                match nodes.iter().find(|n| n.text == step) {
                    Some(n) => nodes = &n.children,
                    None => return Config::default(),
                }
            }
        }
        Config { nodes: nodes.clone() }
    }

    /// Every line with its section path, for diffs.
    pub fn flat(&self, rules: &Rules) -> Vec<String> {
        let text = if rules.style == Style::Set { self.render_set(rules) } else { self.render(rules) };
        text.lines().filter(|l| l.trim() != rules.separator).map(str::to_owned).collect()
    }

    /// What differs from `old`, grouped by level the way `show | compare` prints it.
    pub fn compare(&self, old: &Config, rules: &Rules) -> String {
        let leaves = |c: &Config| -> Vec<(String, String)> {
            let text = c.render_set(rules);
            text.lines()
                .map(|l| {
                    let all = words(l.strip_prefix(rules.set_prefix.as_str()).unwrap_or(l));
                    let cut = all.len().saturating_sub(2);
                    (all[..cut].join(" "), all[cut..].join(" "))
                })
                .collect()
        };
        let (new, old) = (leaves(self), leaves(old));
        let mut out = String::new();
        let mut last = None;
        let changes = old
            .iter()
            .filter(|l| !new.contains(l))
            .map(|l| ('-', l))
            .chain(new.iter().filter(|l| !old.contains(l)).map(|l| ('+', l)));
        let mut changes: Vec<_> = changes.collect();
        changes.sort_by(|a, b| a.1.0.cmp(&b.1.0));
        for (sign, (path, leaf)) in changes {
            if last != Some(path) {
                out.push_str(&if path.is_empty() {
                    "[edit]\n".to_owned()
                } else {
                    format!("[edit {path}]\n")
                });
                last = Some(path);
            }
            out.push_str(&format!("{sign}  {leaf}{}\n", rules.leaf_end));
        }
        out
    }

    /// `+ line` and `- line` for what differs from `old`, in order, the way most platforms hint at it.
    pub fn diff(&self, old: &Config, rules: &Rules) -> String {
        let (new, old) = (self.flat(rules), old.flat(rules));
        let mut out: Vec<String> =
            old.iter().filter(|l| !new.contains(l)).map(|l| format!("- {l}")).collect();
        out.extend(new.iter().filter(|l| !old.contains(l)).map(|l| format!("+ {l}")));
        out.join("\n")
    }
}

/// Without the quotes around it.
pub fn unquote(text: &str) -> String {
    let text = text.trim().trim_end_matches(';');
    for q in ['"', '\''] {
        if text.len() >= 2 && text.starts_with(q) && text.ends_with(q) {
            return text[1..text.len() - 1].to_owned();
        }
    }
    text.to_owned()
}

fn render_section(nodes: &[Node], rules: &Rules, depth: usize, out: &mut String) {
    let mut last: Option<&Node> = None;
    for node in nodes {
        if depth == 0 && !rules.separator.is_empty() {
            let first = |n: &Node| n.text.split(' ').next().unwrap_or("").to_owned();
            if last.is_some_and(|l| l.section || !l.children.is_empty() || first(l) != first(node)) {
                out.push_str(&rules.separator);
                out.push('\n');
            }
        }
        for line in node.text.split('\n') {
            out.extend(std::iter::repeat_n(' ', depth * rules.indent));
            out.push_str(line);
            out.push('\n');
        }
        render_section(&node.children, rules, depth + 1, out);
        last = Some(node);
    }
    if depth == 0 && !rules.separator.is_empty() && !nodes.is_empty() {
        out.push_str(&rules.separator);
        out.push('\n');
    }
}

fn render_block(nodes: &[Node], rules: &Rules, depth: usize, out: &mut String) {
    for node in nodes {
        let pad = " ".repeat(depth * rules.indent);
        out.push_str(&format!("{pad}{}\n", node.text));
        render_block(&node.children, rules, depth + 1, out);
        if node.text.starts_with("config ") {
            out.push_str(&format!("{pad}end\n"));
        } else if node.text.starts_with("edit ") {
            out.push_str(&format!("{pad}next\n"));
        }
    }
}

fn render_curly(nodes: &[Node], rules: &Rules, depth: usize, out: &mut String) {
    let pad = " ".repeat(depth * rules.indent);
    for node in nodes {
        if node.children.is_empty() {
            out.push_str(&format!("{pad}{}{}\n", node.text, rules.leaf_end));
        } else if rules.keyed.contains(&node.text) {
            for name in &node.children {
                if name.children.is_empty() {
                    out.push_str(&format!("{pad}{} {}{}\n", node.text, name.text, rules.leaf_end));
                } else {
                    out.push_str(&format!("{pad}{} {} {{\n", node.text, name.text));
                    render_curly(&name.children, rules, depth + 1, out);
                    out.push_str(&format!("{pad}}}\n"));
                }
            }
        } else if depth > 0 && node.children.iter().all(|c| c.children.is_empty()) {
            for value in &node.children {
                out.push_str(&format!("{pad}{} {}{}\n", node.text, value.text, rules.leaf_end));
            }
        } else {
            out.push_str(&format!("{pad}{} {{\n", node.text));
            render_curly(&node.children, rules, depth + 1, out);
            out.push_str(&format!("{pad}}}\n"));
        }
    }
}
