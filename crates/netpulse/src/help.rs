//! What `--help` says, as people see it: a change shows in the snapshot.

use clap::CommandFactory;

use crate::Cli;

#[test]
fn flags_do_not_contradict_each_other() {
    Cli::command().debug_assert();
}

#[test]
fn help_texts() {
    let mut command = Cli::command().term_width(100);
    insta::assert_snapshot!("netpulse", command.render_long_help());
    command.build();
    for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
        let name = format!("netpulse_{}", sub.get_name());
        insta::assert_snapshot!(name, sub.clone().term_width(100).render_help());
    }
}

#[test]
fn every_command_shows_examples() {
    let command = Cli::command();
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let after = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.starts_with("Example"), "{} has no examples", sub.get_name());
    }
}
