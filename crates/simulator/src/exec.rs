//! What a line means: commands, configuration lines, questions, verbs.
//!
//! Verbs of `do:` lists: `pop` (one level up), `end` (out of the configuration), `logout`, `save`, `commit`,
//! `commit_confirmed <minutes>`, `confirm`, `discard`, `rollback`, `reload <seconds>`, `set <path>`, `delete <path>`,
//! `line <text>` (a line at the top), `here <text>` (a line in this section), `edit <path>`, `up`, `top`,
//! `run <command>` (as outside of the configuration).
//!
//! Names in texts: `{hostname} {user} {path} {mark} {count} {index} {address} {serial} {uptime} {uptime_s} {date}
//! {running_config} {running_set} {startup_config} {candidate_config} {candidate_set} {here_config} {here_set}
//! {diff} {config_bytes} {length} {width} {line} {caret} {table}`, the arguments of the command, the persona's own
//! `texts` and the session's variables.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, Edit, Style};
use crate::grammar::{Verdict, judge};
use crate::journal::Kind;
use crate::persona::{Candidate, Target};
use crate::template;
use crate::vty::{Frame, Op, Reply, Stage, Vty};

/// How the verbs of a command ended.
enum Flow {
    Done,
    Missing,
    Failed(String),
}

/// What a line was found to be.
enum Found {
    Command(usize, Vec<(String, String)>),
    Section(usize, usize, String),
    Word(usize, String),
    Wrong(Verdict),
}

impl Vty {
    /// Replaces the names in a text.
    pub(crate) fn fill(&self, text: &str) -> String {
        self.fill_args(text, &[])
    }

    pub(crate) fn fill_args(&self, text: &str, args: &[(String, String)]) -> String {
        if !text.contains('{') {
            return text.to_owned();
        }
        template::fill_with(text, &mut |name| self.value(name, args, 0))
    }

