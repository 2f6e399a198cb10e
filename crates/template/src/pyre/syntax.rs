//! Reads a Python `re` pattern into a tree, with Python's own complaints.
//!
//! PCRE2 accepts much that Python refuses (`\K`, `(?R)`, `(*VERB)`, POSIX classes) and reads some
//! things otherwise (`\Z`, `\v`), so a pattern is never handed over as written: it is read by
//! Python's rules (the behaviour of CPython's `re` 3.11) and written anew.

/// Flags in force at one place of a pattern.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `i`: letters match in either case.
    pub ignore_case: bool,
    /// `m`: `^` and `$` match at line breaks.
    pub multi_line: bool,
    /// `s`: `.` matches a newline too.
    pub dot_all: bool,
    /// `x`: white space and comments in the pattern are skipped.
    pub verbose: bool,
    /// `a`: `\w`, `\d`, `\s` and case are ASCII.
    pub ascii: bool,
}

/// A class such as `\d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `\d`
    Digit,
    /// `\s`
    Space,
    /// `\w`
    Word,
}

/// One member of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetItem {
    /// A single character.
    Char(char),
    /// An inclusive range.
    Range(char, char),
    /// `\d`, or `\D` when the flag is true.
    Class(Class, bool),
}

/// How a repeat behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greed {
    /// `x*`
    Greedy,
    /// `x*?`
    Lazy,
    /// `x*+`
    Possessive,
}

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Matches nothing, always.
    Empty,
    /// One character; the flag is "ignore case".
    Char(char, bool),
    /// `.`; the flag is "newline too".
    Any(bool),
    /// A set: negated, members, ignore case, ASCII classes.
    Set {
        /// Begins with `^`.
        negated: bool,
        /// Members.
        items: Vec<SetItem>,
        /// Ignore case.
        ignore_case: bool,
        /// Classes are ASCII.
        ascii: bool,
    },
    /// `^`; the flag is "at every line".
    Caret(bool),
    /// `$`; the flag is "at every line".
    Dollar(bool),
    /// `\A`
    Start,
    /// `\Z`
    End,
    /// `\b`, or `\B` when the flag is true.
    Boundary(bool),
    /// A group; the number when it captures.
    Group(Option<u32>, Box<Node>),
    /// A repeat.
    Repeat {
        /// What is repeated.
        node: Box<Node>,
        /// At least.
        min: u32,
        /// At most.
        max: Option<u32>,
        /// Greedy, lazy, possessive.
        greed: Greed,
    },
    /// One after the other.
    Seq(Vec<Node>),
    /// One of.
    Alt(Vec<Node>),
    /// Look-around: behind, negative, what.
    Look(bool, bool, Box<Node>),
    /// `(?>...)`
    Atomic(Box<Node>),
    /// `\1`, `(?P=name)`; the flag is "ignore case".
    Backref(u32, bool),
    /// `(?(1)yes|no)`
    Cond(u32, Box<Node>, Box<Node>),
}

/// A pattern that was read.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// The tree.
    pub root: Node,
    /// How many groups capture.
    pub groups: u32,
    /// Names of groups with their numbers, in order of definition.
    pub names: Vec<(String, u32)>,
    /// Has look-around, references, conditions or atomic groups.
    pub exotic: bool,
}

/// Nesting deeper than this is refused, so that reading cannot exhaust the stack.
const MAX_DEPTH: u32 = 100;
/// Names a pattern may give to groups.
pub(super) const MAX_NAMES: usize = 4000;
/// PCRE2's highest count in a repeat.
const MAX_REPEAT: u32 = 65_535;

/// Where the reading of a pattern is.
pub(super) struct Reader<'p> {
    pub(super) text: &'p str,
    pub(super) pos: usize,
    pub(super) flags: Flags,
    pub(super) groups: u32,
    pub(super) names: Vec<(String, u32)>,
    pub(super) open: Vec<u32>,
    pub(super) depth: u32,
    pub(super) exotic: bool,
    /// Whether anything but leading global flags was read.
    pub(super) begun: bool,
    pub(super) lookbehind: u32,
}

