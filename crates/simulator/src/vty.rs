//! One terminal line: bytes in, bytes out. The line editor, the login dialogue, questions and the pager.
//!
//! No I/O here: [`Vty::feed`] turns received bytes into [`Op`]s that `ssh` and `telnet` carry out. What a line
//! means is decided in `exec`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::config::Config;
use crate::device::{ConnGuard, Device};
use crate::fault::Faults;
use crate::journal::Kind;
use crate::persona::Persona;
use crate::shell::Shell;

/// What is to be done to the connection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op {
    /// Send.
    Out(Vec<u8>),
    /// Send on the error stream.
    Err(Vec<u8>),
    /// Do nothing for a while.
    Wait(Duration),
    /// Send rows: first number, how many, text.
    Rows(u64, String),
    /// Send without end.
    Flood,
    /// Never do anything again.
    Hang,
    /// End the session in order, with this status.
    Exit(u32),
    /// End the connection without a word.
    Cut,
}

impl Op {
    /// True for what cannot be done on the spot.
    pub(crate) fn timed(&self) -> bool {
        matches!(self, Op::Wait(_) | Op::Rows(..) | Op::Flood | Op::Hang)
    }
}

/// The answer to what was received, in order.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) ops: Vec<Op>,
}

impl Reply {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if let Some(Op::Out(last)) = self.ops.last_mut() {
            last.extend_from_slice(bytes);
        } else {
            self.ops.push(Op::Out(bytes.to_vec()));
        }
    }

    pub(crate) fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    fn ends(&self) -> bool {
        matches!(self.ops.last(), Some(Op::Exit(_) | Op::Cut | Op::Hang | Op::Flood))
    }
}

/// One level of the mode stack; `seg` is the section line that opened it.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) mode: usize,
    pub(crate) seg: Option<String>,
}

#[derive(Debug)]
pub(crate) enum Stage {
    /// Telnet asks who.
    User,
    /// Telnet asks for the password.
    Password,
    /// A key is waited for.
    Pause,
    /// At the prompt.
    Ready,
    /// A question of command `command` is open.
    Ask { command: usize, at: usize, args: Vec<(String, String)>, tries: u32 },
    /// The pager waits for a key.
    More { rest: Vec<String>, at: usize },
    /// Free text until the delimiter (banners).
    Text { head: String, delimiter: String, lines: Vec<String> },
}

/// One terminal line of one connection.
pub(crate) struct Vty {
    pub(crate) guard: Arc<ConnGuard>,
    pub(crate) device: Arc<Device>,
    pub(crate) persona: Arc<Persona>,
    pub(crate) user: String,
    pub(crate) stack: Vec<Frame>,
    line: Vec<u8>,
    after_cr: bool,
    escape: u8,
    pub(crate) stage: Stage,
    pub(crate) length: usize,
    pub(crate) width: usize,
    pub(crate) vars: HashMap<String, String>,
    pub(crate) pty: bool,
    pub(crate) private: Option<Arc<Config>>,
    pub(crate) lines: u64,
    pub(crate) count: u64,
    failures: u32,
    rng: SmallRng,
    pub(crate) shell: Option<Box<Shell>>,
    /// Journal entries of the line being carried out, written after the line itself.
    pub(crate) events: Vec<(Kind, String)>,
    /// The line being carried out, for error replies.
    pub(crate) last_line: String,
}

impl Drop for Vty {
    fn drop(&mut self) {
        if !self.line.is_empty() && !self.hidden() {
            *self.guard.partial.lock() = String::from_utf8_lossy(&self.line).into_owned();
        }
    }
}

