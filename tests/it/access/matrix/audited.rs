use reqwest::Method;
use serde_json::json;

use super::{Caller, LIMITED, Scene, World, call, changes, routes};

/// Whoever a route is for is in one of these columns.
const CALLERS: [Caller; 3] = [Caller::Owner, Caller::Platform, Caller::Granted];

/// What is as it was asked to be is not changed, nor written down: there must be something to change.
async fn prepare(scene: &Scene, route: &str, path: &str) {
    let owner = &scene.stack.owner;
    let reply = match route {
        "PATCH /v1/org/members/{user_id}" => owner.patch(path, &json!({"role": "admin"})).await,
        "DELETE /v1/org/simulation" => owner.put(path, &json!({"backend": "rpc"})).await,
        "DELETE /v1/vaults/{vault_id}/cmek" => owner.post(path, &json!({"fingerprint": "ab".repeat(32)})).await,
        _ => return,
    };
    assert!(reply.status.is_success(), "{route}: {}", reply.body);
}

/// No audit row, no effect: whatever answers a change with success has written down what it did.
#[tokio::test]
async fn every_route_that_changes_something_writes_it_down() {
    /// They change nothing that outlasts them, and say why.
    const WITHOUT: &[&str] = &[];
    let scene = Scene::set().await;
    let rows = "SELECT count(*) FROM audit_events WHERE actor_type <> 'system' AND action <> 'access.denied'";
    let (mut silent, mut succeeded) = (Vec::new(), 0);
    for route in routes().iter().filter(|route| changes(&route.method)) {
        for caller in CALLERS {
            let world = World::make(&scene.stack, &scene.stack.org_id, route.path).await;
            let client = scene.client(caller, &world).await;
            let path = world.path(route.path, None);
            prepare(&scene, route.to_string().as_str(), &path).await;
            let before = scene.stack.count(rows).await;
            let reply = call(&client, route, &path, &world).await;
            if reply.status.is_success() {
                succeeded += 1;
                if scene.stack.count(rows).await == before {
                    silent.push(route.to_string());
                }
                break;
            }
        }
    }
    assert_eq!(silent, WITHOUT);
    assert!(succeeded > 40, "only {succeeded} routes were called with success");
    // So does reading a secret.
    let world = World::make(&scene.stack, &scene.stack.org_id, LIMITED).await;
    let agent = scene.client(Caller::Granted, &world).await;
    let path = format!("/v1/vaults/{}/secrets/a/b", world.value("vault_id"));
    let before = scene.stack.count(rows).await;
    crate::harness::client::Client::send(agent.request(Method::GET, &path)).await.expect(200);
    assert_eq!(scene.stack.count(rows).await, before + 1);
}
