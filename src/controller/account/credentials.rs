//! The tenant's passwords: generates them, stores them in the operator's namespace, copies them into the tenant's Secret,
//! rotates them.
//!
//! The operator's own copy is the Secret `login-<tenant>`. When the tenant's Secret `database` is deleted or edited, it is
//! restored from this copy. A password is stored before its verifier is sent to the server, so a crash between the two
//! loses no login.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::SignedDuration};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams},
};

use super::{
    context::{AccountContext, FIELD_MANAGER},
    error::Error,
};
use crate::controller::{placement::Placement, tenant_secret::TenantSecret};
use crate::{
    api::{ACCOUNT_LABEL, ACCOUNT_UID, DatabaseServerSpec, HelpDeskAccount, Window},
    clock::Moment,
    cluster::{During, ignore_not_found_or_conflict},
    database::{LoginSecret, LoginSlot, Password, RotationStep, Tenant, TenantLimits},
    ledger::LoginEntry,
};

/// The Secret in the tenant's namespace.
pub(super) const SECRET: &str = "database";

/// How long the old login stays at least after a rotation, and how often the operator retries to remove it while it has
/// sessions.
const ROTATION_INTERVAL: SignedDuration = SignedDuration::from_secs(10);

/// The password of one of the tenant's logins, from the operator's own copy.
pub(super) async fn password(ctx: &AccountContext, tenant: &Tenant, slot: LoginSlot) -> Result<Option<Password>, Error> {
    let value = TenantSecret::of(ctx, tenant).value(slot.name()).await?;
    Ok(value.map(|value| Password::from_text(value.to_string())))
}

/// A keyed hash of a password, for the ledger: it tells an older copy of the Secret from the present one.
pub(super) fn hash(ctx: &AccountContext, password: &Password) -> String {
    ctx.installation.keyed_hash(password.expose())
}

/// The password of one of the tenant's logins. If there is none, one is generated and stored.
pub(super) async fn password_or_new(
    ctx: &AccountContext,
    account: &HelpDeskAccount,
    tenant: &Tenant,
    slot: LoginSlot,
) -> Result<Password, Error> {
    if let Some(password) = password(ctx, tenant, slot).await? {
        return Ok(password);
    }
    let fresh = Password::generate()?;
    TenantSecret::of(ctx, tenant).put(&account.name_any(), [(slot.name(), fresh.expose())]).await?;
    Ok(fresh)
}

fn own_meta(account: &HelpDeskAccount, tenant: &Tenant, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        labels: Some(BTreeMap::from([(ACCOUNT_LABEL.to_owned(), account.name_any())])),
        annotations: Some(BTreeMap::from([(ACCOUNT_UID.to_owned(), tenant.uid.clone())])),
        ..ObjectMeta::default()
    }
}

/// The verifier of a password, for the server.
pub(super) fn login_secret(slot: LoginSlot, password: &Password) -> Result<LoginSecret, Error> {
    Ok(LoginSecret { slot, verifier: password.verifier()? })
}

/// Writes the credentials into the tenant's Secret, under the keys of the Service Binding specification. Reverts edits.
pub(super) async fn ensure_binding_secret(
    ctx: &AccountContext,
    account: &HelpDeskAccount,
    placement: &Placement,
    namespace: &str,
    slot: LoginSlot,
    password: &Password,
) -> Result<(), Error> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    let data = binding(ctx, placement, slot, password).await?;
    let found = api.get_opt(SECRET).await.during("read the tenant's Secret")?;
    if let Some(found) = &found {
        if found.annotations().get(ACCOUNT_UID) != Some(&placement.tenant.uid) {
            return Err(Error::Foreign { what: format!("Secret {namespace}/{SECRET}") });
        }
        if data.iter().all(|(key, value)| found.data.as_ref().and_then(|d| d.get(key)) == Some(value)) {
            return Ok(());
        }
    }
    let secret = Secret {
        metadata: own_meta(account, &placement.tenant, SECRET.to_owned()),
        type_: found.and_then(|f| f.type_).or_else(|| Some("servicebinding.io/postgresql".to_owned())),
        data: Some(data),
        ..Secret::default()
    };
    api.patch(SECRET, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(secret))
        .await
        .during("hand the credentials to the tenant")?;
    Ok(())
}

/// The credentials of one login, in the keys of the Service Binding specification.
pub(super) async fn binding(
    ctx: &AccountContext,
    placement: &Placement,
    slot: LoginSlot,
    password: &Password,
) -> Result<BTreeMap<String, ByteString>, Error> {
    let spec = &placement.server.spec;
    let (user, database) = (placement.tenant.login(slot), &placement.tenant.name);
    let mut keys = vec![
        ("type", "postgresql".to_owned()),
        ("provider", "helpdesk-operator".to_owned()),
        ("host", spec.host.clone()),
        ("port", spec.port.to_string()),
        ("sslmode", spec.tls.mode.name().to_owned()),
        ("uri", uri(spec, &user, password, database)),
        ("database", database.clone()),
        ("username", user),
        ("password", password.expose().to_owned()),
    ];
    if let Some(name) = &spec.tls.ca_secret {
        let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
        let ca = api.get_opt(name).await.during("read the server's certificate authority")?;
        if let Some(pem) = ca.and_then(|s| s.data).and_then(|mut d| d.remove("ca.crt")) {
            keys.push(("ca.crt", String::from_utf8_lossy(&pem.0).into_owned()));
        }
    }
    Ok(keys.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect())
}

