//! What commands do: the verbs of `do:` lists.
//!
//! `pop` (one level up), `end` (out of the configuration), `logout`, `save`, `commit`, `commit_check`,
//! `commit_confirmed <minutes>`, `confirm`, `take_back`, `discard`, `rollback <n>`, `reload <seconds>`, `set <path>`,
//! `set_top <path>`, `delete <path>`, `delete_top <path>`, `line <text>` (a line at the top), `here <text>` (a line in
//! this section), `remove <text>`, `edit <path>`, `up`, `top`, `end_block`, `run <command>` (as outside of the configuration).

use std::sync::Arc;
use std::time::Duration;

use crate::config::Edit;
use crate::journal::Kind;
use crate::vty::{Frame, Op, Reply, Vty};

/// Every verb there is, for checking personas when they are read.
pub(crate) const VERBS: &[&str] = &[
    "pop",
    "end",
    "logout",
    "save",
    "commit",
    "commit_check",
    "commit_confirmed",
    "confirm",
    "take_back",
    "discard",
    "rollback",
    "reload",
    "set",
    "set_top",
    "delete",
    "delete_top",
    "line",
    "here",
    "remove",
    "edit",
    "up",
    "top",
    "end_block",
    "run",
];

/// Every condition of `when:` lists, besides `variable=value`.
pub(crate) const WHEN: &[&str] = &[
    "dirty", "clean", "unsaved", "saved", "secret", "nosecret", "pending", "settled", "top", "inside",
    "nested",
];

/// How the verbs of a command ended.
pub(crate) enum Flow {
    Done,
    Missing,
    Failed(String),
}

impl Vty {
    pub(crate) fn verbs(&mut self, verbs: &[String], args: &[(String, String)], reply: &mut Reply) -> Flow {
        let mut flow = Flow::Done;
        for verb in verbs {
            let verb = self.fill_args(verb, args);
            let (name, rest) = verb.split_once(' ').unwrap_or((verb.as_str(), ""));
            match self.verb(name, rest.trim(), reply) {
                Flow::Done => {}
                Flow::Missing => flow = Flow::Missing,
                failed @ Flow::Failed(_) => return failed,
            }
        }
        flow
    }

    /// Set style: a path that begins with nothing the platform knows, as the vendor words it.
    fn unknown_root(&mut self, path: &[String], rest: &str) -> Option<String> {
        let persona = self.persona.clone();
        let roots = &persona.spec.config.roots;
        let mut all = path
            .iter()
            .map(String::as_str)
            .chain(std::iter::once(rest))
            .flat_map(str::split_whitespace)
            .filter(|w| *w != "/");
        let first = all.next().unwrap_or("").trim_start_matches('/');
        let known = roots.is_empty() || roots.iter().any(|r| r == first);
        if known && (!path.is_empty() || all.next().is_some()) {
            return None;
        }
        let line = self.last_line.clone();
        self.events.push((Kind::Rejected, line.clone()));
        let text = if known { &persona.spec.errors.incomplete } else { &persona.spec.errors.syntax };
        let at = if known { line.len() } else { line.find(first).unwrap_or(0) };
        Some(self.error_text(text, &line, at))
    }

