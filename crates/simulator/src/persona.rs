//! A persona: one vendor's command line as data. The schema of `personas/*.yaml`.
//!
//! Texts are templates: `{hostname}`, `{user}`, `{running_config}` and so on are replaced, unknown names in
//! braces stay as they are (Junos prints braces of its own). See `names.rs` for them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use regex::Regex;
use serde::Deserialize;

use crate::config::Rules;
use crate::grammar::Pattern;
use crate::verbs::{VERBS, WHEN};

/// Why a persona cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PersonaError {
    /// The file is no persona.
    #[error("persona {name}: {why}")]
    Bad {
        /// Name or path.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// There is no such persona.
    #[error("there is no persona '{name}'; known are: {known}")]
    Unknown {
        /// As asked.
        name: String,
        /// All names.
        known: String,
    },
    /// A folder or file could not be read.
    #[error("personas in {path}: {source}")]
    Read {
        /// The folder.
        path: String,
        /// From the system.
        source: std::io::Error,
    },
}

/// What a user meets before the first prompt.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Login {
    /// SSH banner, before authentication.
    pub banner: String,
    /// After authentication, before the first prompt.
    pub motd: String,
    /// Telnet: before the first question.
    pub greeting: String,
    /// Telnet: asks for the user.
    pub username: String,
    /// Telnet: asks for the password.
    pub password: String,
    /// Telnet: both were wrong.
    pub failed: String,
    /// Waits for a key after the login (`Press any key to continue`); the text and what follows it.
    pub pause: String,
    /// The keys that go on; empty is any.
    pub pause_keys: String,
    /// Printed when the pause is over.
    pub pause_after: String,
    /// SSH authentication methods offered: `password`, `keyboard-interactive`, `publickey`.
    pub methods: Vec<String>,
    /// What follows this in the user's name are options, not the name (`+` on RouterOS).
    pub user_options: String,
    /// The identification after `SSH-2.0-`.
    pub ssh_version: String,
}

/// The line editor.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Editor {
    /// `?` helps at once, without Enter.
    pub help: bool,
    /// Words may be abbreviated.
    pub abbreviate: bool,
    /// Ctrl-Z leaves the configuration.
    pub ctrl_z: bool,
    /// `| include` and friends work.
    pub pipes: bool,
    /// Lines that begin with this are comments.
    pub comment: String,
    /// Printed in front of every prompt that follows a command (`\n` on many).
    pub before_prompt: String,
    /// What Enter echoes as (`\r\n`).
    pub enter: String,
    /// A word followed by a space is completed as it is typed (Junos).
    pub complete_on_space: bool,
}

impl Default for Editor {
    fn default() -> Self {
        Editor {
            help: true,
            abbreviate: true,
            ctrl_z: false,
            pipes: true,
            comment: String::new(),
            before_prompt: String::new(),
            enter: "\r\n".into(),
            complete_on_space: false,
        }
    }
}

/// The pager.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pager {
    /// Lines per page at the start of a session; 0 is off.
    pub length: usize,
    /// What it says.
    pub prompt: String,
    /// How it wipes that away.
    pub erase: String,
    /// Keys that end the output.
    pub quit: String,
    /// Keys that print all the rest.
    pub dump: String,
}

impl Default for Pager {
    fn default() -> Self {
        Pager {
            length: 24,
            prompt: " --More-- ".into(),
            erase: "\r          \r".into(),
            quit: "qQ\u{3}".into(),
            dump: String::new(),
        }
    }
}

/// Error replies as the vendor words them. `{caret}` is the blanks up to the word that is wrong, `{line}` the line.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Errors {
    /// Not understood.
    pub invalid: String,
    /// More was expected.
    pub incomplete: String,
    /// Abbreviated too far.
    pub ambiguous: String,
    /// Set style: a path that begins with an unknown word.
    pub syntax: String,
    /// A platform's log message, for the junk fault and [`crate::Running::syslog`].
    pub syslog: String,
}

/// Who edits what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Candidate {
    /// Lines take effect at once.
    #[default]
    None,
    /// One candidate per device, which stays when the session goes.
    Shared,
    /// One candidate per session.
    Private,
}

