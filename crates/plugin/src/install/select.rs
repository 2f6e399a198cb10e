//! Which resource of a component is meant.

use std::collections::{BTreeMap, BTreeSet};

use super::descriptor::{Component, Resource};
use super::error::{InstallError, Result, Trouble};
use super::platform::{ARCHITECTURE, OS};

/// What the resource must have.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its type: `ocmPlugin`.
    pub kind: String,
    /// Its name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// What else identifies it; `os` and `architecture` are this machine's where absent.
    pub identity: BTreeMap<String, String>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { kind: super::PLUGIN_TYPE.to_owned(), name: None, version: None, identity: BTreeMap::new() }
    }
}

/// The resource that is meant, and what should be said about the choice.
///
/// # Errors
/// None fits; the message says what there is.
pub fn choose<'a>(
    component: &'a Component,
    wanted: &Wanted,
    os: &str,
    architecture: &str,
) -> Result<(&'a Resource, Vec<String>)> {
    let mut identity: BTreeMap<String, String> =
        wanted.identity.iter().map(|(name, value)| (canonical(name), value.clone())).collect();
    let asked_platform = [OS, ARCHITECTURE].iter().any(|name| identity.contains_key(*name));
    identity.entry(OS.to_owned()).or_insert_with(|| os.to_owned());
    identity.entry(ARCHITECTURE.to_owned()).or_insert_with(|| architecture.to_owned());
    let fits = |resource: &Resource, identity: &BTreeMap<String, String>| {
        resource.kind == wanted.kind
            && wanted.name.as_ref().is_none_or(|name| *name == resource.name)
            && wanted.version.as_ref().is_none_or(|version| *version == resource.version)
            && {
                let has = canonical_identity(resource);
                identity.iter().all(|(name, value)| has.get(name) == Some(value))
            }
    };
    let mut found: Vec<&Resource> =
        component.resources.iter().filter(|resource| fits(resource, &identity)).collect();
    if found.is_empty() && !asked_platform {
        // A script runs anywhere: its identity names no platform at all.
        let mut anywhere = identity.clone();
        anywhere.retain(|name, _| name != OS && name != ARCHITECTURE);
        let neutral = |resource: &&Resource| {
            let has = canonical_identity(resource);
            !has.contains_key(OS) && !has.contains_key(ARCHITECTURE) && fits(resource, &anywhere)
        };
        found = component.resources.iter().filter(neutral).collect();
    }
    // Without a wanted version any will do if there is one; of several, the component's own.
    let versions: BTreeSet<&str> = found.iter().map(|resource| resource.version.as_str()).collect();
    if wanted.version.is_none() && versions.len() > 1 {
        if versions.contains(component.version.as_str()) {
            found.retain(|resource| resource.version == component.version);
        } else {
            let versions = versions.into_iter().collect::<Vec<_>>().join(", ");
            return Err(InstallError::new(
                Trouble::NotFound,
                format!(
                    "{}:{} has its plugin in several versions: {versions}",
                    component.name, component.version
                ),
            )
            .hint("choose one with --resource-version"));
        }
    }
    let Some(first) = found.first() else {
        return Err(none(component, wanted, identity));
    };
    let mut warnings = Vec::new();
    if found.len() > 1 {
        let names: Vec<String> = found.iter().map(|resource| shown(resource)).collect();
        warnings.push(format!(
            "{} resources fit, the first is taken: {}; --resource-name or --extra-identity chooses another",
            found.len(),
            names.join("; ")
        ));
    }
    Ok((first, warnings))
}

/// `arch` stands for `architecture`: both are written.
fn canonical(name: &str) -> String {
    if name == "arch" { ARCHITECTURE.to_owned() } else { name.to_owned() }
}

fn canonical_identity(resource: &Resource) -> BTreeMap<String, String> {
    resource.identity().into_iter().map(|(name, value)| (canonical(&name), value)).collect()
}

fn none(component: &Component, wanted: &Wanted, mut identity: BTreeMap<String, String>) -> InstallError {
    identity.extend(wanted.name.iter().map(|name| ("name".to_owned(), name.clone())));
    identity.extend(wanted.version.iter().map(|version| ("version".to_owned(), version.clone())));
    let of_type: Vec<String> =
        component.resources.iter().filter(|r| r.kind == wanted.kind).map(shown).collect();
    let there = match (of_type.is_empty(), component.resources.is_empty()) {
        (false, _) => format!("there is: {}", of_type.join("; ")),
        (true, true) => "the component has no resources".to_owned(),
        (true, false) => {
            let kinds: BTreeSet<&str> =
                component.resources.iter().map(|resource| resource.kind.as_str()).collect();
            format!("its resources are of type {}", kinds.into_iter().collect::<Vec<_>>().join(", "))
        }
    };
    InstallError::new(
        Trouble::NotFound,
        format!(
            "no resource found matching identity {} of type {} in {}:{}; {there}",
            identity_text(&identity),
            wanted.kind,
            component.name,
            component.version
        ),
    )
}

