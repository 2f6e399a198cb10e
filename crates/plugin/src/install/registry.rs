//! The protocol of OCI registries: manifests, blobs, tags, uploads, and the ways to log in.
//!
//! Written on the HTTP client that the program has anyway, because everything here is bounded: a
//! registry that never stops talking must not fill the memory, and a token server's refusal must
//! reach the user as a sentence.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LINK, LOCATION, WWW_AUTHENTICATE,
};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::credentials::{self, Credentials, Known};
use super::descriptor::Blob;
use super::digest::Digest;
use super::error::{InstallError, Result, Trouble, blocking};
use super::local::{Section, check};
use super::media::{self, Limits};
use super::reference::Base;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a registry may be silent.
const SILENCE: Duration = Duration::from_secs(30);
/// How long one small exchange may take.
const EXCHANGE: Duration = Duration::from_secs(60);
/// How long one blob may take.
const TRANSFER: Duration = Duration::from_secs(3600);
/// Bytes of an error or a token that are read.
const SMALL: u64 = 256 * 1024;
/// Pages of tags that are read.
const PAGES: usize = 50;

/// How registries are asked.
#[derive(Debug, Clone, Default)]
pub struct Asking {
    /// Files of credentials in docker's form.
    pub credentials: Vec<PathBuf>,
    /// A certificate (PEM) that may have signed the registry's.
    pub ca: Option<Vec<u8>>,
    /// Any certificate is trusted.
    pub insecure: bool,
}

/// One registry.
#[derive(Debug)]
pub struct Registry {
    client: Client,
    base: Base,
    asking: Asking,
    logins: Mutex<HashMap<(String, bool), HeaderValue>>,
}

