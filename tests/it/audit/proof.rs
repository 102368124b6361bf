//! What a tamperer with all rights on the database can do, and what shows it: over HTTP, and in an exported file.

use intentd::audit::rules::Trail;
use intentd::audit::{Actor, Event, Resource};
use intentd::ids::{EventId, OrgId};
use serde_json::{Value, json};

use super::scene::{AT, Scene};
use super::{SOON, linked, verified, whole};
use crate::harness::client::Client;
use crate::harness::stack::{text, until};

#[tokio::test]
async fn what_a_tamperer_does_to_events_and_links_is_found_online_and_offline() {
    let scene = Scene::set().await;
    assert_eq!(scene.online().await, None);
    let (code, said) = scene.offline_with(&scene.export(), true, &["--trail", scene.org()]);
    assert!(code == 0 && said.contains("whole, links 1 to") && said.contains("proven"), "{code} {said}");

    let org = scene.org().to_owned();
    let (here, next) = (scene.event_at(AT).await, scene.event_at(AT + 1).await);
    let length = scene.length().await;
    let of = format!("org_id = '{org}'");
    let spare = uuid::Uuid::new_v4();
    let copy = format!(
        "INSERT INTO audit_events SELECT '{spare}', org_id, action, actor_type, actor_id, resource_type, resource_id, details, ip_address,
             created_at, hash FROM audit_events WHERE id = '{here}'"
    );
    let cases: Vec<(&str, String, &str, Option<i64>)> = vec![
        (
            "an event edited",
            format!("UPDATE audit_events SET details = details || '{{\"a\": 1}}' WHERE id = '{here}'"),
            "edited",
            Some(AT),
        ),
        (
            "an event given to another organisation",
            format!("UPDATE audit_events SET org_id = NULL WHERE id = '{here}'"),
            "edited",
            Some(AT),
        ),
        ("an event removed", format!("DELETE FROM audit_events WHERE id = '{here}'"), "removed", Some(AT)),
        (
            "an event removed with its link",
            format!("DELETE FROM audit_events WHERE id = '{here}'; DELETE FROM audit_links WHERE event_id = '{here}'"),
            "removed",
            Some(AT),
        ),
        (
            "a link removed",
            format!("DELETE FROM audit_links WHERE event_id = '{here}'"),
            "removed",
            Some(AT),
        ),
        (
            "two events in another order",
            format!(
                "UPDATE audit_links SET event_id = '{spare}' WHERE event_id = '{here}';
                 UPDATE audit_links SET event_id = '{here}' WHERE event_id = '{next}';
                 UPDATE audit_links SET event_id = '{next}' WHERE event_id = '{spare}'"
            ),
            "reordered",
            Some(AT),
        ),
        ("an event put in past the trail", copy, "inserted", None),
        (
            "an event put in with a link between two others",
            format!(
                "UPDATE audit_links SET seq = seq + 1000 WHERE {of} AND seq >= {AT};
                 UPDATE audit_links SET seq = seq - 999 WHERE {of} AND seq >= 1000;
                 INSERT INTO audit_links SELECT org_id, {AT}, '{spare}', hash, sha256(hash) FROM audit_links WHERE {of} AND seq = {AT} - 1;
                 UPDATE audit_heads SET seq = seq + 1 WHERE {of}"
            ),
            "inserted",
            Some(AT),
        ),
        (
            "an event there twice",
            format!(
                "INSERT INTO audit_events SELECT id, org_id, action, actor_type, actor_id, resource_type, resource_id, details, ip_address,
                     created_at + interval '1 second', hash FROM audit_events WHERE id = '{here}'"
            ),
            "inserted",
            Some(AT),
        ),
        (
            "the end cut off, and the head put back",
            format!(
                "DELETE FROM audit_events e USING audit_links l WHERE l.event_id = e.id AND l.{of} AND l.seq > {length} - 3;
                 DELETE FROM audit_links WHERE {of} AND seq > {length} - 3;
                 UPDATE audit_heads h SET checkpoint_seq = 0, seq = {length} - 3,
                     hash = (SELECT hash FROM audit_links WHERE {of} AND seq = {length} - 3) WHERE h.{of}"
            ),
            "truncated",
            Some(length - 2),
        ),
        (
            "the end cut off, and the head left",
            format!(
                "DELETE FROM audit_events e USING audit_links l WHERE l.event_id = e.id AND l.{of} AND l.seq > {length} - 3;
                 DELETE FROM audit_links WHERE {of} AND seq > {length} - 3; DELETE FROM audit_checkpoints WHERE {of}"
            ),
            "truncated",
            Some(length - 2),
        ),
        (
            "everything gone",
            format!("DELETE FROM audit_events; DELETE FROM audit_links; DELETE FROM audit_heads WHERE {of}"),
            "truncated",
            Some(1),
        ),
        (
            "a checkpoint forged",
            format!("UPDATE audit_checkpoints SET signature = signature || '' , hash = sha256(hash) WHERE {of} AND seq = {length}"),
            "forged",
            Some(length),
        ),
    ];
    for (what, sql, kind, seq) in cases {
        if what.contains("with a link between") {
            scene.forge(EventId(spare)).await;
        }
        scene.tamper(&sql).await;
        assert_eq!(scene.online().await, Some((kind.to_owned(), seq)), "{what}");
        let (code, said) = scene.offline(&scene.export(), false);
        // A truncation without any checkpoint left is told by the head in the file.
        let expected = if what.starts_with("everything") {
            said.contains("BROKEN (truncated)")
        } else {
            said.contains(&format!("BROKEN ({kind})"))
        };
        assert!(code == 3 && expected, "{what}: {code} {said}");
        if let Some(seq) = seq {
            assert!(said.contains(&format!("at link {seq}")), "{what}: {said}");
        }
        scene.restore().await;
        assert_eq!(scene.online().await, None, "{what}, undone");
    }

    // A part of a file: from behind a link that was seen before, and cut off.
    let tail =
        scene.stack.command().args(["audit", "export", "--organisation-id", &org, "--after", "12"]).output().unwrap();
    let part = scene.folder.join("part.jsonl");
    std::fs::write(&part, &tail.stdout).unwrap();
    let (code, said) = scene.offline_with(&part, true, &["--after", "12", "--trail", &org]);
    assert!(code == 0 && said.contains("links 13 to"), "{code} {said}");
    let (code, said) = scene.offline(&part, true);
    assert!(code == 3 && said.contains("BROKEN (removed) at link 1:"), "{code} {said}");
    for cut in [tail.stdout.len() - 2, tail.stdout.len() / 2] {
        std::fs::write(&part, &tail.stdout[..cut]).unwrap();
        let (code, said) = scene.offline_with(&part, false, &["--after", "12"]);
        assert!(code == 3 && said.contains("BROKEN (truncated)"), "{code} {said}");
    }
    std::fs::write(&part, "{\"type\":\"something\"}\n").unwrap();
    assert_eq!(scene.offline(&part, false).0, 1);
}