impl Vty {
    pub(crate) fn new(guard: Arc<ConnGuard>, user: &str, pty: bool) -> Vty {
        let device = guard.device.clone();
        let persona = device.persona.clone();
        let seed = device.faults().seed ^ (u64::from(device.index) << 32) ^ guard.number;
        let start = device.access.start.as_deref().and_then(|m| persona.mode(m)).unwrap_or(persona.start);
        // A real device goes through the lower mode to reach the higher one; `exit` and `disable` need it below.
        let mut stack = vec![Frame { mode: persona.start, seg: None }];
        if start != persona.start {
            stack.push(Frame { mode: start, seg: None });
        }
        let shell = persona.spec.shell.then(|| Box::new(Shell::new(user, &device)));
        Vty {
            length: persona.spec.pager.length,
            stack,
            user: user.to_owned(),
            line: Vec::new(),
            after_cr: false,
            escape: 0,
            stage: Stage::Ready,
            width: 80,
            vars: HashMap::new(),
            pty,
            private: None,
            lines: 0,
            count: 0,
            failures: 0,
            rng: SmallRng::seed_from_u64(seed),
            shell,
            events: Vec::new(),
            last_line: String::new(),
            guard,
            device,
            persona,
        }
    }

    /// Environment variables that the client asked for.
    pub(crate) fn environment(&mut self, env: &[(String, String)]) {
        if let Some(shell) = self.shell.as_mut() {
            for (name, value) in env {
                shell.setenv(name, value);
            }
        }
    }

    pub(crate) fn faults(&self) -> Option<Arc<Faults>> {
        self.device.faulty().then(|| self.device.faults())
    }

    pub(crate) fn log(&self, kind: Kind, line: &str, before: &str, after: &str) {
        self.device.journal.add(self.device.index, self.guard.number, kind, line, before, after);
    }

    pub(crate) fn mode_name(&self) -> &str {
        self.stack.last().and_then(|f| self.persona.modes.get(f.mode)).map_or("", |m| m.name.as_str())
    }