/// Reads `text` as Python's `re.compile` does.
///
/// # Errors
/// The words of Python's `re.error`, with the position in characters.
pub fn parse(text: &str) -> Result<Pattern, String> {
    parse_with(text, Flags::default())
}

/// As [`parse`], with `re.MULTILINE`.
///
/// # Errors
/// As [`parse`].
pub fn parse_multiline(text: &str) -> Result<Pattern, String> {
    parse_with(text, Flags { multi_line: true, ..Flags::default() })
}

fn parse_with(text: &str, flags: Flags) -> Result<Pattern, String> {
    let mut reader = Reader {
        text,
        pos: 0,
        flags,
        groups: 0,
        names: Vec::new(),
        open: Vec::new(),
        depth: 0,
        exotic: false,
        begun: false,
        lookbehind: 0,
    };
    let root = reader.alternatives()?;
    if reader.pos < text.len() {
        return Err(reader.error("unbalanced parenthesis", reader.pos));
    }
    Ok(Pattern { root, groups: reader.groups, names: reader.names, exotic: reader.exotic })
}

impl Reader<'_> {
    pub(super) fn error(&self, what: &str, at: usize) -> String {
        let position = self.text.get(..at).map_or(at, |s| s.chars().count());
        format!("{what} at position {position}")
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.text[self.pos..].chars().next()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    pub(super) fn eat(&mut self, s: &str) -> bool {
        let hit = self.text[self.pos..].starts_with(s);
        if hit {
            self.pos += s.len();
        }
        hit
    }

    pub(super) fn alternatives(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("pattern is nested too deeply", self.pos));
        }
        let mut arms = vec![self.sequence()?];
        while self.eat("|") {
            self.begun = true;
            arms.push(self.sequence()?);
        }
        self.depth -= 1;
        Ok(match arms.pop() {
            Some(one) if arms.is_empty() => one,
            Some(last) => {
                arms.push(last);
                Node::Alt(arms)
            }
            None => Node::Empty,
        })
    }

    fn skip_verbose(&mut self) {
        while let Some(c) = self.peek() {
            if c.is_ascii_whitespace() || c == '\x0b' {
                self.next();
            } else if c == '#' {
                while let Some(c) = self.next() {
                    if c == '\n' {
                        break;
                    }
                }
            } else {
                break;
            }
        }
    }

    pub(super) fn sequence(&mut self) -> Result<Node, String> {
        let mut items: Vec<Node> = Vec::new();
        loop {
            if self.flags.verbose {
                self.skip_verbose();
            }
            let at = self.pos;
            let Some(c) = self.peek() else { break };
            match c {
                '|' | ')' => break,
                '*' | '+' | '?' | '{' => {
                    let Some((min, max)) = self.quantifier()? else {
                        self.next();
                        self.begun = true;
                        items.push(Node::Char('{', self.flags.ignore_case));
                        continue;
                    };
                    let greed = if self.eat("?") {
                        Greed::Lazy
                    } else if self.eat("+") {
                        Greed::Possessive
                    } else {
                        Greed::Greedy
                    };
                    match items.pop() {
                        None
                        | Some(
                            Node::Caret(_)
                            | Node::Dollar(_)
                            | Node::Start
                            | Node::End
                            | Node::Boundary(_)
                            | Node::Empty,
                        ) => return Err(self.error("nothing to repeat", at)),
                        Some(Node::Repeat { .. }) => return Err(self.error("multiple repeat", at)),
                        Some(node) => {
                            items.push(Node::Repeat { node: Box::new(node), min, max, greed });
                        }
                    }
                }
                _ => {
                    if let Some(node) = self.atom()? {
                        self.begun = true;
                        items.push(node);
                    }
                }
            }
        }
        Ok(match items.len() {
            0 => Node::Empty,
            1 => items.pop().unwrap_or(Node::Empty),
            _ => Node::Seq(items),
        })
    }

    /// `None` when a brace is only a brace.
    fn quantifier(&mut self) -> Result<Option<(u32, Option<u32>)>, String> {
        let at = self.pos;
        if self.eat("*") {
            return Ok(Some((0, None)));
        }
        if self.eat("+") {
            return Ok(Some((1, None)));
        }
        if self.eat("?") {
            return Ok(Some((0, Some(1))));
        }
        let rest = &self.text[self.pos + 1..];
        let Some(end) = rest.find('}') else { return Ok(None) };
        let body = &rest[..end];
        let (low, high, comma) = match body.split_once(',') {
            Some((low, high)) => (low, high, true),
            None => (body, body, false),
        };
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if !digits(low) || !digits(high) || (low.is_empty() && !comma) {
            return Ok(None);
        }
        let number = |s: &str| -> Result<u32, String> {
            s.parse::<u32>()
                .ok()
                .filter(|n| *n <= MAX_REPEAT)
                .ok_or_else(|| self.error("the repetition number is too large", at))
        };
        let min = if low.is_empty() { 0 } else { number(low)? };
        let max = if high.is_empty() { None } else { Some(number(high)?) };
        if max.is_some_and(|max| max < min) {
            return Err(self.error("min repeat greater than max repeat", at + 1));
        }
        self.pos += end + 2;
        Ok(Some((min, max)))
    }

    fn atom(&mut self) -> Result<Option<Node>, String> {
        let at = self.pos;
        let Some(c) = self.next() else { return Ok(None) };
        Ok(Some(match c {
            '.' => Node::Any(self.flags.dot_all),
            '^' => Node::Caret(self.flags.multi_line),
            '$' => Node::Dollar(self.flags.multi_line),
            '[' => self.set(at)?,
            '\\' => self.escape(at)?,
            '(' => return self.group(at),
            c => Node::Char(c, self.flags.ignore_case),
        }))
    }

    fn class(&self, class: Class, negated: bool) -> Node {
        Node::Set {
            negated: false,
            items: vec![SetItem::Class(class, negated)],
            ignore_case: false,
            ascii: self.flags.ascii,
        }
    }

    pub(super) fn escape(&mut self, at: usize) -> Result<Node, String> {
        let Some(c) = self.peek() else {
            return Err(self.error("bad escape (end of pattern)", at));
        };
        let simple = match c {
            'A' => Some(Node::Start),
            'Z' => Some(Node::End),
            'b' => Some(Node::Boundary(false)),
            'B' => Some(Node::Boundary(true)),
            'd' => Some(self.class(Class::Digit, false)),
            'D' => Some(self.class(Class::Digit, true)),
            's' => Some(self.class(Class::Space, false)),
            'S' => Some(self.class(Class::Space, true)),
            'w' => Some(self.class(Class::Word, false)),
            'W' => Some(self.class(Class::Word, true)),
            _ => None,
        };
        if let Some(node) = simple {
            self.next();
            return Ok(node);
        }
        if c.is_ascii_digit() && c != '0' {
            let digits: String =
                self.text[self.pos..].chars().take(3).take_while(char::is_ascii_digit).collect();
            let octal = digits.len() == 3 && digits.bytes().all(|b| b < b'8');
            if octal {
                let value = u32::from_str_radix(&digits, 8).unwrap_or(0);
                if value > 0o377 {
                    return Err(
                        self.error(&format!("octal escape value \\{digits} outside of range 0-0o377"), at)
                    );
                }
                self.pos += 3;
                return Ok(Node::Char(char::from_u32(value).unwrap_or('\0'), self.flags.ignore_case));
            }
            let digits = &digits[..digits.len().min(2)];
            self.pos += digits.len();
            let number: u32 = digits.parse().unwrap_or(0);
            return self.reference(number, at);
        }
        let c = self.char_escape(at)?;
        Ok(Node::Char(c, self.flags.ignore_case))
    }

    pub(super) fn reference(&mut self, number: u32, at: usize) -> Result<Node, String> {
        if number > self.groups {
            return Err(self.error(&format!("invalid group reference {number}"), at + 1));
        }
        if self.open.contains(&number) {
            return Err(self.error("cannot refer to an open group", at));
        }
        if self.lookbehind > 0 {
            return Err(self.error("look-behind requires fixed-width pattern", at));
        }
        self.exotic = true;
        Ok(Node::Backref(number, self.flags.ignore_case))
    }

    /// An escape that stands for one character, in or out of a set.
    pub(super) fn char_escape(&mut self, at: usize) -> Result<char, String> {
        let Some(c) = self.next() else {
            return Err(self.error("bad escape (end of pattern)", at));
        };
        let hex = |reader: &mut Self, width: usize| -> Result<char, String> {
            let start = reader.pos;
            let digits: String =
                reader.text[start..].chars().take(width).take_while(char::is_ascii_hexdigit).collect();
            reader.pos += digits.len();
            if digits.len() < width {
                let shown = &reader.text[at..reader.pos];
                return Err(reader.error(&format!("incomplete escape {shown}"), at));
            }
            u32::from_str_radix(&digits, 16)
                .ok()
                .and_then(char::from_u32)
                .ok_or_else(|| reader.error(&format!("bad escape {}", &reader.text[at..reader.pos]), at))
        };
        Ok(match c {
            'a' => '\x07',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            'x' => hex(self, 2)?,
            'u' => hex(self, 4)?,
            'U' => hex(self, 8)?,
            '0'..='7' => {
                let mut digits = String::from(c);
                while digits.len() < 3 {
                    match self.peek() {
                        Some(d @ '0'..='7') => {
                            digits.push(d);
                            self.next();
                        }
                        _ => break,
                    }
                }
                u32::from_str_radix(&digits, 8).ok().and_then(char::from_u32).unwrap_or('\0')
            }
            c if c.is_ascii_alphanumeric() => {
                return Err(self.error(&format!("bad escape \\{c}"), at));
            }
            c => c,
        })
    }

    fn set(&mut self, at: usize) -> Result<Node, String> {
        let unterminated = |r: &Self| r.error("unterminated character set", at);
        let negated = self.eat("^");
        let mut items = Vec::new();
        let first = self.pos;
        loop {
            let from = self.pos;
            let Some(c) = self.peek() else { return Err(unterminated(self)) };
            if c == ']' && self.pos != first {
                self.next();
                break;
            }
            let low = self.set_member()?;
            if self.peek() == Some('-') {
                self.next();
                match self.peek() {
                    None => return Err(unterminated(self)),
                    Some(']') => {
                        self.next();
                        items.push(low);
                        items.push(SetItem::Char('-'));
                        break;
                    }
                    Some(_) => {
                        let high = self.set_member()?;
                        match (low, high) {
                            (SetItem::Char(a), SetItem::Char(b)) if a <= b => {
                                items.push(SetItem::Range(a, b));
                            }
                            _ => {
                                let shown = self.text[from..self.pos].to_owned();
                                return Err(self.error(&format!("bad character range {shown}"), from));
                            }
                        }
                    }
                }
            } else {
                items.push(low);
            }
        }
        Ok(Node::Set { negated, items, ignore_case: self.flags.ignore_case, ascii: self.flags.ascii })
    }

    fn set_member(&mut self) -> Result<SetItem, String> {
        let at = self.pos;
        let Some(c) = self.next() else {
            return Err(self.error("unterminated character set", at));
        };
        if c != '\\' {
            return Ok(SetItem::Char(c));
        }
        let item = match self.peek() {
            Some('d') => SetItem::Class(Class::Digit, false),
            Some('D') => SetItem::Class(Class::Digit, true),
            Some('s') => SetItem::Class(Class::Space, false),
            Some('S') => SetItem::Class(Class::Space, true),
            Some('w') => SetItem::Class(Class::Word, false),
            Some('W') => SetItem::Class(Class::Word, true),
            Some('b') => SetItem::Char('\x08'),
            _ => return Ok(SetItem::Char(self.char_escape(at)?)),
        };
        self.next();
        Ok(item)
    }
}
