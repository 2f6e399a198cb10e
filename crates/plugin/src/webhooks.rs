//! The webhook kinds by name: a view on the registry.

use std::sync::Arc;

use crate::kinds::Webhook;
use crate::{Implementation, Kind, Plugins};

/// The webhook kinds by name.
#[derive(Clone, Default)]
pub struct Webhooks {
    plugins: Plugins,
}

impl Webhooks {
    /// A registry of these kinds alone; a later one of the same name replaces an earlier one.
    #[must_use]
    pub fn new(kinds: Vec<Arc<dyn Webhook>>) -> Self {
        let webhooks = Self::default();
        for kind in kinds {
            let name = kind.name().to_owned();
            webhooks.plugins.register(Kind::Webhook, &name, "", Implementation::Webhook(kind));
        }
        webhooks
    }

    /// The webhooks of that registry.
    #[must_use]
    pub fn of(plugins: Plugins) -> Self {
        Self { plugins }
    }

    /// The kind of that name, as far as is known now. [`Webhooks::find`] looks further.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<dyn Webhook>> {
        match self.plugins.get(Kind::Webhook, name)? {
            Implementation::Webhook(kind) => Some(kind),
            _ => None,
        }
    }

    /// The kind of that name; looks into the plugin folders when nobody knows it yet.
    pub async fn find(&self, name: &str) -> Option<Arc<dyn Webhook>> {
        self.plugins.webhook(name).await
    }

    /// All names known now, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.plugins.names(Kind::Webhook)
    }
}
