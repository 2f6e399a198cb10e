//! The names that texts know, and the pipes that filter them.
//!
//! `{hostname} {user} {path} {sp_path} {seg_path} {seg_first} {seg_last} {seg_arg} {seg_dash} {seg_tight} {seg_short} {mark} {count}
//! {index} {address} {serial} {uptime} {uptime_s} {date} {running_config} {running_set} {startup_config} {candidate_config}
//! {candidate_set} {here_config} {here_set} {diff} {config_bytes} {length} {width} {line} {caret} {table}`, the arguments of the
//! command, the persona's own `texts` and the session's variables.

use crate::template;
use crate::vty::Vty;

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
            "seg_tight" => self
                .segment()
                .split_once(' ')
                .map_or("", |(_, rest)| rest)
                .replacen(' ', "", 1)
                .replace(' ', "-"),
            "seg_first" => self.segment().split(' ').nth(1).unwrap_or("").to_owned(),
            "seg_last" => crate::config::unquote(self.segment().rsplit(' ').next().unwrap_or("")),
            "nokia_path" => self
                .path()
                .iter()
                .flat_map(|p| p.split(' ').map(str::to_owned).collect::<Vec<_>>())
                .collect::<Vec<_>>()
                .join("/"),
            "section" => shown()
                .at(&[format!("config {}", args.first().map_or("", |a| a.1.as_str()))], rules.style)
                .render(rules),
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
        self.device.state.lock().started.elapsed().as_secs()
            + 60 * 60 * 24 * 17
            + u64::from(self.device.index % 50) * 3_600
    }

    fn segment(&self) -> &str {
        self.stack.iter().rev().find_map(|f| f.seg.as_deref()).unwrap_or("")
    }

    pub(crate) fn piped(&self, text: &str, pipe: &str, patterns: &[String]) -> String {
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
                if patterns.iter().any(|p| p.contains("config") || p.starts_with("show")) && self.in_config()
                {
                    config.at(&self.path(), rules.style).render_set(rules)
                } else {
                    self.device.state.lock().running.render_set(rules)
                }
            } else if is(&["include", "match", "grep"]) {
                let what = what.trim_start_matches("-i ").to_owned();
                let re = regex::Regex::new(&what).ok();
                text.lines()
                    .filter(|l| re.as_ref().map_or_else(|| l.contains(&what), |r| r.is_match(l)))
                    .collect::<Vec<_>>()
                    .join("\n")
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
