//! The TextFSM language, feature by feature, on templates of our own. Expected values agree with
//! Python textfsm 2.1.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use netpulse_template::textfsm::{Template, merge};
use serde_json::{Value, json};

fn run(template: &str, text: &str) -> Value {
    Template::compile(template).unwrap().parse(text).unwrap().to_value()
}

fn error(template: &str) -> (String, Option<usize>) {
    let error = Template::compile(template).unwrap_err();
    (error.message, error.line)
}

#[test]
fn record_at_the_end_is_implied() {
    let template = "Value A (\\d+)\n\nStart\n  ^${A}\n";
    assert_eq!(run(template, "1\n2"), json!([{"A": "2"}]));
    assert_eq!(run(&format!("{template}\nEOF\n"), "1\n2"), json!([]));
    assert_eq!(run("Value A (\\d+)\n\nStart\n  ^${A} -> End\n", "1\n2"), json!([]));
    assert_eq!(run("Value A (\\d+)\n\nStart\n  ^${A} -> EOF\n", "1\n2"), json!([{"A": "1"}]));
}

#[test]
fn filldown_fillup_required() {
    let template = "Value Filldown V (v\\d)\nValue Fillup U (u\\d)\nValue Required P (p\\d)\n\nStart\n  ^${V}\n  ^${P}\\s+${U} -> Record\n  ^${P} -> Record\n  ^clear -> Clearall\n";
    assert_eq!(
        run(template, "v1\np1\np2 u2\nclear\np3\n"),
        json!([
            {"V": "v1", "U": "u2", "P": "p1"},
            {"V": "v1", "U": "u2", "P": "p2"},
            {"V": "", "U": "", "P": "p3"},
        ])
    );
}

#[test]
fn lists_and_nested_groups() {
    let template = "Value List L (\\d+)\nValue List M ((?P<name>\\w+):(?P<age>\\d+)?)\nValue K (k)\n\nStart\n  ^l${L} -> Continue\n  ^m${M}\n  ^r -> Record\n";
    assert_eq!(
        run(template, "l1\nl2\nmbob:3\nmeve:\nr\nl9\n"),
        json!([
            {"L": ["1", "2"], "M": [{"name": "bob", "age": "3"}, {"name": "eve", "age": null}], "K": ""},
            {"L": ["9"], "M": [], "K": ""},
        ])
    );
    let table = Template::compile(template).unwrap();
    let table = table.parse("meve:\n").unwrap();
    assert_eq!(table.to_ntc_value()[0]["m"], json!(["{'name': 'eve', 'age': None}"]));
}

#[test]
fn order_of_options_decides_what_required_sees() {
    let body = "(\\d+)\n\nStart\n  ^${L}\n  ^r -> Record\n";
    // With List first, Required sees the list, which Filldown keeps.
    assert_eq!(
        run(&format!("Value Filldown,List,Required L {body}"), "1\nr\nr\n"),
        json!([{"L": ["1"]}, {"L": ["1"]}, {"L": ["1"]}])
    );
    assert_eq!(run(&format!("Value Required,List L {body}"), "r\n1\nr\n"), json!([{"L": ["1"]}]));
}

#[test]
fn an_unmatched_group_in_a_list_is_null() {
    let template = "Value List L (\\d+)\nValue A (a)\n\nStart\n  ^${A}(?:\\s${L})?\n";
    let template = Template::compile(template).unwrap();
    let table = template.parse("a 1\na\n").unwrap();
    assert_eq!(table.to_value(), json!([{"L": ["1", null], "A": "a"}]));
    assert_eq!(table.to_ntc_value(), json!([{"l": ["1", "None"], "a": "a"}]));
}

#[test]
fn states_and_dollars() {
    let template = "Value A (\\S+)\n\n# a comment\nStart\n  ^begin$$ -> Inside\n\nInside\n  # another\n  ^end\\s*$$ -> Start\n  ^$A$$ -> Record\n";
    assert_eq!(run(template, "x\nbegin\ny\nend\nz\n"), json!([{"A": "y"}]));
}

#[test]
fn error_rules() {
    let template =
        Template::compile("Value A (a)\n\nStart\n  ^${A}\n  ^x -> Error \"no x\"\n  ^. -> Error\n").unwrap();
    let error = template.parse("a\nx1\n").unwrap_err();
    assert_eq!(error.message, "Error: \"no x\". Rule Line: 5. Input Line: x1.");
    assert_eq!(error.line, Some(5));
    let error = template.parse("b").unwrap_err();
    assert_eq!(error.message, "State Error raised. Rule Line: 6. Input Line: b");
}

