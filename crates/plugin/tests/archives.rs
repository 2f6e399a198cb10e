//! Archives in the shapes that other tools write, and hostile ones, are installed or refused.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;
use std::process::Command;

use netpulse_plugin::install::{Change, Digest, Limits, Lock, Packing, Trouble, Trust, Verdict, pack};
use serde_json::{Value, json};
use support::*;

const OCTETS: &str = "application/octet-stream";

async fn refused(content: &Content, said: &str) {
    let folder = tempfile::tempdir().unwrap();
    let archive = content.ctf(&folder.path().join("acme.ctf"));
    let order = order(&format!("{}//{COMPONENT}:0.2.0", archive.display()), folder.path());
    let error = run(&order).await.unwrap_err();
    assert!(error.message.contains(said), "expected `{said}` in: {error}");
    assert!(left(folder.path()).is_empty(), "{:?}", left(folder.path()));
}

#[tokio::test]
async fn every_kind_of_archive_and_descriptor_installs() {
    let program = script("0.2.0");
    let json = descriptor(vec![resource(&program, OCTETS)]);
    let yaml = serde_yaml_of(&json);
    let yaml_tar = tar(&[("component-descriptor.yaml", yaml.as_bytes())]);
    let legacy = "application/vnd.gardener.cloud.cnudie.component-descriptor.v2+yaml+tar";
    for (descriptor, media_type) in [
        (json.to_string().into_bytes(), format!("{DESCRIPTOR}+json")),
        (yaml.clone().into_bytes(), format!("{DESCRIPTOR}+yaml")),
        (yaml_tar.clone(), format!("{DESCRIPTOR}+yaml+tar")),
        (yaml_tar.clone(), legacy.to_owned()),
    ] {
        for in_index in [false, true] {
            let mut content = Content::default();
            let mut top = content.manifest(&descriptor, &media_type, &[(OCTETS, &program)]);
            if in_index {
                let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [top]});
                top = content.blob(INDEX, index.to_string().as_bytes());
            }
            content.tag(&top);
            for name in ["folder", "a.tar", "a.tgz"] {
                for layout in [false, true] {
                    let folder = tempfile::tempdir().unwrap();
                    let place = folder.path().join(name);
                    let archive = if layout { content.layout(&place) } else { content.ctf(&place) };
                    let named = format!("ctf::{}//{COMPONENT}:0.2.0", archive.display());
                    let newest = format!("{}//{COMPONENT}", archive.display());
                    for reference in [named, newest, archive.display().to_string()] {
                        let installed = run(&order(&reference, folder.path())).await.unwrap();
                        assert_eq!(
                            (installed.plugin.as_str(), installed.version.as_str()),
                            ("acme", "0.2.0")
                        );
                        assert_eq!(std::fs::read(&installed.location).unwrap(), program);
                    }
                    assert_eq!(left(folder.path()), ["acme", "plugins.lock"]);
                }
            }
        }
    }
}

