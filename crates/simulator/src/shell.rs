//! A small POSIX shell for the Linux persona: exit statuses, both streams, a file system in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::device::Device;

/// What one line did.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: u32,
    pub(crate) exit: bool,
    pub(crate) wait: Option<Duration>,
}

/// One shell session.
pub(crate) struct Shell {
    device: Arc<Device>,
    pub(crate) user: String,
    cwd: String,
    home: String,
    env: HashMap<String, String>,
    files: BTreeMap<String, String>,
    last: u32,
}

impl Shell {
    pub(crate) fn new(user: &str, device: &Arc<Device>) -> Shell {
        let home = if user == "root" { "/root".to_owned() } else { format!("/home/{user}") };
        let mut env = HashMap::new();
        for (k, v) in [
            ("HOME", home.as_str()),
            ("USER", user),
            ("SHELL", "/bin/bash"),
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("LANG", "C.UTF-8"),
        ] {
            env.insert(k.to_owned(), v.to_owned());
        }
        let mut files = BTreeMap::new();
        files.insert("/etc/hostname".to_owned(), format!("{}\n", device.hostname()));
        files.insert(
            "/etc/os-release".to_owned(),
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n".to_owned(),
        );
        files.insert(
            "/etc/passwd".to_owned(),
            format!("root:x:0:0:root:/root:/bin/bash\n{user}:x:1000:1000::{home}:/bin/bash\n"),
        );
        files.insert(format!("{home}/notes.txt"), "simulated\n".to_owned());
        Shell { device: device.clone(), user: user.to_owned(), cwd: home.clone(), home, env, files, last: 0 }
    }

    pub(crate) fn root(&self) -> bool {
        self.user == "root"
    }

    /// The directory as prompts show it.
    pub(crate) fn shown_cwd(&self) -> String {
        match self.cwd.strip_prefix(&self.home) {
            Some(rest) => format!("~{rest}"),
            None => self.cwd.clone(),
        }
    }

