//! Each thing below the daemon stops in the middle of a load. Fail closed: "could not check" is 503, never a signature made without
//! the check, never "refused by rule"; health says so; and once the thing is back the same process serves on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::freeze::{Frozen, backends, signal_all};
use crate::harness::rpc_proxy::{Act, RpcProxy};
use crate::harness::stack::{Agent, Options, Stack, hash, pay, until};

const SOON: Duration = Duration::from_secs(30);

/// Agents that submit one after the other until told to stop. Every answer is kept.
struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    /// For each agent.
    unavailable: Vec<Arc<AtomicUsize>>,
    answers: Arc<Mutex<Vec<(u16, Value)>>>,
    clients: Vec<tokio::task::JoinHandle<()>>,
    agents: Vec<Agent>,
}

impl Load {
    async fn start(stack: &Stack, agents: usize) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            good: Arc::default(),
            unavailable: Vec::new(),
            answers: Arc::default(),
            clients: Vec::new(),
            agents: Vec::new(),
        };
        for _ in 0..agents {
            // A limit that is never reached: a 403 could only come from a check that failed and was taken for a refusal.
            let agent = stack.agent(json!({"tx_daily_limit_eth": "900", "tx_max_value_eth": "1"})).await;
            load.agents.push(agent.clone());
            let (stop, good, unavailable, answers) =
                (load.stop.clone(), load.good.clone(), Arc::<AtomicUsize>::default(), load.answers.clone());
            load.unavailable.push(unavailable.clone());
            load.clients.push(tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    let request = agent.client.request(reqwest::Method::POST, &agent.path()).json(&pay("0.0001"));
                    let reply = Client::send(request).await;
                    let status = reply.status.as_u16();
                    let counter = if status == 201 { &good } else { &unavailable };
                    counter.fetch_add(1, Relaxed);
                    if status == 503 {
                        let seconds = reply.headers["retry-after"].to_str().unwrap().parse::<u64>();
                        assert!(seconds.is_ok_and(|seconds| seconds >= 1), "{:?}", reply.headers);
                    }
                    answers.lock().unwrap().push((status, reply.body));
                }
            }));
        }
        load.more_good().await;
        load
    }

    async fn more_good(&self) {
        let before = self.good.load(Relaxed);
        until(SOON, "intents are signed", async || self.good.load(Relaxed) > before + 10).await;
    }

    /// Each agent has been refused, and so has nothing left in flight that began before.
    async fn all_unavailable(&self) {
        let counts = || self.unavailable.iter().map(|count| count.load(Relaxed)).collect::<Vec<_>>();
        let before = counts();
        let refused = async || counts().iter().zip(&before).all(|(now, before)| *now >= before + 2);
        until(SOON, "intents are answered 503", refused).await;
    }

    /// Ends it. Every answer was a signature or 503; what was answered is what was committed and mined, contiguous on each key.
    async fn assert_honest(self, stack: &Stack) {
        self.stop.store(true, Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        let answers = self.answers.lock().unwrap().clone();
        let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
        for (status, body) in &answers {
            *counts.entry(*status).or_default() += 1;
            assert!([201, 503].contains(status), "{status} {body}");
            if *status == 503 {
                assert!(body.get("signed_tx").is_none() && body.get("tx_hash").is_none(), "{body}");
                assert!(body["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{body}");
            }
        }
        assert!(counts.get(&201) > Some(&10) && counts.contains_key(&503), "{counts:?}");
        let mut committed = 0;
        for agent in &self.agents {
            let slots = stack.slots(8453, agent.signer).await.len() as u64;
            stack.assert_settled("base", agent.signer, 0, slots).await;
            committed += slots;
        }
        // A 503 after the commit (its answer was lost with the database) may add to what was answered; nothing may be missing.
        let answered = answers.iter().filter(|(status, _)| *status == 201);
        for (_, body) in answered {
            let mined = stack.chain().receipt(hash(body), SOON).await;
            assert_eq!(mined["status"], "0x1");
        }
        assert!(committed as usize >= counts[&201], "{committed} committed, {counts:?}");
    }
}

async fn health(stack: &Stack) -> (String, u16) {
    let nobody = stack.owner.by(None);
    let health = nobody.get("/v1/health").await.expect(200);
    (health["status"].as_str().unwrap().to_owned(), nobody.get("/v1/health/hsm").await.status.as_u16())
}

async fn healthy(stack: &Stack) {
    until(SOON, "the daemon is healthy", async || health(stack).await == ("healthy".to_owned(), 200)).await;
}

#[tokio::test]
async fn threat_38_postgres_stands_still_in_the_middle_of_a_load() {
    let stack = Stack::start().await;
    let load = Load::start(&stack, 3).await;
    for _ in 0..2 {
        let frozen = Frozen::postgres(&stack);
        let spare = load.agents[0].clone();
        let began = Instant::now();
        let detail = spare.submit(pay("0.0001")).await.refused(503);
        assert!(detail.contains("database"), "{detail}");
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        let shown = stack.owner.by(None).get("/v1/health").await.expect(200);
        assert_eq!((shown["status"].as_str(), shown["database"].as_str()), (Some("degraded"), Some("unavailable")));
        drop(frozen);
        healthy(&stack).await;
        load.more_good().await;
    }
    // The refusals of the freeze are this test's own: the load itself may have slept through it.
    load.answers.lock().unwrap().push((503, json!({"detail": "asked for above"})));
    load.assert_honest(&stack).await;
}

#[tokio::test]
async fn threat_38_postgres_crashes_in_the_middle_of_a_load() {
    let stack = Stack::start().await;
    let load = Load::start(&stack, 3).await;
    // Three times at least, and until it met somebody in the middle of a statement: who is not in one just gets a new connection.
    for round in 0..15 {
        // Killing one of its processes makes the server drop every connection and recover from its log.
        signal_all(&backends(&stack), Signal::KILL);
        healthy(&stack).await;
        load.more_good().await;
        if round >= 2 && load.unavailable.iter().any(|count| count.load(Relaxed) > 0) {
            break;
        }
    }
    load.assert_honest(&stack).await;
}

#[tokio::test]
async fn threat_38_a_database_that_is_gone_is_no_refusal_on_any_route() {
    let mut stack = Stack::start().await;
    let agent = stack.agent(json!({})).await;
    let token = stack.owner.by(None).post("/v1/auth/agent-token", &json!({"api_key": agent.api_key})).await.expect(200);
    let backends = backends(&stack);
    stack.postgres.server().signal(Signal::KILL);
    signal_all(&backends, Signal::KILL);
    stack.postgres.process().wait().await;
    let by_token = agent.client.by(token["access_token"].as_str());
    let nobody = stack.owner.by(None);
    let (owner, path) = (&stack.owner, agent.path());
    let (exchange, pay, sign) = (json!({"api_key": agent.api_key}), pay("0.001"), format!("{path}/sign"));
    // All of them wait for a connection: at the same time.
    let replies = tokio::join!(
        agent.client.post(&path, &pay),
        by_token.post(&path, &pay),
        agent.client.post(&sign, &pay),
        by_token.get(&path),
        owner.get("/v1/vaults"),
        owner.get("/v1/agents"),
        owner.get("/v1/audit/events"),
        nobody.post("/v1/auth/agent-token", &exchange),
    );
    let replies: [_; 8] = replies.into();
    for reply in replies {
        assert_eq!(reply.status, 503, "{}", reply.body);
        assert!(reply.body["detail"].as_str().unwrap().contains("database"), "{}", reply.body);
        assert!(reply.headers.contains_key("retry-after"));
    }
    assert_eq!(health(&stack).await, ("degraded".to_owned(), 200));
    nobody.get("/v1/chains").await.expect(200);
}

#[tokio::test]
async fn threat_38_a_node_that_is_frozen_broken_or_talks_rubbish() {
    let rpc = RpcProxy::start("http://127.0.0.1:1");
    let options = Options { rpc_urls: [("base", rpc.url())].into(), ..Options::default() };
    let stack = Stack::with(options).await;
    rpc.forward_to(&stack.chain().url());
    let load = Load::start(&stack, 3).await;
    let broken: [(&str, Act); 7] = [
        ("frozen", Act::Freeze),
        ("500", Act::Http(500)),
        ("401", Act::Http(401)),
        ("429", Act::Http(429)),
        ("rubbish", Act::Garbage(b"<html>bad gateway</html>".to_vec())),
        ("a null result", Act::Answer(Value::Null)),
        ("hangs up", Act::DropRequest),
    ];
    for (case, act) in broken {
        rpc.on_everything(act);
        load.all_unavailable().await;
        let good = load.good.load(Relaxed);
        let detail = load.agents[0].submit(pay("0.0001")).await.refused(503);
        assert!(detail.contains("base"), "{case}: {detail}");
        assert!(!detail.contains("127.0.0.1"), "{case}: the node's address is shown: {detail}");
        load.agents[0].sign(pay("0.0001")).await.refused(503);
        assert_eq!(load.good.load(Relaxed), good, "{case}: signed without its node");
        // The node is not the daemon: it still serves everything else.
        assert_eq!(health(&stack).await, ("healthy".to_owned(), 200), "{case}");
        load.agents[0].client.get(&load.agents[0].path()).await.expect(200);
        rpc.clear();
        load.more_good().await;
    }
    load.assert_honest(&stack).await;
}

#[tokio::test]
async fn threat_38_a_simulation_that_cannot_be_made_is_no_signature() {
    let rpc = RpcProxy::start("http://127.0.0.1:1");
    let options = Options { rpc_urls: [("base", rpc.url())].into(), ..Options::default() };
    let stack = Stack::with(options).await;
    rpc.forward_to(&stack.chain().url());
    let agent = stack.agent(json!({})).await;
    let simulated = json!({"to": crate::harness::stack::TO, "value": "0.001", "chain": "base", "simulate_first": true});
    for act in [Act::Freeze, Act::Http(500), Act::Garbage(b"?".to_vec()), Act::Answer(Value::Null), Act::DropRequest] {
        for method in ["eth_simulateV1", "debug_traceCall", "eth_call", "eth_estimateGas"] {
            rpc.on(method, act.clone());
        }
        agent.submit(simulated.clone()).await.refused(503);
        agent.sign(simulated.clone()).await.refused(503);
        rpc.clear();
    }
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 0);
    assert_eq!(agent.submit(simulated).await.expect(201)["nonce"], 0);
}

