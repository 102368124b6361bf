use serde_json::{Value, json};

use super::{ask, daemons, link, listed, open, post_empty, share, store, vault};

#[tokio::test]
async fn a_share_for_somebody_is_theirs_alone_and_only_once_accepted() {
    let stack = daemons(2).await;
    let (owner, nobody) = (&stack.owner, stack.owner.by(None));
    let secret = store(owner, &vault(owner).await, "a", json!({"value": "v"})).await;
    let (ann, bob) = (stack.human(&stack.org_id, "member").await, stack.human(&stack.org_id, "admin").await);
    let agent = stack.agent(json!({})).await;
    let other_org = stack.organisation("Other").await;
    let foreign = stack.human(&other_org, "owner").await.client;

    for (kind, id, recipient, other) in
        [("user", &ann.id, &ann.client, &agent.client), ("agent", &agent.id, &agent.client, &ann.client)]
    {
        let id = share(&stack, owner, &secret, &link(json!({"recipient_type": kind, "recipient_id": id}))).await;
        let recipient = recipient.at(&stack.daemons[1].url);
        let accept = format!("/v1/shares/{id}/accept");
        // To everybody else it is not there, and nothing tells it from a share that never was.
        let never = uuid::Uuid::new_v4().to_string();
        for client in [owner, &bob.client, other, &foreign, &nobody, &recipient] {
            let (reply, none) = (open(client, &id).await, open(client, &never).await);
            assert_eq!((reply.status, &reply.body), (none.status, &none.body));
            reply.refused(404);
        }
        for bearer in ["rubbish", &format!("ocv_{}", "A".repeat(43))] {
            let (reply, none) =
                (open(&nobody.by(Some(bearer)), &id).await, open(&nobody.by(Some(bearer)), &never).await);
            assert_eq!((reply.status, &reply.body), (none.status, &none.body));
            reply.refused(401);
        }
        for client in [owner, &bob.client, other, &foreign] {
            post_empty(client, &accept).await.refused(404);
            post_empty(client, &format!("/v1/shares/{id}/decline")).await.refused(404);
        }
        post_empty(&nobody, &accept).await.refused(401);

        let pending = &listed(&recipient, "inbound").await[0];
        assert_eq!(
            (&pending["id"], &pending["is_accepted"], &pending["secret_path"]),
            (&json!(id), &json!(false), &json!("a"))
        );
        assert_eq!(post_empty(&recipient, &accept).await.expect(204), Value::Null);
        post_empty(&recipient, &accept).await.expect(204);
        assert_eq!(open(&recipient, &id).await.expect(200)["value"], "v");
        for client in [owner, &bob.client, other, &foreign, &nobody] {
            open(client, &id).await.refused(404);
        }
        assert_eq!(listed(&recipient, "inbound").await[0]["is_accepted"], true);
        assert_eq!(listed(owner, "outbound").await[0]["is_accepted"], true);
        let readers: Vec<String> = sqlx::query_scalar("SELECT actor_type || ' ' || actor_id FROM audit_events WHERE action = 'secret.read' ORDER BY created_at DESC")
            .fetch_all(&stack.db).await.unwrap();
        assert!(readers[0].starts_with(kind), "{readers:?}");

        // A decline is final, and takes the acceptance back.
        post_empty(&recipient, &format!("/v1/shares/{id}/decline")).await.expect(204);
        post_empty(&recipient, &format!("/v1/shares/{id}/decline")).await.expect(204);
        open(&recipient, &id).await.refused(404);
        post_empty(&recipient, &accept).await.refused(410);
        assert!(listed(&recipient, "inbound").await.is_empty());
        assert_eq!(listed(owner, "outbound").await[0]["is_accepted"], false);
    }
    // An acceptance that comes too late.
    let id = share(&stack, owner, &secret, &link(json!({"recipient_type": "user", "recipient_id": ann.id}))).await;
    stack.sql("UPDATE shares SET expires_at = now()").await;
    post_empty(&ann.client, &format!("/v1/shares/{id}/accept")).await.refused(410);
}

#[tokio::test]
async fn an_agent_shares_what_it_may_read_and_never_by_mail() {
    let stack = daemons(1).await;
    let owner = &stack.owner;
    let vault = vault(owner).await;
    let (open_secret, closed) = (
        store(owner, &vault, "a/b", json!({"value": "v"})).await,
        store(owner, &vault, "c", json!({"value": "w"})).await,
    );
    let agent = stack.agent(json!({"intents_api_enabled": false})).await;
    let grant = json!({"secret_path_pattern": "a/*", "principal_type": "agent", "principal_id": agent.id, "permissions": ["read"]});
    owner.post(&format!("/v1/vaults/{vault}/policies"), &grant).await.expect(201);

    ask(&agent.client, &closed, &link(json!({}))).await.refused(403);
    ask(&agent.client, &open_secret, &link(json!({"recipient_type": "external_email", "email": "a@b.example"})))
        .await
        .refused(403);
    assert_eq!(stack.count("SELECT count(*) FROM audit_events WHERE action = 'access.denied' AND details->>'asked' = 'share.create'").await, 2);

    // The human who registered it: the owner of the stack.
    let id =
        share(&stack, &agent.client, &open_secret, &link(json!({"recipient_type": "creator", "recipient_id": null})))
            .await;
    assert_eq!(listed(owner, "inbound").await[0]["recipient_type"], "creator");
    post_empty(owner, &format!("/v1/shares/{id}/accept")).await.expect(204);
    assert_eq!(open(owner, &id).await.expect(200)["value"], "v");
    open(&agent.client, &id).await.refused(404);
    agent.client.delete(&format!("/v1/share/{id}")).await.expect(204);
    open(owner, &id).await.refused(404);
}