/// All that a client needs, as one URI.
fn uri(spec: &DatabaseServerSpec, user: &str, password: &Password, database: &str) -> String {
    let host = if spec.host.contains(':') { format!("[{}]", spec.host) } else { spec.host.clone() };
    format!("postgresql://{user}:{}@{host}:{}/{database}?sslmode={}", password.expose(), spec.port, spec.tls.mode.name())
}

/// Deletes the tenant's Secret before its namespace. Deleting a namespace takes a while; the credentials must not be
/// readable meanwhile.
pub(super) async fn delete_binding_secret(ctx: &AccountContext, tenant: &Tenant, namespace: &str) -> Result<(), Error> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    let Some(found) = api.get_opt(SECRET).await.during("read the tenant's Secret")? else { return Ok(()) };
    if found.annotations().get(ACCOUNT_UID) != Some(&tenant.uid) {
        return Ok(());
    }
    api.delete(SECRET, &DeleteParams::default())
        .await
        .map(drop)
        .or_else(ignore_not_found_or_conflict)
        .during("take back the tenant's Secret")
        .map_err(Error::from)
}

/// Whether a rotation is due: the annotation has a new value, or the plan's interval has passed.
pub(super) fn rotation_is_due(login: &LoginEntry, asked: Option<&String>, interval: Window, now: Moment) -> bool {
    let asked = asked.is_some() && asked != login.rotation_token.as_ref();
    !login.retiring && (asked || login.password_set_at + interval.duration() <= now)
}

/// The inputs of a rotation.
pub(super) struct Rotation<'a> {
    /// The tenant's limits.
    pub limits: TenantLimits,
    /// The value of the annotation that asks for a new password.
    pub asked: Option<&'a String>,
    /// How often the plan renews the password.
    pub interval: Window,
}

/// Takes a rotation one step further. Both logins work until the old one has no sessions left, so no login fails in
/// between. Returns the login and when to reconcile again.
pub(super) async fn rotate(
    ctx: &AccountContext,
    account: &HelpDeskAccount,
    placement: &Placement,
    mut login: LoginEntry,
    by: &Rotation<'_>,
    now: Moment,
) -> Result<(LoginEntry, Moment), Error> {
    let (server, tenant) = (&placement.server.driver, &placement.tenant);
    if rotation_is_due(&login, by.asked, by.interval, now) {
        let slot = login.slot.other();
        // This slot may still have a password from an earlier rotation, so a new one is generated.
        TenantSecret::of(ctx, tenant).remove(slot.name()).await?;
        let password = password_or_new(ctx, account, tenant, slot).await?;
        let secret = login_secret(slot, &password)?;
        let work = server.begin_rotation(tenant, &by.limits, &secret);
        ctx.telemetry.measure("database", "begin_rotation", work).await?;
        login = LoginEntry {
            slot,
            password_set_at: now,
            rotation_token: by.asked.cloned().or(login.rotation_token),
            retiring: true,
            terms: login.terms,
            password_lost: false,
            password_hash: Some(hash(ctx, &password)),
        };
        tracing::info!(login = slot.name(), "the tenant got another password");
        return Ok((login, now + ROTATION_INTERVAL));
    }
    let next = login.password_set_at + by.interval.duration();
    if !login.retiring {
        return Ok((login, next));
    }
    // A client that read the Secret before the rotation still logs in with the old password.
    let earliest = login.password_set_at + ROTATION_INTERVAL;
    if now < earliest {
        return Ok((login, earliest));
    }
    let old = login.slot.other();
    match ctx.telemetry.measure("database", "finish_rotation", server.finish_rotation(tenant, old)).await? {
        RotationStep::Waiting(_) => Ok((login, now + ROTATION_INTERVAL)),
        RotationStep::Done => {
            TenantSecret::of(ctx, tenant).remove(old.name()).await?;
            Ok((LoginEntry { retiring: false, ..login }, next))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(token: Option<&str>, retiring: bool) -> LoginEntry {
        LoginEntry {
            slot: LoginSlot::A,
            password_set_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            rotation_token: token.map(Into::into),
            retiring,
            terms: None,
            password_lost: false,
            password_hash: None,
        }
    }

    #[test]
    fn the_uri_says_how_the_resource_of_the_server_has_its_certificate_checked() {
        let spec = |mode: &str| -> DatabaseServerSpec {
            serde_json::from_value(serde_json::json!({
                "engine": "postgresql", "region": "eu-1", "host": "2001:db8::5", "adminSecret": "admin", "tls": {"mode": mode}
            }))
            .unwrap()
        };
        let password = Password::from_text("secret".into());
        for mode in ["verify-full", "verify-ca"] {
            let wanted = format!("postgresql://hd_a:secret@[2001:db8::5]:5432/hd?sslmode={mode}");
            assert_eq!(uri(&spec(mode), "hd_a", &password, "hd"), wanted);
        }
    }

    #[test]
    fn an_annotation_asks_once_and_the_interval_asks_by_itself() {
        let (day, month) = ("2026-01-02T00:00:00Z".parse().unwrap(), "2026-04-02T00:00:00Z".parse().unwrap());
        let asked = Some("now".to_owned());
        let interval = Window::days(90);
        assert!(rotation_is_due(&login(None, false), asked.as_ref(), interval, day));
        assert!(!rotation_is_due(&login(Some("now"), false), asked.as_ref(), interval, day));
        assert!(!rotation_is_due(&login(None, false), None, interval, day));
        assert!(rotation_is_due(&login(None, false), None, interval, month));
        assert!(!rotation_is_due(&login(None, true), asked.as_ref(), interval, month));
    }
}