/// What tools of several years write beside what we need: nulls, labels, contexts, signatures, fields
/// that nobody knows yet, older media types, and an index without any.
#[tokio::test]
async fn what_older_and_newer_tools_write_besides_is_no_hindrance() {
    let program = script("0.2.0");
    let mut whole = descriptor(vec![resource(&program, OCTETS)]);
    let component = &mut whole["component"];
    component["creationTime"] = "2026-02-03T04:05:06Z".into();
    component["labels"] = json!([{"name": "a", "value": {"b": [1]}, "signing": true, "version": "v1"}]);
    component["repositoryContexts"] = json!([{"type": "OCIRegistry", "baseUrl": "ghcr.io", "subPath": "acme", "componentNameMapping": "urlPath"}]);
    component["sources"] = Value::Null;
    component["componentReferences"] = Value::Null;
    component["somethingNew"] = json!({"x": 1});
    component["resources"][0]["labels"] = Value::Null;
    component["resources"][0]["srcRefs"] = json!([{"identitySelector": {"name": "s"}, "labels": null}]);
    component["resources"][0]["access"]["globalAccess"] = Value::Null;
    component["resources"][0]["access"]["referenceName"] = "acme/driver:0.2.0".into();
    // Another kind of resource beside it, as components have.
    let image = json!({"name": "docs", "version": "1", "type": "ociImage", "relation": "external",
        "access": {"type": "ociArtifact", "imageReference": "ghcr.io/acme/docs:1"}, "digest": null});
    component["resources"].as_array_mut().unwrap().insert(0, image);
    whole["signatures"] = Value::Null;
    whole["nestedDigests"] = json!([]);
    let legacy = "application/vnd.gardener.cloud.cnudie.component";
    let text = whole.to_string();
    for (config_type, descriptor_type) in [
        (format!("{legacy}.config.v1+json"), format!("{legacy}-descriptor.v2+json")),
        (format!("{legacy}.config.v1+json"), format!("{legacy}-descriptor.v2+yaml")),
        ("application/vnd.oci.image.config.v1+json".to_owned(), format!("{DESCRIPTOR}+json")),
    ] {
        for (indexed_type, artifact_type) in [(true, true), (false, false)] {
            let mut content = Content::default();
            let layer = content.blob(&descriptor_type, text.as_bytes());
            let config = json!({"componentDescriptorLayer": layer}).to_string();
            let config = content.blob(&config_type, config.as_bytes());
            let program = content.blob(OCTETS, &program);
            let mut manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer, program]});
            if artifact_type {
                manifest["artifactType"] = DESCRIPTOR.into();
                manifest["mediaType"] = MANIFEST.into();
            }
            let manifest = content.blob(MANIFEST, manifest.to_string().as_bytes());
            content.tag(&manifest);
            let folder = tempfile::tempdir().unwrap();
            let archive = content.ctf(&folder.path().join("a.ctf"));
            if !indexed_type {
                // The index as the first version of the format has it.
                let file = archive.join("artifact-index.json");
                let mut index: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
                index["artifacts"][0].as_object_mut().unwrap().remove("mediaType");
                std::fs::write(&file, index.to_string()).unwrap();
            }
            let reference = format!("{}//{COMPONENT}:0.2.0", archive.display());
            let installed = run(&order(&reference, folder.path())).await;
            let installed = installed.unwrap_or_else(|e| panic!("{config_type} {descriptor_type}: {e}"));
            assert_eq!(installed.plugin, "acme", "{config_type} {descriptor_type}");
        }
    }
}

fn serde_yaml_of(value: &Value) -> String {
    // JSON is YAML; a block form on top, as tools write it.
    format!("---\nmeta:\n  schemaVersion: v2\ncomponent: {}\n", value["component"])
}

#[tokio::test]
async fn every_alias_of_a_local_blob_and_every_packing_installs() {
    let program = script("0.2.0");
    for kind in ["localBlob", "localBlob/v1", "LocalBlob/v1", "LocalBlob"] {
        for (bytes, media_type) in [
            (program.clone(), OCTETS),
            (gzip(&program), "application/octet-stream+gzip"),
            (tar(&[("bin/acme", &program)]), "application/x-tar"),
            (gzip(&tar(&[("./acme", &program)])), "application/x-tgz"),
        ] {
            let mut resource = resource(&bytes, media_type);
            resource["access"]["type"] = kind.into();
            let content = Content::with(&descriptor(vec![resource]), &[(media_type, &bytes)]);
            let folder = tempfile::tempdir().unwrap();
            let archive = content.ctf(&folder.path().join("a.ctf"));
            let installed = run(&order(&archive.display().to_string(), folder.path())).await.unwrap();
            assert_eq!(std::fs::read(&installed.location).unwrap(), program, "{kind} {media_type}");
            assert_eq!(installed.sha256, Digest::of(&program));
        }
    }
}

