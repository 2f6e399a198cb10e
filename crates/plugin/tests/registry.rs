//! The whole way through a real registry: Debian's `docker-registry` on a free port.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use netpulse_plugin::install::{
    Asking, Base, Change, Digest, InstallError, Limits, Local, Pushed, Reference, Trouble, Unwatched, pick,
    push, read_catalogue,
};
use serde_json::json;
use support::*;

const OCTETS: &str = "application/octet-stream";

async fn pushed(content: &Content, base: Base, asking: Asking) -> Result<Vec<Pushed>, InstallError> {
    let folder = tempfile::tempdir().unwrap();
    let archive = content.ctf(&folder.path().join("a.tgz"));
    let local = Local::open(&archive, Limits::default()).unwrap();
    push(local, base, asking, Arc::new(Unwatched), Limits::default()).await
}

fn asking(file: &Path) -> Asking {
    Asking { credentials: vec![file.to_owned()], ..Asking::default() }
}

#[tokio::test]
async fn what_is_pushed_is_installed() {
    let registry = Registry::start(false);
    let folder = tempfile::tempdir().unwrap();
    let content = Content::usual(&script("0.2.0"), OCTETS);
    let first = pushed(&content, registry.base("team/plugins"), Asking::default()).await.unwrap();
    assert_eq!(first[0].reference, registry.reference("team/plugins"));
    assert_eq!((first[0].sent, first[0].blobs), (3, 3));
    let again = pushed(&content, registry.base("team/plugins"), Asking::default()).await.unwrap();
    assert_eq!((again[0].sent, again[0].blobs), (0, 3), "what is there is not sent again");

    let digest = first[0].digest;
    let named = registry.reference("team/plugins");
    let newest = named.strip_suffix(":0.2.0").unwrap().to_owned();
    let by_digest = format!("{newest}@{digest}");
    for reference in [named.clone(), newest.clone(), by_digest, format!("{named}@{digest}")] {
        let installed = run(&order(&reference, folder.path())).await.unwrap();
        assert_eq!((installed.version.as_str(), installed.sha256), ("0.2.0", Digest::of(&script("0.2.0"))));
    }
    assert_eq!(left(folder.path()), ["acme", "plugins.lock"]);

    for (reference, said) in [
        (format!("{newest}:9.9.9"), "no such component version"),
        (named.replace("drivers/acme", "drivers/other"), "no such component version"),
        (
            newest.replace("drivers/acme", "drivers/other"),
            "no team/plugins/component-descriptors/example.org/drivers/other",
        ),
        (format!("{newest}@{}", Digest::of(b"x")), "no such component version"),
    ] {
        let error = run(&order(&reference, folder.path())).await.unwrap_err();
        assert!(error.trouble == Trouble::NotFound && error.message.contains(said), "{reference}: {error}");
    }
    let mut other = order(&named, folder.path());
    other.wanted.identity.insert("architecture".into(), "riscv64".into());
    let error = run(&other).await.unwrap_err();
    assert!(error.message.starts_with("no resource found matching identity architecture=riscv64"), "{error}");
    assert!(error.message.contains("there is: architecture="), "{error}");
}

#[tokio::test]
async fn the_index_form_and_versions_with_a_plus_pass_through_a_registry() {
    let registry = Registry::start(false);
    let folder = tempfile::tempdir().unwrap();
    let program = script("0.3.0");
    let mut content = Content::default();
    let mut whole = descriptor(vec![resource(&program, OCTETS)]);
    whole["component"]["version"] = "0.3.0+build.7".into();
    let component =
        content.manifest(whole.to_string().as_bytes(), &format!("{DESCRIPTOR}+json"), &[(OCTETS, &program)]);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [component]});
    let index = content.blob(INDEX, index.to_string().as_bytes());
    content.tag_as(REPOSITORY, "0.3.0.build-build.7", &index);
    let stored = pushed(&content, registry.base(""), Asking::default()).await.unwrap();
    assert_eq!(stored[0].reference, format!("http://{}//{COMPONENT}:0.3.0+build.7", registry.address));
    let installed = run(&order(&stored[0].reference, folder.path())).await.unwrap();
    assert_eq!((installed.version.as_str(), installed.change), ("0.3.0+build.7", Change::Installed));
}

