//! How a typed line is understood: patterns of words, abbreviations, and which of the three errors it is.

/// One place of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// One of these words.
    Word(Vec<String>),
    /// Any one word, by name.
    Arg(String),
    /// One or more words, by name.
    Rest(String),
    /// Nothing or more words, by name.
    Maybe(String),
}

/// A pattern such as `interface <name>`, `write|wr [rest...]`, `set <rest...>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    tokens: Vec<Token>,
}

/// How a line fits one pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// It fits: which words were written out (a higher list is a better fit), and the named parts.
    Whole {
        /// Per word of the pattern: 2 written out, 1 abbreviated, 0 an argument.
        rank: Vec<u8>,
        /// Name and text of each argument.
        args: Vec<(String, String)>,
    },
    /// The line ends too early.
    Incomplete,
    /// The word with this number (from 0) does not fit.
    Off(usize),
}

/// What a line is among all patterns of a mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// These patterns fit equally well, by number, with their arguments.
    Found(Vec<usize>, Vec<(String, String)>),
    /// More could follow.
    Incomplete,
    /// Abbreviated too far.
    Ambiguous,
    /// The word with this number fits nothing.
    Invalid(usize),
}

impl Pattern {
    /// Reads the written form.
    pub fn new(text: &str) -> Pattern {
        let tokens = text
            .split_whitespace()
            .map(|w| {
                let inside =
                    |open: char, close: char| w.strip_prefix(open).and_then(|w| w.strip_suffix(close));
                if let Some(name) = inside('<', '>') {
                    match name.strip_suffix("...") {
                        Some(name) => Token::Rest(name.to_owned()),
                        None => Token::Arg(name.to_owned()),
                    }
                } else if let Some(name) = inside('[', ']').and_then(|n| n.strip_suffix("...")) {
                    Token::Maybe(name.to_owned())
                } else {
                    Token::Word(w.split('|').map(str::to_owned).collect())
                }
            })
            .collect();
        Pattern { tokens }
    }

    /// The first word, when it is a fixed one.
    pub fn first(&self) -> Option<&str> {
        match self.tokens.first() {
            Some(Token::Word(words)) => words.first().map(String::as_str),
            _ => None,
        }
    }

    /// The words with abbreviations written out and arguments as typed.
    pub fn spell(&self, words: &[&str], abbreviate: bool) -> String {
        let mut out: Vec<String> = Vec::new();
        for (at, word) in words.iter().enumerate() {
            match self.tokens.get(at) {
                Some(Token::Word(any)) => {
                    let full = any
                        .iter()
                        .find(|w| w.eq_ignore_ascii_case(word))
                        .or_else(|| any.iter().find(|w| abbreviate && starts(w, word)));
                    out.push(full.cloned().unwrap_or_else(|| (*word).to_owned()));
                }
                _ => out.push((*word).to_owned()),
            }
        }
        out.join(" ")
    }

    /// Compares `words` with the pattern.
    pub fn fit(&self, words: &[&str], abbreviate: bool) -> Fit {
        let mut rank = Vec::with_capacity(self.tokens.len());
        let mut args = Vec::new();
        let mut at = 0;
        for token in &self.tokens {
            match token {
                Token::Maybe(name) => {
                    args.push((name.clone(), words[at.min(words.len())..].join(" ")));
                    at = words.len();
                    rank.push(0);
                }
                _ if at >= words.len() => return Fit::Incomplete,
                Token::Rest(name) => {
                    args.push((name.clone(), words[at..].join(" ")));
                    at = words.len();
                    rank.push(0);
                }
                Token::Arg(name) => {
                    args.push((name.clone(), words[at].to_owned()));
                    at += 1;
                    rank.push(0);
                }
                Token::Word(any) => {
                    let word = words[at];
                    if any.iter().any(|w| w.eq_ignore_ascii_case(word)) {
                        rank.push(2);
                    } else if abbreviate && any.iter().any(|w| starts(w, word)) {
                        rank.push(1);
                    } else {
                        return Fit::Off(at);
                    }
                    at += 1;
                }
            }
        }
        if at < words.len() { Fit::Off(at) } else { Fit::Whole { rank, args } }
    }