    /// The line ending that this session sends.
    pub(crate) fn newline(&self) -> &'static str {
        if self.persona.spec.shell && !self.pty { "\n" } else { "\r\n" }
    }

    /// Text with the session's line endings.
    pub(crate) fn say(&self, reply: &mut Reply, text: &str) {
        if self.newline() == "\n" {
            return reply.bytes(text.as_bytes());
        }
        let mut first = true;
        for line in text.split('\n') {
            if !first {
                reply.bytes(b"\r\n");
            }
            reply.bytes(line.as_bytes());
            first = false;
        }
    }

    /// Text, ended by a line ending if it has none.
    pub(crate) fn say_line(&self, reply: &mut Reply, text: &str) {
        if !text.is_empty() {
            self.say(reply, text);
            if !text.ends_with('\n') {
                reply.bytes(self.newline().as_bytes());
            }
        }
    }

    /// What a client meets first: over SSH the message of the day, over Telnet the questions.
    pub(crate) fn open(&mut self, authenticated: bool, reply: &mut Reply) {
        let login = &self.persona.clone().spec.login;
        if !authenticated {
            self.stage = Stage::User;
            self.say(reply, &self.fill(&login.greeting));
            self.say(reply, &self.fill(&login.username));
            return;
        }
        self.welcome(reply);
    }

    fn welcome(&mut self, reply: &mut Reply) {
        let login = &self.persona.clone().spec.login;
        if let Some(faults) = self.faults()
            && faults.slow_login_ms > 0
        {
            reply.push(Op::Wait(Duration::from_millis(faults.slow_login_ms)));
        }
        self.say(reply, &self.fill(&login.motd));
        if login.pause.is_empty() {
            self.stage = Stage::Ready;
            self.prompt(reply);
        } else {
            self.stage = Stage::Pause;
            self.say(reply, &self.fill(&login.pause));
        }
    }

    /// The prompt as it stands now.
    pub(crate) fn prompt_text(&self) -> String {
        if let Some(faults) = self.faults()
            && !faults.wrong_prompt.is_empty()
            && self.lines >= faults.wrong_prompt_after
        {
            return faults.wrong_prompt.clone();
        }
        let prompt = self
            .stack
            .last()
            .and_then(|f| self.persona.modes.get(f.mode))
            .map_or("", |m| m.spec.prompt.as_str());
        self.fill(prompt)
    }

    pub(crate) fn prompt(&mut self, reply: &mut Reply) {
        if reply.ends() {
            return;
        }
        self.count += 1;
        let prompt = self.prompt_text();
        if let Some(faults) = self.faults() {
            if faults.junk_every > 0
                && self.lines > 0
                && self.lines.is_multiple_of(u64::from(faults.junk_every))
            {
                let text = if faults.junk_text.is_empty() {
                    self.device.syslog_text()
                } else {
                    faults.junk_text.clone()
                };
                self.say(reply, &format!("\n{text}\n"));
            }
            if faults.junk_bytes {
                let mut junk = vec![0u8, 0xff, 0xfe, 0x80, 0xc3];
                junk.extend((0..4).map(|_| self.rng.random_range(0x80u8..=0xfe)));
                reply.bytes(&junk);
                reply.bytes(b"\r\n");
            }
        }
        self.say(reply, &prompt);
    }

    /// True when what is typed does not come back.
    fn hidden(&self) -> bool {
        match &self.stage {
            Stage::Password => true,
            Stage::Ask { command, at, .. } => self
                .persona
                .spec
                .commands
                .get(*command)
                .and_then(|c| c.ask.get(*at))
                .is_some_and(|a| a.hidden),
            _ => false,
        }
    }

    /// Takes received bytes; returns how many were used. Bytes after something that takes time are left over,
    /// because a device that is busy does not echo.
    pub(crate) fn feed(&mut self, input: &[u8], reply: &mut Reply) -> usize {
        let faults = self.faults();
        let mut at = 0;
        while at < input.len() {
            let run = self.printable(&input[at..]);
            if run > 0 && faults.is_none() {
                self.line.extend_from_slice(&input[at..at + run]);
                if self.pty_echo(None) {
                    reply.bytes(&input[at..at + run]);
                }
                at += run;
                self.after_cr = false;
            } else {
                self.byte(input[at], faults.as_deref(), reply);
                at += 1;
            }
            if reply.ops.iter().any(Op::timed) || reply.ends() {
                break;
            }
            if self.line.len() > 65_536 {
                // No device takes a line like this; what came so far is dropped with a bell.
                self.line.clear();
                reply.bytes(b"\x07");
            }
        }
        at
    }

    /// Length of the run of plain characters at the start, for the quick way.
    fn printable(&self, input: &[u8]) -> usize {
        if self.escape != 0
            || matches!(self.stage, Stage::More { .. } | Stage::Pause)
            || self.key_ask()
            || self.persona.spec.editor.complete_on_space
        {
            return 0;
        }
        let help = self.persona.spec.editor.help && matches!(self.stage, Stage::Ready);
        input.iter().take_while(|b| (**b >= 0x20 && **b != 0x7f) && !(help && **b == b'?')).count()
    }

    fn key_ask(&self) -> bool {
        matches!(&self.stage, Stage::Ask { command, at, .. } if self.persona.spec.commands.get(*command).and_then(|c| c.ask.get(*at)).is_some_and(|a| a.key))
    }

    fn pty_echo(&self, faults: Option<&Faults>) -> bool {
        (self.pty || !self.persona.spec.shell) && !self.hidden() && faults.is_none_or(|f| !f.echo_off)
    }

    fn byte(&mut self, b: u8, faults: Option<&Faults>, reply: &mut Reply) {
        let was_cr = std::mem::replace(&mut self.after_cr, b == b'\r');
        if was_cr && (b == b'\n' || b == 0) {
            return;
        }
        if self.escape > 0 {
            // ESC [ ... letter, ESC O letter, ESC letter: cursor keys and the like do nothing.
            self.escape = match (self.escape, b) {
                (1, b'[' | b'O') => 2,
                (2, 0x40..=0x7e) | (1, _) => 0,
                (state, _) => state,
            };
            return;
        }
        if matches!(self.stage, Stage::More { .. }) {
            return self.page_key(b, faults, reply);
        }
        if matches!(self.stage, Stage::Pause) {
            let login = &self.persona.clone().spec.login;
            self.log(Kind::Key, &format!("{:?}", char::from(b)), self.mode_name(), self.mode_name());
            if login.pause_keys.is_empty() || login.pause_keys.bytes().any(|k| k == b) {
                self.say(reply, &self.fill(&login.pause_after));
                self.stage = Stage::Ready;
                self.prompt(reply);
            }
            return;
        }
        if self.key_ask() && b >= 0x20 {
            if self.pty_echo(faults) {
                reply.bytes(&[b]);
            }
            self.line = vec![b];
            return self.submit(reply);
        }
        match b {
            b'\r' | b'\n' => self.submit(reply),
            0x7f | 0x08 => {
                // A whole UTF-8 character goes at once.
                let mut gone = false;
                while let Some(last) = self.line.pop() {
                    gone = true;
                    if last & 0xc0 != 0x80 {
                        break;
                    }
                }
                if gone && self.pty_echo(faults) {
                    reply.bytes(b"\x08 \x08");
                }
            }
            0x03 => self.interrupt(reply),
            0x04 if self.line.is_empty() && self.persona.spec.shell => {
                self.log(Kind::Key, "^D", self.mode_name(), "");
                self.say(reply, "logout\n");
                reply.push(Op::Exit(0));
            }
            0x15 | 0x18 => {
                let n = String::from_utf8_lossy(&self.line).chars().count();
                self.line.clear();
                if self.pty_echo(faults) {
                    reply.bytes("\u{8} \u{8}".repeat(n).as_bytes());
                }
            }
            0x17 => {
                let keep = self.line.trim_ascii_end().iter().rposition(|b| *b == b' ').map_or(0, |p| p + 1);
                let n = self.line.len() - keep;
                self.line.truncate(keep);
                if self.pty_echo(faults) {
                    reply.bytes("\u{8} \u{8}".repeat(n).as_bytes());
                }
            }
            0x1a if self.persona.spec.editor.ctrl_z && matches!(self.stage, Stage::Ready) => {
                let before = self.mode_name().to_owned();
                self.line.clear();
                reply.bytes(b"^Z\r\n");
                self.leave_config();
                self.log(Kind::Line, "^Z", &before, self.mode_name());
                self.prompt(reply);
            }
            0x1b => self.escape = 1,
            0x12 => {
                reply.bytes(b"\r\n");
                let prompt = self.prompt_text();
                self.say(reply, &prompt);
                let line = self.line.clone();
                reply.bytes(&line);
            }
            b'?' if self.persona.spec.editor.help && matches!(self.stage, Stage::Ready) => self.help(reply),
            b' ' if self.persona.spec.editor.complete_on_space
                && matches!(self.stage, Stage::Ready)
                && self.complete_on() =>
            {
                let more = self.completion();
                self.line.extend_from_slice(more.as_bytes());
                self.line.push(b' ');
                if self.pty_echo(faults) {
                    reply.bytes(more.as_bytes());
                    reply.bytes(b" ");
                }
            }
            b'\t' if matches!(self.stage, Stage::Ready) && !self.persona.spec.shell => {
                let more = self.completion();
                if more.is_empty() {
                    reply.bytes(b"\x07");
                } else {
                    self.line.extend_from_slice(more.as_bytes());
                    self.line.push(b' ');
                    reply.bytes(more.as_bytes());
                    reply.bytes(b" ");
                }
            }
            0x00..=0x1f => {}
            _ => {
                self.line.push(b);
                if self.pty_echo(faults) {
                    if let Some(faults) = faults
                        && faults.slow_echo_ms > 0
                    {
                        reply.push(Op::Wait(Duration::from_millis(faults.slow_echo_ms)));
                    }
                    reply.bytes(&[b]);
                }
            }
        }
        if let Some(faults) = faults
            && faults.drop_mid_line > 0
            && self.line.len() >= faults.drop_mid_line
            && matches!(self.stage, Stage::Ready)
            && self.device.may_drop(faults)
        {
            self.log(Kind::Fault, "drop_mid_line", self.mode_name(), self.mode_name());
            reply.push(Op::Cut);
        }
    }

    fn complete_on(&self) -> bool {
        self.vars.get("complete").is_none_or(|v| v != "off")
    }

    /// The line typed so far.
    pub(crate) fn typed(&self) -> String {
        String::from_utf8_lossy(&self.line).into_owned()
    }

    fn interrupt(&mut self, reply: &mut Reply) {
        self.line.clear();
        let before = self.mode_name().to_owned();
        match &self.stage {
            Stage::User | Stage::Password => reply.push(Op::Cut),
            _ => {
                let text = if self.persona.spec.shell { "^C\n" } else { "\n" };
                self.stage = Stage::Ready;
                self.say(reply, text);
                // Ctrl-C in a configuration mode of an IOS-like device leaves it as Ctrl-Z does.
                if self.persona.spec.editor.ctrl_z {
                    self.leave_config();
                }
                self.log(Kind::Key, "^C", &before, self.mode_name());
                self.prompt(reply);
            }
        }
    }

    fn submit(&mut self, reply: &mut Reply) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line).into_owned();
        let echo = self.pty || !self.persona.spec.shell;
        if echo {
            let enter = self.persona.spec.editor.enter.clone();
            reply.bytes(enter.as_bytes());
        }
        match std::mem::replace(&mut self.stage, Stage::Ready) {
            Stage::User => {
                self.user = self.device.plain_user(text.trim()).to_owned();
                self.stage = Stage::Password;
                self.say(reply, &self.fill(&self.persona.spec.login.password));
            }
            Stage::Password => self.password(&text, reply),
            Stage::Ready => self.command(&text, reply),
            Stage::Ask { command, at, args, tries } => self.answer(&text, command, at, args, tries, reply),
            Stage::Text { head, delimiter, lines } => self.text(text, head, delimiter, lines, reply),
            stage @ (Stage::Pause | Stage::More { .. }) => self.stage = stage,
        }
    }

    fn password(&mut self, given: &str, reply: &mut Reply) {
        let faults = self.faults();
        let refuse = faults.as_ref().is_some_and(|f| f.refuse_login);
        if let Some(f) = &faults
            && f.slow_login_ms > 0
        {
            reply.push(Op::Wait(Duration::from_millis(f.slow_login_ms)));
        }
        let good = self.device.access.users.get(&self.user).is_some_and(|p| p == given);
        if good && !refuse {
            self.log(Kind::Login, &self.user, "", self.mode_name());
            if let Some(shell) = self.shell.as_mut() {
                **shell = Shell::new(&self.user, &self.device);
            }
            return self.welcome(reply);
        }
        self.log(Kind::LoginFailed, &self.user, "", "");
        self.failures += 1;
        let login = &self.persona.clone().spec.login;
        self.say(reply, &self.fill(&login.failed));
        if self.failures >= 3 {
            reply.push(Op::Exit(1));
        } else {
            self.stage = Stage::User;
            self.say(reply, &self.fill(&login.username));
        }
    }

    fn text(
        &mut self,
        line: String,
        head: String,
        delimiter: String,
        mut lines: Vec<String>,
        reply: &mut Reply,
    ) {
        self.log(Kind::Line, &line, self.mode_name(), self.mode_name());
        self.lines += 1;
        if let Some(at) = line.find(&delimiter) {
            if at > 0 {
                lines.push(line[..at].to_owned());
            }
            let whole = format!("{head}\n{}\n{delimiter}", lines.join("\n"));
            let path = self.path();
            self.apply_line(&path, &whole);
            self.prompt(reply);
        } else {
            lines.push(line);
            self.stage = Stage::Text { head, delimiter, lines };
        }
    }

    /// Sends lines through the pager, then the prompt.
    pub(crate) fn page(&mut self, text: &str, paged: bool, reply: &mut Reply) {
        let stuck = paged && self.faults().is_some_and(|f| f.stuck_pager);
        let count = text.trim_end_matches('\n').split('\n').count();
        if text.is_empty() || !(stuck || paged && self.pty && self.length > 0 && count >= self.length) {
            self.say_line(reply, text);
            return self.prompt(reply);
        }
        let rest: Vec<String> = text.trim_end_matches('\n').split('\n').map(str::to_owned).collect();
        let page = if self.length == 0 { 20 } else { self.length.saturating_sub(1).max(1) };
        self.stage = Stage::More { rest, at: 0 };
        self.page_on(page, reply);
    }

    fn page_on(&mut self, by: usize, reply: &mut Reply) {
        let Stage::More { rest, at } = std::mem::replace(&mut self.stage, Stage::Ready) else { return };
        let stuck = self.faults().is_some_and(|f| f.stuck_pager);
        let end = at.saturating_add(by).min(rest.len());
        for line in &rest[at..end] {
            self.say(reply, line);
            self.say(reply, "\n");
        }
        if end < rest.len() || stuck {
            let percent = end * 100 / rest.len().max(1);
            let prompt = self
                .persona
                .spec
                .pager
                .prompt
                .replace("{percent}", &percent.to_string())
                .replace("{at}", &end.to_string());
            reply.bytes(prompt.as_bytes());
            self.stage = Stage::More { rest, at: end };
        } else {
            self.prompt(reply);
        }
    }

    fn page_key(&mut self, b: u8, faults: Option<&Faults>, reply: &mut Reply) {
        let pager = &self.persona.clone().spec.pager;
        self.log(Kind::Key, &format!("{:?}", char::from(b)), self.mode_name(), self.mode_name());
        if faults.is_some_and(|f| f.stuck_pager) {
            reply.bytes(pager.erase.as_bytes());
            reply.bytes(pager.prompt.as_bytes());
            return;
        }
        if pager.quit.bytes().any(|q| q == b) {
            reply.bytes(pager.erase.as_bytes());
            self.stage = Stage::Ready;
            self.prompt(reply);
            return;
        }
        if pager.dump.bytes().any(|d| d == b) {
            reply.bytes(pager.erase.as_bytes());
            self.page_on(usize::MAX, reply);
            return;
        }
        match b {
            b' ' | b'f' => {
                reply.bytes(pager.erase.as_bytes());
                self.page_on(self.length.saturating_sub(1).max(1), reply);
            }
            b'\r' | b'\n' => {
                reply.bytes(pager.erase.as_bytes());
                self.page_on(1, reply);
            }
            _ => {}
        }
    }

    /// One command over an exec channel: no echo, no prompt, no pager.
    pub(crate) fn exec(&mut self, command: &str, reply: &mut Reply) {
        self.pty = false;
        self.length = 0;
        let faults = self.faults();
        let mut out = Reply::default();
        let status = self.run_exec(command, &mut out);
        if let Some(f) = &faults {
            let has = |text: &str| !text.is_empty() && command.contains(text);
            if has(&f.drop_before) || has(&f.drop_after) {
                reply.push(Op::Cut);
                return;
            }
            if has(&f.hang_on) {
                return reply.push(Op::Hang);
            }
            if has(&f.flood_on) {
                return reply.push(Op::Flood);
            }
            if f.latency_ms + f.jitter_ms > 0 {
                reply.push(Op::Wait(self.latency(f)));
            }
        }
        reply.ops.append(&mut out.ops);
        if !reply.ends() {
            reply.push(Op::Exit(status));
        }
    }

    pub(crate) fn latency(&mut self, faults: &Faults) -> Duration {
        let jitter = if faults.jitter_ms > 0 { self.rng.random_range(0..=faults.jitter_ms) } else { 0 };
        Duration::from_millis(faults.latency_ms + jitter)
    }
}