/// SoftHSM with its token's folder gone says "no objects, all is well". No signature may come from anywhere else then.
#[tokio::test]
async fn threat_34_the_token_goes_away_in_the_middle_of_a_load_and_comes_back() {
    let stack = Stack::start().await;
    let load = Load::start(&stack, 3).await;
    let (here, away) = (stack.install.root.join("token/tokens"), stack.install.root.join("token/away"));
    for _ in 0..2 {
        std::fs::rename(&here, &away).unwrap();
        until(SOON, "red", async || health(&stack).await == ("degraded".to_owned(), 503)).await;
        let shown = stack.owner.by(None).get("/v1/health/hsm").await.expect(503);
        assert_eq!(
            (shown["status"].as_str(), shown["connected"].as_bool()),
            (Some("unavailable"), Some(false)),
            "{shown}"
        );
        load.all_unavailable().await;
        let good = load.good.load(Relaxed);
        for _ in 0..20 {
            let detail = load.agents[0].submit(pay("0.0001")).await.refused(503);
            assert!(detail.contains("HSM"), "{detail}");
        }
        assert_eq!(load.good.load(Relaxed), good, "something signed without the token");
        // Nor is anything made or read that needs it.
        let vault = stack.owner.post("/v1/vaults", &json!({"name": format!("while away {good}")})).await.expect(201);
        let path = format!("/v1/vaults/{}/secrets/x", vault["id"].as_str().unwrap());
        stack.owner.put(&path, &json!({"value": "secret", "type": "generic"})).await.refused(503);
        let exchange = json!({"api_key": load.agents[0].api_key});
        stack.owner.by(None).post("/v1/auth/agent-token", &exchange).await.refused(503);
        if here.exists() {
            assert!(std::fs::read_dir(&here).unwrap().next().is_none(), "something was made in the token's place");
            std::fs::remove_dir(&here).unwrap();
        }
        std::fs::rename(&away, &here).unwrap();
        healthy(&stack).await;
        load.more_good().await;
        stack.owner.put(&path, &json!({"value": "secret", "type": "generic"})).await.expect(201);
    }
    load.assert_honest(&stack).await;
}
