//! Where apps teach the filter: HTTP inside the cluster, with the tenant's own token.
//!
//! `POST /accounts/NAME/spam` and `/ham` with a message as body teach; `DELETE /accounts/NAME/learned` forgets everything,
//! so that an app can teach anew from the messages that remain. `GET /learned/UID` says to the operator whether anything is
//! left of a tenant.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    routing::{delete, get, post},
};

use super::{
    filter::{self, Class},
    learned,
    tokens::{Proof, Tokens},
};
use crate::error_chain::chain;

/// The largest message that is learned.
const LARGEST: usize = 32 * 1024 * 1024;

type Answer = Result<String, (StatusCode, &'static str)>;

const UNAVAILABLE: (StatusCode, &str) = (StatusCode::SERVICE_UNAVAILABLE, "the mail intake cannot do that now; try again\n");

/// The paths.
pub(super) fn router(tokens: Arc<Tokens>) -> Router {
    Router::new()
        .route("/accounts/{account}/{class}", post(learn))
        .route("/accounts/{account}/learned", delete(forget))
        .route("/learned/{uid}", get(is_any_left))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(tokens)
}

/// The uid of the account, if the request has its token.
async fn authorized(tokens: &Tokens, account: &str, headers: &HeaderMap) -> Result<String, (StatusCode, &'static str)> {
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let refused = (StatusCode::UNAUTHORIZED, "send the token of this account, as Authorization: Bearer\n");
    match tokens.uid_if_valid(account, Proof::Token(token.ok_or(refused)?)).await {
        Ok(uid) => uid.ok_or(refused),
        Err(error) => {
            tracing::warn!(account, error = chain(&error), "a token cannot be checked");
            Err(UNAVAILABLE)
        }
    }
}

async fn learn(
    State(tokens): State<Arc<Tokens>>,
    Path((account, class)): Path<(String, String)>,
    headers: HeaderMap,
    message: Bytes,
) -> Answer {
    let class = match class.as_str() {
        "spam" => Class::Spam,
        "ham" => Class::Ham,
        _ => return Err((StatusCode::NOT_FOUND, "post to spam or ham\n")),
    };
    let uid = authorized(&tokens, &account, &headers).await?;
    filter::learn(&uid, class, message).await.map_err(|error| {
        tracing::warn!(account, error = chain(&error), "the filter did not learn a message");
        UNAVAILABLE
    })?;
    tracing::info!(account, ?class, "the filter was taught");
    Ok("learned\n".to_owned())
}

async fn forget(State(tokens): State<Arc<Tokens>>, Path(account): Path<String>, headers: HeaderMap) -> Answer {
    let uid = authorized(&tokens, &account, &headers).await?;
    learned::erase(&uid).await.map_err(|error| {
        tracing::warn!(account, %error, "what was learned cannot be erased");
        UNAVAILABLE
    })?;
    Ok("forgotten\n".to_owned())
}

async fn is_any_left(Path(uid): Path<String>) -> Answer {
    let is_any_left = learned::is_any_left(&uid).await.map_err(|_| UNAVAILABLE)?;
    Ok(is_any_left.to_string())
}