    fn verb(&mut self, name: &str, rest: &str, reply: &mut Reply) -> Flow {
        let persona = self.persona.clone();
        let rules = &persona.spec.config.rules;
        let device = self.device.clone();
        match name {
            "pop" => {
                if self.stack.len() > 1 {
                    self.stack.pop();
                } else {
                    reply.push(Op::Exit(0));
                }
            }
            "end" => self.leave_config(),
            "logout" => reply.push(Op::Exit(0)),
            "save" => {
                let mut state = device.state.lock();
                state.startup = state.running.clone();
                self.events.push((Kind::Save, String::new()));
            }
            "commit" | "commit_confirmed" | "commit_check" => {
                let candidate = device.candidate_or_running(&self.private);
                let lines = candidate.flat(rules).join("\n");
                if let Some((_, message)) = persona.refuse_commit.iter().find(|(r, _)| r.is_match(&lines)) {
                    self.events.push((Kind::Rejected, "commit".into()));
                    return Flow::Failed(self.fill(message));
                }
                if name == "commit_check" {
                    return Flow::Done;
                }
                let minutes = (name == "commit_confirmed").then(|| rest.parse::<f64>().unwrap_or(10.0));
                device.commit(&mut self.private, minutes);
                self.events.push((Kind::Commit, rest.to_owned()));
            }
            "confirm" => {
                device.state.lock().pending = None;
                self.events.push((Kind::Commit, "confirmed".into()));
            }
            "take_back" => {
                device.take_back(0);
            }
            "discard" => {
                device.discard(&mut self.private);
                self.events.push((Kind::Discard, String::new()));
            }
            "rollback" => {
                // 0 is the running configuration, 1 the one before the last commit.
                let n: usize = rest.parse().unwrap_or(0);
                let state = device.state.lock();
                let to = if n == 0 {
                    Some(state.running.clone())
                } else {
                    state.previous.iter().rev().nth(n - 1).cloned()
                };
                drop(state);
                match to {
                    Some(to) => self.change(|c| *c = Arc::unwrap_or_clone(to)),
                    None => return Flow::Missing,
                }
            }
            "reload" => {
                let seconds = rest.parse::<f64>().unwrap_or(2.0).clamp(0.0, 3_600.0);
                let wait = Duration::from_secs_f64(seconds);
                tokio::spawn(async move { device.reboot(wait) });
                reply.push(Op::Cut);
            }
            "set" => {
                let path = self.path();
                if let Some(wrong) = self.unknown_root(&path, rest) {
                    return Flow::Failed(wrong);
                }
                self.change(|c| c.set(rules, &path, rest));
            }
            "set_top" => {
                if let Some(wrong) = self.unknown_root(&[], rest) {
                    return Flow::Failed(wrong);
                }
                self.change(|c| c.set(rules, &[], rest));
            }
            "delete" | "delete_top" => {
                let path = if name == "delete" { self.path() } else { Vec::new() };
                let rest = rest.to_owned();
                if self.change(|c| c.delete(&path, &rest)) == Edit::Missing {
                    return Flow::Missing;
                }
            }
            "line" | "here" => {
                let path = if name == "here" { self.path() } else { Vec::new() };
                if self.apply_line(&path, rest) == Edit::Missing {
                    return Flow::Missing;
                }
            }
            "remove" => {
                let path = self.path();
                if !self.change(|c| c.remove(&path, rest)) {
                    return Flow::Missing;
                }
            }
            "end_block" => {
                // Out of the innermost `config`, back into what it was opened in.
                while let Some(frame) = self.stack.pop() {
                    if frame.seg.is_some_and(|s| s.starts_with("config ")) {
                        break;
                    }
                }
            }
            "edit" => {
                let mode = self.mode();
                self.stack.push(Frame { mode, seg: Some(rest.to_owned()) });
            }
            "up" => {
                if self.stack.last().is_some_and(|f| f.seg.is_some()) {
                    self.stack.pop();
                } else {
                    return Flow::Missing;
                }
            }
            "top" => {
                while self.stack.last().is_some_and(|f| f.seg.is_some()) {
                    self.stack.pop();
                }
            }
            "run" => {
                let stack = self.stack.clone();
                self.leave_config();
                let mut out = Reply::default();
                // The inner prompt is the outer one's business.
                let pipe = self.vars.remove("pipe");
                let line = match pipe {
                    Some(pipe) => format!("{rest} | {pipe}"),
                    None => rest.to_owned(),
                };
                self.carry_out(&line, &mut out);
                let inner = self.prompt_text().replace('\n', "\r\n");
                self.stack = stack;
                if let Some(Op::Out(bytes)) = out.ops.last_mut()
                    && bytes.ends_with(inner.as_bytes())
                {
                    bytes.truncate(bytes.len() - inner.len());
                }
                for op in out.ops {
                    match op {
                        Op::Out(b) => reply.bytes(&b),
                        op => reply.push(op),
                    }
                }
            }
            other => tracing::error!(
                verb = other,
                persona = persona.spec.name,
                "the persona names a verb that there is not"
            ),
        }
        Flow::Done
    }
}
