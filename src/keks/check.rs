//! `intentd admin check`: whether database and token belong together and open each other, as after a restore. Changes nothing.

use anyhow::bail;
use sqlx::PgPool;

use super::store;
use crate::hsm::{self, Hsm, HsmError, KekState, signature};
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
    for sample in &samples {
        if let Err(error) = hsm.open(&sample.aad, &sample.envelope).await {
            only_integrity(&error)?;
            failures.push(format!("version {} of secret {}: {error}", sample.place.1, sample.place.0));
        }
    }
    findings.sample("secrets opened", samples.len(), secrets_total, &failures);

    let samples = keys::store::sample(&mut conn, count).await?;
    let mut failures = Vec::new();
    for key in &samples {
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

/// A failure of the row is a finding; a failure of the HSM ends the look.
fn only_integrity(error: &HsmError) -> anyhow::Result<()> {
    match error {
        HsmError::Integrity { .. } | HsmError::NotFound | HsmError::UnknownKek { .. } => Ok(()),
        other => bail!("the HSM does not answer: {other}"),
    }
}
