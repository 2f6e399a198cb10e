//! Whatever a template or a text does, the answer comes within a second and in bounded memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::time::{Duration, Instant};

use netpulse_template::{Config, Engines, ParseCall, TemplateError, error::code};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The promised second, with room for an unoptimised build beside other work. That an error is one
/// of a limit, and names its line, is what the tests look at.
const SOON: Duration = Duration::from_secs(if cfg!(debug_assertions) { 15 } else { 1 });

fn timed<T>(work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let out = work();
    assert!(start.elapsed() < SOON, "took {:?}", start.elapsed());
    out
}

fn parse(name: &str, template: &str, text: &str) -> Result<Value, TemplateError> {
    let engines = Engines::new(Config::default());
    timed(|| engines.parse(&ParseCall { name, template: Some(template), text, ..ParseCall::default() }))
}

fn render(template: &str) -> Result<String, TemplateError> {
    let engines = Engines::new(Config::default());
    timed(|| engines.render("jinja2", template, &json!({}), None))
}

#[test]
fn catastrophic_patterns_name_the_rule() {
    let text = "a".repeat(5_000) + "!";
    for rule in ["^(a+b?)+$$", "^(a|aa)+$$", "^(a|a?)+$$", "^a*a*a*a*a*a*a*a*b", "^(?:.*?){1,50}b$$"] {
        // Some of these are decided early (there is no b in the text); none may hang.
        let Err(error) = parse("textfsm", &format!("Value A (x)\n\nStart\n  {rule}\n"), &text) else {
            assert!(rule.contains("b$$") || rule.ends_with('b') || rule.contains("a?"), "{rule}");
            continue;
        };
        assert_eq!(error.code, code::LIMIT, "{rule}: {error}");
        assert_eq!(error.line, Some(4), "{rule}: {error}");
    }
    let many = (text + "\n").repeat(200);
    for rule in ["^(a+b?)+$$", "^(a|aa)+$$"] {
        assert_eq!(
            parse("textfsm", &format!("Value A (x)\n\nStart\n  {rule}\n"), &many).unwrap_err().code,
            code::LIMIT
        );
    }
    let error = parse("regex", "(?P<x>(a|aa)+)$", &many.replace('\n', "")).unwrap_err();
    assert_eq!(error.code, code::LIMIT);
}

#[test]
fn long_lines_and_texts() {
    let line = "x".repeat(8 << 20);
    let template = "Value A (y)\n\nStart\n  ^.*${A}\n";
    assert_eq!(parse("textfsm", template, &line).unwrap_err().code, code::LIMIT);
    let big = "x\n".repeat(40 << 20);
    assert_eq!(parse("textfsm", template, &big).unwrap_err().code, code::LIMIT);
}

#[test]
fn rows_are_bounded() {
    let template = "Value A (\\d)\nValue B (y)\n\nStart\n  ^${A} -> Record\n";
    let error = parse("textfsm", template, &"1\n".repeat(3_000_000)).unwrap_err();
    assert_eq!(error.code, code::LIMIT);
    // A list that is kept and copied into each row grows with the square.
    let template = "Value List,Filldown A (\\d)\n\nStart\n  ^${A} -> Record\n";
    assert_eq!(parse("textfsm", template, &"1\n".repeat(50_000)).unwrap_err().code, code::LIMIT);
}

#[test]
fn templates_that_grow_are_refused_by_line() {
    // Each mention of a value puts its pattern in: 100 kB times 100 kB.
    let bomb = format!("Value A ({})\n\nStart\n  ^{}\n", "x".repeat(100_000), "${A}".repeat(100_000));
    let error = parse("textfsm", &bomb, "x").unwrap_err();
    assert_eq!((error.code, error.line), (code::LIMIT, Some(4)), "{error}");
    let values: String = (0..60_000).map(|n| format!("Value A{n} (x)\n")).collect();
    let error = parse("textfsm", &format!("{values}\nStart\n  ^x\n"), "x").unwrap_err();
    assert_eq!((error.code, error.line), (code::LIMIT, Some(4001)), "{error}");
    let states: String = (0..60_000).map(|n| format!("S{n}\n  ^x\n\n")).collect();
    let error = parse("textfsm", &format!("Value A (x)\n\nStart\n  ^x\n\n{states}"), "x").unwrap_err();
    assert_eq!(error.code, code::LIMIT, "{error}");
    assert!(error.line.is_some(), "{error}");
    let names: String = (0..60_000).map(|n| format!("(?P<a{n}>x)")).collect();
    assert_eq!(parse("regex", &names, "x").unwrap_err().code, code::SYNTAX);
    let rules = format!("Value A (x)\n\nStart\n{}", "  ^(?:\\S+\\s+){400}x\n".repeat(40_000));
    match parse("textfsm", &rules, "x") {
        Ok(rows) => assert_eq!(rows, json!([])),
        Err(error) => assert_eq!(error.code, code::LIMIT, "{error}"),
    }
}

