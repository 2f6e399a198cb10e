//! Rendering and parsing of text: Jinja2, TextFSM, TTP.
//!
//! Three engines behind two traits. The crate does no I/O of its own: a template that names a
//! file or a URL is fetched by a [`source::Sources`] under the caller's limits.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)
)]

pub mod error;
pub mod jinja2;
pub mod limits;
pub(crate) mod pyre;
mod python;
pub mod source;
pub mod textfsm;
pub mod ttp;

pub use error::TemplateError;
pub use limits::Limits;
