//! Organisations: members, invitations, settings, limits, usage.

mod invitations;
mod limits;
mod members;
mod settings;
mod usage;

use intentd::access::tokens::{KeyKind, PlainKey};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::client::Client;
use crate::harness::stack::Stack;

/// A human of the organisation with this role, and a key.
pub struct Human {
    pub id: Uuid,
    pub client: Client,
}

/// A new human of the stack's organisation. Straight into the tables: this is what every way of joining ends in.
pub async fn human(stack: &Stack, role: &str) -> Human {
    human_of(stack, &stack.org_id, role).await
}

pub async fn human_of(stack: &Stack, org_id: &str, role: &str) -> Human {
    let (id, org_id) = (Uuid::new_v4(), org_id.parse::<Uuid>().unwrap());
    let key = new_key();
    sqlx::query("INSERT INTO users (id, org_id, email, role) VALUES ($1, $2, $3, $4)")
        .bind(id)
        .bind(org_id)
        .bind(format!("{role}-{}@example.test", id.simple()))
        .bind(role)
        .execute(&stack.db)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO user_api_keys (id, org_id, user_id, name, key_prefix, key_hash) VALUES ($1, $2, $3, 'test', $4, $5)",
    )
    .bind(Uuid::new_v4())
    .bind(org_id)
    .bind(id)
    .bind(key.prefix())
    .bind(key.hash().0.as_slice())
    .execute(&stack.db)
    .await
    .unwrap();
    Human { id, client: stack.owner.by(Some(key.reveal())) }
}

fn new_key() -> PlainKey {
    let mut random = [0; 32];
    random[..16].copy_from_slice(Uuid::new_v4().as_bytes());
    random[16..].copy_from_slice(Uuid::new_v4().as_bytes());
    PlainKey::mint(KeyKind::User, &random)
}

/// Another organisation in the same installation: its id, and its owner.
pub async fn other_org(stack: &Stack) -> (String, Client) {
    let mut command = stack.command();
    let email = format!("{}@example.test", Uuid::new_v4().simple());
    command.args(["admin", "bootstrap", "--organisation", "Other", "--email", &email, "--json"]);
    let made: Value = serde_json::from_slice(&run(command)).unwrap();
    (made["org_id"].as_str().unwrap().to_owned(), stack.owner.by(made["api_key"].as_str()))
}

/// The output of a command that must succeed.
#[track_caller]
pub fn run(mut command: std::process::Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Makes the stack's owner a platform admin, as an operator does.
#[track_caller]
pub fn platform_admin(stack: &Stack) {
    let mut command = stack.command();
    command.args(["admin", "platform-admin", "--email", "owner@example.test"]);
    run(command);
}

/// The details of the newest audit event of an action.
pub async fn last_event(stack: &Stack, action: &str) -> Value {
    let events = stack.owner.get(&format!("/v1/audit/events?action={action}&limit=1")).await.expect(200);
    events["events"].get(0).map_or(json!(null), |event| event["details"].clone())
}