/// An identity as people write it: `architecture=amd64,name=acme,os=linux`.
#[must_use]
pub fn identity_text(identity: &BTreeMap<String, String>) -> String {
    identity.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

fn shown(resource: &Resource) -> String {
    identity_text(&resource.identity())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, version: &str, identity: &[(&str, &str)]) -> Resource {
        Resource {
            name: name.into(),
            version: version.into(),
            kind: "ocmPlugin".into(),
            extra_identity: identity.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            ..Resource::default()
        }
    }

    fn component(resources: Vec<Resource>) -> Component {
        Component {
            name: "example.org/acme".into(),
            version: "1.0.0".into(),
            resources,
            ..Component::default()
        }
    }

    fn wanted(identity: &[(&str, &str)]) -> Wanted {
        Wanted {
            identity: identity.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            ..Wanted::default()
        }
    }

    const LINUX: &[(&str, &str)] = &[("os", "linux"), ("architecture", "amd64")];
    const ARM: &[(&str, &str)] = &[("os", "linux"), ("arch", "arm64")];

    #[test]
    fn the_platform_chooses() {
        let all = component(vec![resource("acme", "1.0.0", ARM), resource("acme", "1.0.0", LINUX)]);
        let pick = |wanted: &Wanted, arch: &str| {
            choose(&all, wanted, "linux", arch).map(|(r, w)| (r.extra_identity.clone(), w))
        };
        assert_eq!(pick(&wanted(&[]), "amd64").unwrap(), (all.resources[1].extra_identity.clone(), vec![]));
        assert_eq!(pick(&wanted(&[]), "arm64").unwrap().0, all.resources[0].extra_identity);
        assert_eq!(
            pick(&wanted(&[("architecture", "arm64")]), "amd64").unwrap().0,
            all.resources[0].extra_identity
        );
        assert_eq!(pick(&wanted(&[("arch", "amd64")]), "arm64").unwrap().0, all.resources[1].extra_identity);
        let error = pick(&wanted(&[]), "riscv64").unwrap_err();
        assert_eq!(error.trouble, Trouble::NotFound);
        assert_eq!(
            error.message,
            "no resource found matching identity architecture=riscv64,os=linux of type ocmPlugin in example.org/acme:1.0.0; \
             there is: arch=arm64,name=acme,os=linux,version=1.0.0; architecture=amd64,name=acme,os=linux,version=1.0.0"
        );
    }

    #[test]
    fn several_that_fit_are_told() {
        let all = component(vec![resource("a", "1.0.0", LINUX), resource("b", "1.0.0", LINUX)]);
        let (first, warnings) = choose(&all, &wanted(&[]), "linux", "amd64").unwrap();
        assert_eq!(first.name, "a");
        assert!(warnings[0].starts_with("2 resources fit") && warnings[0].contains("name=b"), "{warnings:?}");
        let by_name = Wanted { name: Some("b".into()), ..Wanted::default() };
        assert_eq!(choose(&all, &by_name, "linux", "amd64").unwrap(), (&all.resources[1], vec![]));
    }

    #[test]
    fn a_version_is_any_if_there_is_one_and_the_components_among_several() {
        let one = component(vec![resource("a", "0.0.1", LINUX)]);
        assert_eq!(choose(&one, &wanted(&[]), "linux", "amd64").unwrap().0.version, "0.0.1");
        let two = component(vec![resource("a", "0.9.0", LINUX), resource("a", "1.0.0", LINUX)]);
        assert_eq!(choose(&two, &wanted(&[]), "linux", "amd64").unwrap().0.version, "1.0.0");
        let old = Wanted { version: Some("0.9.0".into()), ..Wanted::default() };
        assert_eq!(choose(&two, &old, "linux", "amd64").unwrap().0.version, "0.9.0");
        let neither = component(vec![resource("a", "0.8.0", LINUX), resource("a", "0.9.0", LINUX)]);
        let error = choose(&neither, &wanted(&[]), "linux", "amd64").unwrap_err();
        assert!(error.message.contains("several versions: 0.8.0, 0.9.0"), "{error}");
    }

    #[test]
    fn a_script_without_a_platform_fits_everywhere() {
        let all = component(vec![resource("a", "1.0.0", &[])]);
        assert!(choose(&all, &wanted(&[]), "linux", "amd64").is_ok());
        assert!(
            choose(&all, &wanted(&[("os", "linux")]), "linux", "amd64").is_err(),
            "asked for, so it must be there"
        );
        let other = Wanted { kind: "other".into(), ..Wanted::default() };
        let error = choose(&all, &other, "linux", "amd64").unwrap_err();
        assert!(error.message.ends_with("its resources are of type ocmPlugin"), "{error}");
    }
}
