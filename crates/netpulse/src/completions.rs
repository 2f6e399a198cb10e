//! `netpulse completions`: what a shell needs to complete commands and flags.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::exit::{Exit, Failure, Outcome};
use crate::ui::Ui;

/// Print the completion script of a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse completions bash > /etc/bash_completion.d/netpulse
  netpulse completions zsh > ~/.zfunc/_netpulse
  netpulse completions fish > ~/.config/fish/completions/netpulse.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &CompletionsArgs, ui: &Ui) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "netpulse", &mut script);
    let script = String::from_utf8(script)
        .map_err(|_| Failure::new(Exit::Local, "internal", "the completion script is not UTF-8"))?;
    ui.line(script.trim_end());
    Ok(Exit::Ok)
}
