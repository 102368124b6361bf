//! What a rotation may do next, by what the rows say. Pure.

use time::{Duration, OffsetDateTime};

use crate::hsm::{Kek, KekPurpose, KekState};
use crate::ids::{DaemonId, KekId};

/// Longest life of a token, in seconds: for so long after it was replaced a `jwt` key's tokens are still about.
pub const TOKEN_TTL_MAX_S: i64 = 86_400 + 60;

/// A running daemon, as it reports itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Which.
    pub id: DaemonId,
    /// The keys of the token that it has found.
    pub keks: Vec<KekId>,
    /// Those of them that it makes new things with.
    pub active_keks: Vec<KekId>,
    /// Why it lacks one, if it does.
    pub note: Option<String>,
}

/// One purpose's part of a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is being rotated.
    None,
    /// A new key waits until these daemons have found it.
    WaitForDaemons(KekId, Vec<DaemonId>),
    /// Every running daemon has the new key: it may take the old one's place.
    Activate(KekId),
    /// What the old key made is to be made again by the new one.
    Rewrap {
        /// The old key.
        old: KekId,
        /// The new one.
        new: KekId,
    },
}

/// What comes next for `purpose`.
#[must_use]
pub fn next(keks: &[Kek], purpose: KekPurpose, daemons: &[Daemon]) -> Step {
    let of = |state| keks.iter().find(|kek| kek.purpose == purpose && kek.state == state).map(|kek| kek.id);
    match (of(KekState::Adding), of(KekState::Retiring), of(KekState::Active)) {
        (Some(new), _, _) => {
            let without: Vec<_> = daemons.iter().filter(|d| !d.keks.contains(&new)).map(|d| d.id).collect();
            if without.is_empty() && !daemons.is_empty() {
                Step::Activate(new)
            } else {
                Step::WaitForDaemons(new, without)
            }
        }
        (None, Some(old), Some(new)) => Step::Rewrap { old, new },
        _ => Step::None,
    }
}

/// Whether a key that no row names any more may be called retired: every running daemon makes new things with its successor, and requests
/// that began before have had their time (`grace`); a `jwt` key also outlives its tokens.
#[must_use]
pub fn may_retire(
    purpose: KekPurpose,
    new: KekId,
    daemons: &[Daemon],
    retiring_at: Option<OffsetDateTime>,
    grace: Duration,
    now: OffsetDateTime,
) -> bool {
    let least = if purpose == KekPurpose::Jwt { grace.max(Duration::seconds(TOKEN_TTL_MAX_S)) } else { grace };
    daemons.iter().all(|daemon| daemon.active_keks.contains(&new)) && retiring_at.is_some_and(|at| now - at >= least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn kek(purpose: KekPurpose, state: KekState) -> Kek {
        let canary = serde_json::Value::Null;
        Kek { id: KekId::random(), purpose, state, cka_id: [0; 16], mechanism: 0, public_key: None, canary }
    }

    fn daemon(keks: &[KekId], active_keks: &[KekId]) -> Daemon {
        Daemon { id: DaemonId::random(), keks: keks.to_vec(), active_keks: active_keks.to_vec(), note: None }
    }

    #[test]
    fn a_key_becomes_active_only_when_every_running_daemon_has_it() {
        let (old, new) = (kek(KekPurpose::Seal, KekState::Active), kek(KekPurpose::Seal, KekState::Adding));
        let keks = [old.clone(), new.clone(), kek(KekPurpose::Mac, KekState::Active)];
        let step = |daemons: &[Daemon]| next(&keks, KekPurpose::Seal, daemons);
        let (with, without) = (daemon(&[old.id, new.id], &[old.id]), daemon(&[old.id], &[old.id]));
        assert_eq!(step(&[]), Step::WaitForDaemons(new.id, vec![]));
        assert_eq!(step(&[with.clone(), without.clone()]), Step::WaitForDaemons(new.id, vec![without.id]));
        assert_eq!(step(&[with.clone(), with.clone()]), Step::Activate(new.id));
        assert_eq!(next(&keks, KekPurpose::Mac, &[with]), Step::None);
        let keks = [Kek { state: KekState::Retiring, ..old.clone() }, Kek { state: KekState::Active, ..new.clone() }];
        assert_eq!(next(&keks, KekPurpose::Seal, &[]), Step::Rewrap { old: old.id, new: new.id });
    }

    #[test]
    fn a_key_is_retired_only_when_nobody_makes_anything_with_it() {
        let (old, new) = (KekId::random(), KekId::random());
        let (grace, at) = (Duration::seconds(60), datetime!(2026-11-21 12:00 UTC));
        let (moved, stale) = (daemon(&[old, new], &[new]), daemon(&[old, new], &[old]));
        let may = |purpose, daemons: &[Daemon], seconds| {
            may_retire(purpose, new, daemons, Some(at), grace, at + Duration::seconds(seconds))
        };
        for (purpose, daemons, seconds, expected) in [
            (KekPurpose::Seal, vec![moved.clone()], 60, true),
            (KekPurpose::Seal, vec![moved.clone()], 59, false),
            (KekPurpose::Data, vec![moved.clone(), stale], 600, false),
            (KekPurpose::Mac, vec![], 60, true),
            (KekPurpose::Jwt, vec![moved.clone()], 3600, false),
            (KekPurpose::Jwt, vec![moved.clone()], TOKEN_TTL_MAX_S, true),
        ] {
            assert_eq!(may(purpose, &daemons, seconds), expected, "{purpose} {seconds} {daemons:?}");
        }
        assert!(!may_retire(KekPurpose::Seal, new, &[moved], None, grace, at));
    }
}