    fn value(&self, name: &str, args: &[(String, String)], depth: u8) -> Option<String> {
        if let Some((_, v)) = args.iter().find(|(n, _)| n == name) {
            return Some(v.clone());
        }
        let spec = &self.persona.spec;
        let rules = &spec.config.rules;
        let device = &self.device;
        let shown = || device.candidate_or_running(&self.private);
        let running = || device.state.lock().running.clone();
        let startup = || device.state.lock().startup.clone();
        Some(match name {
            "hostname" => device.hostname(),
            "user" => self.user.clone(),
            "path" => self.path().join(" "),
            // The names that prompts of sub-modes carry, each vendor its own short form of the section's line.
            "sp_path" => self.path().iter().map(|p| format!(" {p}")).collect(),
            "seg_path" => self.path().join("/"),
            "seg_dash" => self.segment().replace(' ', "-"),
            "seg_arg" => self.segment().split_once(' ').map_or("", |(_, rest)| rest).to_owned(),
            "seg_tight" => self.segment().split_once(' ').map_or("", |(_, rest)| rest).replacen(' ', "", 1).replace(' ', "-"),
            "seg_first" => self.segment().split(' ').nth(1).unwrap_or("").to_owned(),
            "seg_last" => crate::config::unquote(self.segment().rsplit(' ').next().unwrap_or("")),
            "nokia_path" => self.path().iter().flat_map(|p| p.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>().join("/"),
            "section" => shown().at(&[format!("config {}", args.first().map_or("", |a| a.1.as_str()))], rules.style).render(rules),
            "seg_short" => short_interface(self.segment().split_once(' ').map_or("", |(_, rest)| rest)),
            "mark" => {
                let dirty = if spec.mark.on == "unsaved" { device.unsaved() } else { self.dirty() };
                if dirty { spec.mark.dirty.clone() } else { spec.mark.clean.clone() }
            }
            "count" => self.count.to_string(),
            "index" => device.index.to_string(),
            "address" => device.ssh.or(device.telnet).map(|a| a.ip().to_string()).unwrap_or_default(),
            "serial" => format!("NPS{:08}", device.index + 1),
            "uptime" => template::uptime(self.uptime()),
            "uptime_s" => self.uptime().to_string(),
            "date" => template::date(),
            "running_config" => running().render(rules),
            "running_set" => running().render_set(rules),
            "startup_config" => startup().render(rules),
            "candidate_config" => shown().render(rules),
            "candidate_set" => shown().render_set(rules),
            "here_config" => shown().at(&self.path(), rules.style).render(rules),
            "here_set" => shown().at(&self.path(), rules.style).render_set(rules),
            "diff" => shown().diff(&running(), rules),
            "config_bytes" => running().render(rules).len().to_string(),
            "length" => self.length.to_string(),
            "width" => self.width.to_string(),
            "percent" => return None,
            _ => {
                if let Some(v) = self.vars.get(name) {
                    return Some(v.clone());
                }
                let text = spec.texts.get(name)?;
                if depth > 3 {
                    return Some(text.clone());
                }
                template::fill_with(text, &mut |n| self.value(n, args, depth + 1))
            }
        })
    }

    fn uptime(&self) -> u64 {
        // As if it had been up for a while when the simulator started.
        self.device.state.lock().started.elapsed().as_secs() + 60 * 60 * 24 * 17 + u64::from(self.device.index % 50) * 3_600
    }

    /// The section path.
    pub(crate) fn path(&self) -> Vec<String> {
        self.stack.iter().filter_map(|f| f.seg.clone()).collect()
    }

    fn segment(&self) -> &str {
        self.stack.iter().rev().find_map(|f| f.seg.as_deref()).unwrap_or("")
    }

    fn mode(&self) -> usize {
        self.stack.last().map_or(0, |f| f.mode)
    }

    fn in_config(&self) -> bool {
        self.persona.modes.get(self.mode()).is_some_and(|m| m.spec.config)
    }

    /// True when the candidate differs from running.
    pub(crate) fn dirty(&self) -> bool {
        let spec = &self.persona.spec.config;
        let state = self.device.state.lock();
        match spec.candidate {
            Candidate::None => false,
            Candidate::Shared => state.candidate.as_ref().is_some_and(|c| *c != state.running),
            Candidate::Private => self.private.as_ref().is_some_and(|c| *c != state.running),
        }
    }

    /// Out of every configuration mode.
    pub(crate) fn leave_config(&mut self) {
        if let Some(at) = self.stack.iter().position(|f| self.persona.modes.get(f.mode).is_some_and(|m| m.spec.config)) {
            self.stack.truncate(at.max(1));
        }
    }

    fn goto(&mut self, name: &str) {
        let Some(mode) = self.persona.mode(name) else { return };
        match self.stack.iter().position(|f| f.mode == mode) {
            Some(at) => self.stack.truncate(at + 1),
            None => self.stack.push(Frame { mode, seg: None }),
        }
    }

    /// One line of configuration, in the candidate where there is one.
    pub(crate) fn apply_line(&mut self, path: &[String], line: &str) -> Edit {
        let persona = self.persona.clone();
        let rules = &persona.spec.config.rules;
        self.change(|c| c.line(rules, path, line))
    }

    fn change<R>(&mut self, change: impl FnOnce(&mut Config) -> R) -> R {
        let device = self.device.clone();
        device.edit(&mut self.private, true, change)
    }

    /// A line at the prompt: journal, faults, meaning, prompt.
    pub(crate) fn command(&mut self, text: &str, reply: &mut Reply) {
        let device = self.device.clone();
        // One line at a time per device, so that the journal's order is the order of the effects.
        let _turn = device.turn.lock();
        let line = text.trim().to_owned();
        let before = self.mode_name().to_owned();
        if line.is_empty() {
            self.log(Kind::Empty, "", &before, &before);
            return self.prompt(reply);
        }
        self.lines += 1;
        self.last_line.clone_from(&line);
        let faults = self.faults();
        let has = |text: &str| !text.is_empty() && line.contains(text);
        let mut fault = "";
        let mut out = Reply::default();
        if let Some(f) = &faults {
            if has(&f.drop_before) && device.may_drop(f) {
                fault = "drop_before";
                out.push(Op::Cut);
            } else if has(&f.hang_on) {
                fault = "hang_on";
                out.push(Op::Hang);
            } else if has(&f.flood_on) {
                fault = "flood_on";
                out.push(Op::Flood);
            } else if f.latency_ms + f.jitter_ms > 0 {
                out.push(Op::Wait(self.latency(f)));
            }
        }
        if fault.is_empty() {
            self.carry_out(&line, &mut out);
        }
        self.log(Kind::Line, text.trim_end(), &before, self.mode_name());
        if let Some(f) = &faults
            && fault.is_empty()
        {
            if has(&f.drop_after) && device.may_drop(f) {
                fault = "drop_after";
                out.ops = vec![Op::Cut];
            } else if has(&f.drop_mid_answer) && device.may_drop(f) {
                fault = "drop_mid_answer";
                let bytes: Vec<u8> = out.ops.iter().filter_map(|o| if let Op::Out(b) = o { Some(b.as_slice()) } else { None }).flatten().copied().collect();
                out.ops = vec![Op::Out(bytes[..bytes.len() / 2].to_vec()), Op::Cut];
            } else if f.drop_after_lines > 0 && self.lines >= f.drop_after_lines && device.may_drop(f) {
                fault = "drop_after_lines";
                out.push(Op::Cut);
            }
        }
        self.flush_events();
        if !fault.is_empty() {
            self.log(Kind::Fault, fault, "", "");
        }
        for op in out.ops {
            match op {
                Op::Out(bytes) => reply.bytes(&bytes),
                op => reply.push(op),
            }
        }
    }

    fn flush_events(&mut self) {
        for (kind, line) in std::mem::take(&mut self.events) {
            self.log(kind, &line, "", "");
        }
    }

    /// A command over an exec channel; returns its status.
    pub(crate) fn run_exec(&mut self, command: &str, reply: &mut Reply) -> u32 {
        let device = self.device.clone();
        let _turn = device.turn.lock();
        let before = self.mode_name().to_owned();
        let mut status = 0;
        for line in command.split('\n').map(str::trim).filter(|l| !l.is_empty()) {
            let mut out = Reply::default();
            self.lines += 1;
            if self.shell.is_some() && !matches!(self.find(line), Found::Command(..)) {
                status = self.shell_line(line, &mut out);
            } else {
                let wrong = matches!(self.find(line), Found::Wrong(_));
                self.carry_out(line, &mut out);
                status = u32::from(wrong);
                // No prompt over exec: it is the last thing written.
                let prompt = self.prompt_text().replace('\n', "\r\n");
                if let Some(Op::Out(bytes)) = out.ops.last_mut()
                    && bytes.ends_with(prompt.as_bytes())
                {
                    bytes.truncate(bytes.len() - prompt.len());
                }
            }
            reply.ops.append(&mut out.ops);
        }
        self.log(Kind::Exec, command, &before, self.mode_name());
        self.flush_events();
        status
    }

    fn shell_line(&mut self, line: &str, reply: &mut Reply) -> u32 {
        let Some(mut shell) = self.shell.take() else { return 127 };
        let result = shell.run(line);
        let status = result.status;
        self.say(reply, &result.stdout);
        if !result.stderr.is_empty() {
            if self.pty {
                self.say(reply, &result.stderr);
            } else {
                reply.push(Op::Err(result.stderr.into_bytes()));
            }
        }
        if let Some(wait) = result.wait {
            reply.push(Op::Wait(wait));
        }
        self.vars.insert("cwd".into(), shell.shown_cwd());
        self.vars.insert("sign".into(), if shell.root() { "#" } else { "$" }.into());
        self.user.clone_from(&shell.user);
        if result.exit {
            reply.push(Op::Exit(status));
        }
        self.shell = Some(shell);
        status
    }

    /// What the line is, in this mode and those above it.
    fn find(&self, line: &str) -> Found {
        let persona = &self.persona;
        let abbreviate = persona.spec.editor.abbreviate;
        let negate = &persona.spec.config.rules.negate;
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut wrong: Option<Verdict> = None;
        let mut at = Some(self.mode());
        while let Some(number) = at {
            let Some(mode) = persona.modes.get(number) else { break };
            match judge(mode.entries.iter().map(|(p, _)| p), &words, abbreviate) {
                Verdict::Found(entries, args) => {
                    for entry in entries {
                        let Some((pattern, target)) = mode.entries.get(entry) else { continue };
                        match target {
                            Target::Command(n) if self.holds(*n) => return Found::Command(*n, args),
                            Target::Command(_) => {}
                            Target::Section(n) => return Found::Section(*n, number, self.respell(pattern.spell(&words, abbreviate), line)),
                            Target::Word => return Found::Word(number, self.respell(pattern.spell(&words, abbreviate), line)),
                        }
                    }
                    wrong = wrong.or(Some(Verdict::Invalid(0)));
                }
                verdict => wrong = Some(match (wrong, verdict) {
                    (None, v) => v,
                    (Some(Verdict::Invalid(a)), Verdict::Invalid(b)) => Verdict::Invalid(a.max(b)),
                    (Some(Verdict::Invalid(_)), v) => v,
                    (Some(v), _) => v,
                }),
            }
            if mode.spec.config && !negate.is_empty() && words.len() > 1 && words[0] == negate {
                let rest = &words[1..];
                let mut fits = mode.entries.iter().filter(|(_, t)| !matches!(t, Target::Command(_))).filter(|(p, _)| {
                    !matches!(p.fit(rest, abbreviate), crate::grammar::Fit::Off(_))
                });
                if let Some((pattern, _)) = fits.next() {
                    return Found::Word(number, format!("{negate} {}", pattern.spell(rest, abbreviate)));
                }
                wrong = Some(Verdict::Invalid(1));
            }
            if mode.spec.any {
                return Found::Word(number, line.to_owned());
            }
            // What the mode itself understands, however badly, is not looked for above.
            if !matches!(wrong, Some(Verdict::Invalid(_))) {
                break;
            }
            at = mode.parent;
        }
        Found::Wrong(wrong.unwrap_or(Verdict::Invalid(0)))
    }

    /// Keeps the blanks inside a configuration line as typed when nothing was abbreviated.
    fn respell(&self, spelled: String, line: &str) -> String {
        let squeezed = line.split_whitespace().collect::<Vec<_>>().join(" ");
        if squeezed == spelled { line.to_owned() } else { spelled }
    }

    fn holds(&self, command: usize) -> bool {
        let Some(command) = self.persona.spec.commands.get(command) else { return false };
        command.when.iter().all(|w| match w.as_str() {
            "dirty" => self.dirty(),
            "clean" => !self.dirty(),
            "unsaved" => self.device.unsaved(),
            "saved" => !self.device.unsaved(),
            "secret" => !self.device.access.enable.is_empty(),
            "nosecret" => self.device.access.enable.is_empty(),
            "pending" => self.device.state.lock().pending.is_some(),
            "top" => self.stack.last().is_some_and(|f| f.seg.is_none()),
            "inside" => self.stack.last().is_some_and(|f| f.seg.is_some()),
            "nested" => self.path().iter().filter(|p| p.starts_with("config ")).count() > 1,
            "settled" => self.device.state.lock().pending.is_none(),
            other => other.split_once('=').is_some_and(|(name, value)| self.vars.get(name).map_or("", String::as_str) == value),
        })
    }

    /// Does what the line says and ends with the next prompt, question or pager.
    fn carry_out(&mut self, line: &str, reply: &mut Reply) {
        let persona = self.persona.clone();
        let editor = &persona.spec.editor;
        if !editor.comment.is_empty() && line.starts_with(editor.comment.as_str()) {
            return self.prompt(reply);
        }
        if let Some(n) = line.strip_prefix("simulator-lines ").and_then(|n| n.trim().parse::<u64>().ok()) {
            // A long output of known text on every platform: n numbered lines of 64 bytes.
            reply.push(Op::Rows(n, "simulated output, never the same twice, never a prompt.".into()));
            return self.prompt(reply);
        }
        let (head, pipe) = match line.split_once('|') {
            Some((head, pipe)) if editor.pipes && self.shell.is_none() => (head.trim(), Some(pipe.trim())),
            _ => (line, None),
        };
        let mut found = self.find(head);
        if pipe.is_some() && !matches!(found, Found::Command(..)) {
            found = self.find(line);
        }
        match found {
            Found::Command(number, args) => {
                if let Some(pipe) = pipe {
                    self.vars.insert("pipe".into(), pipe.to_owned());
                } else {
                    self.vars.remove("pipe");
                }
                let Some(command) = persona.spec.commands.get(number) else { return };
                if let Some(ask) = command.ask.first() {
                    self.say(reply, &self.fill_args(&ask.prompt, &args));
                    self.stage = Stage::Ask { command: number, at: 0, args, tries: 0 };
                    return;
                }
                self.finish(number, &args, reply);
            }
            Found::Section(number, within, spelled) => {
                self.stack_to(within);
                let rules = &persona.spec.config.rules;
                let mut path = self.path();
                path.push(spelled.clone());
                if rules.style != Style::Set {
                    self.change(|c| c.enter(&path));
                }
                if let Some(mode) = persona.section_modes.get(number) {
                    self.stack.push(Frame { mode: *mode, seg: Some(spelled) });
                }
                self.between(reply);
                self.prompt(reply);
            }
            Found::Word(within, spelled) => self.config_word(within, line, &spelled, reply),
            Found::Wrong(_) if self.shell.is_some() => {
                self.shell_line(line, reply);
                self.prompt(reply);
            }
            Found::Wrong(verdict) => {
                self.wrong(line, &verdict, reply);
                self.prompt(reply);
            }
        }
    }

    fn between(&self, reply: &mut Reply) {
        self.say(reply, &self.fill(&self.persona.spec.editor.before_prompt));
    }

    fn stack_to(&mut self, mode: usize) {
        if let Some(at) = self.stack.iter().rposition(|f| f.mode == mode) {
            self.stack.truncate(at + 1);
        }
    }

    fn wrong(&mut self, line: &str, verdict: &Verdict, reply: &mut Reply) {
        let errors = &self.persona.clone().spec.errors;
        let (text, at) = match verdict {
            Verdict::Incomplete => (&errors.incomplete, line.len()),
            Verdict::Ambiguous => (&errors.ambiguous, 0),
            Verdict::Invalid(word) => (&errors.invalid, offset(line, *word)),
            Verdict::Found(..) => (&errors.invalid, 0),
        };
        self.events.push((Kind::Rejected, line.to_owned()));
        let message = self.error_text(text, line, at);
        self.say_line(reply, &message);
        self.between(reply);
    }

    fn error_text(&self, text: &str, line: &str, at: usize) -> String {
        let visible = self.prompt_text().rsplit('\n').next().map_or(0, |p| p.chars().count());
        let word = line[at.min(line.len())..].split_whitespace().next().unwrap_or("").to_owned();
        self.fill_args(
            text,
            &[
                ("caret".into(), " ".repeat(visible + at)),
                ("caret0".into(), " ".repeat(at)),
                ("line".into(), line.to_owned()),
                ("word".into(), word),
                ("column".into(), (at + 1).to_string()),
                ("token".into(), line[..at.min(line.len())].split_whitespace().count().to_string()),
            ],
        )
    }

    fn config_word(&mut self, within: usize, line: &str, spelled: &str, reply: &mut Reply) {
        let persona = self.persona.clone();
        if let Some((_, message)) = persona.refuse.iter().find(|(r, _)| r.is_match(spelled)) {
            self.events.push((Kind::Rejected, line.to_owned()));
            let last = offset(line, line.split_whitespace().count().saturating_sub(1));
            let text = self.error_text(message, line, last);
            self.say_line(reply, &text);
            self.between(reply);
            return self.prompt(reply);
        }
        self.stack_to(within);
        let path = self.path();
        if spelled.starts_with("banner ") && persona.spec.config.rules.style == Style::Section {
            let mut parts = spelled.splitn(3, ' ');
            let head: Vec<&str> = parts.by_ref().take(2).collect();
            let rest = parts.next().unwrap_or("").to_owned();
            let delimiter = match rest.chars().next() {
                None => "EOF".to_owned(),
                Some('^') => rest.chars().take(2).collect(),
                Some(c) => c.to_string(),
            };
            let body = rest.get(delimiter.len()..).unwrap_or("").to_owned();
            if rest.is_empty() || !body.contains(&delimiter) {
                if !rest.is_empty() {
                    self.say_line(reply, &format!("Enter TEXT message.  End with the character '{delimiter}'."));
                }
                let lines = if body.is_empty() { Vec::new() } else { vec![body] };
                self.stage = Stage::Text { head: format!("{} {delimiter}", head.join(" ")).trim_end_matches(" EOF").to_owned(), delimiter, lines };
                return;
            }
        }
        if persona.spec.config.rules.style == Style::Set {
            let rules = &persona.spec.config.rules;
            self.change(|c| c.set(rules, &path, spelled));
        } else {
            self.apply_line(&path, spelled);
        }
        self.between(reply);
        self.prompt(reply);
    }

    /// The verbs, the reply, the next mode of a command whose questions are answered.
    fn finish(&mut self, number: usize, args: &[(String, String)], reply: &mut Reply) {
        let persona = self.persona.clone();
        let Some(command) = persona.spec.commands.get(number) else { return };
        if command.takes_ms > 0 {
            reply.push(Op::Wait(Duration::from_millis(command.takes_ms)));
        }
        if command.error {
            self.events.push((Kind::Rejected, persona.spec.commands[number].patterns.first().cloned().unwrap_or_default()));
        }
        // The text first: `commit` shows what it was about to do, `exit` speaks in the old mode.
        let verbs = command.verbs.clone();
        match self.verbs(&verbs, args, reply) {
            Flow::Failed(message) => {
                self.say_line(reply, &message);
                self.between(reply);
                return self.prompt(reply);
            }
            Flow::Missing if !command.missing.is_empty() => {
                self.events.push((Kind::Rejected, "nothing to delete".into()));
                self.say_line(reply, &self.fill_args(&command.missing, args));
                self.between(reply);
                return self.prompt(reply);
            }
            Flow::Done | Flow::Missing => {}
        }
        if matches!(reply.ops.last(), Some(Op::Exit(_) | Op::Cut)) || !matches!(self.stage, Stage::Ready) {
            return;
        }
        for (name, value) in &command.set {
            let value = self.fill_args(value, args);
            match name.as_str() {
                "length" => self.length = value.trim().parse().unwrap_or(self.length),
                "width" => self.width = value.trim().parse().unwrap_or(self.width),
                _ => {
                    self.vars.insert(name.clone(), value);
                }
            }
        }
        let mut all = args.to_vec();
        if let Some(table) = &command.table {
            let rows: u64 = self.fill_args(&table.rows, args).trim().parse().unwrap_or(10).min(1_000_000);
            let mut text = String::new();
            for i in 1..=rows {
                text.push_str(&template::fill_with(&table.line, &mut |n| match n {
                    "i" => Some(i.to_string()),
                    "mac" => Some(template::mac(i)),
                    "ip" => Some(template::ip(i)),
                    _ => None,
                }));
                if i < rows {
                    text.push('\n');
                }
            }
            all.push(("table".into(), text));
        }
        let mut text = self.fill_args(&command.output, &all);
        if !command.goto.is_empty() {
            self.goto(&command.goto);
        }
        let mut paged = command.paged.unwrap_or(true);
        if let Some(pipe) = self.vars.remove("pipe") {
            if pipe.starts_with("no-more") || pipe.starts_with("nomore") || pipe.starts_with("no") {
                paged = false;
            } else {
                text = self.piped(&text, &pipe, &command.patterns);
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&self.fill(&persona.spec.editor.before_prompt));
        self.page(&text, paged, reply);
    }

    fn piped(&self, text: &str, pipe: &str, patterns: &[String]) -> String {
        let mut text = text.to_owned();
        for part in pipe.split('|').map(str::trim) {
            let (verb, what) = part.split_once(' ').unwrap_or((part, ""));
            let what = what.trim().trim_matches('"');
            let is = |names: &[&str]| names.iter().any(|n| n.starts_with(verb) && !verb.is_empty());
            let regex = regex::Regex::new(what).ok();
            let hit = |l: &str| regex.as_ref().map_or_else(|| l.contains(what), |r| r.is_match(l));
            text = if is(&["compare"]) {
                let config = self.device.candidate_or_running(&self.private);
                let running = self.device.state.lock().running.clone();
                config.compare(&running, &self.persona.spec.config.rules)
            } else if part == "display set" || (verb == "display" && what == "set") || part == "as set" {
                let config = self.device.candidate_or_running(&self.private);
                let rules = &self.persona.spec.config.rules;
                if patterns.iter().any(|p| p.contains("config") || p.starts_with("show")) && self.in_config() {
                    config.at(&self.path(), rules.style).render_set(rules)
                } else {
                    self.device.state.lock().running.render_set(rules)
                }
            } else if is(&["include", "match", "grep"]) {
                let what = what.trim_start_matches("-i ").to_owned();
                let re = regex::Regex::new(&what).ok();
                text.lines().filter(|l| re.as_ref().map_or_else(|| l.contains(&what), |r| r.is_match(l))).collect::<Vec<_>>().join("\n")
            } else if is(&["exclude", "except"]) {
                text.lines().filter(|l| !hit(l)).collect::<Vec<_>>().join("\n")
            } else if is(&["begin", "find"]) {
                text.lines().skip_while(|l| !hit(l)).collect::<Vec<_>>().join("\n")
            } else if is(&["count"]) {
                format!("Number of lines matching: {}", text.lines().filter(|l| hit(l)).count())
            } else if is(&["section"]) {
                let mut inside = false;
                text.lines()
                    .filter(|l| {
                        if !l.starts_with(' ') {
                            inside = hit(l);
                        }
                        inside
                    })
                    .collect::<Vec<_>>()
                    .join("\n")
            } else {
                text
            };
        }
        text
    }

    fn verbs(&mut self, verbs: &[String], args: &[(String, String)], reply: &mut Reply) -> Flow {
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
        let mut all = path.iter().map(String::as_str).chain(std::iter::once(rest)).flat_map(str::split_whitespace).filter(|w| *w != "/");
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
                let to = if n == 0 { Some(state.running.clone()) } else { state.previous.iter().rev().nth(n - 1).cloned() };
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
            other => tracing::error!(verb = other, persona = persona.spec.name, "the persona names a verb that there is not"),
        }
        Flow::Done
    }

    /// An answer to a question.
    pub(crate) fn answer(&mut self, text: &str, number: usize, at: usize, args: Vec<(String, String)>, tries: u32, reply: &mut Reply) {
        let device = self.device.clone();
        let _turn = device.turn.lock();
        let persona = self.persona.clone();
        let before = self.mode_name().to_owned();
        let Some(command) = persona.spec.commands.get(number) else { return };
        let Some(ask) = command.ask.get(at) else { return };
        let shown = if ask.hidden { "****" } else { text };
        let mut args = args;
        args.push((format!("answer{at}"), text.to_owned()));
        let mut go_on = ask.answers.is_empty();
        if !ask.secret.is_empty() {
            let right = match ask.secret.as_str() {
                "enable" => device.access.enable == text,
                _ => device.access.users.get(&self.user).is_some_and(|p| p == text),
            };
            if !right {
                self.log(Kind::Answer, shown, &before, &before);
                if tries < ask.retries {
                    self.say(reply, &self.fill_args(&ask.prompt, &args));
                    self.stage = Stage::Ask { command: number, at, args, tries: tries + 1 };
                } else {
                    self.say_line(reply, &self.fill(&ask.refused));
                    self.prompt(reply);
                }
                return;
            }
            go_on = true;
        }
        let answer = ask.answers.iter().find(|a| persona.answers.get(&a.pattern).is_some_and(|r| r.is_match(text.trim())));
        if let Some(answer) = answer.filter(|a| !a.go_on) {
            match self.verbs(&answer.verbs, &args, reply) {
                Flow::Failed(message) => self.say_line(reply, &message),
                Flow::Done | Flow::Missing => {
                    self.say_line(reply, &self.fill_args(&answer.output, &args));
                    if !answer.goto.is_empty() {
                        self.goto(&answer.goto);
                    }
                }
            }
            self.log(Kind::Answer, shown, &before, self.mode_name());
            self.flush_events();
            self.between(reply);
            return self.prompt(reply);
        }
        if answer.is_some() {
            go_on = true;
        }
        if !go_on {
            self.log(Kind::Answer, shown, &before, &before);
            if tries < ask.retries {
                self.say(reply, &self.fill_args(&ask.prompt, &args));
                self.stage = Stage::Ask { command: number, at, args, tries: tries + 1 };
                return;
            }
            self.say_line(reply, &self.fill(&ask.refused));
            return self.prompt(reply);
        }
        if let Some(next) = command.ask.get(at + 1) {
            self.log(Kind::Answer, shown, &before, &before);
            self.say(reply, &self.fill_args(&next.prompt, &args));
            self.stage = Stage::Ask { command: number, at: at + 1, args, tries: 0 };
            return;
        }
        self.finish(number, &args, reply);
        self.log(Kind::Answer, shown, &before, self.mode_name());
        self.flush_events();
    }

    /// `?`: the words that could stand here, then the prompt and the line again.
    pub(crate) fn help(&mut self, reply: &mut Reply) {
        let typed = self.typed();
        let partial = if typed.ends_with(' ') { "" } else { typed.split_whitespace().last().unwrap_or("") };
        let depth = typed.split_whitespace().count() - usize::from(!partial.is_empty());
        let mut words = self.candidates(&typed, depth, partial);
        words.sort();
        words.dedup();
        reply.bytes(b"?\r\n");
        for word in words {
            self.say(reply, &format!("  {word}\n"));
        }
        reply.bytes(b"\r\n");
        let prompt = self.prompt_text();
        self.say(reply, &prompt);
        reply.bytes(typed.as_bytes());
    }

    fn candidates(&self, typed: &str, depth: usize, partial: &str) -> Vec<String> {
        let Some(mode) = self.persona.modes.get(self.mode()) else { return Vec::new() };
        let before: Vec<&str> = typed.split_whitespace().take(depth).collect();
        mode.entries.iter().filter_map(|(p, _)| p.next_word(&before, partial, self.persona.spec.editor.abbreviate)).collect()
    }

    /// What completes the last word typed, when only one word can.
    pub(crate) fn completion(&self) -> String {
        let typed = self.typed();
        if typed.is_empty() || typed.ends_with(' ') {
            return String::new();
        }
        let partial = typed.split_whitespace().last().unwrap_or("");
        let depth = typed.split_whitespace().count() - 1;
        let mut words = self.candidates(&typed, depth, partial);
        words.sort();
        words.dedup();
        match words.as_slice() {
            [one] if one.starts_with(partial) => one[partial.len()..].to_owned(),
            _ => String::new(),
        }
    }
}

/// Where the word with this number begins.
fn offset(line: &str, word: usize) -> usize {
    let mut at = 0;
    let mut number = 0;
    let mut inside = false;
    for (i, c) in line.char_indices() {
        if c.is_whitespace() {
            if inside {
                number += 1;
            }
            inside = false;
        } else if !inside {
            inside = true;
            if number == word {
                return i;
            }
        }
        at = i + c.len_utf8();
    }
    at
}

/// `Ethernet1` as `Et1`, the way EOS shortens it; what is no interface stays.
fn short_interface(name: &str) -> String {
    let letters = name.chars().take_while(|c| c.is_ascii_alphabetic()).count();
    if letters > 2 && letters < name.len() && name[letters..].starts_with(|c: char| c.is_ascii_digit()) {
        format!("{}{}", &name[..2], &name[letters..])
    } else {
        name.split(' ').next().unwrap_or(name).to_owned()
    }
}
