//! What `--help` says, as people see it: `docs/command-line.md` is its snapshot.

use clap::CommandFactory;

use crate::Cli;
use crate::exit::CODES;

#[test]
fn flags_do_not_contradict_each_other() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_shows_examples() {
    let command = Cli::command();
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let after = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.starts_with("Example"), "{} has no examples", sub.get_name());
    }
}

/// The page of all commands, from the same flags that the program has.
fn page() -> String {
    let mut out = String::from(
        "# Command line\n\nMade from the program's own help; a test compares.\n\n\
         Results go to standard output, everything about them to standard error. `--output json` and `yaml` print \
         the server's answer whole (`bulk`: one record per device). Tables fit the terminal's width; in a pipe each row is one line. Colours \
         are used on terminals only, and never with `NO_COLOR`.\n\n\
         ## Exit codes\n\n| Code | Meaning |\n|---|---|\n",
    );
    for (_, number, meaning) in CODES {
        out.push_str(&format!("| {number} | {meaning} |\n"));
    }
    let mut command = Cli::command().term_width(100);
    out.push_str(&format!(
        "\n## netpulse\n\n```text\n{}\n```\n",
        command.render_long_help().to_string().trim_end()
    ));
    command.build();
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let text = sub.clone().term_width(100).render_help().to_string();
        out.push_str(&format!("\n## netpulse {}\n\n```text\n{}\n```\n", sub.get_name(), text.trim_end()));
        // Commands below a command, where they have enough to say for examples of their own.
        for below in sub.get_subcommands().filter(|below| below.get_after_help().is_some()) {
            let name = format!("{} {}", sub.get_name(), below.get_name());
            let text = below.clone().term_width(100).render_help().to_string();
            out.push_str(&format!("\n### netpulse {name}\n\n```text\n{}\n```\n", text.trim_end()));
        }
    }
    out
}

#[test]
fn the_page_is_the_help() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/command-line.md");
    if std::env::var_os("NETPULSE_REGENERATE").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page(),
        "docs/command-line.md is not what the program says: run NETPULSE_REGENERATE=1 cargo test -p netpulse"
    );
}
