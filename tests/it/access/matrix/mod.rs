//! Every route of the daemon × everybody who may ask. The routes come from the router itself, so none is left out; what each caller is
//! answered is written down in `statuses.txt`, which `UPDATE_SNAPSHOTS=1` writes anew, to be read before it is committed.
//!
//! A new route needs: nothing, where a GET or DELETE has parameters that [`World`] has; a body in `rows.rs` where it takes one; another
//! thing in [`World::make`] for a new parameter.

mod daemons;
mod rows;
mod statuses;
mod swaps;

use std::collections::BTreeMap;

use intentd::http::router;
use intentd::http::routes::Route;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::harness::client::{Client, Reply};
use crate::harness::people::Human;
use crate::harness::stack::{Options, Stack, text};

/// What stands in a snapshot's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Caller {
    /// No credential.
    Nobody,
    /// A token past its time, of an agent that is there.
    Expired,
    /// A revoked token of an owner.
    Revoked,
    /// An agent of the organisation without a policy.
    Agent,
    /// The agent that the paths name, with a policy for everything in the vault that they name.
    Granted,
    Member,
    Admin,
    Owner,
    /// An owner, by a key that is limited to paths where there is nothing.
    Limited,
    /// A member who runs the installation.
    Platform,
    OtherAgent,
    OtherOwner,
}

impl Caller {
    const ALL: [(Self, &str); 12] = [
        (Self::Nobody, "nobody"),
        (Self::Expired, "expired"),
        (Self::Revoked, "revoked"),
        (Self::Agent, "agent"),
        (Self::Granted, "granted"),
        (Self::Member, "member"),
        (Self::Admin, "admin"),
        (Self::Owner, "owner"),
        (Self::Limited, "limited"),
        (Self::Platform, "platform"),
        (Self::OtherAgent, "other-agent"),
        (Self::OtherOwner, "other-owner"),
    ];
}

/// Everything that is limited by number.
const LIMITED: &str = "{rule_id}/{invitation_id}/{webhook_id}";

/// The daemon's own table.
fn routes() -> Vec<Route> {
    let mut table = router::routes().table().to_vec();
    table.sort_by_key(|route| (route.path, route.method.to_string()));
    table
}

/// A daemon whose limits are out of the way, and two organisations.
struct Scene {
    stack: Stack,
    other_org: String,
    expired: String,
    revoked: String,
}

impl Scene {
    async fn set() -> Self {
        let limits = [("INTENTD_LIMITS_AUTH_BURST", "1000000"), ("INTENTD_LIMITS_IP_BURST", "1000000")];
        let env = limits.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let stack = Stack::with(Options { env, ..Options::default() }).await;
        let other_org = stack.organisation("Other").await;
        for org in [&stack.org_id, &other_org] {
            stack.sql(&format!("INSERT INTO organisation_limits (org_id, members) VALUES ('{org}', 1000000)")).await;
        }
        let revoked = token(&stack.human(&stack.org_id, "owner").await.client).await;
        stack.owner.by(Some(&revoked)).delete("/v1/auth/token").await.expect(204);
        // No agent may have such a short one; waiting two minutes is no test.
        let agent = stack.owner.post("/v1/agents", &json!({"name": "short-lived"})).await.expect(201);
        stack.sql("ALTER TABLE agents DROP CONSTRAINT agents_token_ttl_seconds_check").await;
        stack.sql("UPDATE agents SET token_ttl_seconds = 1").await;
        let expired = token(&stack.owner.by(agent["api_key"].as_str())).await;
        let gone = async || stack.owner.by(Some(&expired)).get("/v1/agents/me").await.status == 401;
        crate::harness::stack::until(std::time::Duration::from_secs(10), "the token has expired", gone).await;
        Self { stack, other_org, expired, revoked }
    }

    /// The caller with a credential that nobody else uses: some routes end it.
    async fn client(&self, caller: Caller, world: &World) -> Client {
        let stack = &self.stack;
        let human = async |org: &str, role: &str| token(&stack.human(org, role).await.client).await;
        let agent = async |owner: &Client| {
            let made =
                owner.post("/v1/agents", &json!({"name": "bare", "intents_api_enabled": true})).await.expect(201);
            token(&owner.by(made["api_key"].as_str())).await
        };
        let bearer = match caller {
            Caller::Nobody => return stack.owner.by(None),
            Caller::Expired => self.expired.clone(),
            Caller::Revoked => self.revoked.clone(),
            Caller::Agent => agent(&stack.owner).await,
            Caller::Granted => token(&stack.owner.by(Some(&world.agent_key))).await,
            Caller::Member => human(&stack.org_id, "member").await,
            Caller::Admin => human(&stack.org_id, "admin").await,
            Caller::Owner => human(&stack.org_id, "owner").await,
            Caller::Limited => {
                let owner = stack.human(&stack.org_id, "owner").await.client;
                let made = json!({"name": "limited", "scopes": ["x/*"]});
                let made = owner.post("/v1/auth/api-keys", &made).await.expect(201);
                token(&owner.by(made["api_key"].as_str())).await
            }
            Caller::Platform => {
                let Human { id, client } = stack.human(&stack.org_id, "member").await;
                stack.sql(&format!("UPDATE users SET platform_admin = true WHERE id = '{id}'")).await;
                token(&client).await
            }
            Caller::OtherAgent => agent(&stack.human(&self.other_org, "owner").await.client).await,
            Caller::OtherOwner => human(&self.other_org, "owner").await,
        };
        stack.owner.by(Some(&bearer))
    }
}

