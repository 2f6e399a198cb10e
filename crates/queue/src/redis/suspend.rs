//! Nodes that drain.

use super::Shared;
use super::scripts::Script;
use crate::api::QueueError;

impl Shared {
    /// The node takes nothing new.
    pub(super) async fn suspend(&self, node: &str) -> Result<(), QueueError> {
        self.prepare().await;
        let Some(life) = self.nodes.lock().get(node).map(|local| local.life.clone()) else {
            return Err(QueueError::UnknownNode(node.to_owned()));
        };
        let reply = self
            .ask(Script::Suspend, |call| {
                call.arg(node).arg(&life);
            })
            .await?;
        if reply.text(0) == "1" { Ok(()) } else { Err(QueueError::UnknownNode(node.to_owned())) }
    }
}
