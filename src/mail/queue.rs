//! What becomes of mail that tenants have sent and that waits in the mail server's queue: it is held while its tenant is
//! blocked, goes on when the tenant pays, and is deleted when the tenant is terminated. A helper beside the mail server
//! shows the queue and carries out the orders.

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use serde::Deserialize;

use super::{
    address::Address,
    directory::Directory,
    recipient::{Standing, standing},
};

/// The path at which the queue is shown, in the lines of `postqueue -j`.
pub(super) fn router(directory: Arc<Directory>) -> Router {
    Router::new().route("/queue", post(orders)).with_state(directory)
}

/// A message in the queue.
#[derive(Deserialize)]
struct Waiting {
    queue_name: String,
    queue_id: String,
    sender: String,
}

/// The orders, a line each: `hold ID`, `release ID` or `delete ID`.
async fn orders(State(directory): State<Arc<Directory>>, shown: String) -> String {
    let mut orders = String::new();
    for waiting in shown.lines().filter_map(|line| serde_json::from_str::<Waiting>(line).ok()) {
        let Some(sender) = Address::parse(&waiting.sender) else { continue };
        let Some(order) = order(standing(&directory.facts(&sender.domain)), waiting.queue_name == "hold") else { continue };
        if waiting.queue_id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            tracing::info!(id = waiting.queue_id, order, "mail that a tenant sent waits in the queue");
            orders.push_str(&format!("{order} {}\n", waiting.queue_id));
        }
    }
    orders
}

/// What becomes of a message whose sender has this standing.
fn order(sender: Standing, is_held: bool) -> Option<&'static str> {
    match (sender, is_held) {
        (Standing::Open, true) => Some("release"),
        (Standing::Paused, false) => Some("hold"),
        (Standing::Over, _) => Some("delete"),
        (Standing::Open, false) | (Standing::Paused, true) | (Standing::Unknown | Standing::NotOurs, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_stops_with_its_tenant_and_on_nothing_unknown() {
        assert_eq!([order(Standing::Open, false), order(Standing::Open, true)], [None, Some("release")]);
        assert_eq!([order(Standing::Paused, false), order(Standing::Paused, true)], [Some("hold"), None]);
        assert_eq!([order(Standing::Over, false), order(Standing::Over, true)], [Some("delete"); 2]);
        for other in [Standing::Unknown, Standing::NotOurs] {
            assert_eq!([order(other, false), order(other, true)], [None; 2]);
        }
    }

    #[tokio::test]
    async fn a_queue_that_is_shown_before_anything_was_read_stays_as_it_is() {
        let line = r#"{"queue_name": "deferred", "queue_id": "4cX", "sender": "support@acme.helpdesk.example"}"#;
        let shown = format!("{line}\nno JSON\n{{}}\n");
        assert_eq!(orders(State(Arc::new(Directory::unread())), shown).await, "");
    }
}