/// What a registry wants to know before it answers.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Registry {
    /// A client for this registry. Nothing is asked yet.
    ///
    /// # Errors
    /// The certificate is none.
    pub fn new(base: Base, asking: Asking) -> Result<Self> {
        let secure = !base.plain_http;
        // A registry may hand over to its storage, but never from TLS to plain text.
        let redirects = reqwest::redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() >= 5 {
                attempt.error("too many redirects")
            } else if secure && attempt.url().scheme() != "https" {
                attempt.error("redirected from TLS to plain text")
            } else {
                attempt.follow()
            }
        });
        let mut builder = Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .redirect(redirects)
            .user_agent(concat!("netpulse/", env!("CARGO_PKG_VERSION")))
            .tls_danger_accept_invalid_certs(asking.insecure);
        if let Some(pem) = &asking.ca {
            let certificate = reqwest::Certificate::from_pem_bundle(pem).map_err(|_| {
                InstallError::new(Trouble::BadInput, "the certificate for the registry is no PEM file")
            })?;
            builder = builder.tls_certs_merge(certificate);
        }
        let client = builder
            .build()
            .map_err(|e| InstallError::new(Trouble::Local, format!("no HTTP client: {}", causes(&e))))?;
        Ok(Self { client, base, asking, logins: Mutex::default() })
    }

    /// The registry and its path.
    #[must_use]
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// How it is asked.
    #[must_use]
    pub fn asking(&self) -> &Asking {
        &self.asking
    }

    fn url(&self, repository: &str, rest: &str) -> Result<Url> {
        let scheme = if self.base.plain_http { "http" } else { "https" };
        let text = format!("{scheme}://{}/v2/{repository}/{rest}", self.base.host);
        Url::parse(&text)
            .map_err(|e| InstallError::new(Trouble::BadInput, format!("`{text}` is no address: {e}")))
    }

    /// A manifest by tag or digest: its bytes, checked, and its type.
    ///
    /// # Errors
    /// It is not there, too large, or its bytes have another digest than was asked for.
    pub async fn manifest(
        &self,
        repository: &str,
        reference: &str,
        limits: Limits,
    ) -> Result<(Vec<u8>, Digest)> {
        let url = self.url(repository, &format!("manifests/{reference}"))?;
        let accept = media::MANIFESTS.join(", ");
        let ask = |client: &Client| client.get(url.clone()).header(ACCEPT, &accept).timeout(EXCHANGE);
        let reply = self.ask(repository, false, ask).await?;
        if reply.status() == StatusCode::NOT_FOUND {
            return Err(InstallError::new(
                Trouble::NotFound,
                format!("{}: no {repository}:{reference}", self.base.host),
            ));
        }
        let said =
            reply.headers().get("docker-content-digest").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let bytes = self.body(self.good(reply).await?, limits.manifest).await?;
        let digest = Digest::of(&bytes);
        // The registry's word for a tag, the caller's for a digest.
        for expected in [said.as_deref(), reference.contains(':').then_some(reference)].into_iter().flatten()
        {
            if expected.starts_with("sha256:") || reference.contains(':') {
                let expected = expected.parse().map_err(|why| InstallError::new(Trouble::BadContent, why))?;
                check(&format!("{}/{repository}", self.base.host), &expected, &digest)?;
            }
        }
        Ok((bytes, digest))
    }

    /// All tags of a repository.
    ///
    /// # Errors
    /// There is no such repository, or the registry's answer is broken.
    pub async fn tags(&self, repository: &str, limits: Limits) -> Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Tags {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut url = self.url(repository, "tags/list?n=1000")?;
        let mut all = Vec::new();
        for _ in 0..PAGES {
            let reply =
                self.ask(repository, false, |client| client.get(url.clone()).timeout(EXCHANGE)).await?;
            if reply.status() == StatusCode::NOT_FOUND {
                return Err(InstallError::new(
                    Trouble::NotFound,
                    format!("{}: no {repository}", self.base.host),
                ));
            }
            let next = reply
                .headers()
                .get(LINK)
                .and_then(|link| link.to_str().ok())
                .and_then(next_page)
                .map(str::to_owned);
            let bytes = self.body(self.good(reply).await?, limits.manifest).await?;
            let page: Tags = serde_json::from_slice(&bytes)
                .map_err(|e| self.strange(&format!("its list of tags: {e}")))?;
            all.extend(page.tags.unwrap_or_default());
            match next.map(|next| url.join(&next)) {
                Some(Ok(next)) if same_place(&next, &url) => url = next,
                _ => break,
            }
        }
        Ok(all)
    }

    /// A blob as a stream; the caller checks digest and length.
    ///
    /// # Errors
    /// It is not there, or the registry announces another length.
    pub async fn blob(&self, repository: &str, blob: &Blob) -> Result<Response> {
        let url = self.url(repository, &format!("blobs/{}", blob.digest))?;
        let reply = self.ask(repository, false, |client| client.get(url.clone()).timeout(TRANSFER)).await?;
        if reply.status() == StatusCode::NOT_FOUND {
            let what = format!("{}: {repository} has no blob {}", self.base.host, blob.digest);
            return Err(InstallError::new(Trouble::NotFound, what));
        }
        let reply = self.good(reply).await?;
        match reply.content_length() {
            Some(length) if length != blob.size => Err(self.strange(&format!(
                "blob {} has {length} bytes where the manifest says {}",
                blob.digest, blob.size
            ))),
            _ => Ok(reply),
        }
    }

    /// The length of a blob, as the registry says it.
    ///
    /// # Errors
    /// It is not there, or the registry does not say.
    pub async fn blob_size(&self, repository: &str, digest: &Digest) -> Result<u64> {
        let url = self.url(repository, &format!("blobs/{digest}"))?;
        let reply = self.ask(repository, false, |client| client.head(url.clone()).timeout(EXCHANGE)).await?;
        let reply = self.good(reply).await?;
        let length =
            reply.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        length.ok_or_else(|| self.strange(&format!("blob {digest} without a length")))
    }

    /// A whole small blob, checked.
    ///
    /// # Errors
    /// As for [`Self::blob`]; or it is larger than `most` bytes, or has another digest.
    pub async fn small(&self, repository: &str, blob: &Blob, most: u64) -> Result<Vec<u8>> {
        if blob.size > most {
            return Err(self.strange(&format!(
                "blob {} of {} bytes is larger than the {most} allowed",
                blob.digest, blob.size
            )));
        }
        let bytes = self.body(self.blob(repository, blob).await?, most).await?;
        check(&format!("{}/{repository}", self.base.host), &blob.digest, &Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// Stores a blob, unless it is there.
    ///
    /// # Errors
    /// The registry refuses it, or breaks off.
    pub async fn put_blob(&self, repository: &str, blob: &Blob, bytes: Section) -> Result<bool> {
        let url = self.url(repository, &format!("blobs/{}", blob.digest))?;
        // Asked for as a writer, so that one login serves all.
        let there = self.ask(repository, true, |client| client.head(url.clone()).timeout(EXCHANGE)).await?;
        if there.status().is_success() {
            return Ok(false);
        }
        let start = self.url(repository, "blobs/uploads/")?;
        let reply = self
            .ask(repository, true, |client| {
                client.post(start.clone()).header(CONTENT_LENGTH, 0).timeout(EXCHANGE)
            })
            .await?;
        let reply = self.good(reply).await?;
        let place = reply.headers().get(LOCATION).and_then(|place| place.to_str().ok());
        let place = place
            .and_then(|place| start.join(place).ok())
            .ok_or_else(|| self.strange("an upload without a place"))?;
        let mut place = place;
        place.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let login = if same_place(&place, &start) { self.login(repository, true).await } else { None };
        let mut put = self
            .client
            .put(place)
            .header(CONTENT_TYPE, media::OCTETS)
            .header(CONTENT_LENGTH, blob.size)
            .timeout(TRANSFER)
            .body(streamed(bytes));
        if let Some(login) = login {
            put = put.header(AUTHORIZATION, login);
        }
        let reply = put.send().await.map_err(|e| self.unreachable(&e))?;
        self.good(reply).await?;
        Ok(true)
    }

    /// Stores a manifest under a tag or its digest.
    ///
    /// # Errors
    /// The registry refuses it, or breaks off.
    pub async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<()> {
        let url = self.url(repository, &format!("manifests/{reference}"))?;
        let put = |client: &Client| {
            client.put(url.clone()).header(CONTENT_TYPE, media_type).timeout(EXCHANGE).body(bytes.clone())
        };
        let reply = self.ask(repository, true, put).await?;
        self.good(reply).await.map(|_| ())
    }

    /// Sends a request, logs in when asked to, and sends it again, once.
    async fn ask(
        &self,
        repository: &str,
        write: bool,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Response> {
        let login = self.login(repository, write).await;
        let had_login = login.is_some();
        let reply = self.send(request(&self.client), login).await?;
        if reply.status() != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        let challenges: Vec<String> = reply
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .map(str::to_owned)
            .collect();
        let challenge = challenges.iter().find_map(|text| Challenge::parse(text));
        let challenge = challenge
            .ok_or_else(|| self.denied(repository, None, "it names no way to log in that is known here"))?;
        let (files, host, path) =
            (self.asking.credentials.clone(), self.base.host.clone(), repository.to_owned());
        let known = blocking(move || credentials::find(&files, &host, &path)).await?;
        let known = match known {
            Some((Known::Here(credentials), file)) => Some((credentials, file)),
            Some((Known::Helper(name), file)) => {
                credentials::ask_helper(&name, &self.base.host).await?.map(|credentials| (credentials, file))
            }
            None => None,
        };
        let login = self.answer(&challenge, known.as_ref(), repository, write).await?;
        self.logins.lock().await.insert((repository.to_owned(), write), login.clone());
        let reply = self.send(request(&self.client), Some(login)).await?;
        if matches!(reply.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let why = if had_login { "the login ran out" } else { "the login does not allow it" };
            return Err(self.denied(repository, known.map(|(_, file)| file), why));
        }
        Ok(reply)
    }

    async fn send(&self, request: RequestBuilder, login: Option<HeaderValue>) -> Result<Response> {
        let request = match login {
            Some(login) => request.header(AUTHORIZATION, login),
            None => request,
        };
        request.send().await.map_err(|e| self.unreachable(&e))
    }

    async fn login(&self, repository: &str, write: bool) -> Option<HeaderValue> {
        self.logins.lock().await.get(&(repository.to_owned(), write)).cloned()
    }

    /// The header that answers a challenge.
    async fn answer(
        &self,
        challenge: &Challenge,
        known: Option<&(Credentials, PathBuf)>,
        repository: &str,
        write: bool,
    ) -> Result<HeaderValue> {
        let file = known.map(|(_, file)| file.clone());
        let known = known.map(|(credentials, _)| credentials);
        if let Some(Credentials::Token(token)) = known {
            return self.secret(&format!("Bearer {}", token.as_str()));
        }
        let (realm, service, scope) = match (challenge, known) {
            (Challenge::Basic, Some(Credentials::Basic(user, password))) => {
                return self.secret(&basic(user, password));
            }
            (Challenge::Basic, _) => return Err(self.denied(repository, file, "it wants user and password")),
            (Challenge::Bearer { realm, service, scope }, _) => (realm, service, scope),
        };
        let mut url = Url::parse(realm).map_err(|_| self.strange("the address of its token server"))?;
        let from_tls = !self.base.plain_http && url.scheme() != "https";
        if from_tls && known.is_some() {
            return Err(self.denied(
                repository,
                file,
                "its token server has no TLS, so the credentials were not sent",
            ));
        }
        let actions = if write { "pull,push" } else { "pull" };
        let scope = scope.clone().unwrap_or_else(|| format!("repository:{repository}:{actions}"));
        let request = if let Some(Credentials::Identity(token)) = known {
            // A form is what stands behind the `?` of an address.
            let mut form = url.clone();
            form.query_pairs_mut()
                .clear()
                .append_pair("grant_type", "refresh_token")
                .append_pair("refresh_token", token);
            form.query_pairs_mut().append_pair("client_id", "netpulse").append_pair("scope", &scope);
            if let Some(service) = service {
                form.query_pairs_mut().append_pair("service", service);
            }
            let form = form.query().unwrap_or_default().to_owned();
            self.client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form)
        } else {
            url.query_pairs_mut().append_pair("scope", &scope);
            if let Some(service) = service {
                url.query_pairs_mut().append_pair("service", service);
            }
            let request = self.client.get(url);
            match known {
                Some(Credentials::Basic(user, password)) => {
                    request.header(AUTHORIZATION, self.secret(&basic(user, password))?)
                }
                _ => request,
            }
        };
        let reply = request.timeout(EXCHANGE).send().await.map_err(|e| self.unreachable(&e))?;
        if !reply.status().is_success() {
            let why = format!("its token server answered {}", reply.status());
            return Err(self.denied(repository, file, &why));
        }
        #[derive(serde::Deserialize)]
        struct Token {
            #[serde(default, deserialize_with = "credentials::secret")]
            token: Option<Zeroizing<String>>,
            #[serde(default, deserialize_with = "credentials::secret")]
            access_token: Option<Zeroizing<String>>,
        }
        let bytes = Zeroizing::new(self.body(reply, SMALL).await?);
        let token: Token =
            serde_json::from_slice(&bytes).map_err(|_| self.strange("its token server's answer"))?;
        let token =
            token.token.or(token.access_token).ok_or_else(|| self.strange("an answer without a token"))?;
        self.secret(&format!("Bearer {}", token.as_str()))
    }

    fn secret(&self, text: &str) -> Result<HeaderValue> {
        let mut value = HeaderValue::from_str(text).map_err(|_| {
            InstallError::new(
                Trouble::BadInput,
                format!("the credentials for {} cannot stand in a header", self.base.host),
            )
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The reply if it went well, else what the registry says.
    async fn good(&self, reply: Response) -> Result<Response> {
        let status = reply.status();
        if status.is_success() {
            return Ok(reply);
        }
        let said = self.body(reply, SMALL).await.map(|bytes| errors_in(&bytes)).unwrap_or_default();
        let what = format!("{} answered {status}{said}", self.base.host);
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                InstallError::new(Trouble::Denied, what).hint(LOGIN)
            }
            StatusCode::NOT_FOUND => InstallError::new(Trouble::NotFound, what),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                InstallError::new(Trouble::Unreachable, what).hint("try again later")
            }
            _ => InstallError::new(Trouble::BadContent, what),
        })
    }

    /// A whole body of at most so many bytes.
    async fn body(&self, mut reply: Response, most: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(chunk) = reply.chunk().await.map_err(|e| self.unreachable(&e))? {
            if (bytes.len() + chunk.len()) as u64 > most {
                return Err(self.strange(&format!("an answer of more than the {most} bytes allowed")));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn strange(&self, what: &str) -> InstallError {
        InstallError::new(
            Trouble::BadContent,
            format!("{} gave something that cannot be used: {what}", self.base.host),
        )
    }

    fn denied(&self, repository: &str, file: Option<PathBuf>, why: &str) -> InstallError {
        let from = match file {
            Some(file) => format!("the credentials in {} were not accepted", file.display()),
            None => "no credentials for it were found".to_owned(),
        };
        InstallError::new(Trouble::Denied, format!("{} refuses {repository}: {why}; {from}", self.base.host))
            .hint(LOGIN)
    }

    /// What is told when the registry does not answer.
    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> InstallError {
        let why = causes(error);
        let what = format!("{} cannot be reached, or broke off: {why}", self.base.host);
        let error = InstallError::new(Trouble::Unreachable, what);
        if why.contains("certificate") {
            return error.hint("--ca names a file (PEM) with the certificate that signed the registry's");
        }
        let name = self.base.host.split(':').next().unwrap_or_default();
        if !self.base.plain_http && (name == "localhost" || name == "127.0.0.1") {
            return error.hint(format!("without TLS? then write http://{}", self.base));
        }
        error
    }
}

const LOGIN: &str = "`docker login` or `podman login` stores credentials where they are found; DOCKER_CONFIG names another folder";

fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    let plain = Zeroizing::new(format!("{user}:{password}"));
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain.as_bytes()))
}

