//! Requests that one reader takes for something else than another: what the gateway refuses must not reach the app in disguise.

use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{ListParams, LogParams},
};
use serde_json::json;

use super::{
    cluster::{Cluster, eventually, setting},
    web::{administrator_applies_class, administrator_applies_plan, client_addresses, is_published, tenant_runs_app, visitor_gets},
};

const HOST: &str = "tricks.helpdesk.example";

/// Each in the words of RFC 9112: what is wrong or doubtful about it, and the request, with `HOST` for the name.
fn tricks() -> Vec<(&'static str, String)> {
    let hidden = "GET /queue/hidden HTTP/1.1\r\nHost: HOST\r\n\r\n";
    let length = hidden.len() + 5;
    let post = |headers: &str, body: &str| format!("POST /help HTTP/1.1\r\nHost: HOST\r\n{headers}\r\n\r\n{body}");
    let get = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n{headers}\r\n");
    vec![
        ("both lengths", post(&format!("Content-Length: {length}\r\nTransfer-Encoding: chunked"), &format!("0\r\n\r\n{hidden}"))),
        (
            "both lengths, the other way",
            post(&format!("Transfer-Encoding: chunked\r\nContent-Length: {length}"), &format!("0\r\n\r\n{hidden}")),
        ),
        ("two lengths", post(&format!("Content-Length: 0\r\nContent-Length: {}", hidden.len()), hidden)),
        ("a length with a sign", post("Content-Length: +0", hidden)),
        ("an unknown coding before chunked", post("Content-Length: 5\r\nTransfer-Encoding: xchunked", &format!("0\r\n\r\n{hidden}"))),
        ("a coding twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", &format!("0\r\n\r\n{hidden}"))),
        ("a tab before the coding", post("Content-Length: 5\r\nTransfer-Encoding:\tchunked", &format!("0\r\n\r\n{hidden}"))),
        ("a space before the colon", post("Content-Length: 5\r\nTransfer-Encoding : chunked", &format!("0\r\n\r\n{hidden}"))),
        ("a folded line", post("Content-Length: 5\r\nX-Any: a\r\n Transfer-Encoding: chunked", &format!("0\r\n\r\n{hidden}"))),
        ("a chunk with a bare line feed", post("Transfer-Encoding: chunked", &format!("0\n\n{hidden}"))),
        ("a chunk's extension", post("Transfer-Encoding: chunked", &format!("1;a=\"\r\nX\r\n0\r\n\r\n{hidden}"))),
        ("a chunk of too much", post("Transfer-Encoding: chunked", &format!("fffffffffffffffff\r\n{hidden}"))),
        ("two hosts", get("/queue", "Host: other.helpdesk.example\r\n")),
        ("another host", "GET /queue HTTP/1.1\r\nHost: other.helpdesk.example\r\nConnection: close\r\n\r\n".into()),
        ("an absolute target", get("https://HOST/queue", "")),
        ("an absolute target of another scheme", get("http://HOST/queue", "")),
        ("an absolute target, another host in it", get("https://other.helpdesk.example/queue", "")),
        ("HTTP/1.0", "GET /queue HTTP/1.0\r\nHost: HOST\r\n\r\n".into()),
        ("HTTP/1.0 without a host", "GET /queue HTTP/1.0\r\n\r\n".into()),
        ("HTTP/0.9", "GET /queue\r\n".into()),
        ("bare line feeds", "GET /queue HTTP/1.1\nHost: HOST\nConnection: close\n\n".into()),
        ("two spaces", get(" /queue", "")),
        ("a carriage return in the target", get("/help\r/../queue", "")),
        ("a fragment", get("/queue#/help", "")),
        ("an upgrade to h2c", get("/queue", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n")),
        (
            "h2c on a public path",
            post("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", hidden),
        ),
        ("CONNECT", format!("CONNECT web:8080 HTTP/1.1\r\nHost: HOST\r\n\r\n{hidden}")),
        ("TRACE", "TRACE /queue HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n".into()),
        ("a method of no meaning", "HELP /queue HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n".into()),
        ("an expectation", post("Expect: 100-continue\r\nContent-Length: 0", hidden).replace("/help", "/queue")),
        ("headers of 100 kB", get("/queue", &format!("X-Large: {}\r\n", "a".repeat(100_000)))),
        ("a thousand headers", get("/queue", &"X-Many: 1\r\n".repeat(1000))),
        ("a hop that takes the credentials away", get("/api/tickets", "Connection: close, Authorization\r\nAuthorization: Bearer a\r\n")),
        ("a line in a header", get("/queue", "X-Any: a\nX-Forwarded-For: 10.0.0.1\r\n")),
        ("a header without a name", get("/queue", ": value\r\n")),
    ]
}

/// What the gateway answers to bytes from this address, until it ends the connection or for eight seconds.
fn answer(from: &str, raw: &str) -> String {
    let gateway = format!("{}:443", setting("HELPDESK_TEST_EDGE_ADDRESS"));
    let mut client = Command::new("timeout")
        .args(["8", "openssl", "s_client", "-quiet", "-connect", &gateway, "-servername", HOST, "-bind", &format!("{from}:0")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    // The gateway may have ended the connection before it read everything.
    let _ = input.write_all(raw.replace("HOST", HOST).as_bytes());
    let output = client.wait_with_output().unwrap();
    drop(input);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn no_request_reaches_agents_paths_in_disguise_and_the_apps_own_log_shows_none() {
    // Given a published app that lets agents in from one address, and logs what it is asked.
    let cluster = Cluster::connect().await;
    administrator_applies_class(&cluster).await;
    administrator_applies_plan(&cluster, "tricks", json!({})).await;
    let account = cluster.customer_signs_up("tricks", "tricks").await;
    let [listed, other] = client_addresses();
    account.administrator_applies(json!({"security": {"agentAllow": [format!("{listed}/32")]}})).await;
    tenant_runs_app(&account).await;
    is_published(&account).await;
    let url = format!("https://{HOST}/queue/right");
    let gets = |from: &str| visitor_gets(&url, &["--interface", from]).status;
    eventually("an agent is let in", async || (gets(&listed) == 200).then_some(())).await;
    assert_eq!(gets(&other), 403);

    // When somebody at another address tries each of them.
    let answers: Vec<_> = thread::scope(|scope| {
        let asked = tricks().into_iter().map(|(what, raw)| {
            (
                what,
                scope.spawn({
                    let other = &other;
                    move || answer(other, &raw)
                }),
            )
        });
        let asked: Vec<_> = asked.collect();
        asked.into_iter().map(|(what, asked)| (what, asked.join().unwrap())).collect()
    });

    // Then no answer is one of the app's about an agents' path, and the app was asked for none but by the agent.
    for (what, answer) in &answers {
        assert!(!answer.contains("\"path\":\"/queue"), "{what}: {answer}");
    }
    let namespace = account.get().await.status.unwrap().namespace.unwrap().name;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &namespace);
    let name = pods.list(&ListParams::default().labels("app=web")).await.unwrap().items.remove(0).metadata.name.unwrap();
    let log = pods.logs(&name, &LogParams::default()).await.unwrap();
    let of_agents: Vec<_> = log.lines().filter(|line| line.contains("/queue")).collect();
    assert!(of_agents.iter().all(|line| line.contains("GET \"/queue/right\"")), "{of_agents:#?}");
    assert!(!of_agents.is_empty(), "the log shows nothing at all");
    // A few are met by the end of the connection alone.
    let silent: Vec<_> = answers.iter().filter(|(_, answer)| answer.is_empty()).map(|(what, _)| what).collect();
    assert!(silent.len() < 8, "who gets no answer: {silent:?}");
}