#[test]
fn what_is_only_exponential_as_written_is_answered() {
    let text = "a".repeat(200) + "!";
    for rule in ["^(a+)+$$", "^(a|aa)+$$", "^(a*)*b", "^(\\s*-*)*\\s*$$", "^(?:a?){30}a{30}b"] {
        let rows = parse("textfsm", &format!("Value A (x)\n\nStart\n  {rule}\n"), &text).unwrap();
        assert_eq!(rows, json!([]), "{rule}");
    }
}

#[test]
fn merged_tables_are_linear() {
    use netpulse_template::textfsm::{Template, merge};
    let text: String = (0..60_000).map(|n| format!("{n} v{n}\n")).collect();
    let template = |name: &str| {
        Template::compile(&format!(
            "Value Key K (\\d+)\nValue {name} (\\S+)\n\nStart\n  ^${{K}} ${{{name}}} -> Record\n"
        ))
        .unwrap()
    };
    let (one, two) = (template("A"), template("B"));
    let merged = timed(|| {
        let tables = vec![(one.parse(&text).unwrap(), one.keys()), (two.parse(&text).unwrap(), two.keys())];
        merge(tables).unwrap().unwrap()
    });
    assert_eq!(merged.len(), 60_000);
    assert_eq!(merged.rows().nth(59_999).unwrap().len(), 3);
}

#[test]
fn deep_nesting() {
    let deep = format!("Value A ({}a{})\n\nStart\n  ^${{A}}\n", "(".repeat(50_000), ")".repeat(50_000));
    assert_eq!(parse("textfsm", &deep, "a").unwrap_err().code, code::SYNTAX);
    for open in [
        "{% if true %}",
        "{{ (((((((((((((((",
        "{% for x in [1] %}",
        "{{ [[[[[[[[[[[[",
        "{{ not not not not ",
    ] {
        assert!(render(&open.repeat(20_000)).is_err());
    }
    for many in [399, 20_000, 400_000] {
        for (open, close) in ["[]", "()"].map(|pair| pair.split_at(1)) {
            let nested = open.repeat(many) + "1" + &close.repeat(many);
            // What is not refused must not end the process either.
            let done = render(&format!("{{{{ {nested} }}}}"));
            assert!(many < 400 || done.is_err(), "{many} {open}");
        }
    }
}

#[test]
fn macros_that_call_themselves_over_a_long_list_end_in_time() {
    let engines = Engines::new(Config::default());
    let long: Vec<usize> = (0..200_000).collect();
    for template in [
        "{% macro f(n) %}{% set y = 'x' in long %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        "{% for x in [40] recursive %}{% set y = 'x' in long %}{% if x %}{{ loop([x - 1]) }}{{ loop([x - 1]) }}{% endif %}{% endfor %}",
    ] {
        let done = timed(|| engines.render("jinja2", template, &json!({"long": long}), None));
        assert_eq!(done.unwrap_err().code, code::LIMIT, "{template}");
    }
}

