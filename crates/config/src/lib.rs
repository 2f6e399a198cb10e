//! What an operator may set: every key with its type, default and bounds, and where it comes from.
//!
//! One listing (`keys.rs`) makes the structs, the table [`KEYS`], the names of the environment
//! variables, `config/netpulse.yaml` and the configuration page. Priority, high to low: flags,
//! process environment, `.env`, YAML file, default.
//!
//! ```
//! use netpulse_config::{Config, LoadOptions};
//!
//! let mut options = LoadOptions::default(); // looks at nothing but what it is given
//! options.env.insert("NETPULSE_SERVER__API_KEY".into(), "k-0123456789".into());
//! options.env.insert("NETPULSE_SERVER__PORT".into(), "9443".into());
//! let (config, warnings) = Config::load(options).unwrap();
//! assert_eq!((config.server.port, warnings.len()), (9443, 0));
//! ```
//!
//! What this room must not know: HTTP, devices, and who reads a key.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod compat;
mod credential;
mod keys;
mod load;
mod reference;
mod rules;
mod source;
mod table;

pub use keys::*;
pub use load::{ConfigErrors, LoadOptions, Loaded, Problem, Setting, Warning};
pub use reference::{reference_markdown, reference_yaml};
pub use source::Origin;
pub use table::{Key, Kind, Rule};
