//! The registry of webhook kinds.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::kinds::Webhook;

/// The webhook kinds by name.
#[derive(Clone, Default)]
pub struct Webhooks {
    by_name: Arc<BTreeMap<String, Arc<dyn Webhook>>>,
}

impl Webhooks {
    /// A registry of these kinds; a later one of the same name replaces an earlier one.
    #[must_use]
    pub fn new(kinds: Vec<Arc<dyn Webhook>>) -> Self {
        Self { by_name: Arc::new(kinds.into_iter().map(|kind| (kind.name().to_owned(), kind)).collect()) }
    }

    /// The kind of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Webhook>> {
        self.by_name.get(name)
    }

    /// All names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.by_name.keys().map(String::as_str).collect()
    }
}
