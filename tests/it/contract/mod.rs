//! What existing clients rely on: one test for every rule of the wire contract, sent as the client in question sends it. The lists below
//! are the rules; a test that holds one has it in its name, and one test may hold several that say the same.

mod agents;
mod bodies;
mod decided;
mod errors;
mod intents;
mod keys;
mod requests;
mod secrets;
mod tokens;
mod vaults;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack, text};

/// What breaks a real client: `point_NN`.
const POINTS: &[(u32, &str)] = &[
    (1, "no envelope around bodies"),
    (2, "lists are objects with the list under its name"),
    (3, "expires_in of an agent's token is an integer"),
    (4, "clients renew 60 s early: no shorter lifetime than 120 s"),
    (5, "agent-token answers 200 with five members"),
    (6, "a strict decoder of the other tokens cannot read that body, and that is accepted"),
    (7, "bodies that strict decoders read carry nothing else"),
    (8, "every 2xx but 204 carries JSON"),
    (9, "204 where it is said, with nothing behind it"),
    (10, "Content-Type: application/json with an empty body"),
    (11, "a JSON body on GET"),
    (12, "unknown members are ignored"),
    (13, "explicit nulls"),
    (14, "paths of secrets raw and with %2F"),
    (15, "PUT of a secret is 201 always, without the value"),
    (16, "the type of a secret is generic unless given; ten types"),
    (17, "problem details, with a detail always"),
    (18, "the 422 of a simulation has a detail"),
    (19, "refusals by guardrails say \"denied\" and \"guardrail\""),
    (20, "and nothing that makes a client repeat the request"),
    (21, "signed_tx on GET for true and 1 only, on POST always"),
    (22, "ids of agents are UUIDs of versions 1 to 5"),
    (23, "lists are lists, numbers are numbers, a status is a word"),
    (24, "scopes that are no paths lock nobody out"),
    (25, "no credential is 401 at once; tokens are EdDSA JWTs"),
];

/// Where descriptions of the interface disagree, the reading that breaks nobody: `row_NN`. The numbers that are left out concern what this
/// daemon does not have (billing) or what is not on the wire.
const ROWS: &[(u32, &str)] = &[
    (1, "agent-token has agent_id and vault_ids"),
    (2, "agent_id is optional there; a wrong pair is 401"),
    (3, "the body of a simulation's 422"),
    (4, "a deleted secret is 410, one that never was 404"),
    (5, "PUT over a secret is 201"),
    (6, "the types of secrets"),
    (7, "value is in ETH, a decimal string"),
    (8, "simulate_first is false unless given; a setting may force it"),
    (9, "21000 gas for plain transfers alone, else an estimate"),
    (10, "which fee fields make which type of transaction"),
    (11, "no policy, no access"),
    (12, "what scopes mean"),
    (13, "read, write, delete; write includes delete"),
    (14, "no refresh tokens: 400"),
    (15, "logout is 204 and revokes"),
    (16, "DELETE me takes confirmation and confirm"),
    (17, "change-password is 204"),
    (18, "health, for all who read it"),
    (19, "names of audit events' members"),
    (20, "IP rules take block and description"),
    (23, "a policy's pattern is secret_path_pattern"),
    (24, "no credential on a paid route is 401"),
    (25, "another organisation's vault is 404"),
    (26, "authentication is limited to 5 and 1/s"),
    (27, "vault_ids let clients find their vault"),
    (28, "rotate-key replies with api_key alone"),
    (29, "DELETE of an agent is 204 and keeps its rows"),
    (30, "crypto_proxy_enabled on input, intents_api_enabled on output"),
    (31, "an Idempotency-Key with another body"),
    (32, "there is no rotate below a secret's path"),
    (33, "DELETE of CMEK is 200 with the vault"),
    (34, "a sign-up's access_token is optional"),
    (37, "the passphrase of a share comes in a body"),
    (39, "humans read transactions and submit none"),
    (40, "keys that clients store sign"),
    (41, "without vault_ids, the vaults that policies open"),
    (42, "a changed policy holds at once and ends no token"),
];

/// What this project decided where all of them leave it open: `decided_` and the first member.
const DECIDED: &[(&str, &str)] = &[
    ("same_key_other_body_is_422", "an Idempotency-Key with another body is idempotency_mismatch"),
    ("in_flight_is_409", "an Idempotency-Key in flight is 409 with Retry-After: 1"),
    ("replay_shows_the_row_as_it_is_now", "a replay is 200 with Idempotency-Replayed: true"),
    ("nonces_are_per_chain_and_address", "and not per agent"),
    ("no_fee_field_is_type_2_or_legacy", "as the chain has a base fee or not"),
    ("imports_happen_on_put", "and not at the first use"),
    ("problem_types", "about:blank but for four"),
    ("a_key_at_a_signing_path_is_in_the_hsm_alone", "unless a human asked for a readable copy"),
    ("a_key_elsewhere_is_an_ordinary_secret", "closed while the agent's intents flag is on"),
    ("newer_fields_only_when_set", "so that strict decoders go on working"),
    ("a_reverting_simulation_is_422", "of simulate_first"),
    ("a_broken_simulator_is_503", "with Retry-After, nothing reserved"),
    ("one_rolling_sum_per_spend_group", "of an agent, over the chains of the group"),
    ("fees_have_guardrails_of_their_own", "and do not count as value"),
    ("a_failed_broadcast_is_201_signed", "with error_message, and the tracker goes on"),
];

