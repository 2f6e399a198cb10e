//! The checked-in OpenAPI document is the one that the handlers give.

use std::path::Path;

use serde_json::Value;

use crate::world::world;

#[tokio::test]
async fn the_document_is_checked_in_and_served() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi.json");
    let ours = netpulse_controller::openapi_document();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&file, &ours).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        kept == ours,
        "openapi.json is out of date: run this test with UPDATE_OPENAPI=1 and read the difference"
    );
    let w = world().await;
    assert_eq!(w.get("/openapi.json").await.text, ours);
}

#[test]
fn every_endpoint_is_described_and_every_body_has_an_example() {
    let document: Value = serde_json::from_str(&netpulse_controller::openapi_document()).unwrap();
    let mut seen = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            seen.push(format!("{method} {path}"));
            assert!(
                operation["summary"].as_str().is_some_and(|s| s.len() > 10),
                "{method} {path} has no summary"
            );
            if let Some(body) = operation.get("requestBody") {
                let json = &body["content"]["application/json"];
                assert!(
                    json.get("example").is_some() || json.get("examples").is_some(),
                    "{method} {path} has no example"
                );
            }
            for (_, name) in references(operation) {
                assert!(
                    document["components"]["schemas"].get(&name).is_some(),
                    "{method} {path}: {name} is not defined"
                );
            }
        }
    }
    for name in references(&document["components"]) {
        assert!(document["components"]["schemas"].get(&name.1).is_some(), "{} is not defined", name.1);
    }
    for path in [
        "post /device/exec",
        "post /device/bulk",
        "post /device/test",
        "post /template/render",
        "post /template/parse/{name}",
        "get /jobs",
        "get /jobs/{id}",
        "delete /jobs/{id}",
        "delete /jobs",
        "get /workers",
        "delete /workers/{name}",
        "delete /workers",
        "get /health",
        "get /health/live",
        "get /health/ready",
        "get /metrics",
        "get /nodes",
        "get /system/stats",
        "get /events",
        "get /jobs/{id}/events",
        "get /jobs/{id}/why",
    ] {
        assert!(seen.iter().any(|s| s == path), "{path} is not described");
    }
}

fn references(value: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value.as_str()) {
                    ("$ref", Some(to)) => {
                        found.push((key.clone(), to.rsplit('/').next().unwrap().to_owned()))
                    }
                    _ => found.extend(references(value)),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| found.extend(references(item))),
        _ => {}
    }
    found
}
