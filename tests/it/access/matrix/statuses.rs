use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use intentd::http::routes::Route;

use super::{Caller, LIMITED, Scene, World, call, changes, is_for_others, parameter, parameters, routes};

/// Cells that are asked at once.
const AT_ONCE: usize = 16;

fn snapshot() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/access/matrix/statuses.txt")
}

/// The lines of a table: method and path, and a status for every caller.
fn read(text: &str) -> BTreeMap<String, Vec<u16>> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let table: BTreeMap<String, Vec<u16>> = lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[..2].join(" "), words[2..].iter().map(|status| status.parse().unwrap()).collect())
        })
        .collect();
    assert!(table.values().all(|row| row.len() == Caller::ALL.len()), "a row has not {} columns", Caller::ALL.len());
    table
}

fn written() -> BTreeMap<String, Vec<u16>> {
    read(&std::fs::read_to_string(snapshot()).unwrap())
}

fn render(table: &BTreeMap<String, Vec<u16>>) -> String {
    let widths = Caller::ALL.map(|(_, name)| name.len().max(3));
    let mut text = String::from("# What each caller is answered on each route. UPDATE_SNAPSHOTS=1 writes it anew.\n");
    let mut line = |route: &str, cells: Vec<String>| {
        write!(text, "{route:<68}").unwrap();
        for (cell, width) in cells.iter().zip(widths) {
            write!(text, " {cell:>width$}").unwrap();
        }
        text.push('\n');
    };
    line("#", Caller::ALL.map(|(_, name)| name.to_owned()).to_vec());
    for route in routes() {
        let cells = &table[&route.to_string()];
        line(&format!("{:<6} {}", route.method, route.path), cells.iter().map(u16::to_string).collect());
    }
    text
}

/// Whatever changes something gets a world and a caller of its own, so that no cell depends on another.
async fn cell(
    scene: &Scene,
    shared: (&World, &BTreeMap<Caller, crate::harness::client::Client>),
    route: &Route,
    caller: Caller,
) -> u16 {
    let reply = if changes(&route.method) {
        let world = World::make(&scene.stack, &scene.stack.org_id, route.path).await;
        let client = scene.client(caller, &world).await;
        call(&client, route, &world.path(route.path, None), &world).await
    } else {
        let (world, clients) = shared;
        call(&clients[&caller], route, &world.path(route.path, None), world).await
    };
    if !reply.status.is_success() {
        let said = reply.body["detail"].as_str().is_some_and(|detail| !detail.is_empty());
        assert!(said, "{route} says nothing to {caller:?}: {reply:?}");
    }
    reply.status.as_u16()
}

#[tokio::test]
async fn every_route_answers_every_caller_as_written_down() {
    let scene = Scene::set().await;
    let world = World::make(&scene.stack, &scene.stack.org_id, LIMITED).await;
    let mut clients = BTreeMap::new();
    for (caller, _) in Caller::ALL {
        clients.insert(caller, scene.client(caller, &world).await);
    }
    let routes = routes();
    let cells = routes.iter().flat_map(|route| Caller::ALL.iter().map(move |(caller, _)| (route, *caller)));
    let (scene, shared) = (&scene, (&world, &clients));
    let statuses: Vec<u16> = futures::stream::iter(cells)
        .map(|(route, caller)| cell(scene, shared, route, caller))
        .buffered(AT_ONCE)
        .collect()
        .await;
    let rows = statuses.chunks(Caller::ALL.len()).map(<[u16]>::to_vec);
    let found: BTreeMap<String, Vec<u16>> = routes.iter().map(ToString::to_string).zip(rows).collect();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(snapshot(), render(&found)).unwrap();
    }
    let written = written();
    let mut differences = String::new();
    for route in found.keys().chain(written.keys()).collect::<BTreeSet<_>>() {
        match (written.get(route), found.get(route)) {
            (Some(expected), Some(now)) => {
                for (n, (_, caller)) in Caller::ALL.iter().enumerate().filter(|(n, _)| expected[*n] != now[*n]) {
                    writeln!(
                        differences,
                        "{route} to {caller}: {} is written down, {} was answered",
                        expected[n], now[n]
                    )
                    .unwrap();
                }
            }
            (None, Some(now)) => writeln!(differences, "{route} is new: {now:?}").unwrap(),
            (_, None) => writeln!(differences, "{route} is gone").unwrap(),
        }
    }
    assert!(differences.is_empty(), "{differences}(UPDATE_SNAPSHOTS=1 writes them down)");
}

#[test]
fn every_route_has_its_line() {
    let served: BTreeSet<String> = routes().iter().map(ToString::to_string).collect();
    let written: BTreeSet<String> = written().into_keys().collect();
    assert_eq!(written, served);
}

fn status(row: &[u16], caller: Caller) -> u16 {
    row[Caller::ALL.iter().position(|(c, _)| *c == caller).unwrap()]
}

