//! More than there is room for: what is past it is told so at once and told when to come back, and what was let in is carried out.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;

use crate::harness::client::Client;
use crate::harness::stack::{Options, Stack, pay, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_29_past_capacity_the_answer_is_quick_and_what_was_let_in_is_paid() {
    let mut stack = Stack::with(Options { daemons: 0, ..Options::default() }).await;
    let config = stack.install.root.join("intentd.toml");
    std::fs::write(&config, "[limits]\nconcurrency = 100\nprincipal_concurrency = 30\n").unwrap();
    stack.options.env.push(("INTENTD_CONFIG".to_owned(), config.display().to_string()));
    stack.add_daemon("crowded").await;
    let mut agents = Vec::new();
    for _ in 0..4 {
        agents.push(stack.agent(json!({})).await);
    }
    let sent = (0..400).map(|index| {
        let agent = agents[index % 4].clone();
        tokio::spawn(async move {
            let began = Instant::now();
            (agent.submit(pay("0.0001")).await, began.elapsed())
        })
    });
    let sent: Vec<_> = sent.collect();
    let nobody = stack.owner.by(None);
    let mut shown = 0;
    while !sent.iter().all(|task| task.is_finished()) {
        assert_eq!(nobody.get("/v1/health").await.expect(200)["status"], "healthy");
        shown += 1;
    }
    assert!(shown > 0);
    let (mut served, mut refused) = (Vec::new(), Vec::new());
    for task in sent {
        let (reply, took) = task.await.unwrap();
        match reply.status.as_u16() {
            201 => served.push(took),
            429 | 503 => {
                assert!(reply.headers.contains_key("retry-after"), "{}", reply.body);
                refused.push(took);
            }
            other => panic!("{other} {}", reply.body),
        }
    }
    // They are of one organisation: half of all places are theirs.
    assert!(served.len() >= 50 && refused.len() >= 50, "{} served, {} refused", served.len(), refused.len());
    // A refusal waits for nobody who was let in.
    let median = |took: &mut Vec<Duration>| {
        took.sort();
        took[took.len() / 2]
    };
    assert!(median(&mut refused) < median(&mut served), "refused after {:?}", median(&mut refused));
    let mut done = served.len();
    for agent in &agents {
        let slots = stack.slots(8453, agent.signer).await.len() as u64;
        stack.assert_settled("base", agent.signer, 0, slots).await;
        done -= usize::try_from(slots).unwrap();
    }
    assert_eq!(done, 0, "as many were signed as were answered");
    stack.owner.get("/v1/vaults").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_29_two_thousand_idle_and_slow_connections_change_nothing_for_others() {
    // For this process and the daemon: a usual session has files for half of them.
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
    let mut stack = Stack::with(Options { daemons: 0, ..Options::default() }).await;
    let config = stack.install.root.join("intentd.toml");
    std::fs::write(&config, "[limits]\nconnections_per_address = 3000\nidle_s = 20\n").unwrap();
    stack.options.env.push(("INTENTD_CONFIG".to_owned(), config.display().to_string()));
    stack.add_daemon("open").await;
    let agent = stack.agent(json!({})).await;
    let address = stack.owner.base.trim_start_matches("http://").to_owned();
    // Of each four: silent, half a head, a head whose body does not come, and a whole request that stays connected.
    let beginnings: [&[u8]; 4] = [
        b"",
        b"POST /v1/auth/agent-token HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"POST /v1/auth/agent-token HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{\"api_key\":\"",
        b"GET /v1/chains HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    let mut open = Vec::new();
    for index in 0..2_000 {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(beginnings[index % 4]).unwrap();
        open.push(stream);
    }
    let (large, deep) = ("x".repeat(10 << 20), format!("{{\"to\":{}", "[".repeat(10_000)));
    let hostile = stack.agent(json!({})).await;
    let send = |body: &str| Client::send(hostile.client.request(Method::POST, &hostile.path()).body(body.to_owned()));
    for _ in 0..5 {
        let nobody = stack.owner.by(None);
        let (paid, shown, large, deep) =
            futures::join!(agent.submit(pay("0.001")), nobody.get("/v1/health"), send(&large), send(&deep));
        paid.expect(201);
        assert_eq!(shown.expect(200)["status"], "healthy");
        assert_eq!((large.status.as_u16(), deep.status.as_u16()), (413, 400));
    }
    // Those that only wait are closed in the end.
    let mut silent = open.swap_remove(0);
    drop(open);
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let ended = silent.read(&mut [0; 16]);
    assert!(!matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "it stays open");
    until(Duration::from_secs(30), "it serves on", async || stack.owner.get("/v1/vaults").await.status == 200).await;
}