/// A file's section as a request body.
fn streamed(section: Section) -> reqwest::Body {
    let (section, length) = section.into_file();
    let file = tokio::io::AsyncReadExt::take(tokio::fs::File::from_std(section), length);
    reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::with_capacity(file, 256 * 1024))
}

/// Whether credentials for the one may go to the other.
fn same_place(a: &Url, b: &Url) -> bool {
    (a.scheme(), a.host_str(), a.port_or_known_default())
        == (b.scheme(), b.host_str(), b.port_or_known_default())
}

/// `</v2/x/tags/list?last=b&n=2>; rel="next"`.
fn next_page(link: &str) -> Option<&str> {
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    rest.contains("rel=\"next\"").then_some(target)
}

/// What a registry says in its own form of errors.
fn errors_in(bytes: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else { return String::new() };
    let errors = value.get("errors").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let texts: Vec<String> = errors
        .iter()
        .take(3)
        .map(|error| {
            let part = |name: &str| error.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
            let text: String = format!("{} {}", part("code"), part("message"))
                .chars()
                .filter(|c| !c.is_control())
                .take(200)
                .collect();
            text.trim().to_owned()
        })
        .collect();
    if texts.is_empty() { String::new() } else { format!(": {}", texts.join("; ")) }
}

/// An error with its causes, without the address (which may carry a token).
fn causes(error: &reqwest::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    if error.is_timeout() {
        texts.insert(0, "no answer in time".to_owned());
    }
    if texts.is_empty() { "no reason given".to_owned() } else { texts.join(": ") }
}