#[test]
fn lines_are_split_as_python_splits() {
    let template = "Value A (\\w+)\n\nStart\n  ^${A}$$ -> Record\n";
    assert_eq!(
        run(template, "a\r\nb\rc\x0bd\x0ce\u{85}f\u{2028}g\x1ch"),
        json!(["a", "b", "c", "d", "e", "f", "g", "h"].map(|a| json!({"A": a})))
    );
}

#[test]
fn template_errors_are_worded_as_in_python() {
    for (template, message, line) in [
        ("", "Missing state 'Start'.", None),
        ("Foo\n", "No Value definitions found.", Some(1)),
        ("Value A (a)\nFoo\n", "Expected blank line after last Value entry. Line: 2.", Some(2)),
        ("Value A\n", "Expect at least 3 tokens on line. Line 1.", Some(1)),
        ("Value Bad A (a)\n", "Unknown option \"Bad\" Line 1.", Some(1)),
        ("Value List,List A (a)\n", "Duplicate option \"List\" Line 1.", Some(1)),
        ("Value A a\n", "Unknown option \"A\" Line 1.", Some(1)),
        ("Value List A a)\n", "Value 'a)' must be contained within a '()' pair. Line 1.", Some(1)),
        ("Value A (a)\nValue A (b)\n", "Duplicate declarations for Value 'A'. Line: 2.", Some(2)),
        ("Value A ((a)\n", "missing ), unterminated subpattern at position 0 Line 1.", Some(1)),
        ("Value A (a)\n\nStart\n^a\n", "Missing white space or carat ('^') before rule. Line: 4", Some(4)),
        (
            "Value A (a)\n\nStart\n  ^${B}\n",
            "Duplicate or invalid variable substitution: '^${B}'. Line: 4.",
            Some(4),
        ),
        (
            "Value A (a)\n\nStart\n  ^a -> Boo hoo\n",
            "Badly formatted rule '^a -> Boo hoo'. Line: 4.",
            Some(4),
        ),
        (
            "Value A (a)\n\nStart\n  ^a -> Continue Start\n",
            "Action 'Continue' with new state Start specified. Line: 4.",
            Some(4),
        ),
        (
            "Value A (a)\n\nStart\n  ^a -> Next \"x\"\n",
            "Alphanumeric characters only in state names. Line: 4.",
            Some(4),
        ),
        (
            "Value A (a)\n\nStart\n  ^a -> Nowhere\n",
            "State 'Nowhere' not found, referenced in state 'Start'",
            Some(4),
        ),
        ("Value A (a)\n\nStart\n\nStart\n", "Duplicate state name: 'Start'. Line: 5", Some(5)),
        ("Value A (a)\n\nSt art\n", "Invalid state name: 'St art'. Line: 3", Some(3)),
        ("Value A (a)\n\nStart\n\nEnd\n  ^a\n", "Non-Empty 'End' state.", Some(6)),
    ] {
        assert_eq!(error(template), (message.to_owned(), line), "{template:?}");
    }
    let (message, line) = error("Value A (a)\n\nStart\n  ^a(\n");
    assert!(message.starts_with("Invalid regular expression: '^a('. Line: 4."), "{message}");
    assert_eq!(line, Some(4));
}

#[test]
fn tables_are_merged_on_keys() {
    let a = Template::compile(
        "Value Key,Required SLOT (\\d+)\nValue CARD (\\w+)\n\nStart\n  ^card ${SLOT} ${CARD} -> Record\n",
    )
    .unwrap();
    let b = Template::compile(
        "Value Key,Required SLOT (\\d+)\nValue STATE (\\w+)\n\nStart\n  ^state ${SLOT} ${STATE} -> Record\n",
    )
    .unwrap();
    let text = "card 1 sup\ncard 2 line\nstate 2 ok\n";
    let merged =
        merge(vec![(a.parse(text).unwrap(), a.keys()), (b.parse(text).unwrap(), b.keys())]).unwrap().unwrap();
    assert_eq!(
        merged.to_ntc_value(),
        json!([
            {"slot": "1", "card": "sup", "state": ""},
            {"slot": "2", "card": "line", "state": "ok"},
        ])
    );
}
