//! TextFSM: the whole language, on Python's `re` semantics.
//!
//! ```
//! use netpulse_template::textfsm::Template;
//!
//! let template = Template::compile(
//!     "Value Required INTF (\\S+)\nValue STATUS (up|down)\n\nStart\n  ^${INTF}\\s+is\\s+${STATUS} -> Record\n",
//! )?;
//! let table = template.parse("Gi0/1 is up\nGi0/2 is down\n")?;
//! assert_eq!(
//!     table.to_value(),
//!     serde_json::json!([
//!         {"INTF": "Gi0/1", "STATUS": "up"},
//!         {"INTF": "Gi0/2", "STATUS": "down"},
//!     ])
//! );
//! # Ok::<(), netpulse_template::TemplateError>(())
//! ```

mod clitable;
mod run;
mod table;
mod template;

pub use clitable::{Index, merge};
pub use table::{Cell, Item, Table};
pub use template::Template;
