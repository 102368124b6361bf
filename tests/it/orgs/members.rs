use serde_json::{Value, json};

use super::{Human, human, last_event, other_org};
use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack};

async fn set_role(by: &Human, whom: &Human, role: &str) -> (u16, Value) {
    let reply = by.client.patch(&format!("/v1/org/members/{}", whom.id), &json!({"role": role})).await;
    (reply.status.as_u16(), reply.body)
}

async fn role_of(stack: &Stack, human: &Human) -> String {
    sqlx::query_scalar("SELECT role FROM users WHERE id = $1").bind(human.id).fetch_one(&stack.db).await.unwrap()
}

#[tokio::test]
async fn two_owners_who_demote_each_other_at_once_leave_one() {
    let stack = Stack::with(Options { daemons: 2, chains: Vec::new(), ..Options::default() }).await;
    // The stack's first owner would be a third.
    stack.sql("UPDATE users SET role = 'member'").await;
    let (a, b) = (human(&stack, "owner").await, human(&stack, "owner").await);
    let there =
        |human: &Human, daemon: usize| Human { id: human.id, client: human.client.at(&stack.daemons[daemon].url) };
    for round in 0..12 {
        let (a, b) = (there(&a, round % 2), there(&b, (round + 1) % 2));
        // By turns they demote each other, remove each other, and leave.
        let (first, second) = match round % 3 {
            0 => tokio::join!(set_role(&a, &b, "member"), set_role(&b, &a, "admin")),
            1 => {
                let gone = |human: &Human| format!("/v1/org/members/{}", human.id);
                let (x, y) = (gone(&b), gone(&a));
                let (x, y) = tokio::join!(a.client.delete(&x), b.client.delete(&y));
                ((x.status.as_u16(), x.body), (y.status.as_u16(), y.body))
            }
            _ => tokio::join!(set_role(&a, &a, "member"), set_role(&b, &b, "member")),
        };
        let passed = [&first, &second].iter().filter(|(status, _)| [200, 204].contains(status)).count();
        assert_eq!(passed, 1, "round {round}: {first:?} {second:?}");
        let owners = stack.count("SELECT count(*) FROM users WHERE role = 'owner' AND is_active").await;
        assert_eq!(owners, 1, "round {round}");
        stack
            .sql(&format!(
                "UPDATE users SET role = 'owner', is_active = true WHERE id IN ('{0}', '{1}');
                 UPDATE user_api_keys SET is_active = true WHERE user_id IN ('{0}', '{1}')",
                a.id, b.id
            ))
            .await;
    }
}

