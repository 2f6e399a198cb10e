//! Hostile templates and texts end in an error or a result, soon and with bounded memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::time::{Duration, Instant};

use netpulse_template::ttp::{Options, Template, TtpError};
use proptest::prelude::*;
use serde_json::Value;

fn run(template: &str, text: &str) -> Result<Value, TtpError> {
    let at = Instant::now();
    let out = Template::compile(template, &Options::default()).and_then(|t| t.parse(text));
    // The promised second, with room for an unoptimised build beside other work.
    let soon = Duration::from_secs(if cfg!(debug_assertions) { 15 } else { 1 });
    assert!(at.elapsed() < soon, "took {:?}", at.elapsed());
    out
}

#[test]
fn catastrophic_pattern_names_its_line() {
    let text = format!("interface {}!\n", "a".repeat(5000)).repeat(50);
    let e = run("\ninterface {{ x | re(\"(a+)+\\\\2[bc]\") }}", &text).unwrap_err();
    assert_eq!((e.code, e.line), ("limit", Some(2)));
    // What is only exponential as written is answered.
    let got = run("\ninterface {{ x | re(\"(a+)+[bc]\") }}", &text).unwrap();
    assert_eq!(got["_root_template_"][0], serde_json::json!({}));
}

#[test]
fn long_lines() {
    let line = format!("x {}\n", "word ".repeat(200_000));
    let _ = run("x {{ a | PHRASE }}", &line);
    let ok = run("x {{ a | _line_ }}", &line).unwrap();
    assert!(ok.to_string().len() > 900_000);
}

#[test]
fn too_many_matches() {
    let options = Options { max_matches: 1000, ..Options::default() };
    let e = Template::compile("x {{ a }}", &options).unwrap().parse(&"x 1\n".repeat(5000)).unwrap_err();
    assert_eq!(e.code, "limit");
}

#[test]
fn deep_tags_and_literals() {
    let e = run(&"<group name=\"a\">\n".repeat(5000), "x").unwrap_err();
    assert_eq!(e.code, "limit");
    let e = run(&format!("<vars>\na = {}\n</vars>\n<group>x {{{{ y }}}}</group>", "[".repeat(100_000)), "x")
        .unwrap_err();
    assert!(e.message.contains("<vars>"), "{e}");
}

#[test]
fn huge_values_are_refused() {
    let e = run("x {{ a | unrange(\"-\", \",\") }}", "x 1-99999999999\n").unwrap_err();
    assert_eq!(e.code, "limit");
}

#[test]
fn self_extending_template_ends() {
    #[derive(Debug)]
    struct Same;
    impl netpulse_template::ttp::Files for Same {
        fn read(&self, _: &str) -> Option<String> {
            Some("<group name=\"a\"><extend template=\"x\"/></group>".into())
        }
        fn list(&self, _: &str) -> Option<Vec<String>> {
            None
        }
    }
    let options = Options { files: Some(std::sync::Arc::new(Same)), ..Options::default() };
    assert_eq!(Template::compile("<extend template=\"x\"/>", &options).unwrap_err().code, "limit");
}

#[test]
fn nul_and_other_bytes_pass() {
    let got = run("x {{ a }} {{ b }}", "x \0a\u{1} éü\n").unwrap();
    assert_eq!(got["_root_template_"][0]["a"], "\0a\u{1}");
}

#[test]
fn what_is_python_is_refused_by_name() {
    for (template, tag) in [
        ("<macro>\ndef f(x): return x\n</macro>\n<group>x {{ a }}</group>", "<macro>"),
        ("<group>\nx {{ a | macro(\"f\") }}\n</group>", "macro(f)"),
        ("<group macro=\"f\">\nx {{ a }}\n</group>", "macro"),
        ("<vars>\nimport os\n</vars><group>\nx {{ a }}\n</group>", "<vars>"),
        ("<group>\nx {{ a }}\n</group>\n<output macro=\"f\"/>", "<output macro"),
    ] {
        let e = Template::compile(template, &Options::default()).unwrap_err();
        assert!(e.code == "python" && e.message.contains(tag), "{e}");
    }
}

#[test]
fn text_may_hold_angle_brackets() {
    let got = run("<group>\n<{{ host }}>display {{ what }}\n</group>", "<HUAWEI>display version\n").unwrap();
    assert_eq!(got["_root_template_"][0], serde_json::json!([{"host": "HUAWEI", "what": "version"}]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_template_and_text_end(template in "[a-c<>/{}| \n\"=.*()]{0,120}", text in "\\PC{0,200}") {
        let _ = run(&template, &text);
    }

    #[test]
    fn any_group_is_parsed(
        name in "[a-c_.*/{} ]{0,12}",
        line in "( ?(x|\\{\\{ [ab_]{1,7}( \\| (ORPHRASE|DIGIT|_start_|joinmatches|upper|to_int))? \\}\\})){1,4}",
        text in "([x1 a]{0,12}\n){0,12}",
    ) {
        let _ = run(&format!("<group name=\"{name}\">\n{line}\nx {{{{ z }}}}\n</group>"), &text);
    }

    #[test]
    fn words_come_back(words in proptest::collection::vec("[!-~]{1,12}", 1..40)) {
        let text: String = words.iter().map(|w| format!("item {w}\n")).collect();
        let got = run("<group>\nitem {{ w }}\n</group>", &text).unwrap();
        let back: Vec<&str> = got["_root_template_"][0].as_array().unwrap().iter().map(|r| r["w"].as_str().unwrap()).collect();
        prop_assert_eq!(back, words.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
