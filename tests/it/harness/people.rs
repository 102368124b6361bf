//! Further organisations and humans, with their keys.

use intentd::access::tokens::{KeyKind, PlainKey};
use uuid::Uuid;

use super::client::Client;
use super::stack::Stack;

/// A human with a key.
#[derive(Clone)]
pub struct Human {
    pub id: String,
    pub client: Client,
}

impl Stack {
    /// Another organisation in the same installation, with nobody in it.
    pub async fn organisation(&self, name: &str) -> String {
        let id = Uuid::new_v4();
        self.sql(&format!("INSERT INTO organisations (id, name) VALUES ('{id}', '{name}')")).await;
        id.to_string()
    }

    /// A human with this role in an organisation.
    pub async fn human(&self, org_id: &str, role: &str) -> Human {
        let (id, key_id) = (Uuid::new_v4(), Uuid::new_v4());
        let random: [u8; 32] = [*Uuid::new_v4().as_bytes(), *Uuid::new_v4().as_bytes()].concat().try_into().unwrap();
        let key = PlainKey::mint(KeyKind::User, &random);
        self.sql(&format!(
            "INSERT INTO users (id, org_id, email, role) VALUES ('{id}', '{org_id}', '{role}-{id}@example.test', '{role}');
             INSERT INTO user_api_keys (id, org_id, user_id, name, key_prefix, key_hash)
             VALUES ('{key_id}', '{org_id}', '{id}', 'key', '{}', '\\x{}')",
            key.prefix(),
            hex::encode(key.hash().0)
        ))
        .await;
        Human { id: id.to_string(), client: self.owner.by(Some(key.reveal())) }
    }
}
