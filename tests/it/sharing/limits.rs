use futures::future::join_all;
use serde_json::{Value, json};

use super::{ask, daemons, link, open, open_with, share, store, vault};
use crate::harness::client::Reply;

fn with(replies: &[Reply], status: u16) -> usize {
    replies.iter().filter(|reply| reply.status.as_u16() == status).count()
}

#[tokio::test]
async fn threat_04_a_share_opens_exactly_as_often_as_it_may_on_any_number_of_daemons() {
    let stack = daemons(2).await;
    let owner = &stack.owner;
    let nobody: Vec<_> = stack.daemons.iter().map(|daemon| owner.by(None).at(&daemon.url)).collect();
    let vault = vault(owner).await;
    let secret = store(owner, &vault, "a", json!({"value": "v"})).await;
    let id = share(&stack, owner, &secret, &link(json!({"max_access_count": 5}))).await;
    let replies = join_all((0..50).map(|n| open(&nobody[n % 2], &id))).await;
    assert_eq!((with(&replies, 200), with(&replies, 410)), (5, 45));
    let mut counts: Vec<i64> = replies.iter().filter_map(|reply| reply.body["access_count"].as_i64()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2, 3, 4, 5]);
    assert_eq!(stack.count("SELECT count(*) FROM audit_events WHERE action = 'secret.read'").await, 5);

    // The secret's own count is never exceeded either, whoever reads and however.
    let secret = store(owner, &vault, "counted", json!({"value": "v", "max_access_count": 7})).await;
    let (one, two) = (
        share(&stack, owner, &secret, &link(json!({"max_access_count": 6}))).await,
        share(&stack, owner, &secret, &link(json!({}))).await,
    );
    let path = format!("/v1/vaults/{vault}/secrets/counted");
    let read = async |n: usize| match n % 3 {
        0 => open(&nobody[n % 2], &one).await,
        1 => open(&nobody[n % 2], &two).await,
        _ => owner.at(&stack.daemons[n % 2].url).get(&path).await,
    };
    let replies = join_all((0..45).map(read)).await;
    assert_eq!((with(&replies, 200), with(&replies, 410)), (7, 38));
    let opened =
        stack.count("SELECT sum(access_count)::bigint FROM shares WHERE max_access_count IS DISTINCT FROM 5").await;
    let read =
        with(&replies.into_iter().enumerate().filter(|(n, _)| n % 3 != 2).map(|(_, r)| r).collect::<Vec<_>>(), 200);
    assert_eq!(usize::try_from(opened).unwrap(), read, "an opening that the secret refused is not counted");
}

#[tokio::test]
async fn threat_26_a_passphrase_is_guessed_a_few_times_at_most_on_any_number_of_daemons() {
    let stack = daemons(2).await;
    let owner = &stack.owner;
    let nobody: Vec<_> = stack.daemons.iter().map(|daemon| owner.by(None).at(&daemon.url)).collect();
    let secret = store(owner, &vault(owner).await, "a", json!({"value": "v"})).await;
    let id = share(&stack, owner, &secret, &link(json!({"passphrase": "pass word"}))).await;
    let right = json!({"passphrase": "pass word"});
    let stored: String = sqlx::query_scalar("SELECT passphrase_hash FROM shares").fetch_one(&stack.db).await.unwrap();
    assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");

    // Missing, wrong, too long, or where it would be logged: one answer.
    let mut replies =
        vec![open(&nobody[0], &id).await, open(&nobody[0], &format!("{id}?passphrase=pass%20word")).await];
    for wrong in [json!(null), json!("pass wor"), json!("pass word "), json!("x".repeat(2_000))] {
        replies.push(open_with(&nobody[1], &id, &json!({ "passphrase": wrong })).await);
    }
    assert!(replies.iter().all(|reply| reply.status == 403 && reply.body == replies[0].body), "{replies:?}");

    // Right ones do not use the limit up.
    for n in 0..12 {
        assert_eq!(open_with(&nobody[n % 2], &id, &right).await.expect(200)["access_count"], n + 1);
    }
    // Of forty at once, no more are looked at than are left: two of the ten were wrong above.
    let guesses: Vec<Value> = (0..40).map(|n| json!({"passphrase": format!("guess {n}")})).collect();
    let replies = join_all(guesses.iter().enumerate().map(|(n, guess)| open_with(&nobody[n % 2], &id, guess))).await;
    assert_eq!((with(&replies, 403), with(&replies, 429)), (8, 32));
    let limited = replies.iter().find(|reply| reply.status == 429).unwrap();
    let seconds: u64 = limited.headers["retry-after"].to_str().unwrap().parse().expect("whole seconds");
    assert!((1..=600).contains(&seconds), "{seconds}");
    // Not even the right one is looked at then, at either daemon; other shares are not concerned.
    open_with(&nobody[0], &id, &right).await.refused(429);
    open_with(&nobody[1], &id, &right).await.refused(429);
    let other = share(&stack, owner, &secret, &link(json!({"passphrase": "pass word"}))).await;
    open_with(&nobody[0], &other, &right).await.expect(200);
}

#[tokio::test]
async fn ten_shares_a_minute_are_made_in_an_organisation_on_any_number_of_daemons() {
    let stack = daemons(2).await;
    let owner = &stack.owner;
    let secret = store(owner, &vault(owner).await, "a", json!({"value": "v"})).await;
    let body = link(json!({}));
    let clients: Vec<_> = stack.daemons.iter().map(|daemon| owner.at(&daemon.url)).collect();
    let replies = join_all((0..30).map(|n| ask(&clients[n % 2], &secret, &body))).await;
    assert_eq!((with(&replies, 201), with(&replies, 429)), (10, 20));
    let limited = replies.iter().find(|reply| reply.status == 429).unwrap();
    let seconds: u64 = limited.headers["retry-after"].to_str().unwrap().parse().expect("whole seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(stack.count("SELECT count(*) FROM shares").await, 10);
    // Another organisation has a limit of its own.
    let org = stack.organisation("Other").await;
    let other = stack.human(&org, "owner").await.client;
    let theirs = store(&other, &vault(&other).await, "a", json!({"value": "v"})).await;
    ask(&other, &theirs, &body).await.expect(201);
}
