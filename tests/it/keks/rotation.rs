use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use super::{SOON, admin, age, all_open, begin, filled, kek, quick, reaches, token, uses};
use crate::harness::client::{Client, Reply};
use crate::harness::stack::{Agent, Stack, pay, text, until};

/// What programs do all the time, at one daemon each. Every reply that is not a success is kept.
struct Traffic {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

async fn round(owner: &Client, agent: &Agent, vault: &str, n: usize, failed: &mut Vec<String>) {
    let mut check = |what: &str, reply: &Reply| {
        if !reply.status.is_success() {
            failed.push(format!("{what}: {} {}", reply.status, reply.body));
        }
    };
    let path = format!("/v1/vaults/{vault}/secrets/traffic/{}-{n}", agent.id);
    check("PUT", &owner.put(&path, &json!({"value": "v"})).await);
    let read = owner.get(&path).await;
    check("GET", &read);
    check("GET, old", &owner.get(&format!("/v1/vaults/{vault}/secrets/s/{}", n % 10)).await);
    let key = json!({"value": crate::harness::stack::fresh_scalar(), "type": "private_key"});
    check("PUT, key", &owner.put(&format!("/v1/vaults/{vault}/secrets/keys/t-{}-{}", agent.id, n % 5), &key).await);
    let signed = agent.submit(pay("0.0001")).await;
    check("submit", &signed);
    let issued = agent.client.by(None).post("/v1/auth/agent-token", &json!({"api_key": agent.api_key})).await;
    check("token", &issued);
    if let Some(token) = issued.body["access_token"].as_str() {
        check("with the token", &agent.client.by(Some(token)).get("/v1/agents/me").await);
    }
    if signed.status.is_success() && signed.body["from"] != agent.signer.to_string() {
        failed.push(format!("signed by another: {}", signed.body));
    }
}

impl Traffic {
    fn start(stack: &Stack, agents: &[Agent], vault: &str) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks = agents.iter().zip(&stack.daemons).map(|(agent, daemon)| {
            let (owner, agent, vault) = (stack.owner.at(&daemon.url), agent.at(&daemon.url), vault.to_owned());
            let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
            tokio::spawn(async move {
                let mut failed = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    round(&owner, &agent, &vault, n, &mut failed).await;
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
                failed
            })
        });
        Self { tasks: tasks.collect(), stop, rounds }
    }

    /// Some rounds more, so that what was just done has been seen by requests.
    async fn goes_on(&self) {
        let seen = self.rounds.load(Ordering::Relaxed);
        until(SOON, "traffic", async || self.rounds.load(Ordering::Relaxed) >= seen + 4).await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            assert_eq!(task.await.unwrap(), Vec::<String>::new());
        }
    }
}

/// The published keys: the active one, and all of them while there are several.
async fn published(client: &Client) -> (String, Vec<String>) {
    let body = client.by(None).get("/v1/auth/jwt-public-key").await.expect(200);
    let all = body["keys"].as_array().cloned().unwrap_or_default();
    (text(&body, "public_key_base64"), all.iter().map(|key| text(key, "public_key_base64")).collect())
}

/// Signatures by the default custody of the daemons, and by the other one.
async fn rotate_under_traffic(custody: &'static str, purposes: &[&str]) {
    let env = [("INTENTD_HSM_CUSTODY", custody)];
    let mut stack = Stack::with(quick(2, vec![("base", 8453)], &env)).await;
    let agents = [stack.agent(json!({})).await, stack.agent(json!({})).await];
    let vault = filled(&stack, 10, 3).await;
    let custodies = format!("SELECT count(*) FROM signing_keys WHERE custody = '{custody}'");
    assert_eq!(stack.count(&custodies).await, 5);
    let before = [token(&stack.owner).await, token(&agents[0].client).await];
    let everywhere = async |status: u16| {
        for daemon in &stack.daemons {
            let client = stack.owner.at(&daemon.url);
            client.by(Some(&before[0])).get("/v1/auth/me").await.expect(status);
            client.by(Some(&before[1])).get("/v1/agents/me").await.expect(status);
        }
    };
    let traffic = Traffic::start(&stack, &agents, &vault);
    traffic.goes_on().await;
    for purpose in purposes {
        let (old, (key, alone)) = (begin(&stack, purpose).await, published(&stack.owner).await);
        if *purpose == "jwt" {
            reaches(&stack, &old, "retiring").await;
            until(SOON, "every daemon signs with the new key", async || {
                let (first, second) = (&stack.daemons[0].url, &stack.daemons[1].url);
                let (a, b) = (published(&stack.owner.at(first)).await, published(&stack.owner.at(second)).await);
                a == b && a.0 != key && a.1.len() == 2 && a.1[0] == a.0 && a.1[1] == key
            })
            .await;
            everywhere(200).await;
            traffic.goes_on().await;
            assert_eq!(super::state_of(&stack, &old).await, "retiring", "its tokens are still about");
            age(&stack, &old).await;
        } else {
            assert_eq!((published(&stack.owner).await, alone.len()), ((key, vec![]), 0));
        }
        reaches(&stack, &old, "retired").await;
        assert_eq!(uses(&stack, &old).await, 0);
        traffic.goes_on().await;
        assert!(kek(&stack, purpose, "active").await.is_some_and(|new| new != old));
    }
    traffic.end().await;
    if purposes.contains(&"jwt") {
        until(SOON, "only the new key is published", async || published(&stack.owner).await.1.is_empty()).await;
        everywhere(401).await;
    } else {
        everywhere(200).await;
    }
    // The rows of what happened, and what the operator sees.
    let count =
        async |action: &str| stack.count(&format!("SELECT count(*) FROM audit_events WHERE action = '{action}'")).await;
    for action in ["kek.add", "kek.activate", "kek.retire"] {
        assert_eq!(count(action).await, i64::try_from(purposes.len()).unwrap(), "{action}");
    }
    let said = admin(&stack, &["hsm", "keks"]);
    let states: BTreeMap<&str, usize> =
        ["active", "retired", "LACKS", "has every key"].map(|word| (word, said.matches(word).count())).into();
    assert_eq!(
        states,
        [("active", 5), ("retired", purposes.len()), ("LACKS", 0), ("has every key", 2)].into(),
        "{said}"
    );
    // From nothing but the rows and the token: the same values, the same addresses.
    stack.add_daemon("later").await;
    let later = stack.daemons[2].url.clone();
    all_open(&stack, &stack.owner.at(&later), &vault, 10).await;
    for agent in &agents {
        let signed = agent.at(&later).submit(pay("0.0001")).await.expect(201);
        assert_eq!(signed["from"], agent.signer.to_string());
    }
}

#[tokio::test]
async fn every_key_of_the_token_is_rotated_under_traffic_and_no_request_fails() {
    rotate_under_traffic("wrapped", &["seal", "mac", "data", "jwt", "audit"]).await;
}

#[tokio::test]
async fn keys_on_the_token_follow_the_rotation_of_their_mac() {
    rotate_under_traffic("token", &["mac"]).await;
}