#[tokio::test]
async fn roles_are_given_by_those_above_and_taken_with_everything_that_hangs_on_them() {
    let stack = Stack::with(Options { chains: Vec::new(), ..Options::default() }).await;
    let owner_id = stack.install.owner["user_id"].as_str().unwrap().parse().unwrap();
    let owner = Human { id: owner_id, client: stack.owner.clone() };
    let (admin, member) = (human(&stack, "admin").await, human(&stack, "member").await);
    let (other_admin, second_owner) = (human(&stack, "admin").await, human(&stack, "owner").await);

    // Whom each may not touch, and what nobody gives themself.
    for (by, whom, role) in [
        (&member, &member, "admin"),
        (&member, &member, "owner"),
        (&member, &admin, "member"),
        (&admin, &admin, "owner"),
        (&admin, &member, "owner"),
        (&admin, &owner, "member"),
        (&admin, &second_owner, "admin"),
    ] {
        let before = role_of(&stack, whom).await;
        let (status, body) = set_role(by, whom, role).await;
        assert_eq!(status, 403, "{role}: {body}");
        assert_eq!(role_of(&stack, whom).await, before);
    }
    for by in [&admin, &member] {
        by.client.delete(&format!("/v1/org/members/{}", owner.id)).await.refused(403);
    }
    assert_eq!(last_event(&stack, "access.denied").await["asked"], "member.manage", "refusals are written down");
    for bad in [json!({}), json!({"role": "root"}), json!({"role": null}), json!({"role": 1})] {
        owner.client.patch(&format!("/v1/org/members/{}", member.id), &bad).await.refused(400);
    }

    // What they may.
    let (status, body) = set_role(&admin, &member, "admin").await;
    assert_eq!((status, &body["role"], &body["id"]), (200, &json!("admin"), &json!(member.id)));
    let event = last_event(&stack, "member.update").await;
    assert_eq!((&event["before"]["role"], &event["after"]["role"]), (&json!("member"), &json!("admin")));
    assert_eq!(set_role(&admin, &member, "member").await.0, 200);
    assert_eq!(set_role(&admin, &admin, "member").await.0, 200, "anybody may take less");
    assert_eq!(set_role(&owner, &second_owner, "admin").await.0, 200);
    let (status, body) = set_role(&owner, &owner, "admin").await;
    assert_eq!(status, 409, "{body}");
    owner.client.delete(&format!("/v1/org/members/{}", owner.id)).await.refused(409);

    // Another organisation's people are not there, and neither is nobody.
    let (_, foreign) = other_org(&stack).await;
    for id in [owner.id, uuid::Uuid::new_v4()] {
        foreign.patch(&format!("/v1/org/members/{id}"), &json!({"role": "member"})).await.refused(404);
        foreign.delete(&format!("/v1/org/members/{id}")).await.refused(404);
    }

    // Removal: the key, a session of it, a session by password, and the policies end; a grant of rights over others is not enough.
    let token = member.client.by(None).post("/v1/auth/api-key-token", &json!({"api_key": member.client.bearer})).await;
    let session = member.client.by(token.expect(200)["access_token"].as_str());
    session.get("/v1/org/members").await.expect(200);
    let vault = stack.owner.post("/v1/vaults", &json!({"name": "v"})).await.expect(201);
    let policies = format!("/v1/vaults/{}/policies", vault["id"].as_str().unwrap());
    let grant = json!({"secret_path_pattern": "**", "principal_type": "user", "principal_id": member.id, "permissions": ["read"]});
    stack.owner.post(&policies, &grant).await.expect(201);
    member.client.post("/v1/auth/mfa/setup", &json!({})).await.expect(200);
    member.client.patch("/v1/auth/me", &json!({"display_name": "Ada"})).await.expect(200);
    let epoch = "SELECT auth_epoch::bigint FROM users WHERE id = ";
    let before = stack.count(&format!("{epoch}'{}'", member.id)).await;
    other_admin.client.delete(&format!("/v1/org/members/{}", member.id)).await.expect(204);
    for gone in [&member.client, &session] {
        gone.get("/v1/org/members").await.refused(401);
    }
    assert!(stack.count(&format!("{epoch}'{}'", member.id)).await > before, "sessions by password end too");
    assert_eq!(stack.owner.get(&policies).await.expect(200), json!({"policies": []}));
    stack.owner.post(&policies, &grant).await.refused(400);
    assert_eq!(stack.count("SELECT count(*) FROM second_factors").await, 0, "nothing of theirs is kept");
    assert_eq!(stack.count("SELECT count(*) FROM users WHERE display_name IS NOT NULL").await, 0);
    let event = last_event(&stack, "member.remove").await;
    assert_eq!((&event["policies_ended"], &event["api_keys_ended"]), (&json!(1), &json!(1)), "{event}");
    other_admin.client.delete(&format!("/v1/org/members/{}", member.id)).await.refused(404);

    let listed = admin.client.get("/v1/org/members").await.expect(200);
    let listed = listed["members"].as_array().unwrap();
    assert_eq!(listed.len(), 4, "{listed:?}");
    for field in ["id", "email", "display_name", "role", "auth_method", "created_at"] {
        assert!(listed[0].get(field).is_some(), "{field}");
    }
}

/// Whoever changes members, invites, joins, leaves or changes their own account waits for the others, and never in a circle.
#[tokio::test]
async fn what_changes_the_same_people_at_once_takes_its_turns() {
    let stack = Stack::with(Options { daemons: 2, chains: Vec::new(), ..Options::default() }).await;
    let inviter = human(&stack, "owner").await;
    let pair = (stack.owner.clone(), stack.owner.at(&stack.daemons[1].url));
    let turns = async |n: usize| {
        let leaver = human(&stack, "owner").await;
        let here = leaver.client.at(&stack.daemons[n % 2].url);
        let there = leaver.client.at(&stack.daemons[(n + 1) % 2].url);
        let (token, email) = (format!("{n:043}"), format!("turn-{n}@example.test"));
        stack
            .sql(&format!(
                "INSERT INTO invitations (id, org_id, email, role, token_hash, invited_by, expires_at)
                 VALUES (gen_random_uuid(), '{}', '{email}', 'member', sha256('{token}'), '{}', now() + interval '1 day')",
                stack.org_id, inviter.id
            ))
            .await;
        let member = format!("/v1/org/members/{}", leaver.id);
        let (yes, admin, name) =
            (json!({"confirm": "DELETE MY ACCOUNT"}), json!({"role": "admin"}), json!({"display_name": "x"}));
        let (empty, key, again) = (json!({}), json!({"name": "k"}), json!({"email": email, "role": "member"}));
        let join = json!({"token": token, "password": "Correct-Horse-7-Battery"});
        let nobody: Client = pair.1.by(None);
        let replies = tokio::join!(
            here.delete_with("/v1/auth/me", &yes),
            there.post("/v1/auth/mfa/setup", &empty),
            there.patch("/v1/auth/me", &name),
            there.post("/v1/auth/api-keys", &key),
            pair.0.patch(&member, &admin),
            pair.1.patch(&member, &admin),
            nobody.post("/v1/auth/accept-invite", &join),
            inviter.client.post("/v1/org/invite", &again),
        );
        let (a, b, c, d, e, f, g, h) = replies;
        [a, b, c, d, e, f, g, h].into_iter().enumerate().for_each(|(what, reply)| {
            // Passwords are hashed a few at a time.
            let busy = reply.status == 503 && reply.body.to_string().contains("passwords");
            assert!(reply.status.as_u16() < 500 || busy, "round {n}, request {what}: {}", reply.body);
        });
    };
    for n in 0..24 {
        turns(n).await;
    }
}
