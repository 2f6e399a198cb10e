//! References on a job's way: the secret is asked for when the job runs, lives in this process for
//! as long as it runs, and is zeroed after it.

use std::ops::Deref;
use std::time::Duration;

use netpulse_model::{ErrorCode, ErrorInfo, ExecutionRequest};
use netpulse_plugin::Report;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroize;

use crate::fence::Fence;
use crate::node::Inner;

/// Longest that a provider may take.
const LONGEST: Duration = Duration::from_secs(30);
/// Arguments that are no secrets though they come out of one: masking a user's name would garble
/// ordinary output.
const PLAIN: &[&str] = &["username", "user", "proxy_username"];
/// Shorter values are not masked, for the same reason.
const SHORTEST: usize = 4;

/// A request, and what was put into its connection arguments.
pub(crate) struct Filled {
    request: ExecutionRequest,
    /// The arguments that came out of the secret.
    filled: Vec<String>,
    /// Those of them that the request had given as well.
    overruled: Vec<String>,
}

impl Deref for Filled {
    type Target = ExecutionRequest;

    fn deref(&self) -> &ExecutionRequest {
        &self.request
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        for key in &self.filled {
            if let Some(Value::String(text)) = self.request.connection_args.0.get_mut(key) {
                text.zeroize();
            }
        }
    }
}

impl Filled {
    pub(crate) fn new(request: ExecutionRequest) -> Self {
        Self { request, filled: Vec::new(), overruled: Vec::new() }
    }

    /// Every secret text of the request, wherever it came from.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let mut secrets = self.request.secrets();
        let resolved = self.filled.iter().filter(|key| !PLAIN.contains(&key.as_str()));
        secrets.extend(
            resolved
                .filter_map(|key| self.request.connection_args.text(key))
                .filter(|text| text.len() >= SHORTEST)
                .map(str::to_owned),
        );
        secrets.sort_by_key(|text| std::cmp::Reverse(text.len()));
        secrets.dedup();
        secrets
    }

    /// Says in each result which given arguments the reference overruled.
    pub(crate) fn note(&self, report: &mut Report) {
        let Some(warning) = self.warning() else { return };
        for item in &mut report.results {
            let warnings = item.metadata.entry("warnings").or_insert_with(|| Value::Array(Vec::new()));
            if let Some(list) = warnings.as_array_mut() {
                list.push(Value::from(warning.as_str()));
            }
        }
    }

    fn warning(&self) -> Option<String> {
        let reference = self.request.credential.as_ref().filter(|_| !self.overruled.is_empty())?;
        let given: Vec<String> = self.overruled.iter().map(|key| format!("`{key}`")).collect();
        Some(format!(
            "{} of the request {} not used: the credential `{}` wins",
            given.join(" and "),
            if given.len() == 1 { "was" } else { "were" },
            reference.reference
        ))
    }
}

/// Puts the secret that the request refers to, if any, into its connection arguments.
///
/// # Errors
/// The provider's, as a job's error; canceled, or the right to the device lost, meanwhile.
pub(crate) async fn resolve(
    node: &Inner,
    request: &mut Filled,
    within: Duration,
    fence: &Fence,
    cancel: &CancellationToken,
) -> Result<(), ErrorInfo> {
    let Some(reference) = &request.request.credential else { return Ok(()) };
    let asked = node.credentials.resolve(reference, &request.request.connection_args, within.min(LONGEST));
    let mut values = tokio::select! {
        biased;
        () = fence.token().cancelled() => {
            return Err(ErrorInfo::new(ErrorCode::WorkerLost, "The right to the device was lost"));
        }
        () = cancel.cancelled() => {
            return Err(ErrorInfo::new(ErrorCode::Canceled, "Canceled before the first line was sent"));
        }
        values = asked => values?,
    };
    let args = &mut request.request.connection_args.0;
    for (key, value) in std::mem::take(&mut values.0) {
        let given = args.insert(key.clone(), Value::from(value.as_str()));
        if given.is_some_and(|given| !given.is_null() && given.as_str() != Some("")) {
            request.overruled.push(key.clone());
        }
        request.filled.push(key);
    }
    if let Some(warning) = request.warning() {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// After a try: a secret that the device refused may have been changed at its provider since it was
/// read, so the next job gets it fresh.
pub(crate) fn after(node: &Inner, request: &Filled, error: Option<&ErrorInfo>) {
    let refused = error.is_some_and(|error| {
        matches!(error.code, ErrorCode::AuthenticationFailed | ErrorCode::EnableFailed)
    });
    if let Some(reference) = request.request.credential.as_ref().filter(|_| refused) {
        node.credentials.refused(reference);
    }
}