#[tokio::test]
async fn in_the_index_form_a_plugin_may_be_an_artifact_of_its_own() {
    let program = script("0.2.0");
    let mut content = Content::default();
    let config = content.blob("application/vnd.oci.empty.v1+json", b"{}");
    let layer = content.blob(OCTETS, &program);
    let artifact =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}).to_string();
    let artifact = content.blob(MANIFEST, artifact.as_bytes());
    let mut resource = resource(&program, MANIFEST);
    resource["access"]["localReference"] = artifact["digest"].clone();
    resource["digest"]["normalisationAlgorithm"] = "ociArtifactDigest/v1".into();
    resource["digest"]["value"] = artifact["digest"].as_str().unwrap()[7..].into();
    let text = descriptor(vec![resource]).to_string();
    let component = content.manifest(text.as_bytes(), &format!("{DESCRIPTOR}+json"), &[]);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [component, artifact]});
    let index = content.blob(INDEX, index.to_string().as_bytes());
    content.tag(&index);
    let folder = tempfile::tempdir().unwrap();
    let archive = content.ctf(&folder.path().join("a.tgz"));
    let installed = run(&order(&archive.display().to_string(), folder.path())).await.unwrap();
    assert_eq!(std::fs::read(&installed.location).unwrap(), program);
}

#[tokio::test]
async fn bytes_that_are_not_what_was_announced_are_refused() {
    let program = script("0.2.0");
    let content = Content::usual(&program, OCTETS);
    // Every blob, one after the other: manifest, config, descriptor, program.
    for (hex, bytes) in &content.blobs {
        let mut changed = bytes.clone();
        let last = changed.len() - 1;
        changed[last] ^= 1;
        let mut tampered = content.clone();
        tampered.blobs.insert(hex.clone(), changed);
        refused(&tampered, "the bytes are not what their digest says").await;
    }
    let hex = Digest::of(&program).hex();
    let mut longer = content.clone();
    longer.blobs.get_mut(&hex).unwrap().extend_from_slice(b"# more\n");
    refused(&longer, "more bytes came").await;
    let mut shorter = content.clone();
    shorter.blobs.get_mut(&hex).unwrap().truncate(10);
    refused(&shorter, "fewer bytes came").await;
    let mut gone = content.clone();
    gone.blobs.remove(&hex);
    refused(&gone, &format!("it has no blob sha256:{hex}")).await;

    // The layer is whole, but not what the descriptor states.
    let other = script("6.6.6");
    let mut resource = resource(&other, OCTETS);
    resource["digest"]["value"] = Digest::of(&program).hex().into();
    refused(&Content::with(&descriptor(vec![resource]), &[(OCTETS, &other)]), "not what their digest says")
        .await;
}

