//! What is sent to the server's shell for one command.

use super::args::Args;

/// A command, composed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Composed {
    /// What the login shell gets.
    pub(super) line: String,
    /// What `sudo` writes when it wants a password; none without sudo.
    pub(super) prompt: Option<String>,
}

/// `text` as one word for a shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Puts folder, environment and sudo around a command. `mark` must be a word that no output holds.
///
/// With sudo, what stands before the command has to happen behind it, for sudo clears the
/// environment, and a pipe or redirection has to run there too: then a shell is what sudo runs. A
/// plain command stays plain, because sudoers rules may allow just that.
pub(super) fn compose(command: &str, args: &Args, mark: &str) -> Composed {
    let mut before = String::new();
    if let Some(folder) = &args.working_directory {
        before.push_str(&format!("cd -- {} || exit 1; ", quoted(folder)));
    }
    for (name, value) in &args.environment {
        before.push_str(&format!("export {name}={}; ", quoted(value)));
    }
    if !args.sudo {
        return Composed { line: format!("{before}{command}"), prompt: None };
    }
    let prompt = format!("[{mark}]");
    let needs_shell = !before.is_empty()
        || command.contains(['>', '<', '|', '&', ';', '\n', '`', '$', '(', '*', '?', '~', '{']);
    let run = if needs_shell {
        format!("bash -c {}", quoted(&format!("{before}{command}")))
    } else {
        command.to_owned()
    };
    Composed { line: format!("sudo -S -p {} -- {run}", quoted(&prompt)), prompt: Some(prompt) }
}

/// Ends every other command of this connection, by process group: the commands are children of
/// the process that serves the connection, as this one is. For servers that pass no signals on
/// (OpenSSH, for root), and for what sudo runs, which a user's own signals do not reach.
pub(super) fn end_the_others(signal: &str, sudo: bool, mark: &str) -> Composed {
    let work = format!(
        "for p in $(pgrep -P $1 2>/dev/null || ps -o pid= --ppid $1); do \
         [ \"$p\" = \"$2\" ] || kill -{signal} -- -$p 2>/dev/null || kill -{signal} $p 2>/dev/null; done; :"
    );
    let line = format!("sh -c {} end $PPID $$", quoted(&work));
    if !sudo {
        return Composed { line, prompt: None };
    }
    let prompt = format!("[{mark}]");
    Composed { line: format!("sudo -S -p {} -- {line}", quoted(&prompt)), prompt: Some(prompt) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn sh(line: &str) -> (String, i32) {
        let done = Command::new("sh").args(["-c", line]).output().unwrap();
        (String::from_utf8(done.stdout).unwrap(), done.status.code().unwrap())
    }

    #[test]
    fn d14_folder_and_environment_hold_for_every_command() {
        let nasty = "it's \"$HOME\" `id` \\ \n!";
        let args = Args {
            working_directory: Some("/usr/share".into()),
            environment: vec![("NASTY".into(), nasty.into())],
            ..Args::default()
        };
        let composed = compose("pwd; printf '%s' \"$NASTY\"", &args, "m");
        assert_eq!(sh(&composed.line), (format!("/usr/share\n{nasty}"), 0));
        let args = Args { working_directory: Some("/no such folder".into()), ..Args::default() };
        assert_eq!(sh(&compose("echo never", &args, "m").line), (String::new(), 1));
    }

    #[test]
    fn sudo_stays_plain_where_it_can() {
        let args = Args { sudo: true, ..Args::default() };
        assert_eq!(
            compose("systemctl restart x", &args, "m").line,
            "sudo -S -p '[m]' -- systemctl restart x"
        );
        assert_eq!(
            compose("echo it's > /etc/motd", &args, "m").line,
            r"sudo -S -p '[m]' -- bash -c 'echo it'\''s > /etc/motd'"
        );
        let args = Args { sudo: true, environment: vec![("A".into(), "1".into())], ..Args::default() };
        assert_eq!(compose("env", &args, "m").line, r"sudo -S -p '[m]' -- bash -c 'export A='\''1'\''; env'");
    }
}
