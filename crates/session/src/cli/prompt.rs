//! What a prompt of this device looks like, once learnt.

use crate::platform::{Mode, Platform};

/// Longer rows are output, never prompts.
const LONGEST: usize = 1024;

/// What was learnt of a device's prompt. Platform patterns say how prompts look in general; this
/// says which of the texts that look so are this device's.
#[derive(Debug, Default, Clone)]
pub(super) struct Learnt {
    /// What the pattern's group `host` caught: stays the same from prompt to prompt.
    host: Option<Vec<u8>>,
    /// The prompt itself, where no pattern of the platform matches it.
    literal: Option<Vec<u8>>,
    /// How often the literal has ended an answer.
    seen: u32,
    /// The last prompt seen.
    pub row: Vec<u8>,
}

/// After so many answers that ended with it, a prompt that no pattern knows is taken for whole.
const TRUSTED: u32 = 3;

/// How sure it is that a row is a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sure {
    /// It is this device's.
    Known,
    /// It looks like one of the platform's, but with another name: the name was changed, or it
    /// is output.
    Foreign,
}

/// A row that looks like a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    pub mode: Mode,
    pub sure: Sure,
    /// Where the prompt starts in the text.
    pub start: usize,
    /// The prompt without trailing blanks.
    pub row: Vec<u8>,
    /// What the pattern caught as the name.
    pub host: Option<Vec<u8>>,
}

impl Hit {
    /// What two sightings of one prompt have in common: its name, or all of it where it has none.
    /// Some prompts count the commands.
    pub fn identity(&self) -> &[u8] {
        self.host.as_deref().unwrap_or(&self.row)
    }
}

pub(super) fn trimmed(row: &[u8]) -> &[u8] {
    row.trim_ascii_end()
}

impl Learnt {
    /// Looks whether the text that ends with `tail` (the last rows, from `start` on) stands at a
    /// prompt.
    pub fn classify(&self, platform: &Platform, start: usize, tail: &[u8]) -> Option<Hit> {
        let last_row = memchr::memrchr(b'\n', tail).map_or(tail, |at| &tail[at + 1..]);
        if tail.len() > LONGEST || trimmed(last_row).is_empty() {
            return None;
        }
        let mut row = trimmed(tail);
        let mut start = start;
        if let Some(found) = platform.rules.prompt.prefix.as_ref().and_then(|p| p.regex()?.find(row))
            && found.start() == 0
        {
            start += found.end();
            row = &row[found.end()..];
        }
        let mut foreign = None;
        for (mode, pattern) in platform.prompts() {
            let Some(captures) = pattern.regex().and_then(|r| r.captures(row)) else { continue };
            let prefixed = captures.name("host_prefix").map(|m| m.as_bytes());
            let host = captures.name("host").map(|m| m.as_bytes()).or(prefixed).map(<[u8]>::to_vec);
            let sure = match (&self.host, &host) {
                (Some(learnt), Some(seen)) if prefixed.is_some() && starts_with_name(seen, learnt) => {
                    Sure::Known
                }
                (Some(learnt), Some(seen)) if same_host(learnt, seen, platform.rules.prompt.host_cut) => {
                    Sure::Known
                }
                // A platform whose prompt names no host cannot be told apart from output better.
                (None, None) if self.literal.is_none() && !self.row.is_empty() => Sure::Known,
                _ => Sure::Foreign,
            };
            let whole = captures.get(0).map_or(0, |m| m.start());
            let matched = row[whole..].strip_prefix(b"\n").unwrap_or(&row[whole..]);
            let from = start + row.len() - matched.len();
            let hit = Hit { mode, sure, start: from, row: matched.to_vec(), host };
            if sure == Sure::Known {
                return Some(hit);
            }
            foreign.get_or_insert(hit);
        }
        if let Some(literal) = &self.literal {
            let hit = |sure| Hit { mode: Mode::Exec, sure, start, row: row.to_vec(), host: None };
            if literal == row {
                return Some(hit(Sure::Known));
            }
            if foreign.is_none() && literal.last() == row.last() {
                foreign = Some(hit(Sure::Foreign));
            }
        }
        foreign
    }

    /// Whether the prompt may be only the beginning of one: no pattern knows it, and a pause in the
    /// middle of it would have been learnt as its end.
    pub fn doubtful(&self) -> bool {
        self.literal.is_some() && self.seen < TRUSTED
    }

    /// An answer ended with this prompt.
    pub fn confirm(&mut self, hit: &Hit) {
        self.row.clone_from(&hit.row);
        self.seen = self.seen.saturating_add(1);
    }

    /// Remembers a prompt that showed twice.
    pub fn learn(&mut self, hit: &Hit) {
        self.host.clone_from(&hit.host);
        self.literal = if hit.host.is_some() { None } else { self.literal.as_ref().map(|_| hit.row.clone()) };
        self.seen = 0;
        self.row.clone_from(&hit.row);
    }

    /// Remembers a prompt that no pattern matches.
    pub fn learn_literal(&mut self, row: &[u8]) {
        self.host = None;
        self.literal = Some(row.to_vec());
        self.seen = 0;
        self.row = row.to_vec();
    }
}

/// Whether `seen` is the name, or the name with the view behind it (`core-1-GigabitEthernet0/0/1`).
fn starts_with_name(seen: &[u8], name: &[u8]) -> bool {
    seen.strip_prefix(name).is_some_and(|rest| rest.first().is_none_or(|b| !b.is_ascii_alphanumeric()))
}

/// Devices cut long names in some modes; `cut` is how many characters all of them show.
fn same_host(learnt: &[u8], seen: &[u8], cut: Option<usize>) -> bool {
    learnt == seen
        || cut.is_some_and(|cut| learnt.len() >= cut && seen.len() >= cut && learnt[..cut] == seen[..cut])
}