#[tokio::test]
async fn promise_15_hostile_component_versions_get_a_sentence() {
    let program = script("0.2.0");
    let usual = || resource(&program, OCTETS);
    let with = |change: fn(&mut Value)| {
        let mut resource = usual();
        change(&mut resource);
        Content::with(&descriptor(vec![resource]), &[(OCTETS, &script("0.2.0"))])
    };
    for (content, said) in [
        (
            with(|r| r["access"]["localReference"] = "sha256:abc".into()),
            "`localReference` of the resource is wrong",
        ),
        (with(|r| r["access"]["localReference"] = "../../etc/passwd".into()), "is no digest"),
        (
            with(|r| r["access"]["localReference"] = Digest::of(b"x").to_string().into()),
            "which the manifest does not have",
        ),
        (
            with(|r| r["access"]["type"] = "helm".into()),
            "the access `helm` of the resource is not understood",
        ),
        (with(|r| r["digest"]["value"] = "abc".into()), "the digest of resource acme is wrong"),
        (with(|r| r["digest"]["hashAlgorithm"] = "MD5".into()), "is of kind `MD5`"),
        (with(|r| r["extraIdentity"]["os"] = "plan9".into()), "no resource found matching identity"),
        (with(|r| r["type"] = "helmChart".into()), "its resources are of type helmChart"),
    ] {
        refused(&content, said).await;
    }
    // A name that is another's.
    let mut other = descriptor(vec![usual()]);
    other["component"]["name"] = "example.org/drivers/other".into();
    refused(&Content::with(&other, &[(OCTETS, &program)]), "calls itself example.org/drivers/other:0.2.0")
        .await;
    let mut escape = descriptor(vec![usual()]);
    escape["component"]["resources"][0]["name"] = "acme\u{1b}[2J".into();
    refused(
        &Content::with(&escape, &[(OCTETS, &program)]),
        "control characters in a name: \"acme\\u{1b}[2J\"",
    )
    .await;
    // A descriptor that is a bomb, deep, huge, or none.
    for (text, said) in [
        ("[".repeat(100_000), "more than 1000 brackets deep"),
        ("- ".repeat(1_000_000), "is no YAML"),
        ("x".repeat(9 * 1024 * 1024), "more than the 8388608 allowed"),
        (String::new(), "no `meta.schemaVersion`"),
    ] {
        let mut content = Content::default();
        let manifest = content.manifest(text.as_bytes(), &format!("{DESCRIPTOR}+yaml"), &[]);
        content.tag(&manifest);
        refused(&content, said).await;
    }
    // No component version at all.
    let mut content = Content::default();
    let layer = content.blob("application/vnd.oci.image.layer.v1.tar+gzip", b"x");
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [layer]}).to_string();
    let manifest = content.blob(MANIFEST, manifest.as_bytes());
    content.tag(&manifest);
    refused(&content, "no layer is a component descriptor").await;
}

#[tokio::test]
async fn archives_that_lead_outside_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let content = Content::usual(&script("0.2.0"), OCTETS);
    // A blob of a folder that is a link.
    let archive = content.ctf(&folder.path().join("linked.ctf"));
    let blob = archive.join(format!("blobs/sha256.{}", Digest::of(&script("0.2.0")).hex()));
    std::fs::rename(&blob, folder.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), &blob).unwrap();
    let error = run(&order(&archive.display().to_string(), folder.path())).await.unwrap_err();
    assert!(error.message.contains("is no plain file"), "{error}");
    // Entries of a tar that are links, or lead outside.
    for (name, link) in [("blobs/x", true), ("../x", false), ("/x", false)] {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        if link {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
        let path = folder.path().join("bad.tar");
        std::fs::write(&path, builder.into_inner().unwrap()).unwrap();
        let error =
            run(&order(&format!("{}//{COMPONENT}:0.2.0", path.display()), folder.path())).await.unwrap_err();
        assert!(
            error.message.contains("leads out of the archive") || error.message.contains("is a link"),
            "{error}"
        );
    }
    assert!(left(folder.path()).is_empty());
}

#[tokio::test]
async fn what_answers_no_capabilities_is_not_installed_and_an_upgrade_keeps_the_old() {
    let folder = tempfile::tempdir().unwrap();
    let good = Content::usual(&script("0.2.0"), OCTETS).ctf(&folder.path().join("good.ctf"));
    let bad = Content::usual(b"#!/bin/sh\necho no plugin\n", OCTETS).ctf(&folder.path().join("bad.ctf"));
    let bad = order(&bad.display().to_string(), folder.path());
    let error = run(&bad).await.unwrap_err();
    assert!(error.trouble == Trouble::NotAPlugin && left(folder.path()).is_empty(), "{error}");

    let good = order(&good.display().to_string(), folder.path());
    assert_eq!(run(&good).await.unwrap().change, Change::Installed);
    let again = run(&good).await.unwrap();
    assert_eq!(again.change, Change::Unchanged);
    run(&bad).await.unwrap_err();
    assert_eq!(std::fs::read(&again.location).unwrap(), script("0.2.0"), "the old one is still there");
    assert_eq!(Lock::read(&good.folder).unwrap().check(&again.location), Verdict::Unchanged);

    // Without validation it goes in, in place of the other.
    let mut unseen = bad.clone();
    unseen.validate = false;
    assert_eq!(run(&unseen).await.unwrap().change, Change::Replaced);
    // A changed file is put right by installing again.
    std::fs::write(&again.location, "changed").unwrap();
    assert_eq!(run(&good).await.unwrap().change, Change::Replaced);
    assert_eq!(std::fs::read(&again.location).unwrap(), script("0.2.0"));
}

