//! `netpulse bench`: how fast, beside a raw SSH client in the same run.

use std::path::PathBuf;

use clap::Args;

/// Measure this build against a raw SSH client, on simulated devices
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse bench --quick
  netpulse bench --devices 1000 --json figures.json")]
pub struct BenchArgs {
    /// Devices of the largest measurement
    #[arg(short = 'n', long, default_value_t = 1000, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub devices: u32,
    /// Fewer rounds and devices: a first look in seconds
    #[arg(long)]
    pub quick: bool,
    /// Only these measurements, by name; repeat for several
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Write the figures to this file too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}
