//! Runs the tenant's app where the class has workloads, stops it, and says in `AppReady` how far it is.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use k8s_openapi::jiff::SignedDuration;

use super::{credentials, desired, error::Error, owner, placement, work::Work};
use crate::{
    api::{
        HelpDeskClassSpec,
        conditions::{self, Finding, Type},
        help_desk_class::ShownValue,
    },
    app::{
        self,
        apply::{self, JobState, Owner},
        mail::MailIntake,
        object, requirements, secrets,
        values::{Facts, Values},
        workloads,
    },
    prober::{Mismatch, Observation, ProbedAccount},
};

/// When a hook that failed is run again.
const HOOK_RETRY: SignedDuration = SignedDuration::from_mins(10);
/// When it is looked again whether pods have ended.
const PODS_END: SignedDuration = SignedDuration::from_secs(2);
/// When what the API server refused, or could not be asked, is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(30);

/// How far a hook is.
enum Hook {
    Done,
    /// It runs, or waits; why it waits, as the end of a sentence.
    Runs(String),
    /// It failed; what to tell a person.
    Failed(String),
}

impl Work<'_> {
    /// Makes the app as the stage wants it. What goes wrong is reported and tried again; it keeps no other part of the
    /// account from being realized.
    pub(super) async fn realize_app(&mut self, wanted: desired::App) {
        let class = self.class().ok().flatten();
        if let (desired::App::Running, Some(class), Ok(plan)) = (wanted, &class, self.plan()) {
            let unmet = requirements::unmet(&plan.spec.security, &self.account.spec, class).join("; ");
            self.findings.extend((!unmet.is_empty()).then(|| Finding::yes(Type::RequirementsUnmet, "AppCannot", unmet)));
        }
        let class = class.filter(|class| workloads::has_workloads(class));
        let result = match (wanted, class) {
            (desired::App::Running, Some(class)) => Box::pin(self.run_app(&class)).await.map(Some),
            // A class that is missing, or that nobody knows of, ends no app of a tenant who pays.
            (desired::App::Running, None) => {
                self.findings.extend(self.lost_class());
                return;
            }
            (desired::App::Stopped, class) => Box::pin(self.stop_app(class.is_some())).await,
            // Its namespace goes, and everything in it.
            (desired::App::Gone, _) => return,
        };
        let finding = result.unwrap_or_else(|error| {
            self.requeue_at(self.now + RETRY);
            Some(Finding::no(Type::AppReady, error.reason(), error.with_causes()))
        });
        self.findings.extend(finding);
    }

    async fn run_app(&mut self, class: &HelpDeskClassSpec) -> Result<Finding, Error> {
        let (Some(namespace), Some(login)) = (self.placement.entry.namespace.clone(), self.placement.entry.login.clone()) else {
            return Ok(Finding::no(Type::AppReady, "Waiting", "the app waits for its namespace and its database"));
        };
        let plan = self.plan()?;
        let (plan_placement, limits) = (placement::placement(plan, self.account)?.clone(), plan.spec.app.clone());
        let plan_security = plan.spec.security.clone();
        let password = credentials::password_or_new(self.ctx, self.account, &self.placement.tenant, login.slot).await?;
        let binding = credentials::binding(self.ctx, &self.placement, login.slot, &password).await?;
        let mut secrets = Box::pin(self.app_secrets(class)).await?;
        self.renew_admin_password(class, &mut secrets).await?;
        let password_request = self.unset_admin_password();
        let account = &self.account.spec;
        let owner = owner::read(self.ctx, self.account).await?;
        let name = self.placement.entry.account.clone();
        let intake = self.ctx.settings.mail.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        let fqdn = format!("{}.{}", account.domain.slug, plan_placement.domain_base);
        let values = Values::of(&Facts {
            account: &name,
            uid: &self.placement.entry.uid,
            display_name: account.display_name.as_deref(),
            database: &binding,
            database_ca: object::DATABASE_CA,
            fqdn: &fqdn,
            aliases: &account.domain.custom,
            chat_consent: account.chat_consent.as_deref(),
            require_totp: plan_security.needs_second_factor(requirements::totp_of(account)),
            require_api_tokens: plan_security.require_api_tokens,
            owner_name: owner.name.as_deref(),
            owner_email: &owner.email,
            intake,
            mailbox: class.mail.as_ref().and_then(|mail| mail.intake.mailboxes.first()).map(|mailbox| mailbox.name.as_str()),
            secrets: &secrets,
        });
        let authority = binding.get("ca.crt").map(|pem| String::from_utf8_lossy(&pem.0).into_owned()).unwrap_or_default();
        let server = &self.placement.server.spec;
        let shared = [secrets::MAIL_TOKEN, secrets::MAIL_PASSWORD, secrets::MAIL_DKIM_KEY].map(|name| secrets.get(name));
        let mail = match (intake, shared) {
            (Some((namespace, name)), [Some(token), Some(password), Some(dkim_key)]) => {
                Some(MailIntake { namespace, name, token, password, dkim_key })
            }
            _ => None,
        };
        let migration = self.migration_due(class);
        let objects = workloads::objects(&object::App {
            account: &name,
            class,
            migration: migration.as_deref(),
            password_request: password_request.as_deref(),
            values: &values,
            admin_password: secrets.get(secrets::ADMIN).unwrap_or_default(),
            database: (&server.host, server.port),
            database_ca: Some(&authority),
            mail,
            gateway: plan_placement.gateway.as_ref().map(|gateway| (gateway.name.as_str(), gateway.namespace.as_str())),
            limits: &limits,
            binding: credentials::SECRET,
            operator_image: &self.ctx.settings.image,
            operator_namespace: &self.ctx.settings.namespace,
        })?;

        let uid = self.placement.entry.uid.clone();
        let owner = Owner { account: &name, uid: &uid, namespace: &namespace.name };
        for object in &objects.first {
            apply::apply(&self.ctx.client, owner, object).await?;
        }
        let (waits, _) = self.apply_components(owner, &objects.before_bootstrap).await?;
        if !waits.is_empty() {
            return Ok(Finding::no(Type::AppReady, "Progressing", waits.join("; ")));
        }
        if let Some(hook) = &objects.migrate {
            if let Some(finding) = self.migrate(owner, hook, &objects.before_bootstrap).await? {
                return Ok(finding);
            }
            self.store_migrated(class).await?;
        }
        for hook in &objects.hooks {
            match self.run_hook(owner, hook).await? {
                Hook::Done => {}
                Hook::Runs(why) => {
                    let told = format!("the app is started once the Job {}/{} is complete{why}", owner.namespace, hook.name);
                    return Ok(Finding::no(Type::AppReady, "Bootstrapping", told));
                }
                Hook::Failed(told) => return Ok(Finding::no(Type::AppReady, "HookFailed", format!("a hook failed {told}"))),
            }
        }
        apply::prune(&self.ctx.client, owner, objects.before_bootstrap.iter().chain(&objects.components)).await?;
        let (waits, mut pods) = self.apply_components(owner, &objects.components).await?;
        if !waits.is_empty() {
            self.ctx.app_prober.forget(owner.uid);
            return Ok(Finding::no(Type::AppReady, "Progressing", waits.join("; ")));
        }
        let shown = |shown: &ShownValue| {
            let port = class.components.iter().find(|c| c.name == shown.component).and_then(|c| c.port);
            Ok::<_, app::Error>(app::check::View {
                namespace: namespace.name.clone(),
                service: shown.component.clone(),
                port: port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default(),
                path: shown.path.clone(),
                host: fqdn.clone(),
                contains: values.fill_in("readiness.contains", &shown.contains)?,
            })
        };
        let mut told = "every pod of the app is ready".to_owned();
        if let Some(view) = class.readiness.as_ref().map(shown).transpose()? {
            (&view, &objects.configuration).hash(&mut pods);
            let probed = ProbedAccount { name: owner.account, uid: owner.uid };
            let has_checked = self.ctx.app_prober.has_checked(owner.uid);
            match self.ctx.app_prober.observe(probed, pods.finish(), view, false) {
                Observation::AsExpected => told.push_str(", and the app shows the value of this tenant"),
                Observation::Unchecked => {
                    if let Some(shown) = self.shown_before().filter(|_| !has_checked) {
                        return Ok(shown);
                    }
                    told.push_str("; the app is being asked for the value of this tenant");
                    return Ok(Finding::no(Type::AppReady, "Checking", told));
                }
                Observation::Mismatch(Mismatch { reason, why }) => return Ok(Finding::no(Type::AppReady, reason, why)),
            }
        }
        // The app serves its tenant meanwhile.
        if let Some(hook) = &objects.set_admin_password {
            match self.run_hook(owner, hook).await? {
                Hook::Done => self.store_admin_password_set().await?,
                Hook::Runs(why) => told.push_str(&format!("; its administrator is being given a new password{why}")),
                Hook::Failed(why) => told.push_str(&format!("; the hook setAdminPassword failed {why}")),
            }
        }
        if let Some(learn) = &objects.learn {
            match self.run_hook(owner, learn).await? {
                Hook::Done => {}
                Hook::Runs(why) => told.push_str(&format!("; the mail filter is being taught{why}")),
                Hook::Failed(why) => told.push_str(&format!("; the hook learn failed {why}")),
            }
        }
        Ok(Finding::yes(Type::AppReady, "Running", told))
    }

    /// What an earlier operator process found of this very revision, from the status: it is shown until this process has
    /// checked the app, and decides nothing of this account.
    fn shown_before(&self) -> Option<Finding> {
        let status = self.account.status.as_ref()?;
        let is_pinned = status.app.as_ref()?.revision == self.record().class.as_ref()?.revision;
        conditions::shown(&status.conditions, Type::AppReady, self.account.metadata.generation).filter(|_| is_pinned)
    }

    /// Runs the hook `migrate` while the app has no pods but those that the hook needs. `None`: it is done.
    async fn migrate(&mut self, owner: Owner<'_>, hook: &object::Object, kept: &[object::Object]) -> Result<Option<Finding>, Error> {
        let kept: Vec<_> = kept.iter().map(|object| object.name.as_str()).collect();
        let left = apply::make_room(&self.ctx.client, owner, &hook.name, &kept).await?;
        if left > 0 {
            self.requeue_at(self.now + PODS_END);
            let told = format!("the app is being upgraded: {left} of its pods are ending, so that nothing uses the database meanwhile");
            return Ok(Some(Finding::no(Type::AppReady, "Migrating", told)));
        }
        Ok(match self.run_hook(owner, hook).await? {
            Hook::Done => None,
            Hook::Runs(why) => {
                let told =
                    format!("the app is being upgraded: the Job {}/{} brings its schema up to date{why}", owner.namespace, hook.name);
                Some(Finding::no(Type::AppReady, "Migrating", told))
            }
            Hook::Failed(told) => Some(Finding::no(Type::AppReady, "HookFailed", format!("the hook migrate failed {told}"))),
        })
    }

    /// Says that the revision of the class is lost, if it is.
    fn lost_class(&self) -> Option<Finding> {
        let name = self.plan().ok()?.spec.class.as_ref().filter(|_| matches!(self.class(), Ok(None)))?;
        let pinned = self.record().class.as_ref().filter(|pinned| pinned.name == *name);
        Some(if let Some(pinned) = pinned {
            let told = format!(
                "the ControllerRevision {}/{} is lost, so it is not known what the app is made of; it goes on as it is, and gets the class as it is now when its turn comes to be upgraded",
                self.ctx.settings.namespace, pinned.revision
            );
            Finding::no(Type::AppReady, "RevisionLost", told)
        } else {
            let told =
                format!("there is no HelpDeskClass {name}, which plan {} names; an app that runs goes on as it is", self.account.spec.plan);
            Finding::no(Type::AppReady, "NoClass", told)
        })
    }

    /// Runs a hook once. One that failed is run again after a while.
    async fn run_hook(&mut self, owner: Owner<'_>, hook: &object::Object) -> Result<Hook, Error> {
        let client = &self.ctx.client;
        let job = apply::apply(client, owner, hook).await?;
        apply::resume(client, owner, &job).await?;
        match apply::job_state(&job) {
            JobState::Complete => Ok(Hook::Done),
            JobState::Running => {
                let component = hook.body["spec"]["template"]["spec"]["containers"][0]["name"].as_str().unwrap_or_default();
                Ok(Hook::Runs(self.why_pods_wait(owner, component).await?))
            }
            JobState::Failed { message, at } => {
                let again = at.map_or(self.now, |at| at + HOOK_RETRY);
                if again <= self.now {
                    apply::delete_job(client, owner, &hook.name).await?;
                }
                self.requeue_at(again.max(self.now + SignedDuration::from_secs(2)));
                let (namespace, name) = (owner.namespace, &hook.name);
                Ok(Hook::Failed(format!("({message}); the log of Job {namespace}/{name} says why; it is run again at {again}")))
            }
        }
    }

    /// Why pods do not run, as the end of a sentence. It is asked again, because no Deployment and no Job changes with it.
    async fn why_pods_wait(&mut self, owner: Owner<'_>, component: &str) -> Result<String, Error> {
        self.requeue_at(self.now + RETRY);
        let why = apply::why_pods_wait(&self.ctx.client, owner, component).await?;
        Ok(why.map(|why| format!(": {why}")).unwrap_or_default())
    }

    /// Makes components as they are wanted. Returns which of their pods are not ready, and why, and a hash of which
    /// Deployments they are.
    async fn apply_components(&mut self, owner: Owner<'_>, components: &[object::Object]) -> Result<(Vec<String>, DefaultHasher), Error> {
        let (mut waits, mut pods) = (vec![], DefaultHasher::new());
        for object in components {
            let applied = apply::apply(&self.ctx.client, owner, object).await?;
            if object.kind == object::Kind::Deployment {
                if let Some(wait) = apply::why_not_ready(&applied) {
                    let why = self.why_pods_wait(owner, &object.name).await?;
                    waits.push(format!("{wait}{why}"));
                }
                (applied.metadata.uid, applied.metadata.generation).hash(&mut pods);
            }
        }
        Ok((waits, pods))
    }

    /// Ends the app's pods. It needs neither class, plan nor database, so that nothing keeps it from stopping. `None`: there
    /// is no app.
    async fn stop_app(&mut self, has_app: bool) -> Result<Option<Finding>, Error> {
        self.ctx.app_prober.forget(&self.placement.entry.uid);
        let Some(namespace) = self.placement.entry.namespace.clone() else {
            return Ok(has_app.then(|| Finding::no(Type::AppReady, "Stopped", "the app has no namespace")));
        };
        let account = self.placement.entry.account.clone();
        let owner = Owner { account: &account, uid: &self.placement.entry.uid, namespace: &namespace.name };
        Ok(match apply::stop(&self.ctx.client, owner).await? {
            None if !has_app => None,
            None | Some(0) => Some(Finding::no(Type::AppReady, "Stopped", "the account is closed, and its app has no pods")),
            Some(left) => {
                Some(Finding::no(Type::AppReady, "Stopping", format!("the account is closed; {left} pods of the app are ending")))
            }
        })
    }
}
