use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{human, last_event, other_org, run};
use crate::harness::client::{Client, Reply};
use crate::harness::stack::{Options, Stack, until};

/// The token of an invitation that the operator makes.
fn invited(stack: &Stack, email: &str, role: &str) -> String {
    let mut command = stack.command();
    command.args(["admin", "invite", "--organisation-id", &stack.org_id, "--email", email, "--role", role, "--json"]);
    let made: Value = serde_json::from_slice(&run(command)).unwrap();
    made["token"].as_str().unwrap().to_owned()
}

async fn accept(client: &Client, token: &str) -> Reply {
    let body = json!({"token": token, "password": "Correct-Horse-7-Battery", "display_name": "New"});
    client.by(None).post("/v1/auth/accept-invite", &body).await
}

#[tokio::test]
async fn an_invitation_is_good_once_for_a_while_and_for_what_its_giver_may_give() {
    let stack = Stack::with(Options { daemons: 2, chains: Vec::new(), ..Options::default() }).await;
    let (admin, member) = (human(&stack, "admin").await, human(&stack, "member").await);
    let invite = async |by: &Client, email: &str, role: &str| {
        by.post("/v1/org/invite", &json!({"email": email, "role": role})).await
    };

    // Who may invite as what. The token is in no reply, and only its hash in the table.
    invite(&member.client, "x@example.test", "member").await.refused(403);
    invite(&admin.client, "x@example.test", "owner").await.refused(403);
    let made = invite(&admin.client, " New.Admin@Example.test ", "admin").await.expect(200);
    assert_eq!((&made["email"], &made["role"]), (&json!("new.admin@example.test"), &json!("admin")));
    assert!(!made.to_string().contains("token"), "{made}");
    assert_eq!(last_event(&stack, "member.invite").await, json!({"email": "new.admin@example.test", "role": "admin"}));
    for bad in [json!({}), json!({"email": "nobody"}), json!({"email": "a@b", "role": "root"})] {
        stack.owner.post("/v1/org/invite", &bad).await.refused(400);
    }
    invite(&stack.owner, "owner@example.test", "member").await.refused(409);
    let open = stack.owner.get("/v1/org/invitations").await.expect(200);
    assert_eq!(open["invitations"].as_array().unwrap().len(), 1);
    member.client.get("/v1/org/invitations").await.refused(403);
    let (_, foreign) = other_org(&stack).await;
    let path = format!("/v1/org/invitations/{}", made["id"].as_str().unwrap());
    foreign.delete(&path).await.refused(404);
    stack.owner.delete(&path).await.expect(204);
    stack.owner.delete(&path).await.refused(404);

    // The letter has a link, and what stands behind its # lets the reader in.
    invite(&stack.owner, "reader@example.test", "member").await.expect(200);
    let letters = || stack.letters("reader@example.test", "Invitation to");
    until(Duration::from_secs(20), "the letter", async || letters().len() == 1).await;
    let letter = letters().remove(0);
    let (_, rest) = letter.split_once("/accept-invite#").unwrap();
    let token: String = rest.chars().take_while(|c| !c.is_whitespace()).collect();
    let joined = accept(&stack.owner.at(&stack.daemons[1].url), &token).await.expect(200);
    assert_eq!(joined["email"], "reader@example.test");
    let proven = "SELECT count(*) FROM users WHERE email = 'reader@example.test' AND email_verified_at IS NOT NULL";
    assert_eq!(stack.count(proven).await, 1, "by the letter");

    // Of many who accept at once, on both daemons, one joins.
    let token = invited(&stack, "crowd@example.test", "member");
    let racing = (0..8).map(|i| {
        let client = stack.owner.at(&stack.daemons[i % 2].url);
        let token = token.clone();
        async move { accept(&client, &token).await.status.as_u16() }
    });
    let mut statuses = futures::future::join_all(racing).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [[200].as_slice(), &[400; 7]].concat());
    let joined = "SELECT count(*) FROM users WHERE email = 'crowd@example.test' AND role = 'member' AND is_active
                    AND password_hash LIKE '$argon2id$%'";
    assert_eq!(stack.count(joined).await, 1);
    assert_eq!(last_event(&stack, "member.join").await["email"], "crowd@example.test");

    // Not valid: used, replaced, withdrawn, expired, made up. They all read alike, and leave nothing.
    let replaced = invited(&stack, "again@example.test", "member");
    let good = invited(&stack, "again@example.test", "admin");
    let expired = invited(&stack, "late@example.test", "member");
    stack.sql("UPDATE invitations SET expires_at = now() WHERE email = 'late@example.test'").await;
    let users = stack.count("SELECT count(*) FROM users").await;
    let mut details = Vec::new();
    for token in [&token, &replaced, &expired, &"A".repeat(43), "x", ""] {
        details.push(accept(&stack.owner, token).await.refused(400));
    }
    details.dedup();
    assert_eq!(details.len(), 1, "{details:?}");
    let short = json!({"token": good, "password": "short"});
    stack.owner.by(None).post("/v1/auth/accept-invite", &short).await.refused(400);
    assert_eq!(stack.count("SELECT count(*) FROM users").await, users);
    let joined = accept(&stack.owner, &good).await.expect(200);
    assert_eq!((&joined["role"], &joined["org_id"]), (&json!("admin"), &json!(stack.org_id)));

    // One account for each address in the installation: told to who accepts, not to who invites.
    invite(&foreign, "again@example.test", "member").await.expect(200);
    let token = invited(&stack, "taken@example.test", "member");
    stack.sql("UPDATE invitations SET email = 'crowd@example.test' WHERE email = 'taken@example.test'").await;
    accept(&stack.owner, &token).await.refused(409);

    // What the inviter may not give any more is not given.
    for lost in ["role = 'member'", "is_active = false"] {
        let inviter = human(&stack, "admin").await;
        let email = format!("{}@example.test", Uuid::new_v4().simple());
        let token = invited(&stack, &email, "admin");
        let by = inviter.id;
        stack.sql(&format!("UPDATE invitations SET invited_by = '{by}' WHERE email = '{email}'")).await;
        stack.sql(&format!("UPDATE users SET {lost} WHERE id = '{by}'")).await;
        accept(&stack.owner, &token).await.refused(400);
    }

    // A letter box is not filled: three in ten minutes, whoever invites.
    for _ in 0..3 {
        invite(&stack.owner, "flooded@example.test", "member").await.expect(200);
    }
    let reply = invite(&foreign, "flooded@example.test", "member").await;
    assert_eq!(reply.status, 429);
    reply.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap();

    // No token is in a log or an audit row.
    let trail = stack.owner.get("/v1/audit/events?limit=1000").await.expect(200).to_string();
    for token in [&token, &good, &replaced] {
        assert!(!trail.contains(token.as_str()));
        assert!(stack.daemons.iter().all(|daemon| !daemon.log_text().contains(token.as_str())));
    }
}

