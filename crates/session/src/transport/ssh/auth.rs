//! Logging in: keys, agent, password and keyboard-interactive, in the order the device takes them.

use std::sync::Arc;

use netpulse_model::ErrorCode;
use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::{Client, KeyPlace, KeySource, Peer, SshTarget, pem};
use crate::error::SessionError;

/// The largest file that is read as a private key.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// Rounds of questions that a device may ask in one keyboard-interactive login.
const MAX_ROUNDS: usize = 10;

/// Keys of an agent that are tried: servers count each as a failed login.
const MAX_AGENT_KEYS: usize = 5;

/// Reads and opens the keys. Opening an encrypted key is meant to be slow, so it is done off the
/// async threads.
pub(super) async fn read_keys(
    sources: &[KeySource],
    place: &str,
) -> Result<Vec<Arc<PrivateKey>>, SessionError> {
    let mut keys = Vec::with_capacity(sources.len());
    for source in sources {
        let source = source.clone();
        let opened = tokio::task::spawn_blocking(move || open_key(&source)).await;
        let reason = match opened {
            Ok(Ok(key)) => {
                keys.push(Arc::new(key));
                continue;
            }
            Ok(Err(reason)) => reason,
            Err(error) => format!("the private key was not read: {error}"),
        };
        return Err(SessionError::new(
            ErrorCode::AuthenticationFailed,
            format!("no login to {place}: {reason}"),
        ));
    }
    Ok(keys)
}

fn open_key(source: &KeySource) -> Result<PrivateKey, String> {
    let passphrase = source.passphrase.as_ref().map(|p| p.expose_secret());
    match &source.place {
        KeyPlace::Text(text) => {
            pem::read(text.expose_secret(), passphrase).map_err(|e| format!("the private key given {e}"))
        }
        KeyPlace::File(path) => {
            let shown = path.display();
            let length = std::fs::metadata(path)
                .map_err(|e| format!("the key file {shown} cannot be read: {e}"))?
                .len();
            if length > MAX_KEY_FILE {
                return Err(format!("the key file {shown} is larger than any private key"));
            }
            let bytes = Zeroizing::new(
                std::fs::read(path).map_err(|e| format!("the key file {shown} cannot be read: {e}"))?,
            );
            let text =
                std::str::from_utf8(&bytes).map_err(|_| format!("the key file {shown} is not text"))?;
            pem::read(text, passphrase).map_err(|e| format!("the private key in {shown} {e}"))
        }
    }
}

/// One login.
pub(super) struct Attempt<'a> {
    pub(super) place: &'a str,
    pub(super) target: &'a SshTarget,
    pub(super) keys: &'a [Arc<PrivateKey>],
    pub(super) legacy: bool,
    pub(super) disabled: &'a [String],
    pub(super) peer: &'a Peer,
}

/// What the device said so far.
#[derive(Default)]
struct Said {
    /// The methods it takes; unknown before the first answer.
    offers: Option<MethodSet>,
    /// What was tried, for the error.
    tried: Vec<String>,
    /// It accepted one method and wants another besides.
    wants_more: bool,
}

impl Said {
    fn takes(&self, method: MethodKind) -> bool {
        self.offers.as_ref().is_none_or(|offers| offers.contains(&method))
    }

    /// Notes an answer; true when logged in.
    fn heard(&mut self, what: String, answer: AuthResult) -> bool {
        match answer {
            AuthResult::Success => true,
            AuthResult::Failure { remaining_methods, partial_success } => {
                self.tried.push(if partial_success {
                    format!("{what} (accepted, more wanted)")
                } else {
                    what
                });
                self.wants_more |= partial_success;
                self.offers = Some(remaining_methods);
                false
            }
        }
    }
}