/// The token for a client's key.
async fn token(client: &Client) -> String {
    let key = client.bearer.as_deref().unwrap();
    let route = if key.starts_with("ocv_") { "agent" } else { "api-key" };
    let body = client.by(None).post(&format!("/v1/auth/{route}-token"), &json!({ "api_key": key })).await.expect(200);
    text(&body, "access_token")
}

/// One of everything that a path can name, in one organisation.
struct World {
    /// By the parameter's name.
    values: BTreeMap<&'static str, String>,
    agent_key: String,
    owner_key: String,
}

impl World {
    /// What `template` names, and what every organisation may have as many of as it likes.
    async fn make(stack: &Stack, org_id: &str, template: &str) -> Self {
        let Human { id: owner_id, client: owner } = stack.human(org_id, "owner").await;
        let vault_id = text(&owner.post("/v1/vaults", &json!({"name": Uuid::new_v4()})).await.expect(201), "id");
        let vault = format!("/v1/vaults/{vault_id}");
        let secret = owner.put(&format!("{vault}/secrets/a/b"), &json!({"value": "v"})).await.expect(201);
        let agent = json!({"name": "granted", "intents_api_enabled": true});
        let made = owner.post("/v1/agents", &agent).await.expect(201);
        let (agent_id, agent_key) = (text(&made["agent"], "id"), text(&made, "api_key"));
        let policy = json!({"secret_path_pattern": "**", "principal_type": "agent", "principal_id": agent_id,
                            "permissions": ["read", "write", "delete"]});
        let policy = owner.post(&format!("{vault}/policies"), &policy).await.expect(201);
        let spare = owner.post("/v1/auth/api-keys", &json!({"name": "spare"})).await.expect(201);
        let key_id = text(&spare["key"], "id");
        let (share_id, transaction_id) = (Uuid::new_v4(), Uuid::new_v4());
        let (rule_id, invitation_id, rotation_id) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        let (freeze_id, delivery_id) = (Uuid::new_v4(), Uuid::new_v4());
        let secret_id = text(&secret, "id");
        // A share that the agent has accepted, past the limit on making them; a transaction that its simulation stopped.
        stack
            .sql(&format!(
                "INSERT INTO shares (id, org_id, secret_id, created_by, created_by_type, recipient_type, recipient_id, expires_at, accepted_at)
                 VALUES ('{share_id}', '{org_id}', '{secret_id}', '{owner_id}', 'user', 'agent', '{agent_id}', now() + interval '1 day', now());
                 INSERT INTO intents (id, org_id, agent_id, kind, chain_id, chain, spend_group, from_address, to_address, value_wei, gas_limit,
                                      gas_price, checked_hash, simulation_status)
                 VALUES ('{transaction_id}', '{org_id}', '{agent_id}', 'submit', 8453, 'base', 'eth', decode(repeat('11', 20), 'hex'),
                         decode(repeat('22', 20), 'hex'), 1, 21000, 1, decode(repeat('33', 32), 'hex'), 'reverted');
                 INSERT INTO cmek_rotations (id, org_id, vault_id, old_fingerprint, new_fingerprint, state, total, lease_until, completed_at)
                 VALUES ('{rotation_id}', '{org_id}', '{vault_id}', repeat('a', 64), repeat('b', 64), 'completed', 0, now(), now());
                 INSERT INTO freezes (id, org_id, scope, subject, reason, actor_type)
                 VALUES ('{freeze_id}', '{org_id}', 'key', '{freeze_id}', '', 'system')"
            ))
            .await;
        let webhook_id = Uuid::new_v4();
        if template.contains("{webhook_id}") {
            stack
                .sql(&format!(
                    "INSERT INTO webhooks (id, org_id, url, description, events, kek_id, dek_iv, dek_sealed, nonce, ciphertext, created_by)
                     SELECT '{webhook_id}', '{org_id}', 'https://hooks.example.com/x', '', '{{webhook.disable}}', id,
                            decode(repeat('11', 12), 'hex'), '\\x11', decode(repeat('11', 12), 'hex'), '\\x11', '{owner_id}'
                     FROM keks WHERE purpose = 'data' LIMIT 1;
                     INSERT INTO webhook_deliveries (id, webhook_id, event_id, event_created_at, action, is_dead)
                     VALUES ('{delivery_id}', '{webhook_id}', '{delivery_id}', now(), 'webhook.disable', true)"
                ))
                .await;
        }
        if template.contains("{rule_id}") {
            stack
                .sql(&format!(
                    "INSERT INTO ip_rules (id, org_id, rule_type, network, applies_to, created_by)
                     VALUES ('{rule_id}', '{org_id}', 'deny', '203.0.113.0/24', 'all', '{owner_id}')"
                ))
                .await;
        }
        if template.contains("{invitation_id}") {
            stack
                .sql(&format!(
                    "INSERT INTO invitations (id, org_id, email, role, token_hash, expires_at)
                     VALUES ('{invitation_id}', '{org_id}', '{invitation_id}@example.org', 'member', sha256('{invitation_id}'),
                             now() + interval '1 day')"
                ))
                .await;
        }
        let abi_id = Uuid::new_v4();
        if template.contains("{abi_id}") {
            stack
                .sql(&format!(
                    "INSERT INTO contract_abis (id, org_id, name, created_by) VALUES ('{abi_id}', '{org_id}', '{abi_id}', '{owner_id}')"
                ))
                .await;
        }
        let values = BTreeMap::from([
            ("vault_id", vault_id),
            ("path", "a/b".to_owned()),
            ("secret_id", secret_id),
            ("agent_id", agent_id),
            ("policy_id", text(&policy, "id")),
            ("share_id", share_id.to_string()),
            ("transaction_id", transaction_id.to_string()),
            ("user_id", stack.human(org_id, "member").await.id),
            ("rule_id", rule_id.to_string()),
            ("invitation_id", invitation_id.to_string()),
            ("rotation_id", rotation_id.to_string()),
            ("abi_id", abi_id.to_string()),
            ("freeze_id", freeze_id.to_string()),
            ("webhook_id", webhook_id.to_string()),
            ("delivery_id", delivery_id.to_string()),
            ("org_id", org_id.to_owned()),
            ("name_or_id", "base".to_owned()),
            ("key_id", key_id),
            ("user_code", "BCDF-GHJK".to_owned()),
            ("chain", "ethereum".to_owned()),
            ("address", "0x1111111111111111111111111111111111111111".to_owned()),
            ("chain_id", "8453".to_owned()),
        ]);
        Self { values, agent_key, owner_key: owner.bearer.unwrap() }
    }

