use reqwest::Method;

use super::{Caller, LIMITED, Scene, World, call, changes, routes};

/// Whoever a route is for is in one of these columns.
const CALLERS: [Caller; 3] = [Caller::Owner, Caller::Platform, Caller::Granted];

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
            let before = scene.stack.count(rows).await;
            let reply = call(&client, route, &world.path(route.path, None), &world).await;
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
