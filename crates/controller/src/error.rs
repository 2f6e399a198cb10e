//! Errors as clients see them: a status, a sentence, and for wrong fields their paths.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use netpulse_model::{FieldError, fields, secret};
use netpulse_queue::QueueError;
use serde_json::{Map, Value, json};

use crate::reply;

/// An error on its way to a client. Never carries a secret.
#[derive(Debug, Clone)]
pub(crate) struct ApiError(Box<Problem>);

/// What an error says.
#[derive(Debug, Clone)]
struct Problem {
    status: StatusCode,
    detail: Value,
    errors: Option<Value>,
    retry_after: Option<u64>,
    extra: Map<String, Value>,
}

impl ApiError {
    /// An error with a sentence.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let detail = Value::String(detail.into());
        Self(Box::new(Problem { status, detail, errors: None, retry_after: None, extra: Map::new() }))
    }

    /// 400 with a sentence.
    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404 with a sentence.
    pub(crate) fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 500 with upstream's prefix.
    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("Internal Server Error: {message}"))
    }

    /// 422 with the list of mistakes, each below `place` (`body`, `query`, `header`).
    pub(crate) fn unprocessable(place: &str, errors: Vec<FieldError>) -> Self {
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "");
        error.0.detail = listed(errors, Some(place));
        error
    }

    /// 422 for one value in the query string, named by its parameter.
    pub(crate) fn query(name: &str, msg: impl Into<String>, input: &str) -> Self {
        let mut mistake = FieldError::new(&[name], msg);
        mistake.input = Value::from(input);
        Self::unprocessable("query", vec![mistake])
    }

    /// 422 as `/device/exec` words it: one sentence, and the mistakes beside it.
    pub(crate) fn invalid_request(errors: Vec<FieldError>) -> Self {
        let sentence = format!("Invalid JSON request: {}", fields::sentence(&errors));
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, sentence);
        error.0.errors = Some(listed(errors, None));
        error
    }

    /// 400 for what a driver finds wrong.
    pub(crate) fn validation(errors: Vec<FieldError>) -> Self {
        Self::bad("Validation Error").with_errors(errors)
    }

    /// With the mistakes beside the sentence.
    pub(crate) fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = Some(listed(errors, None));
        self
    }

    /// With a `Retry-After` of so many seconds (at least one).
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after = Some(seconds.max(1));
        self
    }

    /// With one more field beside `detail`.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.extra.insert(key.to_owned(), value.into());
        self
    }

    /// The error as one sentence, for a bulk failure or the early API's envelope.
    pub(crate) fn sentence(&self) -> String {
        let list = |value: &Value| {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
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
                    let msg = item["msg"].as_str().unwrap_or_default();
                    if loc.is_empty() { msg.to_owned() } else { format!("{}: {msg}", loc.join(".")) }
                })
                .collect();
            texts.join("; ")
        };
        match (&self.0.detail, &self.0.errors) {
            (Value::String(text), Some(errors)) if text == "Validation Error" => {
                format!("{text}: {}", list(errors))
            }
            (Value::String(text), _) => text.clone(),
            (items, _) => list(items),
        }
    }

    /// The answer in the early API's envelope.
    pub(crate) fn enveloped(&self) -> Response {
        let body = json!({"code": -1, "message": self.sentence(), "data": null});
        self.finish(reply::json(self.0.status, &body))
    }

    fn finish(&self, mut response: Response) -> Response {
        if let Some(seconds) = self.0.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Mistakes as upstream's validation library lists them; what was given is masked where it is a
/// secret, whoever found the mistake.
fn listed(errors: Vec<FieldError>, place: Option<&str>) -> Value {
    let items = errors.into_iter().map(|mut error| {
        if let Some(place) = place {
            error.loc.insert(0, Value::from(place));
        }
        if error.kind == "value_error" && !error.msg.starts_with("Value error, ") {
            error.msg.insert_str(0, "Value error, ");
        }
        let named_secret = error.loc.iter().any(|part| part.as_str().is_some_and(secret::is_secret_key));
        let input = match error.input {
            Value::Null => Value::Null,
            _ if named_secret => Value::from(secret::MASK),
            input => secret::masked(&input),
        };
        json!({"type": error.kind, "loc": error.loc, "msg": error.msg, "input": input})
    });
    Value::Array(items.collect())
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = self.0.extra.clone();
        body.insert("detail".to_owned(), self.0.detail.clone());
        if let Some(errors) = &self.0.errors {
            body.insert("errors".to_owned(), errors.clone());
        }
        let mut response = self.finish(reply::json(self.0.status, &Value::Object(body)));
        // The gate needs the error itself to word it for the early paths.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Unavailable(_) | QueueError::Closed => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{}; nothing was changed, try again", capital(&error)),
            )
            .retry_after(1),
            QueueError::Corrupt(_) | QueueError::UnknownNode(_) | QueueError::NameTaken(_) => {
                Self::internal(error)
            }
        }
    }
}

fn capital(error: &QueueError) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
