//! `netpulse demo`: the whole of it on one machine, with simulated devices.

use clap::Args;

/// Start a server and twelve simulated devices, show a query and a change, and stay up to be tried
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse demo
  netpulse demo --once

Nothing is left behind: the store lies in a temporary folder. --once exits 0 only if all was right.")]
pub struct DemoArgs {
    /// Show, then end
    #[arg(long)]
    pub once: bool,
    /// Port of the server; 0 takes a free one
    #[arg(short, long, default_value_t = 9000)]
    pub port: u16,
}
