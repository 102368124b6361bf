use std::time::Duration;

use serde_json::json;

use super::{PASSWORD, code, nobody, stack};
use crate::harness::smtp::Smtp;
use crate::harness::stack::{Stack, text, until};

async fn with_smtp(smtp: &Smtp) -> Stack {
    let mut stack = stack(0).await;
    stack.options.env.push(("INTENTD_MAIL_SMTP_URL".to_owned(), smtp.url()));
    stack.options.env.push(("INTENTD_MAIL_FROM".to_owned(), "Intentd Test <noreply@intentd.example>".to_owned()));
    stack.options.env.push(("INTENTD_PUBLIC_URL".to_owned(), "https://intentd.example/".to_owned()));
    stack
}

#[tokio::test]
async fn a_letter_is_not_lost_by_a_crash_or_a_server_that_will_not_and_is_sealed_while_it_waits() {
    let smtp = Smtp::start().await;
    smtp.refuse(true);
    let mut stack = with_smtp(&smtp).await;
    stack.add_daemon("first").await;
    let wanted = json!({"email": "ada@example.com", "password": PASSWORD});
    nobody(&stack).post("/v1/auth/signup", &wanted).await.expect(200);
    until(Duration::from_secs(20), "the server has refused", async || smtp.refused() > 0).await;
    let said = async || stack.daemons[0].log_text().contains("a letter was not sent");
    until(Duration::from_secs(20), "the daemon says so", said).await;
    stack.daemons[0].kill();
    assert_eq!(stack.count("SELECT count(*) FROM mail_outbox").await, 1, "it waits");

    smtp.refuse(false);
    stack.sql("UPDATE mail_outbox SET due_at = now()").await;
    let second = stack.start_daemon("second").await;
    until(Duration::from_secs(20), "the letter has come", async || smtp.taken().len() == 1).await;
    until(Duration::from_secs(20), "its row is gone", async || {
        stack.count("SELECT count(*) FROM mail_outbox").await == 0
    })
    .await;
    let letter = smtp.taken().remove(0);
    for line in [
        "To: ada@example.com",
        "Auto-Submitted: auto-generated",
        "Message-ID: <",
        "@intentd.example>",
        "https://intentd.example/verify-email#",
    ] {
        assert!(letter.contains(line), "{line}: {letter}");
    }
    assert!(letter.contains("From: \"Intentd Test\" <noreply@intentd.example>"), "{letter}");
    assert!(!smtp.logins().is_empty(), "it logs in with the URL's name and password");
    let body = nobody(&stack)
        .at(&second.url)
        .post("/v1/auth/verify-email", &json!({"token": code(&letter)}))
        .await
        .expect(200);
    text(&body, "access_token");
    let log = std::fs::read_to_string(stack.install.root.join("first.log")).unwrap() + &second.log_text();
    assert!(log.contains("a letter was not sent") && log.contains("a letter was sent"), "{log}");
    for secret in [&code(&letter), "its-pass-77", "ada@example.com"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn many_daemons_send_a_letter_once_and_none_after_its_time() {
    let smtp = Smtp::start().await;
    let mut stack = with_smtp(&smtp).await;
    for name in ["one", "two", "three"] {
        stack.add_daemon(name).await;
    }
    for n in 0..12 {
        let at = nobody(&stack).at(&stack.daemons[n % 3].url);
        at.post("/v1/auth/signup", &json!({"email": format!("u{n}@example.com"), "password": PASSWORD}))
            .await
            .expect(200);
    }
    until(Duration::from_secs(20), "all have come", async || {
        stack.count("SELECT count(*) FROM mail_outbox").await == 0
    })
    .await;
    let taken = smtp.taken();
    assert_eq!(taken.len(), 12);
    for n in 0..12 {
        assert_eq!(taken.iter().filter(|letter| letter.contains(&format!("To: u{n}@example.com"))).count(), 1);
    }
    // What means nothing any more is not sent.
    smtp.refuse(true);
    nobody(&stack)
        .post("/v1/auth/signup", &json!({"email": "late@example.com", "password": PASSWORD}))
        .await
        .expect(200);
    until(Duration::from_secs(20), "the server has refused", async || smtp.refused() > 0).await;
    smtp.refuse(false);
    stack.sql("UPDATE mail_outbox SET expires_at = now(), due_at = now()").await;
    until(Duration::from_secs(20), "it is given up", async || {
        stack.count("SELECT count(*) FROM mail_outbox").await == 0
    })
    .await;
    assert_eq!(smtp.taken().len(), 12);
}

#[tokio::test]
async fn threat_39_a_mail_server_without_tls_is_refused_at_start() {
    let mut stack = stack(0).await;
    stack.options.env.push(("INTENTD_MAIL_SMTP_URL".to_owned(), "smtp://u:secret-77@mail.example".to_owned()));
    let ended = crate::harness::daemon::Daemon::try_start(stack.command(), &stack.install.root, "refused").await;
    let Err((status, log)) = ended else { panic!("it started") };
    assert!(!status.success() && log.contains("mail.smtp_url") && !log.contains("secret-77"), "{log}");
}
