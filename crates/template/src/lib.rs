//! Rendering and parsing of text: Jinja2, TextFSM, TTP.
//!
//! Three engines behind two traits. The crate does no I/O of its own: a template that names a
//! file or a URL is fetched by a [`source::Sources`] under the caller's limits.

pub mod jinja2;
pub mod source;
pub mod textfsm;
pub mod ttp;
