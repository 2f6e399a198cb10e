//! The facade: engines by name, sources under their limits, ntc-templates folders, the cache.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::sync::Arc;

use netpulse_template::source::Fetch;
use netpulse_template::{Config, Engines, ParseCall, error::code};
use serde_json::json;

const TEMPLATE: &str = "Value Required NAME (\\S+)\n\nStart\n  ^name ${NAME} -> Record\n";

#[test]
fn ntc_templates_are_chosen_by_platform_and_command() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("templates");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("ours.textfsm"), TEMPLATE).unwrap();
    std::fs::write(
        folder.join("index"),
        "# comment\nTemplate, Hostname, Platform, Command\n\nours.textfsm, .*, cisco_ios, sh[[ow]] na[[mes]]\n",
    )
    .unwrap();
    let engines = Engines::new(Config { ntc_dirs: vec![dir.path().into()], ..Config::default() });
    let call = ParseCall {
        name: "textfsm",
        text: "name r1\n",
        platform: Some("cisco_xe"),
        command: Some("sho nam"),
        ..ParseCall::default()
    };
    assert_eq!(engines.parse(&call).unwrap(), json!([{"name": "r1"}]));
    let args = json!({"platform": "cisco_ios", "command": "show names"});
    let chosen = ParseCall {
        use_ntc_template: true,
        ntc_template_args: Some(&args),
        platform: None,
        command: None,
        ..call.clone()
    };
    assert_eq!(engines.parse(&chosen).unwrap(), json!([{"name": "r1"}]));
    // By name the keys stay as written.
    let named = ParseCall { template: Some("ours.textfsm"), ..call.clone() };
    assert_eq!(engines.parse(&named).unwrap(), json!([{"NAME": "r1"}]));
    assert_eq!(
        engines.parse(&ParseCall { command: Some("show x"), ..call.clone() }).unwrap_err().code,
        code::NOT_FOUND
    );
    assert_eq!(engines.parse(&ParseCall { command: None, ..call.clone() }).unwrap_err().code, code::REQUEST);
    assert_eq!(
        engines.parse(&ParseCall { template: Some("none.textfsm"), ..call }).unwrap_err().code,
        code::NOT_FOUND
    );
    assert_eq!(engines.cached(), 1);
}

#[test]
fn an_index_that_takes_too_long_is_an_error() {
    use netpulse_template::textfsm::Index;
    // A reference keeps this exponential for any backtracker.
    let index = Index::parse("Template, Command\nt.textfsm, (a+)+\\1[bc]\n").unwrap();
    let error = index.find(&[("Command", &"a".repeat(4000))]).unwrap_err();
    assert_eq!((error.code, error.line), (code::LIMIT, Some(2)), "{error}");
    assert!(error.message.contains("Command"), "{error}");
    let error = index.find(&[("Command", &"a".repeat(5000))]).unwrap_err();
    assert_eq!(error.code, code::LIMIT, "{error}");
    assert_eq!(index.find(&[("Command", "x")]).unwrap(), None);
}

#[test]
fn ttp_templates_are_chosen_by_platform_and_command() {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("platform/cisco_ios_show_names_pipe_inc_x.txt", "name {{ name }}"),
        ("platform/extends.txt", "<extend template=\"ttp://misc/Ours/part.txt\"/>"),
        ("misc/Ours/part.txt", "<group name=\"part\">\nname {{ part }}\n</group>"),
        ("yang/our-names_cisco_ios.txt", "name {{ yang }}"),
    ] {
        let path = dir.path().join("ttp_templates").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    std::fs::write(dir.path().join("outside.txt"), "name {{ secret }}").unwrap();
    let engines = Engines::new(Config { ttp_dirs: vec![dir.path().into()], ..Config::default() });
    assert_eq!(engines.ttp_folder(), Some(dir.path().join("ttp_templates").as_path()));
    // `{"name": "ttp"}` alone: platform and command are those of the device.
    let call = ParseCall {
        name: "ttp",
        text: "name r1\n",
        platform: Some("Cisco-IOS"),
        command: Some("show \"names\" | inc x"),
        ..ParseCall::default()
    };
    let root = |name: &str| json!({"_root_template_": [{name: "r1"}]});
    assert_eq!(engines.parse(&call).unwrap(), root("name"));
    let with = |args: serde_json::Value| {
        let call = ParseCall { use_ttp_template: true, ttp_template_args: Some(&args), ..call.clone() };
        engines.parse(&call)
    };
    assert_eq!(
        with(json!({"platform": "cisco_ios", "command": "show names|inc x"})).unwrap_err().code,
        code::NOT_FOUND
    );
    assert_eq!(
        with(json!({"platform": "cisco_ios", "command": "show names | inc x"})).unwrap(),
        root("name")
    );
    assert_eq!(with(json!({"platform": "cisco_ios", "yang": "our-names"})).unwrap(), root("yang"));
    let part = json!({"_root_template_": [{"part": {"part": "r1"}}]});
    assert_eq!(with(json!({"misc": "Ours/part.txt"})).unwrap(), part);
    assert_eq!(with(json!({"path": "ttp://platform/extends.txt"})).unwrap(), part);
    assert_eq!(with(json!({"get": "inventory"})).unwrap_err().code, code::UNSUPPORTED);
    for path in ["ttp://../outside.txt", "ttp://none.txt", "ttp:///etc/hostname", "ttp://platform"] {
        let error = with(json!({"path": path})).unwrap_err();
        assert_eq!(error.code, code::NOT_FOUND, "{path}: {error}");
    }
    // As the template itself, as Netmiko's `ttp_template` gives it.
    let named = ParseCall {
        template: Some("ttp://misc/Ours/part.txt"),
        platform: None,
        command: None,
        ..call.clone()
    };
    assert_eq!(engines.parse(&named).unwrap(), part);
    assert_eq!(engines.parse(&ParseCall { command: None, ..call.clone() }).unwrap_err().code, code::REQUEST);
    let error = engines.parse(&ParseCall { command: Some("show nothing"), ..call }).unwrap_err();
    assert_eq!(error.code, code::NOT_FOUND);
    assert!(error.message.contains("platform/cisco_ios_show_nothing.txt"), "{error}");
}