#[tokio::test]
async fn open_invitations_are_bounded_and_somebody_who_left_may_come_back() {
    let stack = Stack::with(Options { daemons: 2, chains: Vec::new(), ..Options::default() }).await;
    stack
        .sql(&format!(
            "INSERT INTO invitations (id, org_id, email, role, token_hash, expires_at)
             SELECT gen_random_uuid(), '{}', n || '@example.test', 'member', sha256(n::text::bytea), now() + interval '1 day'
             FROM generate_series(1, 96) AS n",
            stack.org_id
        ))
        .await;
    let racing = (0..12).map(|i| {
        let client = stack.owner.at(&stack.daemons[i % 2].url);
        let body = json!({"email": format!("racing-{i}@example.test"), "role": "member"});
        async move { client.post("/v1/org/invite", &body).await.status.as_u16() }
    });
    let mut statuses = futures::future::join_all(racing).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [[200; 4].as_slice(), &[409; 8]].concat(), "a hundred, and no more");
    // An expired one makes room.
    stack.sql("UPDATE invitations SET expires_at = now() WHERE email = '1@example.test'").await;

    let token = invited(&stack, "back@example.test", "member");
    let id = accept(&stack.owner, &token).await.expect(200)["user_id"].as_str().unwrap().to_owned();
    stack.owner.delete(&format!("/v1/org/members/{id}")).await.expect(204);
    let token = invited(&stack, "back@example.test", "member");
    let again = accept(&stack.owner, &token).await.expect(200);
    assert_ne!(again["user_id"], json!(id), "as somebody new");
}