    fn value(&self, name: &str) -> &str {
        let value = self.values.get(name);
        value.unwrap_or_else(|| panic!("a path has {{{name}}}: make one in World::make and name it there"))
    }

    /// A route's path, about this world but for `other`.
    fn path(&self, template: &str, other: Option<(&str, &str)>) -> String {
        let one = |segment: &str| match parameter(segment) {
            Some(name) => other.filter(|(n, _)| *n == name).map_or_else(|| self.value(name), |(_, v)| v).to_owned(),
            None => segment.to_owned(),
        };
        let path = template.split('/').map(one).collect::<Vec<_>>().join("/");
        // These have the version's number behind the secret's path.
        let of_version = ["/secret-version/", "/secret-version-disable/"].iter().any(|part| template.contains(part));
        if of_version { format!("{path}/1") } else { path }
    }
}

/// The name of a path's parameter.
fn parameter(segment: &str) -> Option<&str> {
    Some(segment.strip_prefix('{')?.strip_suffix('}')?.trim_start_matches('*'))
}

fn parameters(template: &str) -> impl Iterator<Item = &str> {
    template.split('/').filter_map(parameter)
}

async fn call(client: &Client, route: &Route, path: &str, world: &World) -> Reply {
    let request = client.request(route.method.clone(), path);
    let request = match rows::body(route, world) {
        Some(body) => request.json(&body),
        None => request,
    };
    Client::send(request).await
}

fn changes(method: &Method) -> bool {
    *method != Method::GET
}

/// Routes of which the owner is told 403 before the id is looked at: they are for agents, or for whoever runs the installation.
fn is_for_others(method: &Method, path: &str) -> bool {
    let path = ["/sign", "/simulate", "/simulate-bundle"].iter().find_map(|end| path.strip_suffix(end)).unwrap_or(path);
    path.starts_with("/v1/admin/") || *method == Method::POST && path == "/v1/agents/{agent_id}/transactions"
}
