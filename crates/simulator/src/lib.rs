//! Thousands of scripted network devices in one process, over real SSH and Telnet.
//!
//! A [`Plan`] says how many devices of which personas listen where; [`Simulator::start`] gives a [`Running`] with
//! the state of each [`Device`] and a [`Journal`] of every line each device received. Personas are YAML
//! (see [`persona`]); [`Faults`] make devices misbehave on demand.
//!
//! ```no_run
//! # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
//! use netpulse_simulator::{Plan, Simulator};
//! let running = Simulator::start(Plan::of("cisco_ios", 2))?;
//! println!("ssh admin@{:?} (password admin)", running.device(0).ssh);
//! # Ok(()) }
//! ```
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::print_stdout,
        clippy::print_stderr
    )
)]

pub mod config;
mod device;
mod drive;
mod exec;
mod fault;
pub mod grammar;
mod journal;
mod names;
pub mod persona;
mod plan;
pub mod raw;
mod server;
mod shell;
mod ssh;
mod telnet;
mod template;
mod verbs;
mod vty;
mod wire;

pub use device::{Access, Device};
pub use fault::Faults;
pub use journal::{Entry, Journal, JournalOptions, Kind};
pub use persona::{Library, Persona, PersonaError};
pub use plan::{Layout, Plan};
pub use server::{Running, Simulator, StartError};