#[test]
fn endless_templates() {
    for template in [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in range(100000) %}{% for b in range(100000) %}{{ b }}{% endfor %}{% endfor %}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ range(10000000000)|list }}",
        "{{ 'a' * 10000000000 }}",
        "{{ [1] * 10000000000 }}",
        "{{ ('a' * 1000000) * 100000 }}",
        "{{ 'a'|center(10000000000) }}",
        "{{ 'a'.ljust(10000000000) }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '{:>10000000000}'.format(1) }}",
        "{% macro f(s) %}{{ f(s ~ s) }}{% endmacro %}{{ f('aaaaaaaaaa') }}",
        "{% macro f(s) %}{{ f(s + s) }}{% endmacro %}{{ f([1, 2]) }}",
        "{{ 'a'|indent(10000000000) }}",
        "{% set ns = namespace(s='aaaaaaaaaa') %}{% for x in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s|length }}",
        "{% set ns = namespace(s='aaaaaaaaaa') %}{% for x in range(60) %}{% set ns.s = ns.s|replace('a', 'aaaaaaaaaa') %}{% endfor %}{{ ns.s|length }}",
    ] {
        match render(template) {
            Err(_) => {}
            Ok(text) => assert!(text.len() < 1 << 20, "{template}: {} bytes", text.len()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_parsed(text in "\\PC*|[\\x00-\\x7f\\n\u{85}\u{2028}é]{0,200}") {
        let template = "Value Filldown A (\\S+)\nValue List B (.*?)\n\nStart\n  ^${A}\\s+${B}\\s*$$ -> Continue.Record\n  ^. -> Next\n";
        let rows = parse("textfsm", template, &text);
        prop_assert!(rows.is_ok());
    }

    #[test]
    fn any_template_is_compiled_or_refused(body in "[ -~\\n\u{e9}\\x00]{0,120}") {
        let _ = parse("textfsm", &format!("Value A (\\d+)\n\nStart\n  ^{body}"), "1 a\n");
        let _ = parse("textfsm", &body, "1 a\n");
        let _ = parse("regex", &body, "1 a\n");
        let _ = render(&body);
        let _ = render(&format!("{{{{ {body} }}}}"));
        let _ = render(&format!("{{% {body} %}}"));
    }
}

#[test]
fn long_expressions_are_refused_not_compiled() {
    for template in [
        format!("{{{{ 1{} }}}}", " + 1".repeat(20_000)),
        format!("{{{{ 1{} }}}}", "|string".repeat(20_000)),
        format!("{{{{ x{} }}}}", ".a".repeat(20_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(20_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(20_000)),
        format!("{{% set x = 1{} %}}", " ~ 'a'".repeat(20_000)),
        format!("\n{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(20_000)),
    ] {
        let error = render(&template).unwrap_err();
        assert_eq!(error.code, code::LIMIT, "{error}");
        assert!(error.line.is_some() && error.to_string().contains("too long"), "{error}");
    }
    // Long data is no long expression.
    let list = "{'a': -1, 'b': q|default(1)}, ".repeat(5_000);
    assert_eq!(render(&format!("{{% set x = [{list}] %}}{{{{ x|length }}}}")).unwrap(), "5000");
}

#[test]
fn values_cannot_nest_without_end() {
    for template in [
        "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x={}) %}{% for i in range(90000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(90000) %}{% set ns.x = ns.x|batch(1)|list %}{% endfor %}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.a = [1, {'b': ns}] %}{{ ns }}",
        "{% set x = [] %}{% set _ = x.append(x) %}{{ x }}",
        "{% set x = {} %}{% set _ = x.update({'a': [x]}) %}{{ x }}",
        "{% set x = [] %}{% set y = [x] %}{% set _ = x.append((1, y)) %}{{ x }}",
        "{% set ns = namespace(cur=[]) %}{% set top = [ns.cur] %}{% for i in range(90000) %}{% set n = [] %}\
         {% set _ = ns.cur.append(n) %}{% set ns.cur = n %}{% endfor %}{{ top }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set n = [] %}{% set _ = n.append(ns.x) %}\
         {% set ns.x = n %}{% endfor %}{{ ns.x }}",
    ] {
        let error = render(template).unwrap_err();
        assert_eq!(error.code, code::LIMIT, "{template}: {error}");
    }
    assert_eq!(
        render("{% set x = [] %}{% set y = [x] %}{% set _ = y.append(x) %}{% set _ = x.append(1) %}{{ y }}")
            .unwrap(),
        "[[1], [1]]"
    );
}

#[test]
fn containers_asked_for_themselves_do_not_hang() {
    for template in [
        "{% set x = [1] %}{% set _ = x.remove(x) %}",
        "{% set x = {} %}{% set _ = x.update({}) %}{{ x[x] }}{{ x.get(x) }}{% set _ = x.pop(x) %}",
        "{% set x = {} %}{% set _ = x.setdefault((1, x), 2) %}",
        "{% set ns = namespace(a=1) %}{% set ns.b = 2 %}{{ ns[ns] }}{{ [ns] == [ns] }}{{ ns == ns }}{{ 1 + '' }}",
    ] {
        assert!(render(template).is_err(), "{template}");
    }
}

#[test]
fn dear_loops_end_in_time() {
    for template in [
        "{% set ns = namespace(x=[]) %}{% for i in range(50000) %}{% set ns.x = ns.x + [i] %}{% endfor %}",
        "{% set l = range(100000)|list %}{% for i in range(100000) %}{% if 'a' in l %}{% endif %}{% endfor %}",
        "{% for i in range(100000) %}{% set x = range(100000)|list|sort|unique|list %}{% endfor %}",
        "{% set x = [1] %}{% for i in range(90000) %}{% set _ = x.extend(x) %}{% endfor %}",
        "{% set x = [] %}{% for i in range(90000) %}{% for j in range(90000) %}{% set _ = x.insert(0, j) %}{% endfor %}{% endfor %}",
    ] {
        let error = render(template).unwrap_err();
        assert_eq!(error.code, code::LIMIT, "{template}: {error}");
    }
    // What a template of many lines does is no such thing.
    let text = render(
        "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = ns.x + [i] %}{% endfor %}{{ ns.x|length }}",
    );
    assert_eq!(text.unwrap(), "1000");
}