#[test]
fn every_rule_of_the_contract_has_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/contract");
    let tests: Vec<String> =
        std::fs::read_dir(folder).unwrap().flat_map(|file| tests_in(&file.unwrap().path())).collect();
    let numbered = |word: &str| -> BTreeSet<u32> {
        let after = tests.iter().flat_map(|name| name.match_indices(word).map(|(at, _)| &name[at + word.len()..]));
        after.filter_map(|rest| rest.get(..2)?.parse().ok()).collect()
    };
    let points: BTreeSet<u32> = POINTS.iter().map(|(number, _)| *number).collect();
    assert_eq!(points, (1..=25).collect(), "there are 25 points");
    assert_eq!(numbered("point_"), points, "points with a test, and points");
    assert_eq!(numbered("row_"), ROWS.iter().map(|(number, _)| *number).collect(), "rows with a test, and rows");
    let untested: Vec<_> = DECIDED
        .iter()
        .filter(|(slug, _)| !tests.iter().any(|name| name.contains(&format!("decided_{slug}"))))
        .collect();
    assert!(untested.is_empty(), "no test is named for {untested:?}");
    let decided: usize = tests.iter().map(|name| name.matches("decided_").count()).sum();
    assert_eq!(decided, DECIDED.len(), "a test is named for what was not decided, or two for the same");
}

/// The names of a file's tests.
fn tests_in(path: &Path) -> Vec<String> {
    let source = std::fs::read_to_string(path).unwrap();
    let after_attribute = source.split("#[tokio::test]\nasync fn ").skip(1);
    after_attribute.map(|text| text.split('(').next().unwrap().to_owned()).collect()
}

// ---- what the tests have in common ----------------------------------------------------------------------------------------------

/// A daemon without chains.
async fn light() -> Stack {
    Stack::with(Options { chains: Vec::new(), ..Options::default() }).await
}

async fn vault(client: &Client) -> String {
    text(&client.post("/v1/vaults", &json!({"name": uuid::Uuid::new_v4().to_string()})).await.expect(201), "id")
}

/// A new agent by its id and a client with its key.
async fn agent(stack: &Stack, fields: Value) -> (String, Client) {
    let mut body = json!({"name": "agent"});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let made = stack.owner.post("/v1/agents", &body).await.expect(201);
    (text(&made["agent"], "id"), stack.owner.by(made["api_key"].as_str()))
}

fn policy(agent: &str, pattern: &str, permissions: &[&str]) -> Value {
    json!({"secret_path_pattern": pattern, "principal_type": "agent", "principal_id": agent, "permissions": permissions})
}

async fn grant(stack: &Stack, vault: &str, agent: &str, pattern: &str, permissions: &[&str]) -> String {
    let path = format!("/v1/vaults/{vault}/policies");
    text(&stack.owner.post(&path, &policy(agent, pattern, permissions)).await.expect(201), "id")
}

fn secret(vault: &str, path: &str) -> String {
    format!("/v1/vaults/{vault}/secrets/{path}")
}

async fn exchange(stack: &Stack, body: Value) -> Value {
    stack.owner.by(None).post("/v1/auth/agent-token", &body).await.expect(200)
}

fn tomorrow() -> String {
    intentd::clock::rfc3339(intentd::clock::now() + time::Duration::days(1))
}

/// Has all of `required` and nothing beyond `optional`, as a strict decoder wants it.
#[track_caller]
fn strictly(body: &Value, required: &[&str], optional: &[&str]) {
    let names: Vec<&str> =
        body.as_object().unwrap_or_else(|| panic!("no object: {body}")).keys().map(String::as_str).collect();
    let missing: Vec<_> = required.iter().filter(|name| !names.contains(name)).collect();
    let unknown: Vec<_> = names.iter().filter(|name| !required.contains(name) && !optional.contains(name)).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing {missing:?}, unknown {unknown:?}: {body}");
}

/// A reply as it came.
struct Raw {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Raw {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// Sends these bytes: libraries tidy paths and headers up. `headers` are whole lines without their ends.
fn raw(client: &Client, method: &str, target: &str, headers: &[&str], body: &str) -> Raw {
    let address = client.base.trim_start_matches("http://");
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if let Some(bearer) = &client.bearer {
        request.push_str(&format!("Authorization: Bearer {bearer}\r\n"));
    }
    for line in headers {
        request.push_str(&format!("{line}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    let end = reply.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(reply[..end].to_vec()).unwrap().to_lowercase();
    Raw { status: head.split(' ').nth(1).unwrap().parse().unwrap(), head, body: reply[end + 4..].to_vec() }
}
