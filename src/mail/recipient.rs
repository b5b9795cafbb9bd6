//! Whether mail for an address is taken now, and who gets it. Pure.

use std::sync::Arc;

use kube::ResourceExt;

use super::address::Address;
use crate::api::{
    DomainClaim, HelpDeskAccount, HelpDeskClassSpec,
    class_mail::{MailIntake, Mailbox},
    stage::Stage,
};

/// What the cluster says about a host name.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Whether everything was read once.
    pub is_read: bool,
    /// Whether the API server answered a moment ago: only then does what is missing count as missing.
    pub is_fresh: bool,
    /// The claim of the host name.
    pub claim: Option<Arc<DomainClaim>>,
    /// The account that the claim names.
    pub account: Option<Arc<HelpDeskAccount>>,
    /// The class of its plan, as the account has it.
    pub class: Option<Arc<HelpDeskClassSpec>>,
}

/// The app that gets a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// The account.
    pub account: String,
    /// The account's uid.
    pub uid: String,
    /// The tenant's host name.
    pub fqdn: String,
    /// Where the app listens in the cluster.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the app takes the message.
    pub intake: MailIntake,
    /// The mailbox.
    pub mailbox: Mailbox,
}

/// Whether mail for an address is taken.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is, and this app gets it.
    Deliver(Box<Destination>),
    /// Not now: the sender's server tries again.
    Later(&'static str, &'static str),
    /// It is not: the sender is told.
    Never(&'static str, &'static str),
    /// The host name is nobody's here.
    NotOurs,
}

/// Decides whether mail for the address is taken.
pub fn decide(address: &Address, facts: &Facts) -> Verdict {
    if !facts.is_read {
        return UNREAD;
    }
    match decide_by_what_is_known(address, facts) {
        // What is missing may only not have been seen yet.
        Verdict::Never(..) | Verdict::NotOurs if !facts.is_fresh => STALE,
        verdict => verdict,
    }
}

/// Whether an object is the account with this uid. One that took over what another left behind has a uid of its own; its
/// namespace and its database have names made from the first one's.
pub(super) fn is_of(account: &HelpDeskAccount, uid: &str) -> bool {
    let digits: String = uid.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    let status = account.status.as_ref();
    let namespace = status.and_then(|status| status.namespace.as_ref()).map(|namespace| namespace.name.trim_start_matches("hd-"));
    let database = status.and_then(|status| status.database.as_ref()).map(|database| database.name.trim_start_matches("t_"));
    account.uid().is_some_and(|found| found == uid) || [namespace, database].contains(&Some(digits.as_str()))
}

/// Whether the account that has a host name may send mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Open,
    /// It is blocked.
    Paused,
    /// It is terminated, or gone.
    Over,
    /// That is not known.
    Unknown,
    /// The host name is nobody's here.
    NotOurs,
}

/// Whether the account that has a host name may send mail.
pub fn standing(facts: &Facts) -> Standing {
    if !facts.is_read || !facts.is_fresh {
        return Standing::Unknown;
    }
    let Some(claim) = &facts.claim else { return Standing::NotOurs };
    let account = facts.account.as_ref().filter(|account| is_of(account, &claim.spec.account_uid));
    let Some(account) = account else {
        return if claim.spec.reserved_until.is_some() { Standing::Over } else { Standing::Unknown };
    };
    match account.status.as_ref().and_then(|status| status.stage) {
        Some(stage) if stage.is_open() => Standing::Open,
        Some(Stage::Blocked) => Standing::Paused,
        Some(_) => Standing::Over,
        None => Standing::Unknown,
    }
}

const UNREAD: Verdict = Verdict::Later("4.3.0", "the mail intake has just started; try again");
const STALE: Verdict = Verdict::Later("4.3.0", "the mail intake cannot reach its cluster; try again");