/// A line or candidate that is refused for what it means.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refuse {
    /// Regular expression on the line, or on the lines of the candidate.
    #[serde(rename = "match")]
    pub pattern: String,
    /// The reply.
    pub message: String,
}

/// The configuration and its rules.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigSpec {
    /// How lines are edited and printed.
    pub rules: Rules,
    /// Whether there is a candidate.
    pub candidate: Candidate,
    /// Where the hostname stands (`hostname`, `system host-name`, `config system global > set hostname`).
    pub hostname: String,
    /// The configuration of a new device.
    pub initial: String,
    /// Set style: the first words that there are; none: all.
    pub roots: Vec<String>,
    /// Lines refused at once.
    pub refuse: Vec<Refuse>,
    /// Lines in the candidate that make a commit fail.
    pub refuse_commit: Vec<Refuse>,
    /// Startup follows running by itself (Junos, Fortinet: a commit or line is already saved).
    pub saved_at_once: bool,
}

/// One mode.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Mode {
    /// The prompt.
    pub prompt: String,
    /// Lines here are configuration.
    pub config: bool,
    /// Whose words and sections are understood here too, leaving this mode.
    pub parent: String,
    /// First words of configuration lines understood here; a `+` at the end means that arguments must follow.
    pub words: Vec<String>,
    /// Any configuration line is taken (after commands and sections).
    pub any: bool,
}

/// A line that opens a sub-mode.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// The line's pattern.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Where it is understood.
    #[serde(rename = "in")]
    pub within: Vec<String>,
    /// The sub-mode.
    pub mode: String,
}

/// A question that a command asks.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Ask {
    /// The question.
    pub prompt: String,
    /// What is typed does not come back.
    pub hidden: bool,
    /// `enable` or `user`: the answer must be this password.
    pub secret: String,
    /// Reply to a wrong password; the command ends.
    pub refused: String,
    /// Wrong passwords are asked for again this often.
    pub retries: u32,
    /// What the answers do; none: every answer goes on.
    pub answers: Vec<Answer>,
    /// One key is the answer, without Enter.
    pub key: bool,
}

/// One possible answer.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Answer {
    /// Regular expression on the whole answer, letters of both cases.
    #[serde(rename = "match")]
    pub pattern: String,
    /// What is done instead of the command's own `do`.
    #[serde(rename = "do", deserialize_with = "one_or_many")]
    pub verbs: Vec<String>,
    /// The reply.
    pub output: String,
    /// The mode to go to.
    pub goto: String,
    /// The command goes on to its next question and its own `do` and `output`.
    pub go_on: bool,
}

/// Rows made up for a long output, put in at `{table}`. `{i}` counts from 1, `{mac}` and `{ip}` count up with it.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Table {
    /// How many; an argument's name in braces is also good.
    pub rows: String,
    /// One row.
    pub line: String,
}

/// One command.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Command {
    /// Patterns, any of which means this command: `show version`, `write|wr`, `ping <host>`, `show log [rest...]`.
    #[serde(rename = "match", deserialize_with = "one_or_many")]
    pub patterns: Vec<String>,
    /// Where it is understood: mode names, `@exec` (default: all modes without configuration), `@config`, `*`.
    #[serde(deserialize_with = "one_or_many")]
    pub modes: Vec<String>,
    /// Only if all hold: `dirty`, `clean` (candidate against running), `unsaved`, `saved`, `secret`, `nosecret` (an enable secret), `pending`, `settled` (a commit to confirm), `top`, `inside` (of a section), `nested`, `variable=value`.
    #[serde(deserialize_with = "one_or_many")]
    pub when: Vec<String>,
    /// Questions, in order.
    pub ask: Vec<Ask>,
    /// What is done, see `verbs.rs`.
    #[serde(rename = "do", deserialize_with = "one_or_many")]
    pub verbs: Vec<String>,
    /// The reply.
    pub output: String,
    /// The reply when something to delete was not there.
    pub missing: String,
    /// The mode to go to.
    pub goto: String,
    /// Session variables: `length` (page), `width`, and free ones.
    pub set: BTreeMap<String, String>,
    /// Made up rows.
    pub table: Option<Table>,
    /// Goes through the pager (default yes).
    pub paged: Option<bool>,
    /// Exit status over an exec channel.
    pub status: u32,
    /// The reply is an error: the journal says so.
    pub error: bool,
    /// Time that the device takes, milliseconds.
    pub takes_ms: u64,
}

