//! Fuzz targets, one per engine: mutated templates and texts end soon, without a crash, within
//! their limits. A few seconds each here; `scripts/fuzz ENGINE MINUTES` runs one for long.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use netpulse_template::{Config, Engines, ParseCall};
use serde_json::json;

/// A small generator of numbers (xorshift); its state is printed with a failure.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }

    /// Changes a text: pieces go in, out, twice, elsewhere.
    fn mutate(&mut self, text: &mut String, pieces: &[&str]) {
        for _ in 0..=self.roll(4) {
            let mut at = self.roll(text.len() + 1);
            let mut end = (at + self.roll(12)).min(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            while !text.is_char_boundary(end) {
                end += 1;
            }
            match self.roll(5) {
                0 => text.replace_range(at..end, ""),
                1 => text.insert_str(at, &text[at..end].repeat(1 + self.roll(3))),
                2 => text.replace_range(at..end, self.pick(pieces)),
                3 => {
                    let piece = text[at..end].to_owned();
                    let mut to = self.roll(text.len() + 1);
                    while !text.is_char_boundary(to) {
                        to -= 1;
                    }
                    text.insert_str(to, &piece);
                }
                _ => text.insert_str(at, self.pick(pieces)),
            }
        }
        // A text that only ever grows would make every later case slow.
        while text.len() > 4000 {
            text.pop();
        }
    }
}

/// Longest a case may take: the promised second, with room for an unoptimised build on a busy
/// machine.
const LONGEST: Duration =
    if cfg!(debug_assertions) { Duration::from_secs(10) } else { Duration::from_secs(3) };

/// Mutates the seeds and runs `case` on them until the time is over.
fn fuzz(seeds: &[(&str, &str)], pieces: &[&str], case: impl Fn(&Engines, &str, &str)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|s| s.parse::<u64>().ok());
    let seed = number("NETPULSE_FUZZ_SEED").unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
    });
    let until = Instant::now() + Duration::from_secs(number("NETPULSE_FUZZ_SECONDS").unwrap_or(1));
    let mut dice = Dice(seed | 1);
    let mut pool: Vec<(String, String)> =
        seeds.iter().map(|(template, text)| ((*template).to_owned(), (*text).to_owned())).collect();
    let engines = Engines::new(Config { cache_size: 0, ..Config::default() });
    let mut count = 0u64;
    while Instant::now() < until {
        let from = dice.roll(pool.len());
        let (mut template, mut text) = pool[from].clone();
        dice.mutate(&mut template, pieces);
        if dice.roll(3) == 0 {
            dice.mutate(&mut text, pieces);
        }
        let start = Instant::now();
        let end = catch_unwind(AssertUnwindSafe(|| case(&engines, &template, &text)));
        let took = start.elapsed();
        assert!(end.is_ok(), "seed {seed}, case {count}: a crash on\n{template:?}\nwith\n{text:?}");
        assert!(took < LONGEST, "seed {seed}, case {count}: {took:?} for\n{template:?}\nwith\n{text:?}");
        // The pool drifts, so that mutations add up; the seeds stay.
        if dice.roll(4) == 0 {
            if pool.len() < 500 {
                pool.push((template, text));
            } else {
                let place = seeds.len() + dice.roll(pool.len() - seeds.len());
                pool[place] = (template, text);
            }
        }
        count += 1;
    }
    println!("{count} cases, seed {seed}");
}

fn parse(name: &'static str) -> impl Fn(&Engines, &str, &str) {
    move |engines, template, text| {
        let _ = engines.parse(&ParseCall { name, template: Some(template), text, ..ParseCall::default() });
    }
}

const PATTERNS: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "*",
    "+",
    "?",
    "|",
    "^",
    "$",
    "\\",
    ".",
    "(?:",
    "(?P<a>",
    "(?=",
    "(?!",
    "(?<=",
    "(?<!",
    "(?i)",
    "{2,}",
    "{,3}",
    "{1000}",
    "\\S+",
    "\\s*",
    "\\d",
    "(a+)+",
    "(a|a)*",
    ".*",
    "\\1",
    "[^",
    "a-z",
    "\u{e9}",
    "\0",
    "\u{2028}",
    "\n",
    " ",
    "x",
    "\\Z",
    "\\b",
    "(?(1)a|b)",
    "(?>a)",
    "*?",
    "++",
];

#[test]
fn fuzz_regex() {
    fuzz(
        &[
            ("(?P<a>\\S+)\\s+(?P<b>\\d+)", "Gi0/1 10\nGi0/2 20"),
            ("^(?P<a>(a|aa)+)$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"),
            ("(?P<x>(?:\\d{1,3}\\.){3}\\d+)(?=,|$)", "10.0.0.1, 10.0.0.2"),
        ],
        PATTERNS,
        parse("regex"),
    );
}