#[tokio::test]
async fn only_the_signed_checkpoint_betrays_whoever_computes_everything_anew() {
    let mut scene = Scene::set().await;
    let org = scene.org().to_owned();
    let of = format!("org_id = '{org}'");
    let begin: Value = scene.stack.owner.get(&format!("/v1/audit/verify?from_checkpoint={}", AT + 5)).await.expect(200);
    assert!(begin["chain_valid"] == true && begin["links"]["after"].as_i64() > Some(0), "{begin}");
    scene.stack.owner.get("/v1/audit/verify?from_checkpoint=0").await.refused(404);

    scene.rewrite().await;
    let (kind, seq) = scene.online().await.unwrap();
    assert!(kind == "rewritten" && seq >= Some(AT), "{kind} {seq:?}");
    let begun = scene.stack.owner.get("/v1/audit/verify?from_checkpoint=1000000").await.expect(200);
    assert_eq!((&begun["chain_valid"], &begun["broken"]["kind"]), (&json!(false), &json!("rewritten")), "{begun}");
    let file = scene.export();
    let (code, said) = scene.offline(&file, false);
    assert!(code == 3 && said.contains("BROKEN (rewritten)"), "{code} {said}");

    // Without the checkpoints nothing in the database tells; without a proof nothing is called proven; the file outside tells.
    scene.tamper(&format!("DELETE FROM audit_checkpoints WHERE {of}")).await;
    let last = verified(&scene.stack).await.pop().unwrap();
    assert_eq!((&last["chain_valid"], &last["proven_to"]), (&json!(true), &json!(null)), "{last}");
    let file = scene.export();
    let (code, said) = scene.offline(&file, false);
    assert!(code == 4 && said.contains("NOT PROVEN"), "{code} {said}");
    let (code, said) = scene.offline(&file, true);
    assert!(code == 3 && said.contains("BROKEN (rewritten)"), "{code} {said}");

    // Nobody gets a signature for it: neither from the daemon that has signed the chain before, nor from one that only has the file.
    scene.tamper(&format!("UPDATE audit_heads SET checkpoint_seq = 0, checkpoint_at = 'epoch' WHERE {of}")).await;
    scene.stack.add_daemon("second").await;
    for daemon in &scene.stack.daemons {
        until(SOON, "it refuses", async || daemon.log_text().contains("AUDIT CHAIN NOT SIGNED")).await;
    }
    assert_eq!(scene.stack.count(&format!("SELECT count(*) FROM audit_checkpoints WHERE {of}")).await, 0);

    // Nor do checkpoints help that are signed by a key of the tamperer's own, which they put among ours.
    let pair = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap();
    let public = aws_lc_rs::signature::KeyPair::public_key(&pair).as_ref().to_vec();
    let (own, org_id): (uuid::Uuid, OrgId) = (uuid::Uuid::new_v4(), org.parse().unwrap());
    let (seq, hash): (i64, Vec<u8>) = sqlx::query_as("SELECT seq, hash FROM audit_heads WHERE org_id = $1")
        .bind(org_id)
        .fetch_one(&scene.stack.db)
        .await
        .unwrap();
    let mut checkpoint = intentd::audit::rules::Checkpoint {
        trail: Trail(Some(org_id)),
        seq: seq.unsigned_abs(),
        hash: hash.try_into().unwrap(),
        created_at: intentd::clock::now(),
        key_id: intentd::ids::KekId(own),
        signature: [0; 64],
    };
    checkpoint.signature = pair.sign(&checkpoint.message()).as_ref().try_into().unwrap();
    assert!(checkpoint.is_signed_by(public.as_slice().try_into().unwrap()));
    scene
        .tamper(&format!(
            "INSERT INTO keks (id, purpose, state, cka_id, mechanism, public_key, canary)
                 VALUES ('{own}', 'audit', 'destroyed', decode(repeat('ab', 16), 'hex'), 0, '\\x{}', '{{}}');
             INSERT INTO audit_checkpoints VALUES ('{org}', {seq}, '\\x{}', '{}', '{own}', '\\x{}')",
            hex::encode(&public),
            hex::encode(checkpoint.hash),
            intentd::clock::rfc3339(checkpoint.created_at),
            hex::encode(checkpoint.signature),
        ))
        .await;
    let last = verified(&scene.stack).await.pop().unwrap();
    assert_eq!((&last["proven_to"], &last["checkpoints_of_other_keys"]), (&json!(null), &json!(1)), "{last}");
    assert!(text(&last, "verdict").contains("not proven"), "{last}");
    let file = scene.export();
    let (code, said) = scene.offline(&file, false);
    assert!(code == 4 && said.contains("other keys"), "{code} {said}");
    // Who believes the keys in the file believes the tamperer, and is told so.
    let (code, said) = scene.judge(&file, &[]);
    assert!(code == 0 && said.contains("--key"), "{code} {said}");
    scene.restore().await;
    whole(&scene.stack).await;
}

