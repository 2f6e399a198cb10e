//! Reads the tags of a TTP template.
//!
//! Templates look like XML but hold device text, so only TTP's own tag names open a tag; any other
//! `<` is text. Text tags (`input`, `vars`, ...) are taken raw up to their closing tag.

use super::error::TtpError;

/// One tag with its text, children and the text that follows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Element {
    pub tag: String,
    pub attrs: Vec<(String, String)>,
    pub text: String,
    pub text_line: usize,
    pub children: Vec<Element>,
    pub tail: String,
    pub tail_line: usize,
    pub line: usize,
}

impl Element {
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attrs.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

const TAGS: &[&str] = &[
    "template",
    "group",
    "grp",
    "g",
    "vars",
    "variables",
    "v",
    "input",
    "in",
    "i",
    "output",
    "out",
    "o",
    "lookup",
    "macro",
    "doc",
    "extend",
];
/// Tags whose content is text, whatever it looks like.
const RAW: &[&str] =
    &["vars", "variables", "v", "input", "in", "i", "output", "out", "o", "lookup", "macro", "doc"];
const MAX_DEPTH: usize = 48;
const MAX_TAGS: usize = 10_000;

/// A tag at some place of the text.
enum Tag<'a> {
    Open { name: &'a str, attrs: Vec<(String, String)>, empty: bool, end: usize },
    Close { name: &'a str, end: usize },
}

/// Decodes the entities of XML; an ampersand that starts none stays.
pub(crate) fn decode(text: &str) -> String {
    if !text.contains('&') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(rest.get(..at).unwrap_or(""));
        rest = rest.get(at..).unwrap_or("");
        let semi = rest.char_indices().take(12).find(|(_, c)| *c == ';').map(|(i, _)| i);
        let entity = semi.and_then(|end| rest.get(1..end));
        let decoded = entity.and_then(|e| match e {
            "lt" => Some('<'),
            "gt" => Some('>'),
            "amp" => Some('&'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => {
                let number = e.strip_prefix('#')?;
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)
            }
        });
        match (decoded, semi) {
            (Some(c), Some(end)) => {
                out.push(c);
                rest = rest.get(end + 1..).unwrap_or("");
            }
            _ => {
                out.push('&');
                rest = rest.get(1..).unwrap_or("");
            }
        }
    }
    out.push_str(rest);
    out
}

fn tag_at(src: &str, at: usize) -> Result<Option<Tag<'_>>, TtpError> {
    let rest = src.get(at + 1..).unwrap_or("");
    let (closing, rest) = match rest.strip_prefix('/') {
        Some(r) => (true, r),
        None => (false, rest),
    };
    let len = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
    let name = rest.get(..len).unwrap_or("");
    if !TAGS.contains(&name.to_ascii_lowercase().as_str()) {
        return Ok(None);
    }
    let after = rest.get(len..).unwrap_or("");
    if closing {
        let trimmed = after.trim_start();
        return Ok(trimmed.strip_prefix('>').map(|tail| Tag::Close { name, end: src.len() - tail.len() }));
    }
    let mut attrs: Vec<(String, String)> = Vec::new();
    let mut rest = after;
    loop {
        let trimmed = rest.trim_start();
        if let Some(tail) = trimmed.strip_prefix("/>") {
            return Ok(Some(Tag::Open { name, attrs, empty: true, end: src.len() - tail.len() }));
        }
        if let Some(tail) = trimmed.strip_prefix('>') {
            return Ok(Some(Tag::Open { name, attrs, empty: false, end: src.len() - tail.len() }));
        }
        if trimmed.len() == rest.len() && attrs.is_empty() {
            return Ok(None);
        }
        let key_len = trimmed
            .char_indices()
            .find(|(_, c)| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':')))
            .map_or(trimmed.len(), |(i, _)| i);
        let key = trimmed.get(..key_len).unwrap_or("");
        let Some(eq) = trimmed.get(key_len..).unwrap_or("").trim_start().strip_prefix('=') else {
            return Ok(None);
        };
        let eq = eq.trim_start();
        let Some(quote) = eq.chars().next().filter(|q| matches!(q, '"' | '\'')) else { return Ok(None) };
        if key.is_empty() {
            return Ok(None);
        }
        let body = eq.get(1..).unwrap_or("");
        let Some(end) = body.find(quote) else {
            return Err(TtpError::new("syntax", format!("<{name}>: attribute {key} has no closing quote"))
                .at(line_of(src, at)));
        };
        if attrs.iter().any(|(k, _)| k == key) {
            return Err(TtpError::new("syntax", format!("<{name}>: attribute {key} is given twice"))
                .at(line_of(src, at)));
        }
        attrs.push((key.to_owned(), decode(body.get(..end).unwrap_or("")).replace(['\n', '\t', '\r'], " ")));
        rest = body.get(end + 1..).unwrap_or("");
    }
}

pub(crate) fn line_of(src: &str, at: usize) -> usize {
    memchr::memchr_iter(b'\n', src.as_bytes().get(..at).unwrap_or(&[])).count() + 1
}

