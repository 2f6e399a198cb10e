//! The token that we ask Vault with: the configured one, or an AppRole login's; renewed before it
//! ends, replaced when it is refused.

use std::sync::Arc;
use std::time::Duration;

use netpulse_config::Credential;
use netpulse_plugin::{Failed, PluginError};
use reqwest::Method;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::http::{Answer, Call, Http};

/// Upstream's sentence.
const REFUSED: &str = "Vault authentication failed (token or AppRole not accepted)";
/// A login younger than this is not repeated because of a refused read, unless its token is dead:
/// what the policy denies stays denied, and Vault is not to be flooded with logins.
const YOUNG: Duration = Duration::from_secs(10);
/// Between two tries to renew.
const RENEW_AGAIN: Duration = Duration::from_secs(5);

pub(super) struct Auth {
    http: Arc<Http>,
    fixed: Option<Zeroizing<String>>,
    role: Option<Role>,
    login_path: String,
    state: Mutex<State>,
    /// There is another session than before, or none.
    changed: Notify,
}

struct Role {
    role_id: Zeroizing<String>,
    secret_id: Zeroizing<String>,
}

#[derive(Default)]
struct State {
    session: Option<Session>,
    /// The configured token was refused: only logins serve from then on.
    fixed_refused: bool,
    generation: u64,
}

/// A token in use.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) token: Arc<Zeroizing<String>>,
    generation: u64,
    since: Instant,
    /// It ends by itself then, unless renewed.
    expires: Option<Instant>,
    renew_at: Option<Instant>,
    from_login: bool,
}

#[derive(Deserialize)]
struct Login {
    auth: Lease,
}

#[derive(Deserialize)]
struct Lease {
    #[serde(default, deserialize_with = "wiped")]
    client_token: Zeroizing<String>,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

fn wiped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    Ok(Zeroizing::new(Option::<String>::deserialize(deserializer)?.unwrap_or_default()))
}

#[derive(Deserialize)]
struct Lookup {
    data: About,
}

#[derive(Deserialize)]
struct About {
    #[serde(default)]
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Serialize)]
struct LoginBody<'a> {
    role_id: &'a str,
    secret_id: &'a str,
}

fn unavailable(sentence: impl Into<String>) -> PluginError {
    PluginError::new(Failed::Unavailable, sentence)
}

/// What a question about a token came to.
enum Known {
    Accepted(About),
    Refused,
}

