use std::time::Duration;

use intentd::access::throttle::{self, Throttle, store};

use crate::harness::stack::{Options, Stack};

#[tokio::test]
async fn exactly_as_many_pass_as_there_are_however_many_ask_at_once() {
    let stack = Stack::with(Options { daemons: 0, chains: Vec::new(), ..Options::default() }).await;
    let (_, most, span) = Throttle::Share.rule();
    let (ours, theirs) = (throttle::key(&[b"ours"]), throttle::key(&[b"theirs"]));
    let attempts = (0..40).map(|_| {
        let db = stack.db.clone();
        async move { throttle::take(&mut db.acquire().await.unwrap(), Throttle::Share, ours).await.unwrap() }
    });
    let waits: Vec<_> = futures::future::join_all(attempts).await.into_iter().flatten().collect();
    assert_eq!(waits.len(), 40 - usize::from(most), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= span && *wait > span - Duration::from_secs(30)), "{waits:?}");
    // Another key, and another kind with the same key, have limits of their own.
    let mut conn = stack.db.acquire().await.unwrap();
    assert_eq!(throttle::take(&mut conn, Throttle::Share, theirs).await.unwrap(), None);
    assert_eq!(throttle::take(&mut conn, Throttle::Login, ours).await.unwrap(), None);
    // What lies behind the span no longer counts; what lies within it does.
    let moved =
        format!("UPDATE throttles SET taken[1] = taken[1] - interval '{} s' WHERE kind = 'share'", span.as_secs());
    stack.sql(&moved).await;
    assert_eq!(throttle::take(&mut conn, Throttle::Share, ours).await.unwrap(), None);
    assert!(throttle::take(&mut conn, Throttle::Share, ours).await.unwrap().is_some());
    store::forget(&mut conn, Throttle::Share, ours).await.unwrap();
    assert_eq!(throttle::take(&mut conn, Throttle::Share, ours).await.unwrap(), None);
}
