//! Groups of a pattern: capturing and not, look-around, references by name, conditions, flags.

use super::syntax::{MAX_NAMES, Node, Reader};

impl Reader<'_> {
    pub(super) fn close(&mut self, at: usize) -> Result<(), String> {
        if self.eat(")") { Ok(()) } else { Err(self.error("missing ), unterminated subpattern", at)) }
    }

    pub(super) fn inside(&mut self, at: usize) -> Result<Node, String> {
        self.begun = true;
        let flags = self.flags;
        let node = self.alternatives()?;
        self.flags = flags;
        self.close(at)?;
        Ok(node)
    }

    pub(super) fn capture(&mut self, at: usize, name: Option<String>) -> Result<Node, String> {
        self.groups += 1;
        let number = self.groups;
        if let Some(name) = name {
            if self.names.len() >= MAX_NAMES {
                return Err(self.error("too many named groups", at));
            }
            if let Some((_, was)) = self.names.iter().find(|(n, _)| *n == name) {
                let message =
                    format!("redefinition of group name '{name}' as group {number}; was group {was}");
                return Err(self.error(&message, at + 4));
            }
            self.names.push((name, number));
        }
        self.open.push(number);
        let node = self.inside(at)?;
        self.open.pop();
        Ok(Node::Group(Some(number), Box::new(node)))
    }

    pub(super) fn name(&mut self, terminator: char, at: usize) -> Result<String, String> {
        let start = self.pos;
        let rest = &self.text[start..];
        let Some(end) = rest.find(terminator) else {
            return Err(self.error(&format!("missing {terminator}, unterminated name"), start));
        };
        let name = rest[..end].to_owned();
        if name.is_empty() {
            return Err(self.error("missing group name", at));
        }
        self.pos = start + end + terminator.len_utf8();
        Ok(name)
    }

    pub(super) fn group(&mut self, at: usize) -> Result<Option<Node>, String> {
        if !self.eat("?") {
            return self.capture(at, None).map(Some);
        }
        let Some(c) = self.next() else {
            return Err(self.error("unexpected end of pattern", self.pos));
        };
        match c {
            'P' => {
                if self.eat("<") {
                    let start = self.pos;
                    let name = self.name('>', start)?;
                    self.check_identifier(&name, start)?;
                    return self.capture(at, Some(name)).map(Some);
                }
                if self.eat("=") {
                    let start = self.pos;
                    let name = self.name(')', start)?;
                    self.check_identifier(&name, start)?;
                    let number = self.number_of(&name, start)?;
                    return self.reference(number, at).map(Some);
                }
                let shown = self.next().map_or(String::new(), |c| c.to_string());
                Err(self.error(&format!("unknown extension ?P{shown}"), at + 1))
            }
            ':' => {
                let node = self.inside(at)?;
                Ok(Some(Node::Group(None, Box::new(node))))
            }
            '#' => loop {
                match self.next() {
                    Some(')') => return Ok(None),
                    Some(_) => {}
                    None => return Err(self.error("missing ), unterminated comment", at)),
                }
            },
            '=' | '!' => {
                self.exotic = true;
                let node = self.inside(at)?;
                Ok(Some(Node::Look(false, c == '!', Box::new(node))))
            }
            '<' => {
                let negative = if self.eat("=") {
                    false
                } else if self.eat("!") {
                    true
                } else {
                    let shown = self.next().map_or(String::new(), |c| c.to_string());
                    return Err(self.error(&format!("unknown extension ?<{shown}"), at + 1));
                };
                self.exotic = true;
                self.lookbehind += 1;
                let node = self.inside(at)?;
                self.lookbehind -= 1;
                let (low, high) = super::analysis::width(&node);
                if Some(low) != high {
                    return Err("look-behind requires fixed-width pattern".to_owned());
                }
                Ok(Some(Node::Look(true, negative, Box::new(node))))
            }
            '>' => {
                self.exotic = true;
                let node = self.inside(at)?;
                Ok(Some(Node::Atomic(Box::new(node))))
            }
            '(' => self.condition(at).map(Some),
            c if c == '-' || c.is_ascii_alphabetic() => self.inline_flags(at, c),
            c => Err(self.error(&format!("unknown extension ?{c}"), at + 1)),
        }
    }

    pub(super) fn check_identifier(&self, name: &str, at: usize) -> Result<(), String> {
        let mut chars = name.chars();
        let good = chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
            && chars.all(|c| c.is_alphanumeric() || c == '_');
        if good { Ok(()) } else { Err(self.error(&format!("bad character in group name '{name}'"), at)) }
    }

    pub(super) fn number_of(&self, name: &str, at: usize) -> Result<u32, String> {
        self.names
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, number)| *number)
            .ok_or_else(|| self.error(&format!("unknown group name '{name}'"), at))
    }

    pub(super) fn condition(&mut self, at: usize) -> Result<Node, String> {
        let start = self.pos;
        let name = self.name(')', start)?;
        let number = match name.parse::<u32>() {
            Ok(0) => return Err(self.error("bad group number", start)),
            Ok(number) if number > self.groups => {
                return Err(self.error(&format!("invalid group reference {number}"), start));
            }
            Ok(number) => number,
            Err(_) => self.number_of(&name, start)?,
        };
        self.exotic = true;
        let flags = self.flags;
        self.begun = true;
        let yes = self.sequence()?;
        let no = if self.eat("|") { self.sequence()? } else { Node::Empty };
        if self.peek() == Some('|') {
            return Err(self.error("conditional backref with more than two branches", self.pos));
        }
        self.flags = flags;
        self.close(at)?;
        Ok(Node::Cond(number, Box::new(yes), Box::new(no)))
    }

    pub(super) fn inline_flags(&mut self, at: usize, first: char) -> Result<Option<Node>, String> {
        let mut flags = self.flags;
        let mut on = true;
        let mut c = first;
        loop {
            match c {
                '-' if on => on = false,
                'i' => flags.ignore_case = on,
                'm' => flags.multi_line = on,
                's' => flags.dot_all = on,
                'x' => flags.verbose = on,
                'a' if on => flags.ascii = true,
                'u' if on => flags.ascii = false,
                'L' => {
                    return Err(
                        self.error("bad inline flags: cannot use 'L' flag with a str pattern", self.pos)
                    );
                }
                ')' if on => {
                    if self.begun {
                        return Err(self.error("global flags not at the start of the expression", at));
                    }
                    self.flags = flags;
                    return Ok(None);
                }
                ':' => break,
                c if c.is_ascii_alphabetic() => {
                    return Err(self.error("unknown flag", self.pos - 1));
                }
                _ => return Err(self.error("missing -, : or )", self.pos)),
            }
            c = match self.next() {
                Some(c) => c,
                None => return Err(self.error("missing -, : or )", self.pos)),
            };
        }
        let outer = self.flags;
        self.flags = flags;
        self.begun = true;
        let node = self.alternatives()?;
        self.flags = outer;
        self.close(at)?;
        Ok(Some(Node::Group(None, Box::new(node))))
    }
}