impl Auth {
    pub(super) fn new(http: Arc<Http>, config: &Credential) -> Self {
        let text = |value: &Option<String>| {
            value
                .as_deref()
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .map(|t| Zeroizing::new(t.to_owned()))
        };
        let role = text(&config.role_id).zip(text(&config.secret_id));
        Self {
            http,
            fixed: text(&config.token),
            role: role.map(|(role_id, secret_id)| Role { role_id, secret_id }),
            login_path: format!("auth/{}/login", config.approle_mount.trim_matches('/')),
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(super) fn configured(&self) -> bool {
        self.fixed.is_some() || self.role.is_some()
    }

    /// A token that is valid as far as we know.
    pub(super) async fn session(&self) -> Result<Session, PluginError> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        if let Some(session) = &state.session
            && session.expires.is_none_or(|end| end > now)
        {
            return Ok(session.clone());
        }
        self.open(&mut state).await
    }

    /// Asks Vault whether it accepts us now.
    pub(super) async fn accepted(&self) -> Result<(), PluginError> {
        let session = self.session().await?;
        if let Known::Accepted(_) = self.lookup(&session.token).await? {
            return Ok(());
        }
        match self.after_refusal(&session).await? {
            Some(_) => Ok(()),
            None => Err(PluginError::new(Failed::Denied, REFUSED)),
        }
    }

    /// Another token after Vault refused one; none when the refusal is the policy's and asking with
    /// another would not help.
    pub(super) async fn after_refusal(&self, old: &Session) -> Result<Option<Session>, PluginError> {
        let mut state = self.state.lock().await;
        match &state.session {
            // Somebody else was refused as well, and has seen to it.
            Some(newer) if newer.generation != old.generation => return Ok(Some(newer.clone())),
            _ => {}
        }
        let dead = match self.lookup(&old.token).await? {
            Known::Accepted(_) => false,
            Known::Refused => true,
        };
        if dead {
            if !old.from_login {
                state.fixed_refused = true;
            }
            state.session = None;
        } else if self.role.is_none() || !old.from_login || old.since.elapsed() < YOUNG {
            return Ok(None);
        }
        if self.role.is_none() {
            // The token may be replaced or revived where it comes from: it is asked about anew next time.
            state.fixed_refused = false;
            return Err(PluginError::new(Failed::Denied, REFUSED));
        }
        self.login(&mut state).await.map(Some)
    }

    async fn open(&self, state: &mut State) -> Result<Session, PluginError> {
        state.session = None;
        if let Some(token) = self.fixed.as_ref().filter(|_| !state.fixed_refused) {
            match self.lookup(token).await? {
                Known::Accepted(about) => {
                    return Ok(self.keep(state, token.clone(), about.ttl, about.renewable, false));
                }
                Known::Refused if self.role.is_some() => {
                    tracing::warn!("Vault does not accept the configured token; logging in with the AppRole");
                    state.fixed_refused = true;
                }
                // Its policy may just not allow the question: the first read decides.
                Known::Refused => return Ok(self.keep(state, token.clone(), 0, false, false)),
            }
        }
        self.login(state).await
    }

    async fn login(&self, state: &mut State) -> Result<Session, PluginError> {
        let Some(role) = &self.role else {
            return Err(PluginError::new(Failed::Denied, REFUSED));
        };
        let body = LoginBody { role_id: &role.role_id, secret_id: &role.secret_id };
        let body = serde_json::to_vec(&body).map(Zeroizing::new);
        let body = body.map_err(|error| PluginError::new(Failed::Faulty, error.to_string()))?;
        let call = Call::new(Method::POST, &self.login_path).json(body);
        let answer = self.http.send(&call).await.map_err(unavailable)?;
        if let Some(outage) = answer.outage() {
            return Err(unavailable(outage));
        }
        if !answer.status.is_success() {
            tracing::warn!(
                status = answer.status.as_u16(),
                said = answer.complaint(),
                "Vault refused the AppRole"
            );
            return Err(PluginError::new(Failed::Denied, REFUSED));
        }
        let Some(Login { auth }) = answer.read::<Login>().filter(|login| !login.auth.client_token.is_empty())
        else {
            let sentence = "Vault answered the AppRole login with something that is no token";
            return Err(PluginError::new(Failed::Faulty, sentence));
        };
        tracing::debug!(seconds = auth.lease_duration, renewable = auth.renewable, "logged in to Vault");
        Ok(self.keep(state, auth.client_token, auth.lease_duration, auth.renewable, true))
    }

    /// Takes a token into use; a `ttl` of 0 seconds has no end.
    fn keep(
        &self,
        state: &mut State,
        token: Zeroizing<String>,
        ttl: u64,
        renewable: bool,
        from_login: bool,
    ) -> Session {
        state.generation += 1;
        let now = Instant::now();
        let life = (ttl > 0).then(|| Duration::from_secs(ttl));
        let session = Session {
            token: Arc::new(token),
            generation: state.generation,
            since: now,
            expires: life.map(|life| now + life),
            renew_at: life.filter(|_| renewable).map(|life| now + life * 2 / 3),
            from_login,
        };
        state.session = Some(session.clone());
        self.changed.notify_one();
        session
    }

    async fn lookup(&self, token: &str) -> Result<Known, PluginError> {
        let call = Call::new(Method::GET, "auth/token/lookup-self").token(token);
        let answer = self.http.send(&call).await.map_err(unavailable)?;
        known(&answer)
    }

    /// Renews the token whenever two thirds of its life are over. Never ends by itself.
    pub(super) async fn keep_alive(&self) {
        loop {
            let due = self.state.lock().await.session.as_ref().and_then(|session| session.renew_at);
            match due {
                None => self.changed.notified().await,
                Some(at) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep_until(at) => self.renew().await,
                },
            }
        }
    }

    async fn renew(&self) {
        let mut state = self.state.lock().await;
        let Some(session) = state.session.clone() else { return };
        let call = Call::new(Method::POST, "auth/token/renew-self").token(&session.token);
        let call = call.json(Zeroizing::new(b"{}".to_vec()));
        let renewed = match self.http.send(&call).await {
            Ok(answer) if answer.status.is_success() => answer.read::<Login>(),
            Ok(answer) if matches!(answer.status.as_u16(), 400 | 401 | 403) => {
                tracing::warn!(said = answer.complaint(), "Vault does not renew the token");
                // It may live on to its end; then, or when it is refused, another is fetched.
                if let Some(session) = &mut state.session {
                    session.renew_at = None;
                }
                return;
            }
            Ok(_) | Err(_) => None,
        };
        let now = Instant::now();
        if let Some(session) = &mut state.session {
            match renewed {
                Some(Login { auth }) if auth.lease_duration > 0 => {
                    let life = Duration::from_secs(auth.lease_duration);
                    session.expires = Some(now + life);
                    session.renew_at = auth.renewable.then(|| now + life * 2 / 3);
                    tracing::debug!(seconds = auth.lease_duration, "Vault's token renewed");
                }
                _ => {
                    session.renew_at = Some(now + RENEW_AGAIN);
                    tracing::warn!("Vault's token could not be renewed; trying again");
                }
            }
        }
    }
}

fn known(answer: &Answer) -> Result<Known, PluginError> {
    if let Some(outage) = answer.outage() {
        return Err(unavailable(outage));
    }
    if !answer.status.is_success() {
        return Ok(Known::Refused);
    }
    match answer.read::<Lookup>() {
        Some(lookup) => Ok(Known::Accepted(lookup.data)),
        None => {
            let sentence = "Vault answered the question about our token with something else";
            Err(PluginError::new(Failed::Faulty, sentence))
        }
    }
}