fn decide_by_what_is_known(address: &Address, facts: &Facts) -> Verdict {
    let Some(claim) = &facts.claim else { return Verdict::NotOurs };
    let account = facts.account.as_ref().filter(|account| is_of(account, &claim.spec.account_uid));
    let Some(account) = account else {
        return match claim.spec.reserved_until {
            Some(_) => Verdict::Never("5.1.2", "this help desk does not exist any more"),
            None => Verdict::Later("4.3.0", "this help desk is not known yet; try again"),
        };
    };
    let status = account.status.as_ref();
    match status.and_then(|status| status.stage) {
        Some(stage) if stage.is_open() => {}
        Some(Stage::Blocked) => return Verdict::Later("4.2.1", "this help desk is paused"),
        Some(_) => return Verdict::Never("5.2.1", "this help desk is closed"),
        None => return Verdict::Later("4.3.0", "this help desk is being made; try again"),
    }
    let Some(class) = &facts.class else { return Verdict::Later("4.3.5", "the class of this help desk is missing; try again") };
    let Some(mail) = &class.mail else { return Verdict::Never("5.1.1", "this help desk takes no mail") };
    let intake = &mail.intake;
    let mailbox = match address.mailbox.as_str() {
        "postmaster" => intake.mailboxes.first(),
        name => intake.mailboxes.iter().find(|mailbox| mailbox.name == name),
    };
    let Some(mailbox) = mailbox else { return Verdict::Never("5.1.1", "there is no such mailbox") };
    let component = class.components.iter().find(|component| component.name == intake.component);
    let (Some(component), Some(namespace)) = (component, status.and_then(|status| status.namespace.as_ref())) else {
        return Verdict::Later("4.3.0", "this help desk is being made; try again");
    };
    Verdict::Deliver(Box::new(Destination {
        account: account.name_any(),
        uid: claim.spec.account_uid.clone(),
        fqdn: claim.name_any(),
        host: format!("{}.{}.svc", component.name, namespace.name),
        port: component.port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default(),
        intake: intake.clone(),
        mailbox: mailbox.clone(),
    }))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    const UID: &str = "8f3a1111-2222-3333-4444-555566667777";

    pub(in crate::mail) fn facts(stage: Option<Stage>) -> Facts {
        let claim = json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "DomainClaim", "metadata": {"name": "acme.helpdesk.example"},
            "spec": {"account": "acme", "accountUID": UID, "use": "Slug"}});
        let account = json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "HelpDeskAccount", "metadata": {"name": "acme", "uid": UID},
            "spec": {"plan": "standard", "region": "eu-1", "owner": {"email": "a@b.example"}, "domain": {"slug": "acme"}},
            "status": {"stage": stage, "namespace": {"name": "hd-8f3a111122223333", "uid": "1"}}});
        let class = json!({
            "app": {"name": "a", "version": "1"}, "components": [{"name": "web", "port": 8080}],
            "routes": [{"path": "/", "component": "web", "audience": "agent"}],
            "mail": {"intake": {"component": "web", "path": "/in", "mailboxes": [{"name": "support"}, {"name": "sales"}]}}});
        Facts {
            is_read: true,
            is_fresh: true,
            claim: Some(Arc::new(serde_json::from_value(claim).unwrap())),
            account: Some(Arc::new(serde_json::from_value(account).unwrap())),
            class: Some(Arc::new(serde_json::from_value(class).unwrap())),
        }
    }

    fn decide_for(mailbox: &str, facts: &Facts) -> Verdict {
        decide(&Address::parse(&format!("{mailbox}@acme.helpdesk.example")).unwrap(), facts)
    }

    fn is_later(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Later(code, _) if code.starts_with("4."))
    }

    fn is_never(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Never(code, _) if code.starts_with("5."))
    }

    #[test]
    fn mail_is_taken_in_open_stages_put_off_while_blocked_and_refused_after() {
        for stage in Stage::ALL {
            let verdict = decide_for("support", &facts(Some(stage)));
            match stage {
                Stage::Trial | Stage::Active => assert!(matches!(verdict, Verdict::Deliver(_)), "{stage:?}"),
                Stage::Blocked => assert!(is_later(&verdict)),
                Stage::Terminated | Stage::Deleted | Stage::Expired => assert!(is_never(&verdict), "{stage:?}"),
            }
        }
        assert!(is_later(&decide_for("support", &facts(None))), "an account without a stage");
    }

    #[test]
    fn a_message_goes_to_the_app_of_its_own_tenant() {
        let Verdict::Deliver(to) = decide_for("sales", &facts(Some(Stage::Active))) else { panic!("it is refused") };
        assert_eq!(
            (to.host.as_str(), to.port, to.mailbox.name.as_str(), to.uid.as_str()),
            ("web.hd-8f3a111122223333.svc", 8080, "sales", UID)
        );
        let Verdict::Deliver(to) = decide_for("postmaster", &facts(Some(Stage::Active))) else { panic!("it is refused") };
        assert_eq!(to.mailbox.name, "support");
        assert!(is_never(&decide_for("nobody", &facts(Some(Stage::Active)))));
    }

    #[test]
    fn nothing_is_refused_for_good_on_what_is_unknown() {
        let known = facts(Some(Stage::Active));
        let with = |change: fn(&mut Facts)| {
            let mut facts = facts(Some(Stage::Terminated));
            change(&mut facts);
            decide_for("support", &facts)
        };
        assert!(is_later(&with(|f| f.is_read = false)));
        assert!(is_later(&with(|f| f.is_fresh = false)), "closed, as far as was heard");
        assert!(is_later(&with(|f| (f.claim, f.is_fresh) = (None, false))), "unclaimed, as far as was heard");
        assert!(is_later(&with(|f| f.account = None)), "an account that was not seen yet");
        assert_eq!(with(|f| f.claim = None), Verdict::NotOurs);
        assert!(is_later(&decide_for("support", &Facts { class: None, ..known })));
    }

    #[test]
    fn an_object_that_took_over_an_accounts_data_gets_its_mail() {
        let mut facts = facts(Some(Stage::Active));
        let mut account = (**facts.account.as_ref().unwrap()).clone();
        account.metadata.uid = Some("00000000-1111-2222-3333-444444444444".into());
        facts.account = Some(Arc::new(account));
        let Verdict::Deliver(to) = decide_for("support", &facts) else { panic!("it is refused") };
        assert_eq!(to.uid, UID);
    }

    #[test]
    fn who_may_send_is_decided_by_the_stage_and_by_nothing_unknown() {
        let of = |stage| standing(&facts(stage));
        assert_eq!([of(Some(Stage::Trial)), of(Some(Stage::Active))], [Standing::Open; 2]);
        assert_eq!(of(Some(Stage::Blocked)), Standing::Paused);
        assert_eq!([of(Some(Stage::Terminated)), of(Some(Stage::Deleted)), of(Some(Stage::Expired))], [Standing::Over; 3]);
        assert_eq!(of(None), Standing::Unknown);
        let expired = facts(Some(Stage::Expired));
        assert_eq!(standing(&Facts { is_fresh: false, ..expired.clone() }), Standing::Unknown);
        assert_eq!(standing(&Facts { account: None, ..expired.clone() }), Standing::Unknown);
        assert_eq!(standing(&Facts { claim: None, ..expired }), Standing::NotOurs);
    }

    #[test]
    fn a_name_that_another_account_had_before_gives_nobody_its_mail() {
        let mut facts = facts(Some(Stage::Active));
        let mut claim = (**facts.claim.as_ref().unwrap()).clone();
        claim.spec.account_uid = "00000000-0000-0000-0000-000000000000".into();
        facts.claim = Some(Arc::new(claim.clone()));
        assert!(is_later(&decide_for("support", &facts)));
        claim.spec.reserved_until = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        facts.claim = Some(Arc::new(claim));
        assert!(is_never(&decide_for("support", &facts)));
    }
}
