//! When the daemon's own certificate runs out: a gauge that is of what is shown to clients, whatever is in the files.

use std::time::Duration;

use rustix::process::Signal;

use super::metrics::{metrics_url, scrape};
use crate::harness::stack::{Options, Stack, until};
use crate::harness::tls::Identity;

const NAME: &str = "intentd_tls_certificate_expires_timestamp_seconds";
const SOON: Duration = Duration::from_secs(20);

/// One that runs out in so many days, and when that is.
fn ending_in(days: i64) -> (Identity, Option<f64>) {
    let now = intentd::clock::now();
    let end = now + time::Duration::days(days);
    (Identity::valid(now - time::Duration::days(60), end), Some(end.unix_timestamp() as f64))
}

#[tokio::test]
async fn the_certificate_that_is_shown_tells_when_it_runs_out_also_after_it_was_read_again() {
    let env = vec![("INTENTD_METRICS_LISTEN".to_owned(), "127.0.0.1:0".to_owned())];
    let mut stack = Stack::with(Options { chains: Vec::new(), env, ..Options::default() }).await;
    let plain = scrape(&metrics_url(&stack.daemons[0])).await;
    assert!(plain.text.contains("intentd_hsm_up") && !plain.text.contains(NAME), "there is no TLS: {}", plain.text);

    let root = stack.install.root.clone();
    let write = |key: &Identity, chain: &[&Identity]| {
        let pem: String = chain.iter().map(|certificate| &*certificate.pem).collect();
        std::fs::write(root.join("canary-tls.pem"), pem).unwrap();
        std::fs::write(root.join("canary-tls.key"), key.key_pem()).unwrap();
    };
    let ((own, own_ends), (renewed, renewed_ends)) = (ending_in(3), ending_in(90));
    let ((long, _), (short, short_ends)) = (ending_in(400), ending_in(30));
    write(&own, &[&own]);
    for (name, file) in [("INTENTD_TLS_CERT_FILE", "canary-tls.pem"), ("INTENTD_TLS_KEY_FILE", "canary-tls.key")] {
        stack.options.env.push((name.to_owned(), root.join(file).display().to_string()));
    }
    stack.add_daemon("tls").await;
    let url = metrics_url(&stack.daemons[1]);
    let shown = async || {
        let scraped = scrape(&url).await;
        scraped.assert_labels_are_words(&["canary", ".pem"]);
        (scraped.value(NAME, &[("role", "server")]), scraped.value(NAME, &[("role", "chain")]))
    };
    let reload = || stack.daemons[1].signal(Signal::HUP);
    let log = || stack.daemons[1].log_text();
    assert_eq!(shown().await, (own_ends, None));

    // Renewed, with what vouches for it: of that, whatever runs out first.
    write(&renewed, &[&renewed, &long, &short]);
    assert_eq!(shown().await, (own_ends, None), "the old one is shown until the files are read again");
    reload();
    until(SOON, "the new one and its chain", async || shown().await == (renewed_ends, short_ends)).await;

    // Half a renewal: the one that is shown is still the one that is told of.
    write(&renewed, &[&own]);
    reload();
    until(SOON, "the refusal", async || log().contains("the old certificate stays")).await;
    assert_eq!(shown().await, (renewed_ends, short_ends));
    let client = renewed.trusting().build().unwrap();
    let health = client.get(format!("{}/v1/health", stack.daemons[1].url)).send().await.unwrap();
    assert_eq!(health.status(), 200);

    // And one by itself: what is not sent along any more is not told of.
    write(&own, &[&own]);
    reload();
    until(SOON, "the first one, alone", async || shown().await == (own_ends, None)).await;
}
