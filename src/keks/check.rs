//! `intentd admin check`: whether database and token belong together and open each other, as after a restore. Changes nothing.

use anyhow::bail;
use sqlx::PgPool;

use super::{sealed, store};
use crate::hsm::{self, Envelope, Hsm, HsmError, KekState, signature};
use crate::vaults::{keys, secrets};

/// Failures that are listed by name.
const NAMED_MAX: usize = 10;

/// What was found, line by line.
#[derive(Default)]
struct Findings {
    wrong: u64,
}

impl Findings {
    fn say(&mut self, what: &str, outcome: Result<String, String>) {
        match outcome {
            Ok(found) => println!("ok     {what:<28} {found}"),
            Err(wrong) => {
                self.wrong += 1;
                println!("WRONG  {what:<28} {wrong}");
            }
        }
    }

    /// A sample of which all must open.
    fn sample(&mut self, what: &str, looked_at: usize, total: i64, failures: &[String]) {
        if failures.is_empty() {
            return self.say(what, Ok(format!("{looked_at} of {total}")));
        }
        let named = failures.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join("; ");
        self.say(what, Err(format!("{} of {looked_at} do not open: {named}", failures.len())));
    }
}

/// Looks at the token's keys, at `count` secrets and `count` signing keys, and at the rows between them.
///
/// # Errors
/// When anything is wrong, after all of it was said; or when it cannot be looked at.
pub async fn run(pool: &PgPool, hsm: &Hsm, count: i64) -> anyhow::Result<()> {
    let mut findings = Findings::default();
    let mut conn = pool.acquire().await?;
    let rows = hsm::store::load(&mut conn).await?;
    let needed = rows.iter().filter(|kek| matches!(kek.state, KekState::Active | KekState::Retiring)).count();
    if let Err(error) = hsm.adopt(rows).await {
        findings.say("keys of the token", Err(error.to_string()));
        bail!("this token does not hold this database's keys: nothing else can be opened");
    }
    findings.say("keys of the token", Ok(format!("{needed} found, hardened, canaries good")));
    let (secrets_total, keys_total) = store::totals(&mut conn).await?;

    let samples = secrets::store::sample(&mut conn, count).await?;
    let mut failures = Vec::new();
    for (place, sample) in &samples {
        let what = format!("version {} of secret {}", place.1, place.0);
        match sample {
            Err(_) => failures.push(unreadable(&what)),
            Ok(sample) => failures.extend(opens(hsm, &what, &sample.aad, &sample.envelope).await?),
        }
    }
    findings.sample("secrets opened", samples.len(), secrets_total, &failures);

    for table in sealed::TABLES {
        let (samples, total) = table.sample(&mut conn, count).await?;
        let mut failures = Vec::new();
        for (key, sample) in &samples {
            match sample {
                Err(_) => failures.push(unreadable(key)),
                Ok((aad, envelope)) => failures.extend(opens(hsm, key, aad, envelope).await?),
            }
        }
        findings.sample(&format!("{} opened", table.table), samples.len(), total, &failures);
    }

    let samples = keys::store::sample(&mut conn, count).await?;
    let mut failures = Vec::new();
    for (id, key) in &samples {
        let Ok(key) = key else {
            failures.push(unreadable(&format!("signing key {id}")));
            continue;
        };
        // What comes back has recovered to the stored public key; that its address is the row's was checked when the row was read.
        let digest = signature::check_digest(key.id.0.as_bytes());
        if let Err(error) = hsm.sign(&key.context(), &key.key_ref, &key.public_key, digest).await {
            only_integrity(&error)?;
            failures.push(format!("signing key {} ({}): {error}", key.id, key.address));
        }
    }
    findings.sample("signing keys signed with", samples.len(), keys_total, &failures);

    for (what, rows) in store::inconsistencies(&mut conn).await? {
        if rows > 0 {
            findings.say("rows", Err(format!("{what}: {rows}")));
        }
    }
    findings.say("rows", Ok("looked at as a whole".to_owned()));
    if findings.wrong > 0 {
        bail!("{} things are wrong: see above", findings.wrong);
    }
    println!("Database and token belong together.");
    Ok(())
}

/// What is wrong with a sealed row, if anything.
async fn opens(hsm: &Hsm, what: &str, aad: &[u8], envelope: &Envelope) -> anyhow::Result<Option<String>> {
    match hsm.open(aad, envelope).await {
        Ok(_) => Ok(None),
        Err(error) => {
            only_integrity(&error)?;
            Ok(Some(format!("{what}: {error}")))
        }
    }
}

fn unreadable(what: &str) -> String {
    format!("{what}: its row cannot be read")
}

/// A failure of the row is a finding; a failure of the HSM ends the look.
fn only_integrity(error: &HsmError) -> anyhow::Result<()> {
    match error {
        HsmError::Integrity { .. } | HsmError::NotFound | HsmError::UnknownKek { .. } => Ok(()),
        other => bail!("the HSM does not answer: {other}"),
    }
}