    /// The word that may stand after `before` and begins with `partial`, when it is a fixed one.
    pub fn next_word(&self, before: &[&str], partial: &str, abbreviate: bool) -> Option<String> {
        for (token, word) in self.tokens.iter().zip(before) {
            if let Token::Word(any) = token
                && !any.iter().any(|w| w.eq_ignore_ascii_case(word) || (abbreviate && starts(w, word)))
            {
                return None;
            }
        }
        match self.tokens.get(before.len()) {
            Some(Token::Word(any)) => any.iter().find(|w| partial.is_empty() || starts(w, partial)).cloned(),
            _ => None,
        }
    }

    fn same_words(&self, other: &Pattern, words: &[&str]) -> bool {
        (0..words.len()).all(|i| match (self.tokens.get(i), other.tokens.get(i)) {
            (Some(Token::Word(a)), Some(Token::Word(b))) => a == b,
            // An argument against a word: the word wins by rank, so this is no ambiguity.
            _ => true,
        })
    }
}

fn starts(word: &str, typed: &str) -> bool {
    !typed.is_empty()
        && word.len() >= typed.len()
        && word.is_char_boundary(typed.len())
        && word[..typed.len()].eq_ignore_ascii_case(typed)
}

/// A pattern that fits: number, pattern, rank, arguments.
type Candidate<'a> = (usize, &'a Pattern, Vec<u8>, Vec<(String, String)>);

/// Judges a line against all patterns of a mode.
pub fn judge<'a>(
    patterns: impl Iterator<Item = &'a Pattern> + Clone,
    words: &[&str],
    abbreviate: bool,
) -> Verdict {
    let mut best: Vec<Candidate<'_>> = Vec::new();
    let mut incomplete = false;
    let mut off = 0;
    for (number, pattern) in patterns.enumerate() {
        match pattern.fit(words, abbreviate) {
            Fit::Incomplete => incomplete = true,
            Fit::Off(at) => off = off.max(at),
            Fit::Whole { rank, args } => {
                let better = best.first().map(|(_, _, r, _)| rank.cmp(r));
                match better {
                    None | Some(std::cmp::Ordering::Equal) => best.push((number, pattern, rank, args)),
                    Some(std::cmp::Ordering::Greater) => best = vec![(number, pattern, rank, args)],
                    Some(std::cmp::Ordering::Less) => {}
                }
            }
        }
    }
    let Some((_, first, rank, args)) = best.first() else {
        return if incomplete { Verdict::Incomplete } else { Verdict::Invalid(off) };
    };
    if rank.contains(&1) && best.iter().any(|(_, p, _, _)| !p.same_words(first, words)) {
        return Verdict::Ambiguous;
    }
    let args = args.clone();
    let numbers = best.iter().filter(|(_, p, _, _)| p.same_words(first, words)).map(|(n, ..)| *n).collect();
    Verdict::Found(numbers, args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(patterns: &[&str], line: &str) -> Verdict {
        let patterns: Vec<Pattern> = patterns.iter().map(|p| Pattern::new(p)).collect();
        let words: Vec<&str> = line.split_whitespace().collect();
        judge(patterns.iter(), &words, true)
    }

    #[test]
    fn abbreviations_resolve_as_on_ios() {
        let all = [
            "show version",
            "show running-config [rest...]",
            "save",
            "enable",
            "end",
            "configure terminal",
            "show <what>",
        ];
        assert!(matches!(verdict(&all, "sh ver"), Verdict::Found(n, _) if n == [0]));
        assert!(matches!(verdict(&all, "show run"), Verdict::Found(n, _) if n == [1]));
        assert!(matches!(verdict(&all, "show nothing"), Verdict::Found(n, _) if n == [6]));
        assert_eq!(verdict(&all, "e"), Verdict::Ambiguous);
        assert!(matches!(verdict(&all, "end"), Verdict::Found(n, _) if n == [4]));
        assert_eq!(verdict(&all, "conf"), Verdict::Incomplete);
        assert_eq!(verdict(&all, "conf x"), Verdict::Invalid(1));
        assert_eq!(verdict(&all, "zzz"), Verdict::Invalid(0));
    }
}
