//! `intentd admin hsm rotate | keks | destroy-kek`: what an operator reads.

use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::PgPool;

use super::{begin, destroy as take_off, store};
use crate::clock::rfc3339;
use crate::hsm::{self, Hsm, Kek, KekPurpose, KekState};
use crate::ids::KekId;

/// How long a daemon may take to forget a key that is to be destroyed.
const FORGET: Duration = Duration::from_secs(20);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(500);

fn purpose_of(text: &str) -> anyhow::Result<KekPurpose> {
    KekPurpose::ALL.into_iter().find(|known| known.as_str() == text).context("no such key")
}

/// Makes the new key.
///
/// # Errors
/// A sentence for the operator.
pub async fn rotate(pool: &PgPool, hsm: &Hsm, purpose: &str) -> anyhow::Result<()> {
    let kek = begin(pool, hsm, purpose_of(purpose)?).await?;
    println!("made {purpose} key {}. Back up the token now.", kek.id);
    let daemons = store::live(&mut *pool.acquire().await?).await?.len();
    match daemons {
        0 => println!("No daemon runs: the rotation goes on when one is started."),
        n => println!("{n} running daemons go on with it; `intentd admin hsm rotate --status` shows how far they are."),
    }
    Ok(())
}

/// Waits until the new key is in use and nothing needs the old one.
///
/// # Errors
/// A sentence for the operator.
pub async fn wait(pool: &PgPool, purpose: &str) -> anyhow::Result<()> {
    let purpose = purpose_of(purpose)?;
    let mut said = String::new();
    loop {
        let mut conn = pool.acquire().await?;
        let rows = hsm::store::load(&mut conn).await?;
        let of = |state| rows.iter().find(|kek| kek.purpose == purpose && kek.state == state);
        let now = match (of(KekState::Adding), of(KekState::Retiring)) {
            (Some(new), _) => {
                let daemons = store::live(&mut conn).await?;
                let has = daemons.iter().filter(|daemon| daemon.keks.contains(&new.id)).count();
                format!("{has} of {} running daemons have found the new key", daemons.len())
            }
            (None, Some(old)) if purpose != KekPurpose::Jwt => {
                let left: i64 = store::uses(&mut conn, old.id).await?.iter().map(|(_, named)| named).sum();
                format!("{left} rows still need the old key")
            }
            _ => {
                println!("done: the new `{purpose}` key is in use.");
                return Ok(());
            }
        };
        drop(conn);
        if now != said {
            println!("{now}");
            said = now;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Lists the keys and the daemons.
///
/// # Errors
/// The database's.
pub async fn show(pool: &PgPool) -> anyhow::Result<()> {
    let mut conn = pool.acquire().await?;
    let rows = hsm::store::load(&mut conn).await?;
    let lives = store::lives(&mut conn).await?;
    for kek in &rows {
        let Some(life) = lives.iter().find(|life| life.id == kek.id) else { continue };
        let since = match kek.state {
            KekState::Adding => Some(life.created_at),
            KekState::Active => life.activated_at,
            KekState::Retiring => life.retiring_at,
            KekState::Retired | KekState::Destroying => life.retired_at,
            KekState::Destroyed => life.destroyed_at,
        };
        let since = since.map(|at| format!(" since {}", rfc3339(at))).unwrap_or_default();
        println!("{:<5} {:<10} {}{since}{}", kek.purpose, kek.state.as_str(), kek.id, needed_by(&mut conn, kek).await?);
        if life.stuck_rows > 0 {
            let note = life.stuck_note.as_deref().unwrap_or_default();
            println!("      WRONG: {} rows do not open under it, so it cannot be retired; {note}", life.stuck_rows);
        }
    }
    let daemons = store::live(&mut conn).await?;
    println!("{} running daemons", daemons.len());
    for daemon in daemons {
        let needed = |kek: &&Kek| matches!(kek.state, KekState::Adding | KekState::Active | KekState::Retiring);
        let lacks: Vec<String> = rows
            .iter()
            .filter(needed)
            .filter(|kek| !daemon.keks.contains(&kek.id))
            .map(|kek| kek.id.to_string())
            .collect();
        let state = if lacks.is_empty() { "has every key".to_owned() } else { format!("LACKS {}", lacks.join(", ")) };
        println!("  {}  {state}{}", daemon.id, daemon.note.map(|note| format!(": {note}")).unwrap_or_default());
    }
    Ok(())
}

async fn needed_by(conn: &mut sqlx::PgConnection, kek: &Kek) -> anyhow::Result<String> {
    let uses = store::uses(conn, kek.id).await?;
    let uses: Vec<String> = uses.iter().map(|(place, named)| format!("{named} in {place}")).collect();
    Ok(if uses.is_empty() { String::new() } else { format!(", named by {}", uses.join(", ")) })
}

/// The key that is to be destroyed, if its id was given twice. Says what would be lost otherwise.
///
/// # Errors
/// A sentence for the operator.
pub async fn confirmed(pool: &PgPool, id: &str, confirm: Option<&str>) -> anyhow::Result<KekId> {
    let id: KekId = id.parse().context("not an id: `intentd admin hsm keks` lists the keys")?;
    let mut conn = pool.acquire().await?;
    let rows = hsm::store::load(&mut conn).await?;
    let kek =
        rows.iter().find(|kek| kek.id == id).context("there is no such key: `intentd admin hsm keks` lists them")?;
    let lives = store::lives(&mut conn).await?;
    let retired_at = lives.iter().find(|life| life.id == id).and_then(|life| life.retired_at);
    let (true, Some(at)) = (matches!(kek.state, KekState::Retired | KekState::Destroying), retired_at) else {
        bail!("key {id} is {}: only a retired key can be destroyed", kek.state.as_str());
    };
    let at = rfc3339(at);
    match kek.purpose {
        KekPurpose::Seal => println!(
            "Without it, signing keys in any backup of the database taken before {at} can never be used again."
        ),
        KekPurpose::Data => {
            println!("Without it, secrets in any backup of the database taken before {at} can never be read again.")
        }
        KekPurpose::Mac => {
            println!("Without it, signing keys in any backup of the database taken before {at} are refused for ever.")
        }
        KekPurpose::Audit => println!(
            "Without it, no new checkpoint of the audit trail is signed after any backup of the database taken before {at} was restored; what it has signed can be verified as before."
        ),
        KekPurpose::Jwt => println!("Without it, no backup of the database taken before {at} can be started from."),
    }
    if confirm != Some(id.to_string().as_str()) {
        bail!("nothing was destroyed: if that is meant, add --confirm {id}");
    }
    Ok(id)
}

/// Destroys it.
///
/// # Errors
/// A sentence for the operator.
pub async fn destroy(pool: &PgPool, hsm: &Hsm, id: KekId) -> anyhow::Result<()> {
    hsm.adopt(hsm::store::load(&mut *pool.acquire().await?).await?).await?;
    take_off(pool, hsm, id, FORGET).await?;
    println!("key {id} is off the token.");
    Ok(())
}
