//! References on a job's way: the secret is asked for when the job runs, lives in this process for
//! as long as it runs, and is zeroed after it.

use std::ops::Deref;
use std::time::Duration;

use netpulse_model::{ErrorCode, ErrorInfo, ExecutionRequest};
use netpulse_plugin::{Fill, Report};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::fence::Fence;
use crate::node::Inner;

/// Longest that a provider may take.
const LONGEST: Duration = Duration::from_secs(30);

/// A request, and what was put into its connection arguments.
pub(crate) struct Filled {
    request: ExecutionRequest,
    fill: Fill,
}

impl Deref for Filled {
    type Target = ExecutionRequest;

    fn deref(&self) -> &ExecutionRequest {
        &self.request
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.fill.wipe(&mut self.request.connection_args);
    }
}

impl Filled {
    pub(crate) fn new(request: ExecutionRequest) -> Self {
        Self { request, fill: Fill::default() }
    }

    /// Every secret text of the request, wherever it came from.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let mut secrets = self.request.secrets();
        secrets.extend(self.fill.secrets(&self.request.connection_args));
        secrets.sort_by_key(|text| std::cmp::Reverse(text.len()));
        secrets.dedup();
        secrets
    }

    /// Says in each result which given arguments the reference overruled.
    pub(crate) fn note(&self, report: &mut Report) {
        let reference = self.request.credential.as_ref();
        let Some(warning) = reference.and_then(|reference| self.fill.warning(reference)) else { return };
        for item in &mut report.results {
            let warnings = item.metadata.entry("warnings").or_insert_with(|| Value::Array(Vec::new()));
            if let Some(list) = warnings.as_array_mut() {
                list.push(Value::from(warning.as_str()));
            }
        }
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
    let values = tokio::select! {
        biased;
        () = fence.token().cancelled() => {
            return Err(ErrorInfo::new(ErrorCode::WorkerLost, "The right to the device was lost"));
        }
        () = cancel.cancelled() => {
            return Err(ErrorInfo::new(ErrorCode::Canceled, "Canceled before the first line was sent"));
        }
        values = asked => values?,
    };
    request.fill = Fill::apply(values, &mut request.request.connection_args);
    if let Some(warning) = request.fill.warning(reference) {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// After a try: a secret that the device refused may have been changed at its provider since it was
/// read, so the next job gets it fresh.
pub(crate) fn after(node: &Inner, request: &Filled, error: Option<&ErrorInfo>) {
    let refused = error
        .is_some_and(|error| matches!(error.code, ErrorCode::AuthenticationFailed | ErrorCode::EnableFailed));
    if let Some(reference) = request.request.credential.as_ref().filter(|_| refused) {
        node.credentials.refused(reference);
    }
}
