//! What can go wrong between here and a server, each with a sentence.

use std::time::Duration;

use netpulse_model::api::ErrorBody;
use reqwest::{Response, StatusCode};
use serde_json::Value;

/// Why a call gave no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The client itself was set up wrongly.
    #[error("{0}")]
    Setup(String),
    /// No server there, or the way to it broke.
    #[error("no answer from {url}: {reason}")]
    Unreachable {
        /// The server's address.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The key is wrong or missing.
    #[error("the server refused the API key: {0}")]
    Refused(String),
    /// The server said no, in its own words.
    #[error("{sentence}")]
    Answered {
        /// The HTTP status.
        status: u16,
        /// The server's sentence.
        sentence: String,
        /// When it may be worth another try.
        retry_after: Option<Duration>,
    },
    /// The answer broke off or was no answer of this API.
    #[error("the server's answer could not be read: {0}")]
    Broken(String),
}

impl ClientError {
    /// The HTTP status, when the server answered.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Answered { status, .. } => Some(*status),
            Self::Refused(_) => Some(StatusCode::FORBIDDEN.as_u16()),
            _ => None,
        }
    }

    /// Whether the same call may succeed a little later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Answered { status, .. } => matches!(status, 408 | 429 | 502..=504),
            _ => false,
        }
    }

    pub(crate) fn transport(url: &str, error: &reqwest::Error) -> Self {
        let reason = if error.is_timeout() {
            "it took too long".to_owned()
        } else {
            // The outer texts only say that a request failed; the innermost says why.
            let mut innermost: &dyn std::error::Error = error;
            while let Some(source) = innermost.source() {
                innermost = source;
            }
            innermost.to_string()
        };
        Self::Unreachable { url: url.to_owned(), reason }
    }

    pub(crate) async fn answered(response: Response) -> Self {
        let status = response.status();
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.parse().ok())
            .map(Duration::from_secs);
        let text = response.text().await.unwrap_or_default();
        let sentence = match serde_json::from_str::<ErrorBody>(&text) {
            Ok(body) => sentence(&body),
            Err(_) if text.trim().is_empty() => status.to_string(),
            Err(_) => text.chars().take(500).collect(),
        };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Refused(sentence),
            _ => Self::Answered { status: status.as_u16(), sentence, retry_after },
        }
    }
}

fn sentence(body: &ErrorBody) -> String {
    let list = |items: &[Value]| {
        let texts: Vec<String> = items
            .iter()
            .map(|item| {
                let loc: Vec<String> = item["loc"]
                    .as_array()
                    .map(Vec::as_slice)
                    .unwrap_or_default()
                    .iter()
                    .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
                    .collect();
                format!("{}: {}", loc.join("."), item["msg"].as_str().unwrap_or_default())
            })
            .collect();
        texts.join("; ")
    };
    match (&body.detail, &body.errors) {
        (Value::String(text), Some(errors)) if text == "Validation Error" => {
            format!("{text}: {}", list(errors))
        }
        (Value::String(text), _) => text.clone(),
        (Value::Array(items), _) => list(items),
        (other, _) => other.to_string(),
    }
}
