//! The end of keys: those on the token that nothing needs, and signing keys that were replaced.

use serde_json::json;

use super::{admin, admin_fails, age, all_open, begin, filled, kek, quick, reaches, state_of};
use crate::harness::stack::{Stack, pay, text, until};

#[tokio::test]
async fn a_retired_key_is_taken_off_the_token_by_an_operator_who_has_read_what_is_lost() {
    let stack = Stack::with(quick(2, vec![], &[])).await;
    let vault = filled(&stack, 3, 3).await;
    for purpose in ["seal", "mac", "data", "jwt", "audit"] {
        let old = begin(&stack, purpose).await;
        if purpose == "jwt" {
            reaches(&stack, &old, "retiring").await;
            age(&stack, &old).await;
        }
        reaches(&stack, &old, "retired").await;
        let new = kek(&stack, purpose, "active").await.unwrap();
        let said = admin_fails(&stack, &["hsm", "destroy-kek", &new, "--confirm", &new]);
        assert!(said.contains("only a retired key"), "{said}");
        for unsure in [vec![], vec!["--confirm", new.as_str()]] {
            let said = admin_fails(&stack, &[vec!["hsm", "destroy-kek", old.as_str()], unsure].concat());
            assert!(said.contains("any backup") || said.contains("no backup"), "{said}");
            assert!(said.contains("nothing was destroyed") && said.contains(&format!("--confirm {old}")), "{said}");
            assert_eq!(state_of(&stack, &old).await, "retired");
        }
        let said = admin(&stack, &["hsm", "destroy-kek", &old, "--confirm", &old]);
        assert!(said.contains("off the token"), "{said}");
        assert_eq!(state_of(&stack, &old).await, "destroyed");
        for action in ["kek.destroy", "kek.destroyed"] {
            let sql = format!("SELECT count(*) FROM audit_events WHERE action = '{action}' AND resource_id = '{old}'");
            assert_eq!(stack.count(&sql).await, 1);
        }
        admin_fails(&stack, &["hsm", "destroy-kek", &old, "--confirm", &old]);
    }
    for daemon in &stack.daemons {
        all_open(&stack, &stack.owner.at(&daemon.url), &vault, 3).await;
    }
    assert!(admin(&stack, &["hsm", "check"]).contains("SHA256"), "the module is looked at");
}

async fn destroyed_after_its_time(custody: &'static str) {
    let mut stack = Stack::with(quick(1, vec![("base", 8453)], &[("INTENTD_HSM_CUSTODY", custody)])).await;
    stack.options.sign_only_ttl_s = 900;
    let agent = stack.agent(json!({})).await;
    let keys = format!("/v1/agents/{}/signing-keys", agent.id);
    let first = stack.owner.post(&keys, &json!({"chain": "ethereum"})).await.expect(201);
    assert_eq!(first["custody"], custody);
    let address = text(&first, "address");
    stack.chain().set_balance(address.parse().unwrap(), "1000000000000000000".parse().unwrap()).await;
    // Signed, and not broadcast: the key still owes its nonce.
    let signed = agent.sign(pay("0.01")).await.expect(200);
    assert_eq!(signed["from"], address);
    let second = stack.owner.post(&format!("{keys}/ethereum/rotate"), &json!({})).await.expect(200);
    let (first, second) = (text(&first, "id"), text(&second, "id"));
    let objects = format!("SELECT count(*) FROM signing_keys WHERE id = '{first}' AND state = 'superseded'");
    let confirm = ["keys", "destroy", "--older-than", "30d", "--confirm"];

    let too_recent = admin(&stack, &confirm);
    assert!(too_recent.contains(&first) && too_recent.contains("keep"), "{too_recent}");
    assert!(!too_recent.contains(&second), "only superseded keys are looked at: {too_recent}");
    stack.sql("UPDATE signing_keys SET superseded_at = now() - interval '31 days' WHERE state = 'superseded'").await;
    let open = admin(&stack, &confirm);
    assert!(open.contains("1 of its transactions are not final yet"), "{open}");
    assert_eq!(stack.count(&objects).await, 1);

    let raw = text(&signed, "signed_tx");
    stack.chain().request("eth_sendRawTransaction", json!([raw])).await;
    stack.assert_settled("base", address.parse().unwrap(), 0, 1).await;
    let listed = admin(&stack, &["keys", "destroy", "--older-than", "30d"]);
    assert!(listed.contains(&format!("destroy  {first}")) && listed.contains("Nothing was changed"), "{listed}");
    assert_eq!(stack.count(&objects).await, 1);
    let elsewhere = uuid::Uuid::new_v4().to_string();
    admin(&stack, &[&confirm[..], &["--vault", &elsewhere]].concat());
    assert_eq!(stack.count(&objects).await, 1, "another vault was named");

    let done = admin(&stack, &confirm);
    assert!(done.contains(&format!("destroyed  {first}")), "{done}");
    let erased = format!(
        "SELECT count(*) FROM signing_keys WHERE id = '{first}' AND state = 'destroyed' AND num_nonnulls(blob, cka_id, mac, kek_id) = 0
         AND destroyed_at IS NOT NULL"
    );
    assert_eq!(stack.count(&erased).await, 1);
    let event =
        format!("SELECT count(*) FROM audit_events WHERE action = 'signing_key.destroy' AND resource_id = '{first}'");
    assert_eq!(stack.count(&event).await, 1);
    assert!(!admin(&stack, &confirm).contains(&first), "once");

    // The other keys sign; what the destroyed one sent is still told of; the rotation passes it by.
    let current = stack.owner.get(&keys).await.expect(200)["keys"][0]["address"].as_str().unwrap().to_owned();
    stack.chain().set_balance(current.parse().unwrap(), "1000000000000000000".parse().unwrap()).await;
    assert_eq!(agent.submit(pay("0.01")).await.expect(201)["from"], current);
    agent.transaction(&text(&signed, "id")).await;
    let waited = admin(&stack, &["hsm", "rotate", "mac", "--wait"]);
    assert!(
        waited.contains("done: the new `mac` key is in use") && kek(&stack, "mac", "retiring").await.is_none(),
        "{waited}"
    );
    let good = admin(&stack, &["check"]);
    assert!(good.contains("belong together"), "{good}");
    until(super::SOON, "it signs on", async || agent.submit(pay("0.01")).await.status == 201).await;
}

#[tokio::test]
async fn a_superseded_key_is_destroyed_by_the_operator_after_its_time_and_never_with_open_nonces() {
    destroyed_after_its_time("wrapped").await;
}

#[tokio::test]
async fn a_superseded_key_on_the_token_is_taken_off_it_likewise() {
    destroyed_after_its_time("token").await;
}