#[test]
fn files_only_below_the_configured_folders() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
    std::fs::create_dir(&inside).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(inside.join("t"), "in {{ x }}").unwrap();
    std::fs::write(outside.join("t"), "out").unwrap();
    std::os::unix::fs::symlink(outside.join("t"), inside.join("link")).unwrap();
    let url = |path: &std::path::Path| format!("FILE://{}", path.display());
    let render = |engines: &Engines, url: &str| engines.render("jinja2", url, &json!({"x": 1}), None);
    let none = Engines::new(Config::default());
    let error = render(&none, &url(&inside.join("t"))).unwrap_err();
    assert_eq!(error.code, code::SOURCE_DENIED);
    assert!(error.message.contains("template.dirs"), "{error}");
    let engines = Engines::new(Config { template_dirs: vec![inside.clone()], ..Config::default() });
    assert_eq!(render(&engines, &url(&inside.join("t"))).unwrap(), "in 1");
    for path in [outside.join("t"), inside.join("../out/t"), inside.join("link"), inside.join("absent")] {
        assert_eq!(render(&engines, &url(&path)).unwrap_err().code, code::SOURCE_DENIED, "{path:?}");
    }
    assert_eq!(render(&engines, &url(&inside)).unwrap_err().code, code::SOURCE_FAILED);
}

struct Canned;

impl Fetch for Canned {
    fn fetch(&self, url: &str, _: usize) -> Result<String, String> {
        if url.ends_with("/bad") { Err("503".into()) } else { Ok("remote {{ x }}".into()) }
    }
}

#[test]
fn urls_only_from_the_configured_hosts() {
    let engines = Engines::new(Config {
        remote_hosts: vec!["templates.example".into()],
        fetch: Some(Arc::new(Canned)),
        ..Config::default()
    });
    let render = |url: &str| engines.render("jinja2", url, &json!({"x": 1}), None);
    assert_eq!(render("https://Templates.example:8443/a").unwrap(), "remote 1");
    assert_eq!(render("http://templates.example/bad").unwrap_err().code, code::SOURCE_FAILED);
    for url in [
        "http://other.example/a",
        "http://templates.example@other.example/",
        "http://templates.example\\@other/",
        "http:///x",
        "https://templates.example.evil/",
    ] {
        let error = render(url).unwrap_err();
        assert_eq!(error.code, code::SOURCE_DENIED, "{url}");
    }
    assert!(render("http://other.example/a").unwrap_err().message.contains("template.remote_hosts"));
}

#[test]
fn engines_have_names_and_the_cache_has_a_bound() {
    let engines = Engines::new(Config { cache_size: 2, ..Config::default() });
    assert_eq!(engines.render("mako", "x", &json!({}), None).unwrap_err().code, code::NOT_FOUND);
    assert_eq!(
        engines.render("string", "$a $$ ${b}", &json!({"a": true, "b": [1, "x", null]}), None).unwrap(),
        "True $ [1, 'x', None]"
    );
    assert_eq!(engines.render("string", "a\n$c", &json!({}), None).unwrap_err().line, Some(2));
    assert_eq!(
        engines
            .render(
                "jinja2",
                "{{ '%s-%03d'|format('a', 7) }} {{ '%s:%s' % (1, 'b') }} {{ 'x%s' % y }}",
                &json!({"y": 2}),
                None
            )
            .unwrap(),
        "a-007 1:b x2"
    );
    let wrong = engines.render("jinja2", "x", &json!({}), Some(&json!({"trim": true}))).unwrap_err();
    assert_eq!(wrong.code, code::REQUEST);
    assert!(wrong.message.contains("trim"), "{wrong}");
    for i in 0..10 {
        engines.render("jinja2", &format!("{i}"), &json!({}), None).unwrap();
    }
    assert_eq!(engines.cached(), 2);
    let call = ParseCall {
        name: "regex",
        template: Some(r"(?P<k>\w+)=(?P<v>\d+)?"),
        text: "a=1\nb=\n",
        ..ParseCall::default()
    };
    assert_eq!(engines.parse(&call).unwrap(), json!([{"k": "a", "v": "1"}, {"k": "b", "v": null}]));
    assert_eq!(engines.parse(&ParseCall { template: Some("(a)"), ..call }).unwrap_err().code, code::SYNTAX);
}