fn key_name(key: &PublicKey) -> String {
    format!("publickey ({} {})", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

impl Attempt<'_> {
    /// Logs in.
    pub(super) async fn run(&self, handle: &mut Handle<Client>) -> Result<(), SessionError> {
        let mut said = Said::default();
        let done = match self.try_all(handle, &mut said).await {
            Ok(done) => done,
            // Told below, with the reason that the device gave.
            Err(error) => {
                tracing::debug!(place = self.place, %error, "login broke off");
                false
            }
        };
        if done { Ok(()) } else { Err(self.refused(handle, &said)) }
    }

    async fn try_all(&self, handle: &mut Handle<Client>, said: &mut Said) -> Result<bool, russh::Error> {
        for key in self.keys {
            if said.takes(MethodKind::PublicKey) && self.key(handle, key, said).await? {
                return Ok(true);
            }
        }
        if self.target.credentials.agent
            && said.takes(MethodKind::PublicKey)
            && self.agent(handle, said).await?
        {
            return Ok(true);
        }
        if self.target.credentials.password.is_some() {
            return self.password(handle, said).await;
        }
        if said.tried.is_empty() {
            // Some lab devices let anybody in, and any device says what it wants.
            let answer = handle.authenticate_none(self.target.user.as_str()).await?;
            return Ok(said.heard("none".to_owned(), answer));
        }
        Ok(false)
    }

    async fn key(
        &self,
        handle: &mut Handle<Client>,
        key: &Arc<PrivateKey>,
        said: &mut Said,
    ) -> Result<bool, russh::Error> {
        let hashes = self.hashes(handle, key.public_key()).await?;
        for hash in hashes {
            let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
            let what = key_name(key.public_key());
            let answer = handle.authenticate_publickey(self.target.user.as_str(), key).await?;
            let partial = matches!(answer, AuthResult::Failure { partial_success: true, .. });
            if said.heard(what, answer) {
                return Ok(true);
            }
            if partial || handle.is_closed() {
                break;
            }
        }
        Ok(false)
    }

    /// The signature hashes to try with a key, best first; for keys other than RSA there is one.
    async fn hashes(
        &self,
        handle: &Handle<Client>,
        key: &PublicKey,
    ) -> Result<Vec<Option<HashAlg>>, russh::Error> {
        if !key.algorithm().is_rsa() {
            return Ok(vec![None]);
        }
        let mut hashes = match handle.best_supported_rsa_hash().await? {
            Some(best) => vec![best],
            // The device does not say. One with old algorithms most likely knows only SHA-1; one
            // with new ones most likely takes SHA-2.
            None if self.legacy => vec![None, Some(HashAlg::Sha256)],
            None => vec![Some(HashAlg::Sha256), None],
        };
        hashes.retain(|hash| {
            let name = match hash {
                Some(HashAlg::Sha512) => "rsa-sha2-512",
                Some(_) => "rsa-sha2-256",
                None => "ssh-rsa",
            };
            !self.disabled.iter().any(|d| d == name)
        });
        if hashes.is_empty() {
            hashes.push(None);
        }
        Ok(hashes)
    }

    async fn agent(&self, handle: &mut Handle<Client>, said: &mut Said) -> Result<bool, russh::Error> {
        let mut agent = match AgentClient::connect_env().await {
            Ok(agent) => agent,
            Err(error) => {
                said.tried.push(format!("agent (not reached: {error})"));
                return Ok(false);
            }
        };
        let identities = match agent.request_identities().await {
            Ok(identities) => identities,
            Err(error) => {
                said.tried.push(format!("agent (gave no keys: {error})"));
                return Ok(false);
            }
        };
        if identities.is_empty() {
            said.tried.push("agent (holds no keys)".to_owned());
        }
        for identity in identities.into_iter().take(MAX_AGENT_KEYS) {
            let AgentIdentity::PublicKey { key, .. } = identity else { continue };
            for hash in self.hashes(handle, &key).await? {
                let what = format!("agent {}", key_name(&key));
                let signed = handle
                    .authenticate_publickey_with(self.target.user.as_str(), key.clone(), hash, &mut agent)
                    .await;
                match signed {
                    Ok(answer) => {
                        if said.heard(what, answer) {
                            return Ok(true);
                        }
                    }
                    Err(error) => said.tried.push(format!("{what} (the agent did not sign: {error})")),
                }
            }
            if !said.takes(MethodKind::PublicKey) || handle.is_closed() {
                break;
            }
        }
        Ok(false)
    }

    /// The password, by the method that the device takes. One that was refused is not tried again
    /// by the other method: to the device that would be a second failed login.
    async fn password(&self, handle: &mut Handle<Client>, said: &mut Said) -> Result<bool, russh::Error> {
        let Some(password) = &self.target.credentials.password else { return Ok(false) };
        if said.takes(MethodKind::Password) {
            let wanted_before = std::mem::take(&mut said.wants_more);
            let answer =
                handle.authenticate_password(self.target.user.as_str(), password.expose_secret()).await?;
            if said.heard("password".to_owned(), answer) {
                return Ok(true);
            }
            let method_taken = said.takes(MethodKind::Password);
            if method_taken && !said.wants_more {
                said.wants_more = wanted_before;
                return Ok(false);
            }
        }
        if said.takes(MethodKind::KeyboardInteractive) && said.offers.as_ref().is_none_or(|o| !o.is_empty()) {
            return self.keyboard_interactive(handle, password.expose_secret(), said).await;
        }
        Ok(false)
    }

    async fn keyboard_interactive(
        &self,
        handle: &mut Handle<Client>,
        password: &str,
        said: &mut Said,
    ) -> Result<bool, russh::Error> {
        let user = self.target.user.as_str();
        let mut answer = handle.authenticate_keyboard_interactive_start(user, None::<String>).await?;
        for _ in 0..MAX_ROUNDS {
            match answer {
                KeyboardInteractiveAuthResponse::Success => return Ok(true),
                KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success } => {
                    let answer = AuthResult::Failure { remaining_methods, partial_success };
                    said.heard("keyboard-interactive".to_owned(), answer);
                    if partial_success && said.takes(MethodKind::Password) {
                        let answer = handle.authenticate_password(user, password).await?;
                        return Ok(said.heard("password".to_owned(), answer));
                    }
                    return Ok(false);
                }
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                    let answers = prompts
                        .iter()
                        .map(|prompt| {
                            let text = prompt.prompt.to_ascii_lowercase();
                            let asks_name = prompt.echo && (text.contains("user") || text.contains("login"));
                            if asks_name { user } else { password }.to_owned()
                        })
                        .collect();
                    answer = handle.authenticate_keyboard_interactive_respond(answers).await?;
                }
            }
        }
        said.tried.push(format!("keyboard-interactive (the device asked {MAX_ROUNDS} times)"));
        Ok(false)
    }

    fn refused(&self, handle: &Handle<Client>, said: &Said) -> SessionError {
        let mut tried = said.tried.clone();
        tried.dedup();
        let tried = if tried.is_empty() { "nothing".to_owned() } else { tried.join(", ") };
        let user = &self.target.user;
        let no_offers = said.offers.as_ref().is_none_or(|offers| offers.is_empty());
        if no_offers && (handle.is_closed() || self.peer.ended.is_cancelled()) {
            let why =
                self.peer.end.lock().clone().unwrap_or_else(|| "the device closed the connection".to_owned());
            return SessionError::new(
                ErrorCode::AuthenticationFailed,
                format!(
                    "{} broke off the login of user `{user}` (tried {tried}): {why}. It may have counted too many \
                     failed logins, or not let this user in from here",
                    self.place
                ),
            );
        }
        let offers: Vec<String> =
            said.offers.iter().flat_map(|o| o.iter()).map(|method| <&str>::from(method).to_owned()).collect();
        SessionError::new(
            ErrorCode::AuthenticationFailed,
            format!(
                "{} refused user `{user}`: tried {tried}; it takes {}. Check user name, password and key",
                self.place,
                if offers.is_empty() { "no further method".to_owned() } else { offers.join(", ") }
            ),
        )
    }
}
