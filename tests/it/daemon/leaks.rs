//! Canaries in every secret that passes through the daemon, traffic that uses and misuses them, and then a look at everything that
//! leaves it: log lines at `trace`, audit rows, replies, the whole database.

use std::collections::BTreeMap;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::client::{Client, Reply};
use crate::harness::freeze::{backends, signal_all};
use crate::harness::install::PIN;
use crate::harness::rpc_proxy::{Act, RpcProxy};
use crate::harness::stack::{Options, Stack, fresh_scalar, pay, text, until};

/// Everything that was planted, by what it is.
pub struct Canaries(pub BTreeMap<&'static str, Vec<u8>>);

impl Canaries {
    /// The spellings that a leak could have: as it is, hex, base64 at each of its three offsets, as a list of bytes.
    fn spellings(secret: &[u8]) -> Vec<String> {
        let mut found = vec![
            hex::encode(secret),
            hex::encode_upper(secret),
            STANDARD.encode(secret),
            URL_SAFE_NO_PAD.encode(secret),
        ];
        for skip in 1..3.min(secret.len() / 2) {
            // Inside of a longer base64 text: without the characters that depend on the neighbours.
            let inner = STANDARD_NO_PAD.encode(&secret[skip..]);
            found.push(inner[..inner.len().saturating_sub(3)].to_owned());
        }
        if let Ok(text) = std::str::from_utf8(secret) {
            found.push(text.to_owned());
            found.push(text.escape_debug().to_string());
        }
        let list = secret.iter().map(u8::to_string).collect::<Vec<_>>();
        found.push(list.join(", "));
        found.push(list.join(","));
        found.retain(|spelling| spelling.len() >= 8);
        found
    }

    #[track_caller]
    pub fn assert_absent(&self, place: &str, text: &str, but: &[&str]) {
        for (what, secret) in self.0.iter().filter(|(what, _)| !but.contains(*what)) {
            for spelling in Self::spellings(secret) {
                if let Some(at) = text.find(&spelling) {
                    let line_begins = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
                    let line: String = text[line_begins..].chars().take(400).collect();
                    panic!("{what} is in {place}: {line}");
                }
            }
        }
    }
}

/// Keeps the body of every error reply.
#[derive(Default)]
pub struct Replies(pub Vec<String>);

impl Replies {
    pub fn keep(&mut self, reply: Reply) -> Reply {
        self.0.push(format!("{:?} {}", reply.headers, reply.body));
        reply
    }
}

#[tokio::test]
async fn threat_23_no_secret_is_in_a_log_line_an_audit_row_a_reply_or_the_database() {
    let rpc = RpcProxy::start("http://127.0.0.1:1");
    let rpc_key = "rpc-key-8d1c6f0a4b";
    let database_password = "db-password-5e2f9a";
    let options = Options {
        daemons: 0,
        rpc_urls: [(
            "base",
            rpc.url().replacen("http://", &format!("http://node:{rpc_key}@"), 1) + &format!("/v2/{rpc_key}"),
        )]
        .into(),
        env: vec![("INTENTD_LOG".to_owned(), "trace".to_owned()), ("INTENTD_LOG_FORMAT".to_owned(), "json".to_owned())],
        ..Options::default()
    };
    let mut stack = Stack::with(options).await;
    let own_url = stack.postgres.url("intentd");
    stack.options.database_url = Some(own_url.replacen("intentd@", &format!("intentd:{database_password}@"), 1));
    rpc.forward_to(&stack.chain().url());
    stack.add_daemon("traced").await;

    let scalar = fresh_scalar();
    let (secret_value, multiline) = ("vault-value-\u{e9}-31c7b0d2", "first line 77ab\nsecond line 9f3e");
    let mut canaries = Canaries(BTreeMap::new());
    let mut plant = |what: &'static str, secret: &[u8]| drop(canaries.0.insert(what, secret.to_vec()));
    plant("the private key", &hex::decode(&scalar[2..]).unwrap());
    plant("the secret", secret_value.as_bytes());
    plant("the multi-line secret", multiline.as_bytes());
    plant("the PIN", PIN.as_bytes());
    plant("the RPC key", rpc_key.as_bytes());
    plant("the database password", database_password.as_bytes());
    plant("the owner's key", text(&stack.install.owner, "api_key").as_bytes());

    let agent = stack.agent_with_key(json!({"tx_max_value_eth": "1"}), &scalar).await;
    plant("the agent's key", agent.api_key.as_bytes());
    plant("the agent's key without its prefix", &agent.api_key.as_bytes()[4..]);
    let mut replies = Replies::default();

    // Secrets: written, read, misspelled, wrongly typed, imported as keys that are none.
    let vault = stack.owner.post("/v1/vaults", &json!({"name": "canaries"})).await.expect(201);
    let secrets = format!("/v1/vaults/{}/secrets", text(&vault, "id"));
    for (path, value) in [("plain", secret_value), ("pem", multiline)] {
        replies
            .keep(stack.owner.put(&format!("{secrets}/{path}"), &json!({"value": value, "type": "generic"})).await)
            .expect(201);
        assert_eq!(stack.owner.get(&format!("{secrets}/{path}")).await.expect(200)["value"], value);
        replies.keep(agent.client.get(&format!("{secrets}/{path}")).await).refused(403);
    }
    for body in [
        json!({"value": format!("0x{}", "f".repeat(64)), "type": "private_key"}),
        json!({"value": format!("{scalar}00"), "type": "private_key"}),
        json!({"value": scalar, "type": secret_value}),
        json!({"value": [secret_value], "type": "generic"}),
        json!({"value": {"v": scalar}, "type": "private_key"}),
        json!({"value": scalar, "type": "private_key", "metadata": 7, "expires_at": "never"}),
    ] {
        let reply = replies.keep(stack.owner.put(&format!("{secrets}/keys/broken"), &body).await);
        assert!(reply.status.is_client_error(), "{}", reply.body);
    }
    for broken in [
        format!("{{\"value\": \"{secret_value}\", "),
        format!("{{\"value\": {scalar}}}"),
        format!("[\"{secret_value}\"]"),
    ] {
        let request = stack.owner.request(Method::PUT, &format!("{secrets}/plain")).body(broken);
        assert_eq!(replies.keep(Client::send(request).await).status, 400);
    }

    // Tokens: good, broken, of a key that is almost right.
    let token = stack.owner.by(None).post("/v1/auth/agent-token", &json!({"api_key": agent.api_key})).await.expect(200);
    let token = text(&token, "access_token");
    plant("the token", token.as_bytes());
    let other = if agent.api_key.as_bytes()[30] == b'x' { "y" } else { "x" };
    let almost = format!("{}{other}{}", &agent.api_key[..30], &agent.api_key[31..]);
    plant("a key that is almost right", almost.as_bytes());
    for wrong in [
        json!({"api_key": almost}),
        json!({"api_key": [agent.api_key]}),
        json!({"api_key": agent.api_key, "agent_id": scalar}),
    ] {
        let reply = replies.keep(stack.owner.by(None).post("/v1/auth/agent-token", &wrong).await);
        assert!(reply.status.is_client_error(), "{}", reply.body);
    }
    for credential in [almost.clone(), format!("{token}x"), scalar.clone()] {
        replies.keep(stack.owner.by(Some(&credential)).get("/v1/vaults").await).refused(401);
    }

    // Intents: good, refused, misdirected, and with secrets where they do not belong.
    let by_token = agent.client.by(Some(&token));
    let mut signed = Vec::new();
    for n in 0..3 {
        let sent =
            if n == 0 { by_token.post(&agent.path(), &pay("0.001")).await } else { agent.submit(pay("0.001")).await };
        signed.push(sent.expect(201));
    }
    signed.push(agent.sign(pay("0.001")).await.expect(200));
    stack.chain().request("eth_sendRawTransaction", json!([signed[3]["signed_tx"]])).await;
    let simulated = json!({"to": crate::harness::stack::TO, "value": "0.001", "chain": "base", "simulate_first": true});
    signed.push(agent.submit(simulated).await.expect(201));
    for n in 0..signed.len() {
        let bytes = hex::decode(&text(&signed[n], "signed_tx")[2..]).unwrap();
        let name = ["signed bytes 0", "signed bytes 1", "signed bytes 2", "signed bytes 3", "signed bytes 4"][n];
        // Everything behind the last field that is public: r and s.
        canaries.0.insert(name, bytes[bytes.len() - 48..].to_vec());
    }
    for body in [
        pay("5"),
        json!({"to": scalar, "value": "0.1", "chain": "base"}),
        json!({"to": agent.signer, "value": scalar, "chain": "base"}),
        json!({"to": agent.signer, "value": "0.1", "chain": "base", "signing_key_path": "keys/none"}),
        json!({"to": agent.signer, "value": "0.1", "chain": "base", "private_key": 7, "mode": "smart_account"}),
    ] {
        let reply = agent.submit(body).await;
        assert!(reply.status.is_client_error(), "{}", reply.body);
        // What the caller itself wrote into a public field may come back to it, and to it alone.
        if !reply.body.to_string().contains(&scalar[2..]) {
            replies.keep(reply);
        }
    }
    for act in
        [Act::Http(500), Act::Garbage(b"<html>".to_vec()), Act::error(-32000, "upstream says no"), Act::DropRequest]
    {
        rpc.on_everything(act);
        replies.keep(agent.submit(pay("0.001")).await).refused(503);
    }
    rpc.clear();
    rpc.on("eth_sendRawTransaction", Act::error(-32000, "some new refusal"));
    let held = replies.keep(agent.client.post(&agent.path(), &pay("0.001")).await);
    assert_eq!(held.status, 201);
    replies.0.pop();
    rpc.clear();
    signal_all(&backends(&stack)[..1], rustix::process::Signal::KILL);
    let recovered = async || agent.client.get(&agent.path()).await.status == 200;
    until(std::time::Duration::from_secs(20), "the database is back", recovered).await;
    stack.assert_settled("base", agent.signer, 0, 6).await;
    replies.keep(stack.owner.get("/v1/audit/events?limit=1000").await).expect(200);

    // Everything that got out.
    stack.daemons[0].signal(rustix::process::Signal::TERM);
    let _ = stack.daemons[0].ended().await;
    let log = stack.daemons[0].log_text();
    assert!(log.len() > 100_000 && log.contains("\"TRACE\""), "the log is not at trace: {} bytes", log.len());
    canaries.assert_absent("a log line", &log, &[]);
    for reply in &replies.0 {
        canaries.assert_absent("a reply", reply, &[]);
    }
    let audit: Vec<(Value,)> =
        sqlx::query_as("SELECT to_jsonb(e) FROM audit_events e").fetch_all(&stack.db).await.unwrap();
    assert!(audit.len() > 20, "{} audit rows", audit.len());
    for (row,) in &audit {
        canaries.assert_absent("an audit row", &row.to_string(), &[]);
    }
    // Signed bytes are in one table, which is what they are there for.
    let bytes = ["signed bytes 0", "signed bytes 1", "signed bytes 2", "signed bytes 3", "signed bytes 4"];
    canaries.assert_absent("the database", &dump(&stack, &["--exclude-table-data=attempts"]), &[]);
    canaries.assert_absent("the database", &dump(&stack, &[]), &bytes);
}

/// The whole database as text; binary columns are hex in it.
pub fn dump(stack: &Stack, arguments: &[&str]) -> String {
    let newest =
        std::fs::read_dir("/usr/lib/postgresql").unwrap().flatten().map(|entry| entry.path().join("bin/pg_dump"));
    let program = newest.filter(|path| path.exists()).max().unwrap_or_else(|| "pg_dump".into());
    let output =
        Command::new(program).arg("--dbname").arg(stack.postgres.url("intentd")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dump = String::from_utf8(output.stdout).unwrap();
    assert!(dump.contains("COPY public.secret_versions") && dump.len() > 10_000);
    dump
}
