//! Parser `regex`: every match of a pattern with named groups becomes a map.
//!
//! The syntax is Python's; `^` and `$` match at every line.
//!
//! ```
//! use netpulse_template::{Limits, Parser, regexp::Template};
//! let template = Template::compile(r"^(?P<intf>\S+) is (?P<state>up|down)$", &Limits::default())?;
//! let rows = template.parse("Gi0/1 is up\nGi0/2 is down\n")?;
//! assert_eq!(rows[1]["intf"], "Gi0/2");
//! # Ok::<(), netpulse_template::TemplateError>(())
//! ```

use std::time::Instant;

use crate::error::{TemplateError, code};
use crate::pyre::Search;
use crate::{Limits, Parser};

/// A compiled pattern.
#[derive(Debug)]
pub struct Template {
    search: Search,
    limits: Limits,
}

impl Template {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// `template_syntax` in the words of Python's `re`, or when no group has a name.
    pub fn compile(text: &str, limits: &Limits) -> Result<Self, TemplateError> {
        if text.len() > limits.template_bytes {
            return Err(TemplateError::new("regex", code::LIMIT, "the pattern is too long"));
        }
        let search = Search::new(text).map_err(|why| TemplateError::new("regex", code::SYNTAX, why).at(1))?;
        if search.names().is_empty() {
            return Err(TemplateError::new(
                "regex",
                code::SYNTAX,
                "the pattern has no named group: write (?P<name>...) for each field",
            )
            .at(1));
        }
        Ok(Self { search, limits: limits.clone() })
    }
}

impl Parser for Template {
    fn parse(&self, text: &str) -> Result<serde_json::Value, TemplateError> {
        let limit = |message: String| TemplateError::new("regex", code::LIMIT, message).at(1);
        if text.len() > self.limits.input_bytes {
            return Err(limit(format!("at most {} bytes are parsed", self.limits.input_bytes)));
        }
        let deadline = self.limits.deadline(text.len());
        let mut rows = Vec::new();
        let mut cells = 0;
        self.search
            .each(
                text,
                |at| {
                    if Instant::now() > deadline {
                        return Err(format!("the time for parsing was over at byte {at}"));
                    }
                    Ok(())
                },
                |names, span| {
                    cells += names.len();
                    if cells > self.limits.cells {
                        return Err(format!("the result has more than {} values", self.limits.cells));
                    }
                    let map = names
                        .iter()
                        .map(|(name, group)| (name.clone(), span(*group).map(|(a, b)| &text[a..b]).into()))
                        .collect();
                    rows.push(serde_json::Value::Object(map));
                    Ok(())
                },
            )
            .map_err(limit)?;
        Ok(rows.into())
    }
}