#[test]
fn threat_30_the_public_routes_are_these() {
    const PUBLIC: &[&str] = &[
        // Pages without anything that is anybody's.
        "GET /accept-invite",
        "GET /account.css",
        "GET /account.js",
        "GET /device",
        "GET /docs",
        "GET /docs.css",
        "GET /openapi.json",
        "GET /reset-password",
        "GET /verify-email",
        "GET /v1/chains",
        "GET /v1/chains/{name_or_id}",
        "GET /v1/health",
        "GET /v1/health/hsm",
        "GET /v1/auth/jwt-public-key",
        "GET /v1/share/{share_id}",
        // What is in the body proves who somebody is, or is for somebody's letter box.
        "POST /v1/agents/enroll",
        "POST /v1/auth/accept-invite",
        "POST /v1/auth/device/code",
        "POST /v1/auth/device/token",
        "POST /v1/auth/forgot-password",
        "POST /v1/auth/google",
        "POST /v1/auth/mfa/verify",
        "POST /v1/auth/reset-password",
        "POST /v1/auth/signup",
        "POST /v1/auth/token",
        "POST /v1/auth/verify-email",
        "POST /v1/auth/agent-token",
        "POST /v1/auth/api-key-token",
        "POST /v1/auth/refresh",
    ];
    let open = written().into_iter().filter(|(_, row)| status(row, Caller::Nobody) != 401);
    let open: BTreeSet<String> = open.map(|(route, _)| route).collect();
    assert_eq!(open, PUBLIC.iter().map(|route| (*route).to_owned()).collect());
    for (route, row) in written().iter().filter(|(route, _)| !open.contains(*route)) {
        for ended in [Caller::Expired, Caller::Revoked] {
            assert_eq!(status(row, ended), 401, "{route} to {ended:?}");
        }
    }
}

#[test]
fn threat_21_an_agents_token_reaches_no_route_of_humans() {
    // What an agent may ask for at all; everything else is 403 or 404 to it, whatever policies it has.
    const AGENTS: &[&str] = &[
        "DELETE /v1/auth/token",
        "DELETE /v1/share/{share_id}",
        "DELETE /v1/vaults/{vault_id}/secrets/{*path}",
        "GET /v1/agents",
        "GET /v1/agents/me",
        "GET /v1/agents/{agent_id}",
        "GET /v1/agents/{agent_id}/signing-keys",
        "GET /v1/agents/{agent_id}/signing-keys/{chain}/balance",
        "GET /v1/agents/{agent_id}/transactions",
        "GET /v1/agents/{agent_id}/transactions/{transaction_id}",
        "GET /v1/share/{share_id}",
        "GET /v1/shares/inbound",
        "GET /v1/shares/outbound",
        "GET /v1/vaults",
        "GET /v1/vaults/{vault_id}",
        "GET /v1/vaults/{vault_id}/policies",
        "GET /v1/vaults/{vault_id}/secret-version/{*path}",
        "GET /v1/vaults/{vault_id}/secret-versions/{*path}",
        "GET /v1/vaults/{vault_id}/secrets",
        "GET /v1/vaults/{vault_id}/secrets/{*path}",
        "POST /v1/agents/{agent_id}/transactions",
        "POST /v1/agents/{agent_id}/transactions/sign",
        "POST /v1/agents/{agent_id}/transactions/simulate",
        "POST /v1/agents/{agent_id}/transactions/simulate-bundle",
        "POST /v1/agents/{agent_id}/transactions/{transaction_id}/cancel",
        "POST /v1/agents/{agent_id}/transactions/{transaction_id}/speed-up",
        "POST /v1/secrets/{secret_id}/share",
        "POST /v1/shares/{share_id}/accept",
        "POST /v1/shares/{share_id}/decline",
        "POST /v1/vaults",
        "POST /v1/vaults/{vault_id}/secret-rotate/{*path}",
        "POST /v1/vaults/{vault_id}/secret-version-disable/{*path}",
        "PUT /v1/vaults/{vault_id}/secrets/{*path}",
    ];
    for (route, row) in written() {
        if AGENTS.contains(&route.as_str()) || status(&row, Caller::Nobody) != 401 {
            continue;
        }
        for caller in [Caller::Agent, Caller::Granted, Caller::OtherAgent] {
            let status = status(&row, caller);
            assert!([403, 404].contains(&status), "{route} answers {status} to {caller:?}");
        }
    }
}

#[test]
fn threat_21_a_key_that_is_limited_to_paths_is_for_secrets_alone() {
    // What such a key may ask for at all: secrets at its paths, where they are, and its own end. A secret of the table's world lies
    // outside of them.
    const SECRETS: &[&str] =
        &["DELETE /v1/auth/token", "GET /v1/vaults", "GET /v1/vaults/{vault_id}", "GET /v1/vaults/{vault_id}/secrets"];
    let written = written();
    assert!(SECRETS.iter().all(|route| status(&written[*route], Caller::Limited) < 300));
    for (route, row) in written {
        let public = status(&row, Caller::Nobody) != 401;
        if !public && !SECRETS.contains(&route.as_str()) {
            assert_eq!(status(&row, Caller::Limited), 403, "{route}");
        }
    }
}

#[test]
fn threat_31_what_a_path_names_is_not_there_for_another_organisation() {
    for (route, row) in written().iter().filter(|(route, _)| {
        let (method, path) = route.split_once(' ').unwrap();
        !is_for_others(&method.parse().unwrap(), path) && parameters(path).any(|name| name != "name_or_id")
    }) {
        assert_eq!(status(row, Caller::OtherOwner), 404, "{route}");
        let agent = status(row, Caller::OtherAgent);
        assert!([403, 404].contains(&agent), "{route}: {agent}");
    }
}

#[test]
fn the_routes_that_existing_clients_know_are_all_there() {
    /// Of the contract, and not served. Take a line away when its route comes.
    const ABSENT: &[&str] = &[];
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/routes.txt");
    // The names of parameters are nobody's business.
    let shape = |path: &str| path.split('/').map(|s| parameter(s).map_or(s, |_| "{}")).collect::<Vec<_>>().join("/");
    let served: BTreeSet<String> =
        routes().iter().map(|route| format!("{} {}", route.method, shape(route.path))).collect();
    let text = std::fs::read_to_string(file).unwrap();
    let known = text.lines().filter(|line| !line.starts_with('#'));
    let missing: Vec<&str> = known
        .filter(|line| {
            let (method, path) = line.split_once(' ').unwrap();
            !served.contains(&format!("{method} {}", shape(path)))
        })
        .collect();
    assert_eq!(missing, ABSENT);
}