#[tokio::test]
async fn an_export_over_http_is_the_trail_and_is_written_down() {
    let scene = Scene::set().await;
    let owner = &scene.stack.owner;
    let fetch = async |path: &str| {
        let response = owner.request(reqwest::Method::GET, path).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        response.text().await.unwrap()
    };
    let exported = fetch("/v1/audit/export").await;
    let file = scene.folder.join("http.jsonl");
    std::fs::write(&file, &exported).unwrap();
    let (code, said) = scene.offline_with(&file, true, &["--trail", scene.org()]);
    assert!(code == 0 && said.contains("proven"), "{code} {said}");
    assert!(!exported.contains("1ck_") && !exported.contains("\"value\""));
    let count = |kind: &str| exported.lines().filter(|line| line.contains(&format!("\"type\":\"{kind}\""))).count();
    assert!(count("event") > 25 && count("checkpoint") >= 2, "{exported}");
    let written = "SELECT count(*) FROM audit_events WHERE action = 'audit.export'";
    assert_eq!(scene.stack.count(written).await, 1);
    linked(&scene.stack).await;
    let part = fetch("/v1/audit/export?after=20").await;
    std::fs::write(&file, &part).unwrap();
    let (code, said) = scene.offline_with(&file, true, &["--after", "20", "--trail", scene.org()]);
    assert!(code == 0 && said.contains("links 21 to"), "{code} {said}");
    owner.get("/v1/audit/export?after=100000").await.refused(404);
    owner.get("/v1/audit/export?after=18446744073709551615").await.refused(400);
    owner.get("/v1/audit/events?offset=10001").await.refused(400);
    // Another organisation's owner gets their own.
    let other = scene.stack.organisation("Other").await;
    let theirs = scene.stack.human(&other, "owner").await.client;
    let reply = theirs.request(reqwest::Method::GET, "/v1/audit/export").send().await.unwrap().text().await.unwrap();
    assert!(!reply.contains(scene.org()) && reply.contains(&other), "{reply}");
    // The installation's own trail is the operator's.
    let own = Event::new(Actor::System, "test.event", Resource::kind("test"));
    intentd::audit::record(&mut scene.stack.db.acquire().await.unwrap(), own).await.unwrap();
    let all = scene.stack.command().args(["audit", "export"]).output().unwrap();
    std::fs::write(&file, &all.stdout).unwrap();
    let (code, said) = scene.judge(&file, &[]);
    assert!(code == 0 && said.contains("the installation itself") && said.contains(&other), "{code} {said}");
    let _ = Client::send(owner.request(reqwest::Method::GET, "/v1/audit/keys")).await.expect(200);

    // A trail whose rows somebody has changed keeps no other one waiting, whether its events come before or together with the others'.
    linked(&scene.stack).await;
    scene
        .tamper(&format!("UPDATE audit_heads SET seq = seq - 1, checkpoint_seq = 0 WHERE org_id = '{}'", scene.org()))
        .await;
    let mut tx = scene.stack.db.begin().await.unwrap();
    for org in [scene.org(), &other] {
        let event = Event::by_system(org.parse().unwrap(), "test.event", Resource::kind("test"));
        intentd::audit::record(&mut tx, event).await.unwrap();
    }
    tx.commit().await.unwrap();
    let waits = async |org: &str| {
        scene.stack.count(&format!("SELECT count(*) FROM audit_unlinked WHERE org_id = '{org}'")).await > 0
    };
    until(SOON, "the other is linked", async || !waits(&other).await).await;
    assert!(waits(scene.org()).await && scene.stack.daemons[0].log_text().contains("cannot be linked"));
}