/// A mark in the prompt, `{mark}`.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Mark {
    /// `candidate` or `unsaved`.
    pub on: String,
    /// When nothing is pending.
    pub clean: String,
    /// When something is.
    pub dirty: String,
}

/// The file as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// As NetPulse and Netmiko call the platform.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// Which software and release it imitates and where the facts are from.
    #[serde(default)]
    pub about: String,
    /// Other names.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The name of the device with index `{index}`.
    pub hostname: String,
    /// Before the first prompt.
    #[serde(default)]
    pub login: Login,
    /// The line editor.
    #[serde(default)]
    pub editor: Editor,
    /// The pager.
    #[serde(default)]
    pub pager: Pager,
    /// Error replies.
    #[serde(default)]
    pub errors: Errors,
    /// Configuration.
    #[serde(default)]
    pub config: ConfigSpec,
    /// `{mark}` in prompts.
    #[serde(default)]
    pub mark: Mark,
    /// The mode after login.
    pub start: String,
    /// All modes.
    pub modes: BTreeMap<String, Mode>,
    /// Lines that open a sub-mode.
    #[serde(default)]
    pub sections: Vec<Section>,
    /// Commands; the first of equals wins.
    #[serde(default)]
    pub commands: Vec<Command>,
    /// What is not a command goes to a small POSIX shell.
    #[serde(default)]
    pub shell: bool,
    /// Free texts, `{name}` in templates.
    #[serde(default)]
    pub texts: BTreeMap<String, String>,
    /// Another persona that this one is like; what is written here wins, commands and sections come first.
    #[serde(default)]
    pub like: String,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Either::deserialize(d)? {
        Either::One(one) => vec![one],
        Either::Many(many) => many,
    })
}

/// What a fitting line means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `commands[n]`.
    Command(usize),
    /// `sections[n]`.
    Section(usize),
    /// A configuration line.
    Word,
}

/// One mode, ready for use.
#[derive(Debug)]
pub struct ReadyMode {
    /// Its name.
    pub name: String,
    /// As written.
    pub spec: Mode,
    /// The parent's number.
    pub parent: Option<usize>,
    /// Everything understood, in order.
    pub entries: Vec<(Pattern, Target)>,
}

/// A persona, ready for use.
#[derive(Debug)]
pub struct Persona {
    /// As written.
    pub spec: Spec,
    /// Modes by number.
    pub modes: Vec<ReadyMode>,
    /// Number of the first mode.
    pub start: usize,
    /// Section sub-modes' numbers.
    pub section_modes: Vec<usize>,
    /// Compiled `refuse`.
    pub refuse: Vec<(Regex, String)>,
    /// Compiled `refuse_commit`.
    pub refuse_commit: Vec<(Regex, String)>,
    /// Compiled answers, by pattern.
    pub answers: HashMap<String, Regex>,
}

