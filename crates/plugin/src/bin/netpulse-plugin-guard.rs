//! The guard as a program of its own, for hosts that are not the `netpulse` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    let status = netpulse_plugin::guard::run(std::env::args_os().skip(1));
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}
