use std::sync::LazyLock;

use proptest::prelude::*;
use regex::Regex;

use super::*;

const DIGEST: &str = "sha256:5b0bcabd1ed22e9fb1310cf6c2dec7cdef19f0ad69efa1f392e94a4333501270";

fn registry(host: &str, path: &str, plain_http: bool) -> Repository {
    Repository::Registry(Base { plain_http, host: host.into(), path: path.into() })
}

#[test]
fn every_form_of_a_reference_is_read() {
    let types = ["", "oci::", "OCIRepository/v1::", "OCIRegistry::", "ctf::", "CommonTransportFormat/v1::"];
    let repositories = [
        ("https://ghcr.io/acme/plugins", Some(registry("ghcr.io", "acme/plugins", false))),
        ("http://ghcr.io/acme/plugins", Some(registry("ghcr.io", "acme/plugins", true))),
        ("oci://ghcr.io/acme", Some(registry("ghcr.io", "acme", false))),
        ("ghcr.io/acme/plugins", Some(registry("ghcr.io", "acme/plugins", false))),
        ("ghcr.io", Some(registry("ghcr.io", "", false))),
        ("localhost:5000/acme", Some(registry("localhost:5000", "acme", false))),
        ("localhost", Some(registry("localhost", "", false))),
        ("192.0.2.1:5000/acme", Some(registry("192.0.2.1:5000", "acme", false))),
        ("192.0.2.1/acme", Some(registry("192.0.2.1", "acme", false))),
        ("http://[::1]:5000/acme", Some(registry("[::1]:5000", "acme", true))),
        ("./local/path", None),
        ("../with.dot/path", None),
        ("file://./local/path", None),
        ("file:///var/lib/acme.ctf", None),
        ("/absolute/path", None),
        ("local/path", None),
        ("acme.tgz", None),
        ("builds/acme.tar.gz", None),
        ("acme.tar", None),
        ("acme.ctf", None),
    ];
    for kind in types {
        for (text, as_registry) in &repositories {
            for prefix in ["", DESCRIPTORS] {
                for version in ["", ":1.2.3", ":v0.1.0", ":0.1.0-rc.1+build.5"] {
                    for digest in ["", &format!("@{DIGEST}")] {
                        let whole =
                            format!("{kind}{text}/{prefix}/ocm.software/plugins/o-c_i{version}{digest}");
                        let wants_archive = kind.to_lowercase().starts_with('c')
                            || (kind.is_empty() && as_registry.is_none());
                        let parsed = Reference::parse(&whole);
                        if kind.to_lowercase().starts_with('o') && as_registry.is_none() {
                            continue; // a path forced to be a registry: its own test below
                        }
                        let parsed = parsed.unwrap();
                        let repository = match (wants_archive, as_registry) {
                            (false, Some(registry)) => registry.clone(),
                            _ => Repository::Archive(text.strip_prefix("file://").unwrap_or(text).into()),
                        };
                        assert_eq!(parsed.repository, repository, "{whole}");
                        assert_eq!(parsed.component, "ocm.software/plugins/o-c_i", "{whole}");
                        assert_eq!(parsed.version.as_deref(), version.strip_prefix(':'), "{whole}");
                        assert_eq!(
                            parsed.digest.map(|d| d.to_string()).as_deref(),
                            digest.strip_prefix('@'),
                            "{whole}"
                        );
                        assert_eq!(
                            Reference::parse(&parsed.to_string()).unwrap(),
                            parsed,
                            "{whole} shown and read again"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn an_error_says_which_part_is_wrong() {
    for (text, part, why) in [
        ("ghcr.io/a//example.org/acme:invalid-0.23.0", "version", "1.2.3-rc.1"),
        ("ghcr.io/a//example.org/acme:01.2", "version", "is no version"),
        ("ghcr.io/a//example.org/acme:1.0@sha256:abc", "digest", "64 hexadecimal digits"),
        ("ghcr.io/a//example.org/acme@md5:abc", "digest", "digests of kind `md5`"),
        ("ghcr.io/a//acme:1.0.0", "component", "has no path"),
        ("ghcr.io/a//Example.org/acme", "component", "`Example.org`"),
        ("ghcr.io/a//example.org/Acme", "component", "`Acme` cannot stand in the path"),
        ("ghcr.io/a//example.org/x/", "component", "empty part"),
        ("ghcr.io/a//", "component", "it is empty"),
        ("git::ghcr.io/a//example.org/acme", "repository", "the type `git`"),
        ("ftp://ghcr.io/a//example.org/acme", "repository", "`ftp://`"),
        ("ghcr.io:99999/a//example.org/acme", "repository", "`99999` is no port"),
        ("oci::/etc/a//example.org/acme", "repository", "is no host name"),
        ("oci::./x//example.org/acme", "repository", "x"),
        ("https://user:secret@ghcr.io/a//example.org/acme", "repository", "credentials do not belong"),
        ("ghcr.io/Acme//example.org/acme", "repository", "`Acme` cannot stand"),
        ("//example.org/acme", "repository", "there is none"),
    ] {
        match Reference::parse(text) {
            // `.` is a host name by its characters; what follows is decided when it is asked.
            Ok(parsed) => assert_eq!(text, "oci::./x//example.org/acme", "{parsed:?}"),
            Err(error) => {
                assert!(error.message.contains(&format!("the {part} is wrong")), "{text}: {error}");
                assert!(error.message.contains(why), "{text}: {error}");
                assert!(!why.contains("credentials") || !error.message.ends_with("secret"), "{error}");
            }
        }
    }
    for text in ["https://ghcr.io", "ghcr.io/acme:1.0", "oci::ghcr.io/acme"] {
        let error = Target::parse(text).unwrap_err();
        assert!(error.message.contains("names no component") && error.hint.is_some(), "{text}: {error}");
    }
}

#[test]
fn what_names_no_component_is_a_path() {
    for (text, path) in [
        ("./acme", "./acme"),
        ("acme", "acme"),
        ("/opt/acme", "/opt/acme"),
        ("ctf::acme.tgz", "acme.tgz"),
        ("file:///opt/a.ctf", "/opt/a.ctf"),
    ] {
        assert_eq!(Target::parse(text).unwrap(), Target::Path(path.into()), "{text}");
    }
}

#[test]
fn tags_and_the_newest_version() {
    assert_eq!(
        (tag_of("1.0.0+a+b"), version_of("1.0.0.build-a")),
        ("1.0.0.build-a+b".into(), "1.0.0+a".into())
    );
    let newest = |list: &[&'static str]| newest(list.iter().copied());
    assert_eq!(newest(&["0.9.0", "0.10.0", "0.2.0"]), Some("0.10.0"));
    assert_eq!(newest(&["1.0.0-rc.2", "1.0.0-rc.10", "0.9"]), Some("0.9"));
    assert_eq!(newest(&["1.0.0-rc.2", "1.0.0-rc.10", "1.0.0-beta"]), Some("1.0.0-rc.10"));
    assert_eq!(newest(&[]), None);
}

static COMPONENT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"^[a-z][-a-z0-9]*([.][a-z][-a-z0-9]*)*[.][a-z]{2,}(/[a-z][-a-z0-9_]*([.][a-z][-a-z0-9_]*)*)+$",
    )
    .unwrap()
});

static VERSION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[v]?(0|[1-9]\d*)(?:\.(0|[1-9]\d*))?(?:\.(0|[1-9]\d*))?(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$").unwrap()
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn component_names_are_those_of_the_specification(name in "[a-z0-9A./_-]{0,24}", seed in 0usize..3) {
        let name = match seed { 0 => name, 1 => format!("example.org/{name}"), _ => format!("{name}/acme") };
        prop_assert_eq!(check_component(&name).is_ok(), COMPONENT.is_match(&name), "{}", name);
    }

    #[test]
    fn versions_are_those_of_the_specification(version in "[v0-9a.+-]{0,14}", seed in 0usize..3) {
        let version = match seed { 0 => version, 1 => format!("1.2.3-{version}"), _ => format!("1.{version}") };
        prop_assert_eq!(check_version(&version).is_ok(), VERSION.is_match(&version), "{}", version);
    }

    #[test]
    fn whatever_is_given_is_read_or_refused(text in "\\PC{0,60}") {
        let _ = Target::parse(&text);
    }

    #[test]
    fn a_reference_shown_is_the_same_reference(
        host in "[a-z]{1,8}\\.[a-z]{2,4}(:[1-9][0-9]{0,3})?",
        path in "([a-z0-9]{1,6}/){0,2}[a-z0-9]{1,6}",
        component in "[a-z]{2,8}\\.[a-z]{2,4}(/[a-z][a-z0-9_-]{0,6}){1,3}",
        version in proptest::option::of("[0-9]\\.[0-9]\\.[0-9](-rc\\.[0-9])?(\\+[a-z0-9]{1,5})?"),
        digest in proptest::option::of("sha256:[0-9a-f]{64}"),
        plain_http: bool,
    ) {
        let reference = Reference {
            repository: registry(&host, &path, plain_http),
            component, version,
            digest: digest.map(|digest| digest.parse().unwrap()),
        };
        prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
    }
}