/// Reads the whole text as the content of a `<template>` element.
pub(crate) fn read(src: &str) -> Result<Element, TtpError> {
    let mut stack = vec![Element { tag: "template".into(), text_line: 1, line: 1, ..Element::default() }];
    let mut from = 0;
    let mut scan = 0;
    let mut tags = 0;
    // Lines are counted as the reader moves, so that a long template costs one pass.
    let (mut line, mut line_at) = (1usize, 0usize);
    let bytes = src.as_bytes();
    while let Some(offset) = memchr::memchr(b'<', bytes.get(scan..).unwrap_or(&[])) {
        let at = scan + offset;
        let rest = src.get(at..).unwrap_or("");
        let skip = if rest.starts_with("<!--") {
            rest.find("-->").map(|e| (e + 3, ""))
        } else if rest.starts_with("<![CDATA[") {
            rest.find("]]>").map(|e| (e + 3, rest.get(9..e).unwrap_or("")))
        } else if rest.starts_with("<?xml") {
            rest.find("?>").map(|e| (e + 2, ""))
        } else {
            None
        };
        if let Some((len, text)) = skip {
            push_text(&mut stack, &decode(src.get(from..at).unwrap_or("")));
            push_text(&mut stack, text);
            from = at + len;
            scan = from;
            continue;
        }
        let Some(tag) = tag_at(src, at)? else {
            scan = at + 1;
            continue;
        };
        tags += 1;
        if tags > MAX_TAGS {
            return Err(TtpError::limit("the template has more than 10000 tags"));
        }
        line += memchr::memchr_iter(b'\n', bytes.get(line_at..at).unwrap_or(&[])).count();
        line_at = at;
        push_text(&mut stack, &decode(src.get(from..at).unwrap_or("")));
        match tag {
            Tag::Open { name, attrs, empty, end } => {
                let lower = name.to_ascii_lowercase();
                let mut el = Element {
                    tag: lower.clone(),
                    attrs,
                    line,
                    text_line: line,
                    tail_line: line,
                    ..Element::default()
                };
                from = end;
                if !empty && RAW.contains(&lower.as_str()) {
                    let close = format!("</{name}");
                    let body = src.get(end..).unwrap_or("");
                    let mut found = None;
                    let mut look = 0;
                    while let Some(i) = body.get(look..).and_then(|b| b.find(&close)) {
                        let i = look + i;
                        if let Ok(Some(Tag::Close { name: n, end: e })) = tag_at(body, i)
                            && n == name
                        {
                            found = Some((i, e));
                            break;
                        }
                        look = i + 1;
                    }
                    let Some((i, e)) = found else {
                        return Err(TtpError::new("syntax", format!("<{name}> is never closed")).at(line));
                    };
                    let raw = body.get(..i).unwrap_or("");
                    el.text = match raw.trim().strip_prefix("<![CDATA[").and_then(|r| r.strip_suffix("]]>")) {
                        Some(cdata) => cdata.to_owned(),
                        None => decode(raw),
                    };
                    from = end + e;
                    close_into(&mut stack, el);
                } else if empty {
                    close_into(&mut stack, el);
                } else {
                    if stack.len() >= MAX_DEPTH {
                        return Err(TtpError::limit(format_args!(
                            "<{name}> is nested deeper than {MAX_DEPTH} tags"
                        ))
                        .at(line));
                    }
                    stack.push(el);
                }
            }
            Tag::Close { name, end } => {
                let name = name.to_ascii_lowercase();
                match stack.pop() {
                    Some(el) if el.tag == name && !stack.is_empty() => {
                        close_into(&mut stack, Element { tail_line: line, ..el });
                    }
                    Some(el) => {
                        let open = if stack.is_empty() {
                            String::new()
                        } else {
                            format!(", <{}> of line {} is open", el.tag, el.line)
                        };
                        return Err(
                            TtpError::new("syntax", format!("</{name}> closes nothing{open}")).at(line)
                        );
                    }
                    None => return Err(TtpError::new("syntax", format!("</{name}> closes nothing")).at(line)),
                }
                from = end;
            }
        }
        scan = from;
    }
    push_text(&mut stack, &decode(src.get(from..).unwrap_or("")));
    match stack.pop() {
        Some(root) if stack.is_empty() => Ok(root),
        Some(el) => Err(TtpError::new("syntax", format!("<{}> is never closed", el.tag)).at(el.line)),
        None => Err(TtpError::new("syntax", "the template is empty")),
    }
}

fn push_text(stack: &mut [Element], text: &str) {
    if let Some(top) = stack.last_mut() {
        match top.children.last_mut() {
            Some(child) => child.tail.push_str(text),
            None => top.text.push_str(text),
        }
    }
}

fn close_into(stack: &mut [Element], el: Element) {
    if let Some(top) = stack.last_mut() {
        top.children.push(el);
    }
}

/// The root of a template: its own `<template>` tag where it has one and nothing beside it, else a
/// made one. A template without tags becomes one anonymous group.
pub(crate) fn root(src: &str) -> Result<Element, TtpError> {
    let mut outer = read(src)?;
    let alone = outer.children.len() == 1
        && outer.text.trim().is_empty()
        && outer.children.first().is_some_and(|c| c.tag == "template" && c.tail.trim().is_empty());
    let root = if alone { outer.children.remove(0) } else { outer };
    if root.children.is_empty() {
        return Ok(anonymous(root, alone));
    }
    Ok(root)
}

/// Wraps an element without children into one anonymous group.
pub(crate) fn anonymous(el: Element, tagged: bool) -> Element {
    let mut group = Element {
        tag: "group".into(),
        attrs: vec![("name".into(), "_anonymous_".into())],
        line: el.line,
        text_line: el.text_line,
        ..Element::default()
    };
    if tagged {
        group.children.push(Element { tail: String::new(), ..el });
    } else {
        group.text = el.text;
    }
    Element { tag: "template".into(), children: vec![group], line: 1, text_line: 1, ..Element::default() }
}
