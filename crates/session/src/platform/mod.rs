//! What a platform is: data, read from one YAML file each.
//!
//! [`schema`] says what a file may hold, [`Registry`] finds a platform by any of its names. The
//! files lie in `platforms/` at the root, are embedded at build, and a folder can replace or add
//! to them at run time. Nothing here talks to a device.

mod pattern;
mod registry;
pub mod schema;

use std::time::Duration;

pub use pattern::Pattern;
pub use registry::{Found, LeftOut, PlatformError, Registry, TransportKind};
use schema::{PlatformFile, Reply, Step, Transports, Verified};

/// A platform, complete: its own file laid over those it extends.
#[derive(Debug)]
pub struct Platform {
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// How the description was checked.
    pub verified: Verified,
    /// Its other names.
    pub aliases: Vec<String>,
    /// How it can be reached.
    pub transports: Transports,
    /// Where it was read from, for messages.
    pub origin: String,
    /// Everything else that the file says.
    pub rules: PlatformFile,
}

/// Which level of a device's command line a prompt belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// After login.
    Exec,
    /// Privileged.
    Enable,
    /// Some configuration mode.
    Config,
}

impl Mode {
    /// The word for messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Enable => "enable",
            Self::Config => "config",
        }
    }
}

impl Platform {
    /// What ends a line that is sent.
    #[must_use]
    pub fn terminator(&self) -> &str {
        self.rules.terminator.as_deref().unwrap_or("\n")
    }

    /// The prompt patterns, most special first.
    pub fn prompts(&self) -> impl Iterator<Item = (Mode, &Pattern)> {
        let prompt = &self.rules.prompt;
        [(Mode::Config, &prompt.config), (Mode::Enable, &prompt.enable), (Mode::Exec, &prompt.exec)]
            .into_iter()
            .filter_map(|(mode, pattern)| pattern.as_ref().map(|p| (mode, p)))
    }

    /// How many lines a prompt has.
    #[must_use]
    pub fn prompt_lines(&self) -> usize {
        self.rules.prompt.lines.unwrap_or(1).clamp(1, 4)
    }

    /// The pagers.
    #[must_use]
    pub fn pagers(&self) -> &[Reply] {
        self.rules.pagers.as_deref().unwrap_or_default()
    }

    /// Questions with a standing answer.
    #[must_use]
    pub fn questions(&self) -> &[Reply] {
        self.rules.questions.as_deref().unwrap_or_default()
    }

    /// The commands after login.
    #[must_use]
    pub fn prepare(&self) -> &[Step] {
        self.rules.prepare.as_deref().unwrap_or_default()
    }

    /// What interrupts a command.
    #[must_use]
    pub fn interrupt(&self) -> &str {
        self.rules.interrupt.as_deref().unwrap_or("\u{3}")
    }

    /// The polite way out.
    #[must_use]
    pub fn logout(&self) -> &str {
        self.rules.logout.as_deref().unwrap_or("exit")
    }

    /// Whether there is a privileged mode to enter.
    #[must_use]
    pub fn has_enable(&self) -> bool {
        self.rules.enable.command.as_ref().is_some_and(|c| !c.is_empty())
    }

    /// Whether there is a configuration mode to enter.
    #[must_use]
    pub fn has_config(&self) -> bool {
        self.rules.config.enter.as_ref().is_some_and(|c| !c.is_empty())
    }

    /// Whether the configuration mode needs the privileged mode first.
    #[must_use]
    pub fn config_is_privileged(&self) -> bool {
        self.rules.config.privileged.unwrap_or_else(|| self.has_enable())
    }

    /// Whether configuration collects in a candidate until committed.
    #[must_use]
    pub fn has_candidate(&self) -> bool {
        self.rules.config.candidate.as_ref().is_some_and(|c| c.commit.is_some())
    }

    /// How long a commit may take.
    #[must_use]
    pub fn commit_timeout(&self) -> Duration {
        let seconds = self.rules.config.candidate.as_ref().and_then(|c| c.timeout);
        Duration::from_secs(seconds.unwrap_or(120))
    }

    /// How long saving may take.
    #[must_use]
    pub fn save_timeout(&self) -> Duration {
        Duration::from_secs(self.rules.save.timeout.unwrap_or(60))
    }

    /// Every pattern of the platform with its key, for checking.
    #[must_use]
    pub fn patterns(&self) -> Vec<(String, &Pattern)> {
        let r = &self.rules;
        let mut all: Vec<(String, &Pattern)> = Vec::new();
        for (key, pattern) in [
            ("prompt.exec", &r.prompt.exec),
            ("prompt.enable", &r.prompt.enable),
            ("prompt.config", &r.prompt.config),
            ("prompt.prefix", &r.prompt.prefix),
            ("login.username", &r.login.username),
            ("login.password", &r.login.password),
            ("login.failed", &r.login.failed),
            ("enable.password", &r.enable.password),
            ("enable.username", &r.enable.username),
            ("enable.success", &r.enable.success),
            ("save.success", &r.save.success),
        ] {
            all.extend(pattern.iter().map(|p| (key.to_owned(), p)));
        }
        for (key, list) in [
            ("clean", &r.clean),
            ("config.refused", &r.config.refused),
            ("config.errors", &r.config.errors),
            ("config.warnings", &r.config.warnings),
            ("save.failures", &r.save.failures),
        ] {
            all.extend(list.iter().flatten().map(|p| (key.to_owned(), p)));
        }
        for (key, list) in [
            ("pagers", &r.pagers),
            ("questions", &r.questions),
            ("login.dialogs", &r.login.dialogs),
            ("login.shells", &r.login.shells),
            ("config.answers", &r.config.answers),
        ] {
            all.extend(list.iter().flatten().map(|reply| (key.to_owned(), &reply.pattern)));
        }
        for (key, steps) in [("prepare", &r.prepare), ("save.commands", &r.save.commands)] {
            for step in steps.iter().flatten() {
                all.extend(step.answers.iter().map(|reply| (key.to_owned(), &reply.pattern)));
                all.extend(step.when_prompt.iter().chain(&step.when_output).map(|p| (key.to_owned(), p)));
            }
        }
        for block in r.config.blocks.iter().flatten() {
            all.push(("config.blocks".to_owned(), &block.start));
            all.extend(block.end.iter().map(|p| ("config.blocks".to_owned(), p)));
        }
        if let Some(candidate) = &r.config.candidate {
            all.extend(candidate.success.iter().map(|p| ("config.candidate.success".to_owned(), p)));
            all.extend(candidate.applied_by.iter().map(|p| ("config.candidate.applied_by".to_owned(), p)));
            all.extend(
                candidate.failures.iter().flatten().map(|p| ("config.candidate.failures".to_owned(), p)),
            );
            all.extend(
                candidate
                    .answers
                    .iter()
                    .flatten()
                    .map(|a| ("config.candidate.answers".to_owned(), &a.pattern)),
            );
        }
        all.extend(r.detect.iter().flatten().map(|d| ("detect".to_owned(), &d.pattern)));
        all.extend(r.becomes.iter().flatten().map(|b| ("becomes".to_owned(), &b.prompt)));
        all
    }
}