#[tokio::test]
async fn a_plugin_for_another_machine_is_installed_unseen_only() {
    let folder = tempfile::tempdir().unwrap();
    let program = b"\x7fELF of another machine";
    let mut resource = resource(program, OCTETS);
    resource["extraIdentity"] = json!({"os": "linux", "arch": "sparc64"});
    let content = Content::with(&descriptor(vec![resource]), &[(OCTETS, program)]);
    let archive = content.ctf(&folder.path().join("a.ctf"));
    let mut order = order(&archive.display().to_string(), folder.path());
    order.wanted.identity =
        [("os", "linux"), ("architecture", "sparc64")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let error = run(&order).await.unwrap_err();
    assert!(error.hint.as_ref().unwrap().contains("--skip-validation"), "{error:?}");
    order.validate = false;
    assert_eq!(std::fs::read(run(&order).await.unwrap().location).unwrap(), program);
}

#[tokio::test]
async fn nothing_is_written_over_that_is_somebody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let archive = Content::usual(&script("0.2.0"), OCTETS).ctf(&folder.path().join("good.ctf"));
    let order_of = |reference: &Path| order(&reference.display().to_string(), folder.path());
    std::fs::create_dir_all(folder.path().join("plugins")).unwrap();
    std::fs::write(folder.path().join("plugins/acme"), "mine").unwrap();
    let error = run(&order_of(&archive)).await.unwrap_err();
    assert!(error.trouble == Trouble::InTheWay && error.message.contains("in the way"), "{error}");
    std::fs::remove_file(folder.path().join("plugins/acme")).unwrap();
    // A plain program of the same name first.
    std::fs::write(folder.path().join("acme"), script("0.1.0")).unwrap();
    let plain = run(&order_of(&folder.path().join("acme"))).await.unwrap();
    assert_eq!((plain.kind.as_str(), plain.version.as_str()), ("file", "0.1.0"));
    assert_eq!(run(&order_of(&folder.path().join("acme"))).await.unwrap().change, Change::Unchanged);
    let error = run(&order_of(&archive)).await.unwrap_err();
    assert!(error.message.contains("a plugin of another origin has this name"), "{error}");
    let mut renamed = order_of(&archive);
    renamed.name = Some("acme2".into());
    run(&renamed).await.unwrap();
    assert_eq!(left(folder.path()), ["acme", "acme2", "plugins.lock"]);
}