impl Persona {
    /// Reads one persona; `like` looks up others.
    ///
    /// # Errors
    /// What is wrong, with the place in the file where YAML tells it.
    pub fn parse(
        name: &str,
        text: &str,
        like: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Persona, PersonaError> {
        let bad = |why: String| PersonaError::Bad { name: name.to_owned(), why };
        let mut value: yaml_serde::Value = yaml_serde::from_str(text).map_err(|e| bad(e.to_string()))?;
        let mut depth = 0;
        while let Some(base) = value.get("like").and_then(|v| v.as_str()).map(str::to_owned) {
            depth += 1;
            if depth > 4 {
                return Err(bad("is like itself".into()));
            }
            let text = like(&base).ok_or_else(|| bad(format!("is like '{base}', which there is not")))?;
            let under: yaml_serde::Value = yaml_serde::from_str(&text).map_err(|e| bad(e.to_string()))?;
            if let Some(map) = value.as_mapping_mut() {
                map.remove("like");
            }
            value = overlay(under, value);
        }
        let spec: Spec = yaml_serde::from_value(value).map_err(|e| bad(e.to_string()))?;
        Persona::build(spec).map_err(bad)
    }

    fn build(spec: Spec) -> Result<Persona, String> {
        let names: Vec<String> = spec.modes.keys().cloned().collect();
        let number = |name: &str| {
            names.iter().position(|n| n == name).ok_or_else(|| format!("there is no mode '{name}'"))
        };
        let start = number(&spec.start)?;
        let mut modes = Vec::new();
        for (name, mode) in &spec.modes {
            let parent = if mode.parent.is_empty() { None } else { Some(number(&mode.parent)?) };
            modes.push(ReadyMode { name: name.clone(), spec: mode.clone(), parent, entries: Vec::new() });
        }
        for (at, command) in spec.commands.iter().enumerate() {
            if command.patterns.is_empty() {
                return Err(format!("command {at} has no match"));
            }
            if !command.goto.is_empty() {
                number(&command.goto)?;
            }
            let answered = command.ask.iter().flat_map(|a| &a.answers).flat_map(|a| &a.verbs);
            for verb in command.verbs.iter().chain(answered) {
                let word = verb.split(' ').next().unwrap_or("");
                if !VERBS.contains(&word) {
                    return Err(format!(
                        "command '{}' does '{word}', which is no verb; verbs are: {}",
                        command.patterns[0],
                        VERBS.join(", ")
                    ));
                }
            }
            if let Some(when) = command.when.iter().find(|w| !WHEN.contains(&w.as_str()) && !w.contains('='))
            {
                return Err(format!(
                    "command '{}' holds when '{when}', which is no condition; there are: {}, variable=value",
                    command.patterns[0],
                    WHEN.join(", ")
                ));
            }
            let wanted =
                if command.modes.is_empty() { vec!["@exec".to_owned()] } else { command.modes.clone() };
            for name in &wanted {
                if !name.starts_with('@') && name != "*" {
                    number(name)?;
                }
            }
            for mode in &mut modes {
                let here = wanted.iter().any(|w| match w.as_str() {
                    "*" => true,
                    "@exec" => !mode.spec.config,
                    "@config" => mode.spec.config,
                    name => name == mode.name,
                });
                if here {
                    mode.entries
                        .extend(command.patterns.iter().map(|p| (Pattern::new(p), Target::Command(at))));
                }
            }
        }
        let mut section_modes = Vec::new();
        for (at, section) in spec.sections.iter().enumerate() {
            section_modes.push(number(&section.mode)?);
            for within in &section.within {
                let mode = number(within)?;
                modes[mode].entries.push((Pattern::new(&section.pattern), Target::Section(at)));
            }
        }
        for mode in &mut modes {
            for word in &mode.spec.words {
                let text = match word.strip_suffix('+') {
                    Some(word) => format!("{word} <rest...>"),
                    None => format!("{word} [rest...]"),
                };
                mode.entries.push((Pattern::new(&text), Target::Word));
            }
        }
        let compile = |list: &[Refuse]| -> Result<Vec<(Regex, String)>, String> {
            list.iter()
                .map(|r| Ok((Regex::new(&r.pattern).map_err(|e| e.to_string())?, r.message.clone())))
                .collect()
        };
        let mut answers = HashMap::new();
        for answer in spec.commands.iter().flat_map(|c| &c.ask).flat_map(|a| &a.answers) {
            let regex = Regex::new(&format!("(?i)^(?:{})$", answer.pattern)).map_err(|e| e.to_string())?;
            answers.insert(answer.pattern.clone(), regex);
            if !answer.goto.is_empty() {
                number(&answer.goto)?;
            }
        }
        Ok(Persona {
            refuse: compile(&spec.config.refuse)?,
            refuse_commit: compile(&spec.config.refuse_commit)?,
            modes,
            start,
            section_modes,
            answers,
            spec,
        })
    }

    /// A mode's number.
    pub fn mode(&self, name: &str) -> Option<usize> {
        self.modes.iter().position(|m| m.name == name)
    }
}

/// `over` on top of `under`: maps are merged, `commands` and `sections` are put in front, everything else is replaced.
fn overlay(under: yaml_serde::Value, over: yaml_serde::Value) -> yaml_serde::Value {
    use yaml_serde::Value::{Mapping, Sequence};
    match (under, over) {
        (Mapping(mut under), Mapping(over)) => {
            for (key, value) in over {
                let name = key.as_str().unwrap_or("").to_owned();
                let merged = match (under.remove(&key), value) {
                    (Some(Sequence(tail)), Sequence(mut head))
                        if name == "commands" || name == "sections" =>
                    {
                        head.extend(tail);
                        Sequence(head)
                    }
                    (Some(old), new) => overlay(old, new),
                    (None, new) => new,
                };
                under.insert(key, merged);
            }
            Mapping(under)
        }
        (_, over) => over,
    }
}

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        /// The personas that are built in: name and text.
        pub const EMBEDDED: &[(&str, &str)] = &[$(($name, include_str!(concat!("../personas/", $name, ".yaml")))),*];
    };
}

