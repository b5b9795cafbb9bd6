//! The security settings of a plan.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::plan_rules::cidr;

/// Security settings of every tenant of a plan.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanSecurity {
    /// The lowest TLS version that the gateway accepts.
    #[serde(default)]
    pub min_tls: TlsVersion,
    /// Address ranges of agents; empty: every address.
    #[serde(default)]
    #[schemars(length(max = 1000), inner(length(min = 2, max = 43)))]
    #[x_kube(validation = Rule::new(cidr::RULE).message(cidr::MESSAGE))]
    #[x_kube(validation = Rule::new(cidr::WHOLE).message(cidr::WHOLE_MESSAGE))]
    pub agent_allow: Vec<String>,
    /// Whether agents need a second factor.
    #[serde(default)]
    pub require_totp: bool,
    /// Whether programs need tokens, which can be taken back one by one, instead of people's passwords. The app has to be
    /// able to keep that.
    #[serde(default)]
    pub require_api_tokens: bool,
    /// The OpenID provider that asks for the second factor if the app cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<Oidc>,
    /// The rate limit of a tenant's API paths in requests per minute. It counts all clients together, separately in
    /// each proxy of the gateway.
    #[serde(default = "ten_a_second")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub api_requests_per_minute: i32,
    /// The same for each credential: each value of the header `Authorization`.
    #[serde(default = "five_a_second")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub api_requests_per_minute_per_credential: i32,
    /// The largest body of a request to a tenant's API paths, such as `10Mi`. The gateway holds the whole body before it
    /// hands it on.
    #[serde(default = "ten_mebibytes")]
    #[schemars(length(max = 16), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^[1-9][0-9]{0,9}(Ki|Mi|Gi)?$')",
        "message": "apiMaxBody is a whole number of bytes, or of Ki, Mi or Gi, such as 10Mi",
    }]))]
    pub api_max_body: String,
}

fn ten_a_second() -> i32 {
    600
}

fn five_a_second() -> i32 {
    300
}

fn ten_mebibytes() -> String {
    "10Mi".into()
}

impl PlanSecurity {
    /// Whether agents need a second factor. The account may ask for one that the plan does not ask for.
    pub fn needs_second_factor(&self, account: Option<bool>) -> bool {
        self.require_totp || account.unwrap_or(false)
    }
}

impl Default for PlanSecurity {
    fn default() -> Self {
        Self {
            min_tls: TlsVersion::default(),
            agent_allow: vec![],
            require_totp: false,
            require_api_tokens: false,
            oidc: None,
            api_requests_per_minute: ten_a_second(),
            api_requests_per_minute_per_credential: five_a_second(),
            api_max_body: ten_mebibytes(),
        }
    }
}

/// A provider of OpenID Connect that asks agents for a second factor. The ID token tells whether it did: by the claim `amr`,
/// `acr`, or both.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.acrValues) || has(self.authorizationEndpoint)").message("acrValues are asked for at the authorizationEndpoint: set that, too"))]
pub struct Oidc {
    /// Its issuer URL.
    #[schemars(length(min = 9, max = 253))]
    #[x_kube(validation = Rule::new("self.startsWith('https://')").message("issuer is an https:// address"))]
    pub issuer: String,
    /// The client ID at the provider. For every tenant's host name, the URL with the path /oauth2/callback must be a
    /// redirect URI of this client.
    #[serde(rename = "clientID")]
    #[schemars(length(min = 1, max = 253))]
    pub client_id: String,
    /// A Secret in the operator's namespace with the key `client-secret`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub client_secret: String,
    /// The URL of its JSON Web Key Set. Envoy must be able to reach it and to trust its certificate.
    #[serde(rename = "jwksURI")]
    #[schemars(length(min = 9, max = 253))]
    #[x_kube(validation = Rule::new("self.startsWith('https://')").message("jwksURI is an https:// address"))]
    pub jwks_uri: String,
    /// The URL where people log in. If absent, it is read from the issuer's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 253))]
    pub authorization_endpoint: Option<String>,
    /// The URL where authorization codes are exchanged for tokens. If absent, it is read from the issuer's
    /// configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 253))]
    pub token_endpoint: Option<String>,
    /// The value that the claim `amr` must contain for the second factor to count (RFC 8176). If absent, it is `otp` where
    /// `acrValues` is absent, and otherwise nothing is asked of this claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub amr: Option<String>,
    /// The authentication contexts that are asked for (`acr_values`), one of which the claim `acr` must be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 100), regex(pattern = r"^[!-~]+$")))]
    pub acr_values: Vec<String>,
    /// The claim that lists the names of the accounts whose agent somebody is. Without it, agents of all accounts that have
    /// this provider pass the gateway of each of them, and only the app tells them apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub account_claim: Option<String>,
}

impl Oidc {
    /// The value that the claim `amr` must contain, if any.
    pub fn amr(&self) -> Option<&str> {
        self.amr.as_deref().or_else(|| self.acr_values.is_empty().then_some("otp"))
    }
}

/// The lowest TLS version. Versions below 1.2 are never offered.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2 and later.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3 only.
    #[serde(rename = "1.3")]
    V13,
}