#[tokio::test]
async fn what_is_packed_is_the_same_bytes_and_installs_when_signed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let openssl = |args: &[&str]| assert!(Command::new("openssl").args(args).status().unwrap().success());
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", at("key.pem").to_str().unwrap()]);
    openssl(&[
        "pkey",
        "-in",
        at("key.pem").to_str().unwrap(),
        "-pubout",
        "-out",
        at("acme.pem").to_str().unwrap(),
    ]);
    std::fs::write(at("acme"), script("0.2.0")).unwrap();
    let (os, architecture) = platform();
    let constructor = format!(
        "name: {COMPONENT}\nprovider: {{name: example.org}}\nresources:\n- name: acme\n  type: ocmPlugin\n  version: 0.0.1\n  extraIdentity: {{os: {os}, architecture: {architecture}}}\n  input: {{type: file, path: acme, compress: true}}\n"
    );
    std::fs::write(at("constructor.yaml"), &constructor).unwrap();
    let packing = |output: &str, signed: bool| Packing {
        constructor: at("constructor.yaml"),
        version: Some("0.2.0".into()),
        output: at(output),
        key: signed.then(|| at("key.pem")),
        force: false,
        limits: Limits::default(),
    };
    let packed = pack(&packing("a.tgz", true)).unwrap();
    assert_eq!(pack(&packing("b.tgz", true)).unwrap()[0].digest, packed[0].digest);
    assert_eq!(std::fs::read(at("a.tgz")).unwrap(), std::fs::read(at("b.tgz")).unwrap());
    pack(&packing("c.tar", true)).unwrap();
    pack(&packing("d.ctf", true)).unwrap();
    pack(&packing("unsigned.ctf", false)).unwrap();
    let error = pack(&packing("a.tgz", true)).unwrap_err();
    assert!(error.trouble == Trouble::InTheWay && error.hint.unwrap().contains("--force"));
    let left_over = std::fs::read_dir(folder.path())
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'))
        .count();
    assert_eq!(left_over, 0);

    let trust = Trust::read(&[at("acme.pem")], true).unwrap();
    for name in ["a.tgz", "c.tar", "d.ctf"] {
        let mut order = order(&at(name).display().to_string(), folder.path());
        order.trust = trust.clone();
        let installed = run(&order).await.unwrap();
        assert_eq!(
            (installed.signer.as_deref(), installed.identity["version"].as_str()),
            (Some("acme"), "0.0.1")
        );
        assert_eq!(std::fs::read(&installed.location).unwrap(), script("0.2.0"));
    }
    let mut unsigned = order(&at("unsigned.ctf").display().to_string(), folder.path());
    unsigned.folder = at("other");
    unsigned.trust = trust.clone();
    let error = run(&unsigned).await.unwrap_err();
    assert!(error.trouble == Trouble::Untrusted && !at("other").exists(), "{error}");
    let mut plain = order(&at("acme").display().to_string(), folder.path());
    plain.trust = trust;
    assert!(run(&plain).await.unwrap_err().message.contains("carries no signature"));
}

#[test]
fn promise_15_a_wrong_constructor_gets_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("acme"), "x").unwrap();
    let path = folder.path().join("constructor.yaml");
    let good = "name: example.org/acme\nversion: 1.0.0\nprovider: example.org\nresources:\n- {name: acme, type: ocmPlugin, input: {type: file, path: acme}}\n";
    for (from, to, said) in [
        ("example.org/acme", "acme", "has no path"),
        ("1.0.0", "one", "`one` is no version"),
        ("version: 1.0.0\n", "", "it has no version"),
        ("provider: example.org\n", "", "missing field `provider`"),
        ("provider:", "povider:", "missing field `provider`"),
        ("resources:", "ressources:", "`ressources` is not understood here"),
        ("path: acme", "path: nothing", "nothing: cannot be read: no such file"),
        ("path: acme", "path: .", "a plain file of at most"),
        ("type: file", "type: dir", "input of type `dir` is not understood"),
        ("path: acme}", "path: acme, compres: true}", "`input.compres` is not understood"),
        (", input: {type: file, path: acme}", "", "exactly one of `input` and `access`"),
        ("name: example.org", "name: [", "no YAML"),
    ] {
        std::fs::write(&path, good.replacen(from, to, 1)).unwrap();
        let packing = Packing {
            constructor: path.clone(),
            version: None,
            output: folder.path().join("out.ctf"),
            key: None,
            force: false,
            limits: Limits::default(),
        };
        let error = pack(&packing).unwrap_err();
        assert!(error.message.contains(said), "{from} -> {to}: {error}");
        assert!(!folder.path().join("out.ctf").exists());
    }
}
