//! What a platform file may say. Every key is optional unless it says otherwise.
//!
//! A file describes one command line: how its prompts look in each mode, what to send at login,
//! which texts mean that something is asked or was refused, and how a configuration is entered,
//! taken over and saved. Patterns are regular expressions over bytes (see [`Pattern`]); those that
//! watch what the device asks are matched against the last, unfinished line, the others against
//! a whole output with `^` and `$` at line ends when they start with `(?m)`.
//!
//! ```yaml
//! name: example_os                 # required; `<name>_ssh` and `<name>_telnet` follow from `transports`
//! description: Example OS 7        # required
//! verified: facts                  # required: real_device | simulator | facts
//! extends: cisco_ios               # take everything that this file does not say from there
//! aliases: [example]
//! transports: { ssh: { port: 22 }, telnet: { port: 23 } }
//! prompt:
//!   exec:   '^(?P<host>[\w.-]+)>$'            # what is captured as `host` must stay the same
//!   enable: '^(?P<host>[\w.-]+)#$'
//!   config: '^(?P<host>[\w.-]+)\(.+\)#$'
//! prepare: [ { send: terminal length 0 } ]
//! pagers:  [ { pattern: '--More--', key: ' ' } ]
//! enable:  { command: enable, exit: disable }
//! config:  { enter: configure terminal, exit: end }
//! save:    { commands: [ { send: write memory } ] }
//! ```

use serde::Deserialize;

use super::pattern::Pattern;

/// How a platform's description was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verified {
    /// Against the vendor's own software in our tests.
    RealDevice,
    /// Against our simulator, which was written from the vendor's manuals.
    Simulator,
    /// Written from published facts only.
    Facts,
}

impl Verified {
    /// The word in files and listings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RealDevice => "real_device",
            Self::Simulator => "simulator",
            Self::Facts => "facts",
        }
    }
}

/// How a platform can be reached.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transports {
    /// By SSH.
    #[serde(default)]
    pub ssh: Option<Port>,
    /// By Telnet.
    #[serde(default)]
    pub telnet: Option<Port>,
}

/// Where a transport listens unless the request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The TCP port.
    pub port: u16,
}

/// Lays one description over another: what the upper one does not say, the lower one does.
pub trait Overlay {
    /// This, completed from `below`.
    #[must_use]
    fn overlay(self, below: &Self) -> Self;
}