    pub(crate) fn setenv(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    /// Runs a line: `;`, `&&`, `||`, pipes to nothing but `grep`, `wc`, `head`, redirections, quotes, variables.
    pub(crate) fn run(&mut self, line: &str) -> Outcome {
        let mut all = Outcome::default();
        let mut go = true;
        for (joint, part) in split_joints(line) {
            go = match joint {
                "&&" => go && self.last == 0,
                "||" => self.last != 0,
                _ => true,
            };
            if !go {
                continue;
            }
            let mut input = String::new();
            let stages = split_top(&part, "|");
            let count = stages.len();
            for (at, stage) in stages.into_iter().enumerate() {
                let out = self.simple(&stage, &input);
                self.last = out.status;
                all.stderr.push_str(&out.stderr);
                if let Some(wait) = out.wait {
                    all.wait = Some(all.wait.unwrap_or_default() + wait);
                }
                all.exit |= out.exit;
                if at + 1 == count {
                    all.stdout.push_str(&out.stdout);
                } else {
                    input = out.stdout;
                }
            }
            if all.exit {
                break;
            }
        }
        all.status = self.last;
        all
    }

    fn path(&self, name: &str) -> String {
        let full = if let Some(rest) = name.strip_prefix('~') {
            format!("{}{rest}", self.home)
        } else if name.starts_with('/') {
            name.to_owned()
        } else {
            format!("{}/{name}", self.cwd)
        };
        let mut parts: Vec<&str> = Vec::new();
        for part in full.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        format!("/{}", parts.join("/"))
    }

    fn is_dir(&self, path: &str) -> bool {
        let below = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        path == self.home
            || matches!(path, "/" | "/tmp" | "/etc" | "/var" | "/usr" | "/home")
            || self.files.keys().any(|f| f.starts_with(&below))
    }

    fn simple(&mut self, text: &str, input: &str) -> Outcome {
        let mut words = match self.expand(text) {
            Ok(words) => words,
            Err(why) => return fail(2, format!("bash: {why}\n")),
        };
        // Redirections.
        let (mut to, mut append, mut errors_to_out, mut errors_to_null) = (None, false, false, false);
        let mut kept = Vec::new();
        let mut iter = words.drain(..).peekable();
        while let Some(word) = iter.next() {
            match word.as_str() {
                ">" | ">>" | "1>" | "1>>" => {
                    append = word.ends_with(">>");
                    to = iter.next();
                }
                "2>&1" => errors_to_out = true,
                "2>" => {
                    errors_to_null = true;
                    iter.next();
                }
                "2>/dev/null" => errors_to_null = true,
                "<" => {
                    iter.next();
                }
                _ => match word.strip_prefix('1').unwrap_or(&word).strip_prefix('>') {
                    Some(file) => {
                        append = file.starts_with('>');
                        to = Some(file.trim_start_matches('>').to_owned());
                    }
                    None => kept.push(word),
                },
            }
        }
        drop(iter);
        while let Some((name, value)) = kept.first().and_then(|w| w.split_once('=')).filter(|(n, _)| {
            n.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
                && n.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        }) {
            self.env.insert(name.to_owned(), value.to_owned());
            kept.remove(0);
        }
        let mut out = if kept.is_empty() { Outcome::default() } else { self.builtin(&kept, input) };
        if errors_to_out {
            let errors = std::mem::take(&mut out.stderr);
            out.stdout.push_str(&errors);
        }
        if errors_to_null {
            out.stderr.clear();
        }
        if let Some(to) = to {
            let text = std::mem::take(&mut out.stdout);
            if to != "/dev/null" {
                let path = self.path(&to);
                if path.starts_with("/etc/") && !self.root() {
                    return fail(1, format!("bash: {to}: Permission denied\n"));
                }
                let file = self.files.entry(path).or_default();
                if !append {
                    file.clear();
                }
                file.push_str(&text);
            }
        }
        out
    }

    fn builtin(&mut self, words: &[String], input: &str) -> Outcome {
        let args = &words[1..];
        let plain: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
        match words[0].as_str() {
            "echo" => {
                let (flag, rest) =
                    if args.first().is_some_and(|a| a == "-n") { (true, &args[1..]) } else { (false, args) };
                ok(rest.join(" ") + if flag { "" } else { "\n" })
            }
            "printf" => ok(args.join(" ").replace("\\n", "\n")),
            "true" | ":" => ok(String::new()),
            "false" => fail(1, String::new()),
            "exit" | "logout" => Outcome {
                exit: true,
                status: args.first().and_then(|a| a.parse().ok()).unwrap_or(self.last),
                ..Outcome::default()
            },
            "pwd" => ok(format!("{}\n", self.cwd)),
            "cd" => {
                let to = args.first().map_or(self.home.clone(), |a| self.path(a));
                if self.is_dir(&to) {
                    self.cwd = to;
                    ok(String::new())
                } else {
                    fail(
                        1,
                        format!(
                            "bash: cd: {}: No such file or directory\n",
                            args.first().map_or("", String::as_str)
                        ),
                    )
                }
            }
            "hostname" => ok(format!("{}\n", self.device.hostname())),
            "whoami" => ok(format!("{}\n", self.user)),
            "id" => ok(if self.root() {
                "uid=0(root) gid=0(root) groups=0(root)\n".into()
            } else {
                format!("uid=1000({0}) gid=1000({0}) groups=1000({0}),27(sudo)\n", self.user)
            }),
            "uname" => ok(if args.iter().any(|a| a == "-a") {
                format!(
                    "Linux {} 6.1.0-28-amd64 #1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 x86_64 GNU/Linux\n",
                    self.device.hostname()
                )
            } else if args.iter().any(|a| a == "-r") {
                "6.1.0-28-amd64\n".into()
            } else {
                "Linux\n".into()
            }),
            "date" => ok(chrono::Utc::now().format("%a %b %e %H:%M:%S UTC %Y\n").to_string()),
            "uptime" => ok(" 12:00:01 up 17 days,  3:12,  1 user,  load average: 0.00, 0.01, 0.05\n".into()),
            "env" | "printenv" => {
                if let Some(name) = plain.first() {
                    return self
                        .env
                        .get(*name)
                        .map_or_else(|| fail(1, String::new()), |v| ok(format!("{v}\n")));
                }
                let mut lines: Vec<String> = self.env.iter().map(|(k, v)| format!("{k}={v}\n")).collect();
                lines.sort();
                ok(lines.concat())
            }
            "export" => {
                for (name, value) in args.iter().filter_map(|a| a.split_once('=')) {
                    self.env.insert(name.to_owned(), value.to_owned());
                }
                ok(String::new())
            }
            "unset" => {
                args.iter().for_each(|a| {
                    self.env.remove(a);
                });
                ok(String::new())
            }
            "cat" if plain.is_empty() => ok(input.to_owned()),
            "cat" => {
                let mut out = Outcome::default();
                for name in plain {
                    match self.files.get(&self.path(name)) {
                        Some(text) => out.stdout.push_str(text),
                        None => {
                            out.stderr.push_str(&format!("cat: {name}: No such file or directory\n"));
                            out.status = 1;
                        }
                    }
                }
                out
            }
            "ls" => {
                let dir = plain.first().map_or(self.cwd.clone(), |p| self.path(p));
                if self.files.contains_key(&dir) {
                    return ok(format!("{}\n", plain[0]));
                }
                if !self.is_dir(&dir) {
                    return fail(
                        2,
                        format!(
                            "ls: cannot access '{}': No such file or directory\n",
                            plain.first().map_or("", |p| p.as_str())
                        ),
                    );
                }
                let below = if dir == "/" { dir } else { format!("{dir}/") };
                let mut names: Vec<String> = self
                    .files
                    .keys()
                    .filter_map(|f| f.strip_prefix(&below))
                    .map(|f| f.split('/').next().unwrap_or(f).to_owned())
                    .collect();
                names.dedup();
                ok(names.iter().map(|n| format!("{n}\n")).collect())
            }
            "touch" => {
                for name in plain {
                    let path = self.path(name);
                    self.files.entry(path).or_default();
                }
                ok(String::new())
            }
            "mkdir" => {
                for name in plain {
                    let path = self.path(name);
                    self.files.entry(format!("{path}/.keep")).or_default();
                }
                ok(String::new())
            }
            "rm" => {
                for name in plain {
                    let path = self.path(name);
                    if self.files.remove(&path).is_none() && !args.iter().any(|a| a.contains('f')) {
                        return fail(1, format!("rm: cannot remove '{name}': No such file or directory\n"));
                    }
                }
                ok(String::new())
            }
            "grep" => {
                let Some(what) = plain.first() else { return fail(2, "usage: grep PATTERN [FILE]\n".into()) };
                let text =
                    plain.get(1).map_or(Some(input.to_owned()), |f| self.files.get(&self.path(f)).cloned());
                let Some(text) = text else {
                    return fail(2, format!("grep: {}: No such file or directory\n", plain[1]));
                };
                let hits: String =
                    text.lines().filter(|l| l.contains(what.as_str())).map(|l| format!("{l}\n")).collect();
                let status = u32::from(hits.is_empty());
                Outcome { stdout: hits, status, ..Outcome::default() }
            }
            "head" => ok(input
                .lines()
                .take(args.last().and_then(|n| n.trim_start_matches('-').parse().ok()).unwrap_or(10))
                .map(|l| format!("{l}\n"))
                .collect()),
            "wc" => ok(format!("{}\n", input.lines().count())),
            "seq" => {
                let n: u64 = args.last().and_then(|a| a.parse().ok()).unwrap_or(0).min(1_000_000);
                ok((1..=n).map(|i| format!("{i}\n")).collect())
            }
            "sleep" => match args.first().and_then(|a| a.parse::<f64>().ok()) {
                Some(s) => Outcome {
                    wait: Some(Duration::from_secs_f64(s.clamp(0.0, 3_600.0))),
                    ..Outcome::default()
                },
                None => fail(1, "sleep: missing operand\n".into()),
            },
            "test" | "[" => {
                let good = match (args.first().map(String::as_str), args.get(1)) {
                    (Some("-f"), Some(f)) => self.files.contains_key(&self.path(f)),
                    (Some("-d"), Some(f)) => self.is_dir(&self.path(f)),
                    (Some(a), Some(op)) if op == "=" => args.get(2).is_some_and(|b| a == b),
                    _ => false,
                };
                if good { ok(String::new()) } else { fail(1, String::new()) }
            }
            "sh" | "bash" if args.first().is_some_and(|a| a == "-c") => match args.get(1) {
                Some(line) => {
                    let mut out = self.run(&line.clone());
                    out.exit = false;
                    out
                }
                None => fail(2, "bash: -c: option requires an argument\n".into()),
            },
            "stty" | "clear" | "reset" | "set" | "umask" | "alias" => ok(String::new()),
            "err" => fail(3, format!("{}\n", args.join(" "))),
            name => fail(127, format!("bash: {name}: command not found\n")),
        }
    }

    /// Words with quotes taken off and variables put in.
    fn expand(&self, text: &str) -> Result<Vec<String>, String> {
        let mut out = Vec::new();
        let mut word = String::new();
        let mut any = false;
        let mut chars = text.trim().chars().peekable();
        let mut quote = None;
        while let Some(c) = chars.next() {
            match (quote, c) {
                (Some(q), c) if c == q => quote = None,
                (None, '\'' | '"') => {
                    quote = Some(c);
                    any = true;
                }
                (Some('\''), c) => word.push(c),
                (_, '\\') => word.extend(chars.next()),
                (_, '$') => {
                    let braces = chars.next_if_eq(&'{').is_some();
                    let mut name = String::new();
                    if chars.next_if_eq(&'?').is_some() {
                        name.push('?');
                    }
                    while let Some(c) =
                        chars.next_if(|c| name != "?" && (c.is_ascii_alphanumeric() || *c == '_'))
                    {
                        name.push(c);
                    }
                    if braces {
                        chars.next_if_eq(&'}');
                    }
                    match name.as_str() {
                        "?" => word.push_str(&self.last.to_string()),
                        "" => word.push('$'),
                        name => word.push_str(self.env.get(name).map_or("", String::as_str)),
                    }
                }
                (None, c) if c.is_whitespace() => {
                    if any || !word.is_empty() {
                        out.push(std::mem::take(&mut word));
                    }
                    any = false;
                }
                (_, c) => word.push(c),
            }
        }
        if quote.is_some() {
            return Err("unexpected EOF while looking for matching quote".into());
        }
        if any || !word.is_empty() {
            out.push(word);
        }
        Ok(out)
    }
}

fn ok(stdout: String) -> Outcome {
    Outcome { stdout, ..Outcome::default() }
}

fn fail(status: u32, stderr: String) -> Outcome {
    Outcome { stderr, status, ..Outcome::default() }
}

/// Splits at `separator` outside of quotes.
fn split_top(text: &str, separator: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if separator.contains(c) => {
                out.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = out.last_mut() {
            last.push(c);
        }
    }
    out
}

/// Splits at `;`, `&&` and `||` outside of quotes; each part comes with what stands before it.
fn split_joints(text: &str) -> Vec<(&'static str, String)> {
    let mut out: Vec<(&'static str, String)> = vec![(";", String::new())];
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, ';') => {
                out.push((";", String::new()));
                continue;
            }
            (None, '&') if chars.peek() == Some(&'&') => {
                chars.next();
                out.push(("&&", String::new()));
                continue;
            }
            (None, '|') if chars.peek() == Some(&'|') => {
                chars.next();
                out.push(("||", String::new()));
                continue;
            }
            _ => {}
        }
        if let Some((_, last)) = out.last_mut() {
            last.push(c);
        }
    }
    out.retain(|(_, p)| !p.trim().is_empty());
    out
}
