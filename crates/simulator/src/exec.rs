//! What a line means: commands, configuration lines, questions.

use std::time::Duration;

use crate::config::{Config, Edit, Style};
use crate::grammar::{Verdict, judge};
use crate::journal::Kind;
use crate::persona::{Candidate, Target};
use crate::template;
use crate::verbs::Flow;
use crate::vty::{Frame, Op, Reply, Stage, Vty};

/// What a line was found to be.
enum Found {
    Command(usize, Vec<(String, String)>),
    Section(usize, usize, String),
    Word(usize, String),
    Wrong(Verdict),
}

impl Vty {
    /// The section path.
    pub(crate) fn path(&self) -> Vec<String> {
        self.stack.iter().filter_map(|f| f.seg.clone()).collect()
    }

    pub(crate) fn mode(&self) -> usize {
        self.stack.last().map_or(0, |f| f.mode)
    }

    pub(crate) fn in_config(&self) -> bool {
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
        if let Some(at) =
            self.stack.iter().position(|f| self.persona.modes.get(f.mode).is_some_and(|m| m.spec.config))
        {
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

    pub(crate) fn change<R>(&mut self, change: impl FnOnce(&mut Config) -> R) -> R {
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
                let bytes: Vec<u8> = out
                    .ops
                    .iter()
                    .filter_map(|o| if let Op::Out(b) = o { Some(b.as_slice()) } else { None })
                    .flatten()
                    .copied()
                    .collect();
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
                            Target::Section(n) => {
                                return Found::Section(
                                    *n,
                                    number,
                                    self.respell(pattern.spell(&words, abbreviate), line),
                                );
                            }
                            Target::Word => {
                                return Found::Word(
                                    number,
                                    self.respell(pattern.spell(&words, abbreviate), line),
                                );
                            }
                        }
                    }
                    wrong = wrong.or(Some(Verdict::Invalid(0)));
                }
                verdict => {
                    wrong = Some(match (wrong, verdict) {
                        (None, v) => v,
                        (Some(Verdict::Invalid(a)), Verdict::Invalid(b)) => Verdict::Invalid(a.max(b)),
                        (Some(Verdict::Invalid(_)), v) => v,
                        (Some(v), _) => v,
                    })
                }
            }
            if mode.spec.config && !negate.is_empty() && words.len() > 1 && words[0] == negate {
                let rest = &words[1..];
                let mut fits = mode
                    .entries
                    .iter()
                    .filter(|(_, t)| !matches!(t, Target::Command(_)))
                    .filter(|(p, _)| !matches!(p.fit(rest, abbreviate), crate::grammar::Fit::Off(_)));
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
            other => other
                .split_once('=')
                .is_some_and(|(name, value)| self.vars.get(name).map_or("", String::as_str) == value),
        })
    }

    /// Does what the line says and ends with the next prompt, question or pager.
    pub(crate) fn carry_out(&mut self, line: &str, reply: &mut Reply) {
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

    pub(crate) fn error_text(&self, text: &str, line: &str, at: usize) -> String {
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
                    self.say_line(
                        reply,
                        &format!("Enter TEXT message.  End with the character '{delimiter}'."),
                    );
                }
                let lines = if body.is_empty() { Vec::new() } else { vec![body] };
                self.stage = Stage::Text {
                    head: format!("{} {delimiter}", head.join(" ")).trim_end_matches(" EOF").to_owned(),
                    delimiter,
                    lines,
                };
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
            self.events.push((
                Kind::Rejected,
                persona.spec.commands[number].patterns.first().cloned().unwrap_or_default(),
            ));
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

    /// An answer to a question.
    pub(crate) fn answer(
        &mut self,
        text: &str,
        number: usize,
        at: usize,
        args: Vec<(String, String)>,
        tries: u32,
        reply: &mut Reply,
    ) {
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
        let answer = ask
            .answers
            .iter()
            .find(|a| persona.answers.get(&a.pattern).is_some_and(|r| r.is_match(text.trim())));
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
        mode.entries
            .iter()
            .filter_map(|(p, _)| p.next_word(&before, partial, self.persona.spec.editor.abbreviate))
            .collect()
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