macro_rules! section {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $field:ident : $type:ty),+ $(,)? }
     $(nested { $($(#[$ninner:meta])* $nested:ident : $ntype:ty),+ $(,)? })?) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$inner])* #[serde(default)] pub $field: Option<$type>,)+
            $($($(#[$ninner])* #[serde(default)] pub $nested: $ntype,)+)?
        }

        impl Overlay for $name {
            fn overlay(self, below: &Self) -> Self {
                Self {
                    $($field: self.$field.or_else(|| below.$field.clone()),)+
                    $($($nested: self.$nested.overlay(&below.$nested),)+)?
                }
            }
        }
    };
}

section! {
    /// One file, as read. `name`, `description` and `verified` are required.
    PlatformFile {
        /// The name that `device_type` carries.
        name: String,
        /// What it is, in a few words.
        description: String,
        /// How it was checked.
        verified: Verified,
        /// Another platform to take everything from that is not said here. Sections are merged
        /// key by key; lists are replaced. Names, `detect` and `becomes` are never inherited.
        extends: String,
        /// Other names for the same platform.
        aliases: Vec<String>,
        /// How it can be reached. Default: SSH on 22.
        transports: Transports,
        /// What ends a line that is sent. Default `\n`.
        terminator: String,
        /// Commands after login: paging off, width. An error answer is tolerated unless the step says
        /// otherwise.
        prepare: Vec<Step>,
        /// What a pager prints and the key that goes on.
        pagers: Vec<Reply>,
        /// Questions that are always answered the same way, whatever was sent.
        questions: Vec<Reply>,
        /// Patterns whose matches are cut out of every output (context lines, status lines).
        clean: Vec<Pattern>,
        /// What interrupts a command that hangs. Default Ctrl-C.
        interrupt: String,
        /// The polite way out. Default `exit`; an empty text sends nothing.
        logout: String,
        /// Appended to the user name of an SSH login (RouterOS: console options).
        username_suffix: String,
        /// What to try when the platform is not known, and what the answer looks like. Never inherited.
        detect: Vec<Detect>,
        /// Other platforms that this device turns out to be, seen by its first prompt.
        becomes: Vec<Becomes>,
    }
    nested {
        /// Prompts.
        prompt: Prompt,
        /// What may happen between connecting and the first prompt.
        login: LoginRules,
        /// The privileged mode.
        enable: EnableRules,
        /// The configuration mode.
        config: ConfigRules,
        /// Saving the running configuration.
        save: SaveRules,
    }
}

section! {
    /// What prompts look like. Each pattern sees the last line without trailing blanks (or the last
    /// `lines` lines) and should be anchored at both ends. The group `host` catches what stays the same
    /// from one prompt to the next; the group `host_prefix`, where a view's name is glued to it
    /// (`[core-1-GigabitEthernet0/0/1]`), what starts with it.
    Prompt {
        /// The mode after login.
        exec: Pattern,
        /// The privileged mode.
        enable: Pattern,
        /// Any configuration mode.
        config: Pattern,
        /// How many lines a prompt has. Default 1.
        lines: usize,
        /// A device cuts long names in some modes: compare only so many characters of `host`.
        host_cut: usize,
        /// Junk that may stand in front of a prompt; taken off before matching.
        prefix: Pattern,
    }
}

section! {
    /// Login dialogues in text: Telnet, console servers, and what some devices ask after SSH.
    LoginRules {
        /// Asks for the user name.
        username: Pattern,
        /// Asks for the password.
        password: Pattern,
        /// Says that user or password were wrong.
        failed: Pattern,
        /// Whatever else may be asked before the first prompt, with the answer.
        dialogs: Vec<Reply>,
        /// User name and password are asked in text even after an SSH login.
        in_band: bool,
        /// Commands that lead from a foreign shell into the command line, by the prompt seen.
        shells: Vec<Reply>,
    }
}

section! {
    /// The privileged mode.
    EnableRules {
        /// The command that enters it; empty: there is none, whatever is extended.
        command: String,
        /// The command that leaves it.
        exit: String,
        /// Asks for the secret.
        password: Pattern,
        /// Asks for a user name first.
        username: Pattern,
        /// Says that it worked, where the prompt does not.
        success: Pattern,
        /// Enter it right after login, with the secret when there is one.
        at_login: bool,
    }
}

section! {
    /// The configuration mode and how lines are judged.
    ConfigRules {
        /// The command that enters it; absent or empty where lines are sent as they are.
        enter: String,
        /// The command that leaves it from any depth.
        exit: String,
        /// Questions on the way in or out, with the answer.
        answers: Vec<Reply>,
        /// The mode was not entered although the prompt says so, or must not be used.
        refused: Vec<Pattern>,
        /// Needs the privileged mode. Default: whether there is one.
        privileged: bool,
        /// An answer to a line that matches any of these means: refused.
        errors: Vec<Pattern>,
        /// Lines of an answer that match any of these are no errors, whatever `errors` says.
        warnings: Vec<Pattern>,
        /// Lines that open a text without prompts (banners, certificates).
        blocks: Vec<Block>,
        /// Lines collect in a candidate until committed.
        candidate: Candidate,
    }
}

section! {
    /// A candidate configuration: what takes it over and what throws it away.
    Candidate {
        /// Takes the candidate over.
        commit: String,
        /// Its output must match this to count as done.
        success: Pattern,
        /// Its output must not match any of these.
        failures: Vec<Pattern>,
        /// Questions during the commit, with the answer.
        answers: Vec<Reply>,
        /// Seconds that a commit may take. Default 120.
        timeout: u64,
        /// Commands that throw the candidate away, sent in configuration mode.
        discard: Vec<String>,
        /// Lines that take over what was said so far, where there is no commit (FortiOS: `end`, `next`). Until
        /// one of them was accepted, nothing took effect.
        applied_by: Pattern,
        /// Instead of `exit` after a discard, where leaving needs another word then.
        exit_discard: String,
    }
}

section! {
    /// Saving the running configuration for the next start.
    SaveRules {
        /// The commands, sent outside configuration mode unless `in_config`, each with its questions. Absent or
        /// empty where a configuration is kept without saving.
        commands: Vec<Step>,
        /// The output must not match any of these.
        failures: Vec<Pattern>,
        /// The output must match this to count as saved.
        success: Pattern,
        /// The commands belong into configuration mode, before it is left.
        in_config: bool,
        /// Seconds that saving may take. Default 60.
        timeout: u64,
    }
}

/// A text that the device prints on its last line, and what is sent then: a line or a key.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// The text, at the end of what was printed so far.
    pub pattern: Pattern,
    /// The line to send, without its end.
    #[serde(default)]
    pub send: Option<String>,
    /// The bytes to send as they are.
    #[serde(default)]
    pub key: Option<String>,
}

impl Reply {
    /// The bytes to send, given what ends a line.
    #[must_use]
    pub fn bytes(&self, terminator: &str) -> Vec<u8> {
        match (&self.key, &self.send) {
            (Some(key), _) => key.clone().into_bytes(),
            (None, line) => format!("{}{terminator}", line.as_deref().unwrap_or_default()).into_bytes(),
        }
    }
}

/// A command with the questions it may raise.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The command.
    pub send: String,
    /// Its questions.
    #[serde(default)]
    pub answers: Vec<Reply>,
    /// Only when the first prompt matched this.
    #[serde(default)]
    pub when_prompt: Option<Pattern>,
    /// Only when the output of the step before matched this.
    #[serde(default)]
    pub when_output: Option<Pattern>,
}

/// A line that opens a text without prompts.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// The opening line. What the group `end` catches closes the text where it comes again, also
    /// later on the same line.
    pub start: Pattern,
    /// The closing line, where `start` has no group `end`.
    #[serde(default)]
    pub end: Option<Pattern>,
}

/// One question to an unknown device.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detect {
    /// The command; absent: look at the first prompt and what stood before it, and at the SSH
    /// version text.
    #[serde(default)]
    pub send: Option<String>,
    /// What this platform answers.
    pub pattern: Pattern,
    /// How sure that makes, 1 to 99; the best wins.
    pub score: u8,
}

/// What a device turns out to be.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Becomes {
    /// Its first prompt looks like this.
    pub prompt: Pattern,
    /// Then it is this platform.
    pub platform: String,
}
