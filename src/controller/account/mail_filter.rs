//! Asks the mail intake whether its filter still remembers anything of an account.

use std::time::Duration;

use crate::{
    app::mail::LEARN_PORT,
    http_client::{Get, get},
};

/// How long the intake may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why it is not certain that the filter has forgotten the account with this uid; `None`: it has, or there is no filter.
pub(super) async fn remembers(intake: Option<&(String, String)>, uid: &str) -> Option<String> {
    let (namespace, name) = intake?;
    let host = format!("{name}.{namespace}.svc");
    match get(Get { host: &host, port: LEARN_PORT, path: &format!("/learned/{uid}"), patience: PATIENCE }).await {
        Ok(answer) if answer == "false" => None,
        Ok(answer) if answer == "true" => Some("the mail filter is forgetting what it learned for this account".to_owned()),
        Ok(_) => {
            Some(format!("the mail intake {host} answers something that is not understood; its version may differ from the operator's"))
        }
        Err(error) => Some(format!(
            "the mail intake {host} cannot say whether its filter has forgotten this account ({error}); it has to run until then"
        )),
    }
}
