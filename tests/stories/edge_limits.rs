//! What a tenant's API paths take at most: requests of everybody, of one credential, and the size of a body.

use serde_json::json;

use super::{
    cluster::Cluster,
    web::{Response, administrator_applies_class, administrator_applies_plan, is_published, tenant_runs_app, visitor_gets},
};

fn header<'r>(answer: &'r Response, name: &str) -> Option<&'r str> {
    answer.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn an_api_takes_what_its_plan_says_and_a_flood_of_one_credential_or_tenant_is_nobody_elses() {
    // Given two tenants with an API, under a plan with low limits.
    let cluster = Cluster::connect().await;
    administrator_applies_class(&cluster).await;
    let limits = json!({"apiRequestsPerMinute": 40, "apiRequestsPerMinutePerCredential": 10, "apiMaxBody": "1Ki"});
    administrator_applies_plan(&cluster, "limits", json!({"security": limits})).await;
    let mut accounts = Vec::new();
    for name in ["limits-flooded", "limits-calm"] {
        let account = cluster.customer_signs_up(name, "limits").await;
        tenant_runs_app(&account).await;
        is_published(&account).await;
        accounts.push(account);
    }
    let asks = |name: &str, credential: &str, more: &[&str]| {
        let authorization = format!("Authorization: Bearer {credential}");
        visitor_gets(&format!("https://{name}.helpdesk.example/api/tickets"), &[&["--header", authorization.as_str()], more].concat())
    };

    // When somebody asks without credentials, then the edge tells which are needed, and the app is not asked.
    let anonymous = visitor_gets("https://limits-flooded.helpdesk.example/api/tickets", &[]);
    assert_eq!((anonymous.status, header(&anonymous, "x-echo")), (401, None), "{anonymous:?}");
    assert_eq!(header(&anonymous, "www-authenticate"), Some("bearer, basic realm=\"help desk\""), "{anonymous:?}");

    // When a body is too large, then it is refused, and the app is not asked.
    // Envoy counts what it has to hold, which is not to the byte.
    let (small, large) = ("x".repeat(1000), "x".repeat(100_000));
    assert_eq!(asks("limits-calm", "small", &["--data", &small]).status, 200);
    let refused = asks("limits-calm", "large", &["--http1.1", "--data", &large]);
    assert_eq!((refused.status, header(&refused, "x-echo")), (413, None), "{refused:?}");
    let chunked = asks("limits-calm", "chunked", &["--header", "Transfer-Encoding: chunked", "--http1.1", "--data", &large]);
    assert_eq!((chunked.status, header(&chunked, "x-echo")), (413, None), "{chunked:?}");

    // When one credential asks too often, then it is refused and told its limit, and another one is not.
    let answers: Vec<_> = (0..25).map(|_| asks("limits-flooded", "one", &[])).collect();
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().find(|answer| answer.status == 429).expect("nobody was refused");
    // A minute of the limit may begin anew meanwhile.
    assert!((10..=20).contains(&served) && header(refused, "x-echo").is_none(), "{served}, {refused:?}");
    assert_eq!(header(refused, "x-ratelimit-limit"), Some("10"), "{refused:?}");
    assert_eq!(asks("limits-flooded", "another", &[]).status, 200);

    // When a tenant's clients together ask too often, then that tenant's are refused, and a neighbour's are not.
    let answers: Vec<_> = (0..100).map(|number| asks("limits-flooded", &format!("of-many-{number}"), &[]).status).collect();
    assert!(answers.contains(&429), "{answers:?}");
    assert_eq!(asks("limits-calm", "one", &[]).status, 200);

    // And the other paths of the tenant that is flooded are not limited.
    assert_eq!(visitor_gets("https://limits-flooded.helpdesk.example/help", &[]).status, 200);
}