impl Challenge {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => Some(Self::Basic),
            "bearer" => {
                let fields = fields(rest);
                let field =
                    |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
                Some(Self::Bearer {
                    realm: field("realm")?,
                    service: field("service"),
                    scope: field("scope"),
                })
            }
            _ => None,
        }
    }
}

/// `name="value",name=value`.
fn fields(text: &str) -> Vec<(String, String)> {
    let mut rest = text.trim();
    let mut fields = Vec::new();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        fields.push((name.trim().to_ascii_lowercase(), value.to_owned()));
        rest = after.trim_start_matches([',', ' ']);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let text = r#"Bearer realm="https://auth.example/token?x=1",service="registry.example",scope="repository:a/b:pull,push""#;
        let bearer = Challenge::Bearer {
            realm: "https://auth.example/token?x=1".into(),
            service: Some("registry.example".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(Challenge::parse(text), Some(bearer));
        assert_eq!(Challenge::parse("basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Basic"), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer service=\"x\""), None);
    }

    #[test]
    fn pages_and_errors_are_read() {
        assert_eq!(
            next_page(r#"</v2/x/tags/list?last=b&n=2>; rel="next""#),
            Some("/v2/x/tags/list?last=b&n=2")
        );
        assert_eq!(next_page("nonsense"), None);
        let body = br#"{"errors":[{"code":"DENIED","message":"no\u0007 way"}]}"#;
        assert_eq!(errors_in(body), ": DENIED no way");
        assert_eq!(errors_in(b"<html>"), "");
    }
}
