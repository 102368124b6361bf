//! Shares of secrets.

mod keys;
mod lent;
mod limits;
mod links;
mod recipients;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::client::{Client, Reply};
use crate::harness::stack::{Options, Stack, text};

/// Daemons without chains.
async fn daemons(count: usize) -> Stack {
    let env = vec![("INTENTD_PUBLIC_URL".to_owned(), "https://intents.example/base/".to_owned())];
    Stack::with(Options { daemons: count, chains: Vec::new(), env, ..Options::default() }).await
}

async fn vault(client: &Client) -> String {
    text(&client.post("/v1/vaults", &json!({"name": uuid::Uuid::new_v4().to_string()})).await.expect(201), "id")
}

/// Stores a secret and gives its id.
async fn store(client: &Client, vault: &str, path: &str, secret: Value) -> String {
    text(&client.put(&format!("/v1/vaults/{vault}/secrets/{path}"), &secret).await.expect(201), "id")
}

fn in_days(days: i64) -> String {
    intentd::clock::rfc3339(intentd::clock::now() + time::Duration::days(days))
}

/// Fields over those of a link for a day.
fn link(fields: Value) -> Value {
    let mut body = json!({"recipient_type": "anyone_with_link", "expires_at": in_days(1)});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

async fn ask(client: &Client, secret: &str, body: &Value) -> Reply {
    client.post(&format!("/v1/secrets/{secret}/share"), body).await
}

/// The id of a new share, whatever the organisation has made in this minute.
async fn share(stack: &Stack, client: &Client, secret: &str, body: &Value) -> String {
    stack.sql("DELETE FROM throttles WHERE kind = 'share'").await;
    text(&ask(client, secret, body).await.expect(201), "id")
}

async fn open(client: &Client, id: &str) -> Reply {
    client.get(&format!("/v1/share/{id}")).await
}

/// With a JSON body on the GET, as one client sends it.
async fn open_with(client: &Client, id: &str, body: &Value) -> Reply {
    Client::send(client.request(Method::GET, &format!("/v1/share/{id}")).json(body)).await
}

/// The header of JSON and nothing behind it, as two clients send it.
async fn post_empty(client: &Client, path: &str) -> Reply {
    Client::send(client.request(Method::POST, path).header("Content-Type", "application/json")).await
}

async fn listed(client: &Client, which: &str) -> Vec<Value> {
    client.get(&format!("/v1/shares/{which}")).await.expect(200)["shares"].as_array().unwrap().clone()
}