#[test]
fn fuzz_textfsm() {
    let pieces: Vec<&str> = [
        "Value ",
        "Required",
        "Filldown,",
        "List ",
        "Fillup ",
        "Key ",
        "Start\n",
        "EOF\n",
        "End\n",
        "  ^",
        " -> ",
        "Record",
        "Continue",
        "Next",
        "Clear",
        "Clearall",
        "Error",
        "${A}",
        "$B",
        "$$",
        "\n\n",
        "# c\n",
        ".",
    ]
    .into_iter()
    .chain(PATTERNS.iter().copied())
    .collect();
    fuzz(
        &[
            (
                "Value Required A (\\S+)\nValue List B (.*?)\n\nStart\n  ^${A}\\s+${B}\\s*$$ -> Continue.Record\n  ^x -> Two\n\nTwo\n  ^. -> Error \"no\"\n",
                "a b c\nx\ny 1 2 3\n",
            ),
            (
                "Value Filldown,Key A (\\d+)\nValue Fillup B ((?P<n>\\w)-(?P<m>\\w))\n\nStart\n  ^$A -> Continue\n  ^.*${B} -> Record Start\n\nEOF\n",
                "1 a-b\n2\n\u{e9} c-d\n",
            ),
        ],
        &pieces,
        parse("textfsm"),
    );
}

#[test]
fn fuzz_ttp() {
    let pieces: Vec<&str> = [
        "<group>",
        "</group>",
        "<group name=\"x.y*\">",
        "<vars>",
        "</vars>",
        "{{ a }}",
        "{{ b | ORPHRASE }}",
        "{{",
        "}}",
        " | ",
        "_start_",
        "_end_",
        "_line_",
        "_headers_",
        "joinmatches(\",\")",
        "re(\"",
        "\")",
        "set(\"v\")",
        "to_int",
        "unrange(\"-\", \",\")",
        "<input load=\"text\">",
        "</input>",
        "<output format=\"json\"/>",
        "<lookup name=\"l\">",
        "</lookup>",
        "<extend template=\"x\"/>",
        "<template>",
        "</template>",
        "name=\"{{ a }}\"",
        "default=\"\"",
        "chain(\"c\")",
        "_exact_",
        "columns(2)",
        "<",
        ">",
        "\"",
        "\n",
    ]
    .into_iter()
    .chain(PATTERNS.iter().copied())
    .collect();
    fuzz(
        &[
            (
                "<vars>\nc = [\"upper\", \"to_int\"]\n</vars>\n<group name=\"i.{{ a }}*\">\ninterface {{ a }}\n description {{ d | ORPHRASE | joinmatches(\",\") }}\n <group name=\"ip**\">\n ip {{ ip | IP | to_ip }}/{{ m | DIGIT | to_int }}\n </group>\n! {{ _end_ }}\n</group>\n<output format=\"json\"/>",
                "interface Gi1\n description to core\n ip 10.0.0.1/24\n!\ninterface Gi2\n",
            ),
            ("Port   Name   Status {{ _headers_ }}", "Port   Name   Status\nGi1    up     down\n"),
            (
                "vlans {{ v | unrange(\"-\", \",\") | split(\",\") }} {{ x | re(\"(a|aa)+\") }}",
                "vlans 1-5,7 aaaaaaaaaaaaaaaaaaaaaab\n",
            ),
        ],
        &pieces,
        parse("ttp"),
    );
}

#[test]
fn fuzz_jinja2() {
    let pieces = [
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        " for x in l ",
        " endfor ",
        " if a ",
        " else ",
        " endif ",
        " macro m(a) ",
        " endmacro ",
        " call m(1) ",
        " endcall ",
        " set a = ",
        " raw ",
        " endraw ",
        " filter upper ",
        " endfilter ",
        "|join(',')",
        "|replace('a', 'aaaa')",
        " ~ ",
        " * ",
        "**",
        "9999999999",
        "'%s' % ",
        "[1, 2]",
        "{'a': 1}",
        "(",
        ")",
        "range(99999)",
        "loop.index",
        "namespace()",
        "|map('upper')|list",
        "|groupby('a')",
        ".format(",
        "|center(99999999)",
        "-%}",
        "{%-",
        "s",
        "l",
        "d.x",
        "|tojson",
        "|indent(9)",
        "m(",
        "\u{e9}",
        "\0",
        "\n",
        "'",
        "\"",
        "\\",
        "|wordwrap(1)",
        "|slice(0)",
        "|batch(0)",
        "|truncate(1)",
        "|round(99)",
        "//0",
        "%0",
        "|int(base=99)",
        "|format(1)",
        "|urlize",
        "|xmlattr",
        "|random",
        "|dictsort",
    ];
    fuzz(
        &[
            (
                "{% for x in l %}{{ loop.index }}:{{ x|upper }}{% if not loop.last %},{% endif %}{% endfor %}",
                "",
            ),
            (
                "{% macro m(a, b=2) %}{{ a ~ b }}{% endmacro %}{{ m(1) }}{% set ns = namespace(c=0) %}{{ '%05.1f' % d.x }}",
                "",
            ),
            (
                "{{ s.split('b')|join('-')|replace('a', 'x')|center(20) }}{{ d|dictsort|tojson }}{{ (s * 3)[1:] }}",
                "",
            ),
        ],
        &pieces,
        |engines, template, _| {
            let context = json!({"l": [3, 1, 2], "s": "abc", "d": {"x": 1.5, "y": null}, "a": true});
            let _ = engines.render("jinja2", template, &context, None);
            let _ = engines.render("string", template, &context, None);
        },
    );
}