#[tokio::test]
async fn a_plugin_may_be_an_artifact_elsewhere_in_the_registry() {
    let registry = Registry::start(false);
    let folder = tempfile::tempdir().unwrap();
    let program = script("0.2.0");
    // The artifact of its own, stored by the registry's own protocol.
    let client = reqwest::Client::new();
    let mut artifact = Content::default();
    let config = artifact.blob("application/vnd.oci.empty.v1+json", b"{}");
    let packed = gzip(&tar(&[("acme", &program)]));
    let layer = artifact.blob("application/vnd.oci.image.layer.v1.tar+gzip", &packed);
    for bytes in artifact.blobs.values() {
        let start = client
            .post(format!("http://{}/v2/tools/acme/blobs/uploads/", registry.address))
            .send()
            .await
            .unwrap();
        let place = start.headers()[header::LOCATION].to_str().unwrap().to_owned();
        let done = client
            .put(format!("{place}&digest={}", Digest::of(bytes)))
            .body(bytes.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(done.status(), 201);
    }
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}).to_string();
    let digest = Digest::of(manifest.as_bytes());
    let url = format!("http://{}/v2/tools/acme/manifests/1.0", registry.address);
    let put = client.put(url).header(header::CONTENT_TYPE, MANIFEST).body(manifest).send().await.unwrap();
    assert_eq!(put.status(), 201);

    let access = json!({"type": "ociArtifact", "imageReference": format!("http://{}/tools/acme:1.0", registry.address)});
    let blob = json!({"type": "ociBlob", "ref": format!("http://{}/tools/acme", registry.address),
        "digest": Digest::of(&packed).to_string(), "mediaType": "application/gzip"});
    let mut by_artifact = resource(&program, OCTETS);
    by_artifact["access"] = access.clone();
    by_artifact["digest"] = json!({"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "ociArtifactDigest/v1", "value": digest.hex()});
    // A local blob that was left behind when the component was moved: its bytes are elsewhere, too.
    let mut by_global = resource(&packed, OCTETS);
    by_global["access"]["globalAccess"] = blob;
    let mut wrong = by_artifact.clone();
    wrong["digest"]["value"] = Digest::of(b"x").hex().into();
    // The names that the access has had.
    let named = ["ociArtifact/v1", "ociRegistry", "ociRegistry/v1", "OCIImage", "OCIImage/v1"].map(|kind| {
        let mut resource = by_artifact.clone();
        resource["access"]["type"] = kind.into();
        resource
    });
    let all = [by_artifact, by_global].into_iter().chain(named);
    for (number, resource) in all.enumerate() {
        let base = registry.base(&format!("base{number}"));
        let stored =
            pushed(&Content::with(&descriptor(vec![resource]), &[]), base, Asking::default()).await.unwrap();
        let mut order = order(&stored[0].reference, folder.path());
        order.name = Some(format!("acme{number}"));
        let installed = run(&order).await.unwrap();
        assert_eq!(std::fs::read(installed.location).unwrap(), program);
    }
    let stored =
        pushed(&Content::with(&descriptor(vec![wrong]), &[]), registry.base("wrong"), Asking::default())
            .await
            .unwrap();
    let error = run(&order(&stored[0].reference, folder.path())).await.unwrap_err();
    assert_eq!(error.trouble, Trouble::Untrusted, "{error}");
}

#[tokio::test]
async fn a_login_is_needed_and_found() {
    let registry = Registry::start(true);
    let folder = tempfile::tempdir().unwrap();
    let content = Content::usual(&script("0.2.0"), OCTETS);
    let good = asking(&docker_config(folder.path(), &registry.address, "user", "pass-word"));
    pushed(&content, registry.base("p"), good.clone()).await.unwrap();
    let mut order = order(&registry.reference("p"), folder.path());
    order.asking = good;
    run(&order).await.unwrap();

    let elsewhere = tempfile::tempdir().unwrap();
    order.asking = asking(&docker_config(elsewhere.path(), &registry.address, "user", "wrong-secret"));
    let error = run(&order).await.unwrap_err();
    assert!(
        error.trouble == Trouble::Denied && error.message.contains("config.json were not accepted"),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("wrong-secret"), "promise 12: {error:?}");
    order.asking = Asking::default();
    let error = run(&order).await.unwrap_err();
    assert!(
        error.trouble == Trouble::Denied && error.message.contains("no credentials for it were found"),
        "{error}"
    );
    assert!(error.hint.unwrap().contains("docker login"));
}

/// A registry with a token server, in front of a real one.
#[derive(Clone)]
struct Front {
    address: String,
    behind: String,
    client: reqwest::Client,
    tokens: Arc<AtomicUsize>,
}

const TOKEN: &str = "a-token-for-";

async fn token(
    State(front): State<Front>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    use base64::Engine;
    let wanted = base64::engine::general_purpose::STANDARD.encode("user:pass-word");
    let said = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let scope =
        query.iter().find(|(name, _)| name == "scope").map(|(_, value)| value.clone()).unwrap_or_default();
    // Anybody may read; who writes must be known.
    if scope.ends_with("pull,push") && said != format!("Basic {wanted}") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    front.tokens.fetch_add(1, Ordering::SeqCst);
    assert!(query.contains(&("service".into(), "front".into())));
    axum::Json(json!({"token": format!("{TOKEN}{scope}"), "expires_in": 300})).into_response()
}

async fn pass(State(front): State<Front>, request: Request) -> Response {
    let path = request.uri().path_and_query().unwrap().to_string();
    let repository = path.trim_start_matches("/v2/").split(['?']).next().unwrap();
    let repository =
        ["/manifests/", "/blobs/", "/tags/"].iter().find_map(|part| repository.split_once(part)).unwrap().0;
    let actions = if matches!(request.method().as_str(), "GET") { "pull" } else { "pull,push" };
    let needed = |actions: &str| format!("Bearer {TOKEN}repository:{repository}:{actions}");
    let said = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if said != needed("pull,push") && said != needed(actions) {
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"front\"", front.address);
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    let (parts, body) = request.into_parts();
    let mut headers = parts.headers;
    headers.remove(header::AUTHORIZATION);
    let bytes = axum::body::to_bytes(body, 64 * 1024 * 1024).await.unwrap();
    let method = reqwest::Method::from_bytes(parts.method.as_str().as_bytes()).unwrap();
    let reply = front
        .client
        .request(method, format!("http://{}{path}", front.behind))
        .headers(headers)
        .body(bytes)
        .send()
        .await
        .unwrap();
    let (status, headers) = (reply.status(), reply.headers().clone());
    let mut response = Response::new(Body::from_stream(reply.bytes_stream()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

#[tokio::test]
async fn tokens_are_fetched_with_and_without_a_login() {
    let registry = Registry::start(false);
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tokens = Arc::new(AtomicUsize::new(0));
    let front = Front {
        address: address.clone(),
        behind: registry.address.clone(),
        client: reqwest::Client::new(),
        tokens,
    };
    let router = Router::new().route("/token", get(token)).fallback(pass).with_state(front.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

    let content = Content::usual(&script("0.2.0"), OCTETS);
    let base = Base::parse(&format!("http://{address}/p")).unwrap();
    let error = pushed(&content, base.clone(), Asking::default()).await.unwrap_err();
    assert!(
        error.trouble == Trouble::Denied && error.message.contains("token server answered 401"),
        "{error}"
    );
    let good = asking(&docker_config(folder.path(), &address, "user", "pass-word"));
    pushed(&content, base, good).await.unwrap();
    let before = front.tokens.load(Ordering::SeqCst);
    run(&order(&format!("http://{address}/p//{COMPONENT}:0.2.0"), folder.path())).await.unwrap();
    assert_eq!(front.tokens.load(Ordering::SeqCst) - before, 1, "one token serves the whole installation");
}

/// A registry that serves what it is given, and misbehaves where it is told to.
fn fake(content: Content, blob: impl Fn(&str, &[u8]) -> Response + Clone + Send + Sync + 'static) -> Router {
    Router::new().fallback(move |request: Request| {
        let (content, blob) = (content.clone(), blob.clone());
        async move {
            let path = request.uri().path().to_owned();
            let name = path.rsplit('/').next().unwrap();
            let tag = content.tags.iter().find(|(_, tag, _, _)| tag == name);
            let digest = tag.map_or(name, |(_, _, digest, _)| digest.as_str());
            let Some(bytes) = digest.strip_prefix("sha256:").and_then(|hex| content.blobs.get(hex)) else {
                return StatusCode::NOT_FOUND.into_response();
            };
            if path.contains("/blobs/") { blob(digest, bytes) } else { bytes.clone().into_response() }
        }
    })
}

/// How a blob is answered.
type Answer = fn(&[u8]) -> Response;

#[tokio::test]
async fn a_registry_that_lies_or_breaks_off_leaves_nothing() {
    let program = script("0.2.0");
    let digest = Digest::of(&program).to_string();
    let content = Content::usual(&program, OCTETS);
    let of_program = |answer: Answer| {
        let digest = digest.clone();
        move |asked: &str, bytes: &[u8]| {
            if asked == digest { answer(bytes) } else { bytes.to_vec().into_response() }
        }
    };
    let answers: [(Answer, &str); 5] = [
        // Other bytes of the same length.
        (|bytes| vec![b'x'; bytes.len()].into_response(), "not what their digest says"),
        // A length that is not the manifest's.
        (|bytes| bytes[1..].to_vec().into_response(), "bytes where the manifest says"),
        // More bytes than announced, without end.
        (|_| Body::from_stream(endless()).into_response(), "more bytes came"),
        // Half of it, then the connection breaks.
        (
            |bytes| {
                let half = Bytes::copy_from_slice(&bytes[..bytes.len() / 2]);
                let parts = [Ok(half), Err(std::io::Error::other("cut"))];
                (
                    [(header::CONTENT_LENGTH, bytes.len())],
                    Body::from_stream(futures_util::stream::iter(parts)),
                )
                    .into_response()
            },
            "cannot be reached, or broke off",
        ),
        (|_| StatusCode::SERVICE_UNAVAILABLE.into_response(), "answered 503"),
    ];
    for (answer, said) in answers {
        let folder = tempfile::tempdir().unwrap();
        let address = serve(fake(content.clone(), of_program(answer))).await;
        let error =
            run(&order(&format!("http://{address}//{COMPONENT}:0.2.0"), folder.path())).await.unwrap_err();
        assert!(error.message.contains(said), "expected `{said}` in: {error}");
        assert!(left(folder.path()).is_empty(), "{said}: {:?}", left(folder.path()));
    }
}

fn endless() -> impl futures_util::Stream<Item = std::io::Result<Bytes>> {
    futures_util::stream::repeat_with(|| Ok(Bytes::from_static(&[0; 4096])))
}

#[tokio::test]
async fn promise_10_a_manifest_without_end_is_cut() {
    let router = Router::new().fallback(|| async { Body::from_stream(endless()) });
    let address = serve(router).await;
    let folder = tempfile::tempdir().unwrap();
    let error =
        run(&order(&format!("http://{address}//{COMPONENT}:0.2.0"), folder.path())).await.unwrap_err();
    assert!(error.message.contains("more than the 4194304 bytes allowed"), "{error}");
    assert!(left(folder.path()).is_empty());
}

#[tokio::test]
async fn an_installation_that_is_given_up_leaves_nothing() {
    let program = script("0.2.0");
    let digest = Digest::of(&program).to_string();
    let (asked, mut told) = tokio::sync::mpsc::unbounded_channel();
    let stalls = move |wanted: &str, bytes: &[u8]| {
        if wanted != digest {
            return bytes.to_vec().into_response();
        }
        asked.send(()).unwrap();
        let start =
            futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::copy_from_slice(&bytes[..10]))]);
        let never = futures_util::stream::pending();
        Body::from_stream(futures_util::StreamExt::chain(start, never)).into_response()
    };
    let address = serve(fake(Content::usual(&program, OCTETS), stalls)).await;
    let folder = tempfile::tempdir().unwrap();
    let order = order(&format!("http://{address}//{COMPONENT}:0.2.0"), folder.path());
    {
        let work = run(&order);
        tokio::pin!(work);
        tokio::select! {
            result = &mut work => panic!("it cannot end: {result:?}"),
            _ = told.recv() => {}
        }
        assert_eq!(left(folder.path()).len(), 1, "a file is under way: {:?}", left(folder.path()));
    }
    // The thread that writes ends with the stream; then its file is gone.
    let gone = async {
        while !left(folder.path()).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("nothing is left");
}

#[tokio::test]
async fn what_cannot_be_reached_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error =
        run(&order(&format!("http://{address}//{COMPONENT}:0.2.0"), folder.path())).await.unwrap_err();
    assert!(error.trouble == Trouble::Unreachable && error.message.contains("refused"), "{error}");
    let registry = Registry::start(false);
    let tls = format!("{}//{COMPONENT}:0.2.0", registry.address);
    let error = run(&order(&tls, folder.path())).await.unwrap_err();
    assert!(
        error.trouble == Trouble::Unreachable && error.hint.as_ref().unwrap().contains("http://"),
        "{error:?}"
    );
    assert!(!folder.path().join("plugins").exists());
}

#[tokio::test]
async fn a_registry_with_a_certificate_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (folder.path().join("tls.key"), folder.path().join("tls.pem"));
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "1",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .args(["-keyout".as_ref(), key.as_os_str(), "-out".as_ref(), certificate.as_os_str()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let pem = std::fs::read(&certificate).unwrap();
    let tls = format!(", tls: {{certificate: {}, key: {}}}", certificate.display(), key.display());
    let registry = Registry::start_with(false, folder, &tls);
    let trusting = Asking { ca: Some(pem), ..Asking::default() };
    let base = Base::parse(&format!("https://{}/p", registry.address)).unwrap();
    pushed(&Content::usual(&script("0.2.0"), OCTETS), base, trusting.clone()).await.unwrap();
    let work = tempfile::tempdir().unwrap();
    let mut order = order(&format!("{}/p//{COMPONENT}:0.2.0", registry.address), work.path());
    let error = run(&order).await.unwrap_err();
    assert!(
        error.trouble == Trouble::Unreachable && error.hint.as_ref().unwrap().contains("--ca"),
        "{error:?}"
    );
    order.asking = trusting;
    run(&order).await.unwrap();
}

#[tokio::test]
async fn a_catalogue_lists_what_can_be_installed() {
    let registry = Registry::start(false);
    let mut catalogue = descriptor(vec![]);
    let info = |text: &str| json!([{"name": "ocm.software/pluginInfo", "value": {"description": text, "platforms": ["linux/amd64", {"os": "linux", "architecture": "arm64"}]}}]);
    catalogue["component"]["componentReferences"] = json!([
        {"name": "acme", "componentName": COMPONENT, "version": "0.2.0", "labels": info("Acme switches")},
        {"name": "acme", "componentName": COMPONENT, "version": "0.1.0", "labels": info("Acme switches, old")},
        {"name": "no-plugin", "componentName": COMPONENT, "version": "0.1.0", "labels": null},
    ]);
    pushed(&Content::with(&catalogue, &[]), registry.base("p"), Asking::default()).await.unwrap();
    let reference = Reference::parse(&registry.reference("p")).unwrap();
    let all = read_catalogue(&reference, &Asking::default(), Limits::default()).await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].platforms, ["linux/amd64", "linux/arm64"]);
    assert_eq!(all[0].reference, format!("oci::http://{}/p//{COMPONENT}:0.2.0", registry.address));
    assert_eq!(pick(&all, "acme", Some("0.1.0")).unwrap()[0].description, "Acme switches, old");
    assert_eq!(pick(&all, COMPONENT, None).unwrap().len(), 2);
    let error = pick(&all, "other", None).unwrap_err();
    assert!(error.message.ends_with("there is: acme:0.2.0, acme:0.1.0"), "{error}");
}
