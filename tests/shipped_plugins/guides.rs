//! The guides show the examples as they are.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::built::root;

/// A page with each `<!-- file: path -->` followed by that file, fenced as it was; and the paths.
fn with_files(page: &str) -> (String, BTreeSet<String>) {
    let (mut whole, mut paths) = (String::new(), BTreeSet::new());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        whole.push_str(line);
        whole.push('\n');
        let Some(path) = line.strip_prefix("<!-- file: ").and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        let fence = lines.next().unwrap_or_else(|| panic!("nothing after {line}"));
        assert!(fence.starts_with("```"), "no fence after {line}");
        assert!(lines.by_ref().any(|line| line == "```"), "the fence after {line} has no end");
        let text = std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        write!(whole, "{fence}\n{text}```\n").unwrap();
        paths.insert(path.to_owned());
    }
    (whole, paths)
}

#[test]
fn pages_and_files_agree() {
    let mut shown = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("docs/plugins")).unwrap() {
        let path = entry.unwrap().path();
        let page = std::fs::read_to_string(&path).unwrap();
        let (whole, paths) = with_files(&page);
        shown.extend(paths);
        if std::env::var_os("NETPULSE_REGENERATE").is_some() {
            std::fs::write(&path, &whole).unwrap();
        } else {
            assert!(
                whole == page,
                "{} shows an older file: NETPULSE_REGENERATE=1 brings it up to date",
                path.display()
            );
        }
    }
    for entry in std::fs::read_dir(root().join("examples/plugins")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with("__") || shown.contains(&format!("examples/plugins/{name}")),
            "no page shows {name}"
        );
    }
}

#[test]
fn links_lead_somewhere() {
    for entry in std::fs::read_dir(root().join("docs/plugins")).unwrap() {
        let path = entry.unwrap().path();
        let page = std::fs::read_to_string(&path).unwrap();
        let page: String = page.split("```").step_by(2).collect();
        for target in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !target.starts_with("http") {
                assert!(path.parent().unwrap().join(target).exists(), "{}: {target}", path.display());
            }
        }
    }
}
