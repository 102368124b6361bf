//! `intentd audit export | verify | keys`: what an operator or an auditor runs.

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use super::export::Export;
use super::offline::{self, Judgement, Known, Outcome};
use super::rules::Trail;
use super::store::trail as store;
use crate::cli::{AuditExport, AuditVerify};
use crate::db::Pool;

/// Something was changed.
const BROKEN: u8 = 3;
/// Nothing shows a change, and no trusted checkpoint proves that there was none; or there are checkpoints that could not be used.
const NOT_PROVEN: u8 = 4;
/// Trails that are listed together.
const TRAILS: i64 = 100;

/// Writes the trails that were asked for, or all of them, to stdout.
///
/// # Errors
/// A sentence for the operator. What was written is then not complete, and `verify` says so.
pub async fn export(pool: &Pool, options: &AuditExport) -> anyhow::Result<()> {
    let mut asked: Vec<Trail> = options.organisation_id.iter().map(|id| Trail(Some(*id))).collect();
    asked.extend(options.installation.then_some(Trail(None)));
    if !asked.is_empty() {
        for trail in asked {
            write(pool, trail, options.after).await?;
        }
        return Ok(());
    }
    let mut after = None;
    loop {
        let page = store::trails(&mut *pool.acquire().await?, after, TRAILS).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(*last);
        for trail in page {
            write(pool, trail, 0).await?;
        }
    }
}

async fn write(pool: &Pool, trail: Trail, after: u64) -> anyhow::Result<()> {
    let mut export = Export::new(trail, after);
    while let Some(text) = export.next(pool).await.with_context(|| format!("cannot export {trail}"))? {
        std::io::stdout().write_all(text.as_bytes()).context("cannot write the export")?;
    }
    Ok(())
}

/// Lists the public halves of the keys that sign checkpoints.
///
/// # Errors
/// The database's.
pub async fn keys(pool: &Pool) -> anyhow::Result<()> {
    for (id, key) in store::keys(&mut *pool.acquire().await?).await? {
        println!("{id}  {}", hex::encode(key));
    }
    Ok(())
}

/// Judges an exported file, with neither database nor HSM. The exit code: 0 whole, 3 broken, 4 whole and not proven.
///
/// # Errors
/// When the file cannot be judged (exit code 1).
pub fn verify(options: &AuditVerify) -> anyhow::Result<ExitCode> {
    let (keys, trails) = (options.key.clone(), options.trail.clone());
    let mut known = Known { keys, checkpoints: Vec::new(), trails, after: options.after };
    for path in &options.checkpoints {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let strange = offline::read_checkpoints(BufReader::new(file), |checkpoint| known.checkpoints.push(checkpoint))
            .with_context(|| format!("cannot read {}", path.display()))?;
        if let Some(first) = strange.first() {
            eprintln!(
                "{}: {} lines are no checkpoints and were passed over, the first of them line {first}: what a daemon was writing when it \
                 died, or somebody has been at the file",
                path.display(),
                strange.len()
            );
        }
    }
    let judgement = if options.file == Path::new("-") {
        offline::verify(std::io::stdin().lock(), &known)
    } else {
        let file = File::open(&options.file).with_context(|| format!("cannot read {}", options.file.display()))?;
        offline::verify(BufReader::new(file), &known)
    };
    let Judgement { outcomes, unusable } = judgement.with_context(|| format!("{}", options.file.display()))?;
    if outcomes.is_empty() {
        println!("BROKEN: the file has no audit trail at all");
        return Ok(ExitCode::from(BROKEN));
    }
    for outcome in &outcomes {
        println!("{}", in_words(outcome));
    }
    if unusable > 0 {
        println!(
            "{unusable} checkpoints of --checkpoints are signed by none of --key and were not counted: is a key missing?"
        );
    }
    let pinned = !known.keys.is_empty();
    if !pinned {
        println!(
            "Checkpoints were checked by the keys that the file itself names. Whoever could write the whole file could write those too: \
             give the key that you know by --key (`intentd audit keys`, GET /v1/audit/keys)."
        );
    }
    let broken = outcomes.iter().any(|outcome| outcome.broken.is_some());
    let unproven = outcomes.iter().any(|outcome| outcome.proven_to.is_none());
    Ok(ExitCode::from(match (broken, pinned && (unproven || unusable > 0)) {
        (true, _) => BROKEN,
        (false, true) => NOT_PROVEN,
        (false, false) => 0,
    }))
}

fn in_words(outcome: &Outcome) -> String {
    let (after, to) = outcome.links;
    let trail = outcome.trail;
    if let Some(broken) = &outcome.broken {
        let at = broken.seq.map(|seq| format!(" at link {seq}")).unwrap_or_default();
        let event = broken.event_id.map(|id| format!(", event {id}")).unwrap_or_default();
        return format!("{trail}: BROKEN ({}){at}{event}: {}", broken.kind.as_str(), broken.detail);
    }
    if to == after && outcome.proven_to.is_none() {
        return format!("{trail}: no links, and NOT PROVEN that there were none{}", waiting(outcome));
    }
    if to == after {
        return format!("{trail}: no links after {after}; what is before is proven{}", waiting(outcome));
    }
    let proof = match outcome.proven_to {
        Some(proven) if proven == to => format!("proven by {} signed checkpoints", outcome.checkpoints),
        Some(proven) => format!(
            "proven up to {proven} by {} signed checkpoints; the {} links after that hang together and are not signed yet",
            outcome.checkpoints,
            to - proven
        ),
        None => "NOT PROVEN: events and links hang together, and no trusted checkpoint says that they are the ones that were written".to_owned(),
    };
    let unknown = match outcome.unknown_checkpoints {
        0 => String::new(),
        n => format!("; {n} checkpoints by other keys were not counted"),
    };
    format!("{trail}: whole, links {} to {to}; {proof}{unknown}{}", after + 1, waiting(outcome))
}

fn waiting(outcome: &Outcome) -> String {
    match outcome.waiting {
        0 => String::new(),
        n => format!("; {n} events waited for their link"),
    }
}