embedded!(
    "arista_eos",
    "aruba_aoscx",
    "checkpoint_gaia",
    "cisco_asa",
    "cisco_ios",
    "cisco_nxos",
    "cisco_xe",
    "cisco_xr",
    "dell_os10",
    "extreme_exos",
    "f5_tmsh",
    "fortinet",
    "frr",
    "generic",
    "hp_comware",
    "hp_procurve",
    "huawei",
    "huawei_vrpv8",
    "juniper_junos",
    "linux",
    "mikrotik_routeros",
    "nokia_srl",
    "nokia_sros",
    "paloalto_panos",
    "ruijie_os",
    "vyos",
    "zte_zxros",
);

/// All personas by name: the embedded ones, and those of a folder, which win. Read when first asked for.
#[derive(Debug, Default)]
pub struct Library {
    texts: BTreeMap<String, Cow<'static, str>>,
    ready: Mutex<HashMap<String, Arc<Persona>>>,
}

impl Library {
    /// The embedded ones.
    pub fn embedded() -> Library {
        let texts = EMBEDDED.iter().map(|(n, t)| ((*n).to_owned(), Cow::Borrowed(*t))).collect();
        Library { texts, ready: Mutex::default() }
    }

    /// The embedded ones and the `*.yaml` of a folder on top.
    ///
    /// # Errors
    /// The folder or file that cannot be read.
    pub fn with_folder(folder: &Path) -> Result<Library, PersonaError> {
        let read = |source| PersonaError::Read { path: folder.display().to_string(), source };
        let mut library = Library::embedded();
        for entry in std::fs::read_dir(folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
                let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
                library.texts.insert(name, Cow::Owned(std::fs::read_to_string(&path).map_err(read)?));
            }
        }
        Ok(library)
    }

    /// By name or alias; the endings `_ssh` and `_telnet` do not matter.
    ///
    /// # Errors
    /// Names all that there are, or says what is wrong with the file.
    pub fn get(&self, name: &str) -> Result<Arc<Persona>, PersonaError> {
        let short = name.strip_suffix("_ssh").or_else(|| name.strip_suffix("_telnet")).unwrap_or(name);
        for name in [name, short] {
            if self.texts.contains_key(name) {
                return self.load(name);
            }
        }
        // Aliases stand inside the files, so all must be read to know them.
        for known in self.texts.keys() {
            let persona = self.load(known)?;
            if persona.spec.aliases.iter().any(|a| a == name || a == short) {
                return Ok(persona);
            }
        }
        Err(PersonaError::Unknown { name: name.to_owned(), known: self.names().join(", ") })
    }

    fn load(&self, name: &str) -> Result<Arc<Persona>, PersonaError> {
        if let Some(ready) = self.ready.lock().get(name) {
            return Ok(ready.clone());
        }
        let text = self.texts.get(name).map_or("", |t| t.as_ref());
        let persona = Arc::new(Persona::parse(name, text, &|n| self.texts.get(n).map(|t| t.to_string()))?);
        self.ready.lock().insert(name.to_owned(), persona.clone());
        Ok(persona)
    }

    /// All names in order.
    pub fn names(&self) -> Vec<&str> {
        self.texts.keys().map(String::as_str).collect()
    }
}
