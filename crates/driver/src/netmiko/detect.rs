//! Finding out what a device is: by its prompt, then by what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use netpulse_model::ErrorCode;
use netpulse_session::SessionError;
use netpulse_session::cli::{CommandOptions, Session};
use netpulse_session::platform::{Platform, Registry};

/// A device that does not know a command says so at once.
const PATIENCE: Duration = Duration::from_secs(8);
/// Sure enough to stop asking.
const SURE: u8 = 95;

/// Asks an unknown device what it is and makes the session one of that platform.
///
/// # Errors
/// `UnknownPlatform`, when nothing fits; whatever breaks the session.
pub async fn detect(session: &mut Session, platforms: &Registry) -> Result<(), SessionError> {
    let all = platforms.all().map_err(|e| SessionError::new(ErrorCode::Internal, e.to_string()))?;
    let prompt = session.prompt();
    let version = session.remote_version();
    let greeting = session.greeting().to_vec();
    let fits = |platform: &Platform| {
        platform.name != "generic" && platform.prompts().any(|(_, pattern)| pattern.is_match(prompt.as_bytes()))
    };
    let mut best: Option<(u8, Arc<Platform>)> = None;
    let mut note = |score: u8, platform: &Arc<Platform>| {
        if best.as_ref().is_none_or(|(sure, _)| score > *sure) {
            best = Some((score, Arc::clone(platform)));
        }
        best.as_ref().map_or(0, |(sure, _)| *sure)
    };
    // The commands of the platforms whose prompts look like this one, the most telling first.
    let mut questions: BTreeMap<&str, Vec<(&Arc<Platform>, &netpulse_session::platform::schema::Detect)>> = BTreeMap::new();
    for platform in &all {
        for question in platform.rules.detect.iter().flatten() {
            match &question.send {
                None => {
                    let seen = [greeting.as_slice(), prompt.as_bytes(), version.as_bytes()];
                    if seen.iter().any(|text| question.pattern.is_match(text)) {
                        note(question.score, platform);
                    }
                }
                Some(send) if fits(platform) => questions.entry(send).or_default().push((platform, question)),
                Some(_) => {}
            }
        }
    }
    let mut order: Vec<_> = questions.into_iter().collect();
    order.sort_by_key(|(_, asked)| std::cmp::Reverse(asked.len()));
    let options = CommandOptions { read_timeout: PATIENCE, ..CommandOptions::default() };
    let mut sure = 0;
    for (send, asked) in order {
        let answer = match session.command(send, &options).await {
            Ok(output) => output.bytes,
            Err(error) if session.usable() => {
                tracing::debug!(%error, send, "no answer while looking for the platform");
                continue;
            }
            Err(error) => return Err(error),
        };
        for (platform, question) in asked {
            if question.pattern.is_match(&answer) {
                sure = note(question.score, platform);
            }
        }
        if sure >= SURE {
            break;
        }
    }
    match best {
        Some((_, platform)) => session.become_platform(platform).await,
        None => Err(SessionError::new(
            ErrorCode::UnknownPlatform,
            format!("the platform could not be told from the prompt `{prompt}`; give its `device_type`"),
        )),
    }
}
