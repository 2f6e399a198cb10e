//! Renderer `string`: Python's `string.Template`, that is `$name`, `${name}` and `$$`.
//!
//! ```
//! use netpulse_template::{Limits, Renderer, string::Template};
//! let template = Template::compile("vlan $id\n name ${name}", &Limits::default())?;
//! let text = template.render(&serde_json::json!({"id": 10, "name": "lab"}))?;
//! assert_eq!(text, "vlan 10\n name lab");
//! # Ok::<(), netpulse_template::TemplateError>(())
//! ```

use crate::error::{TemplateError, code};
use crate::{Limits, Renderer};

#[derive(Debug)]
enum Part {
    Text(String),
    Name(String, usize),
}

/// A compiled string template.
#[derive(Debug)]
pub struct Template {
    parts: Vec<Part>,
    output_bytes: usize,
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// `template_syntax` with the line of a `$` that begins no name.
    pub fn compile(text: &str, limits: &Limits) -> Result<Self, TemplateError> {
        if text.len() > limits.template_bytes {
            return Err(TemplateError::new("string", code::LIMIT, "the template is too long"));
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            plain.push_str(&rest[..at]);
            let line = text[..text.len() - rest.len() + at].matches('\n').count() + 1;
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                plain.push('$');
                rest = after;
                continue;
            }
            let bad = || {
                TemplateError::new(
                    "string",
                    code::SYNTAX,
                    format!("Invalid placeholder in string: line {line}. Write $$ for a dollar"),
                )
                .at(line)
            };
            let (body, braced) = match rest.strip_prefix('{') {
                Some(body) => (body, true),
                None => (rest, false),
            };
            let end =
                body.bytes().position(|b| !(b.is_ascii_alphanumeric() || b == b'_')).unwrap_or(body.len());
            let name = &body[..end];
            if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
                return Err(bad());
            }
            rest = &body[end..];
            if braced {
                rest = rest.strip_prefix('}').ok_or_else(bad)?;
            }
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(Part::Name(name.to_owned(), line));
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Self { parts, output_bytes: limits.output_bytes })
    }
}

impl Renderer for Template {
    fn render(&self, context: &serde_json::Value) -> Result<String, TemplateError> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Name(name, line) => match context.get(name) {
                    Some(value) => out.push_str(&crate::python::text(value)),
                    None => {
                        return Err(TemplateError::new(
                            "string",
                            code::RENDER,
                            format!("the context has no '{name}' (line {line})"),
                        )
                        .at(*line));
                    }
                },
            }
            if out.len() > self.output_bytes {
                return Err(TemplateError::new(
                    "string",
                    code::LIMIT,
                    format!("the rendered text has more than {} bytes", self.output_bytes),
                ));
            }
        }
        Ok(out)
    }
}
