//! Passwords at rest: argon2id (RFC 9106), and a bound on how much of the machine it gets.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::Semaphore;

use super::UserError;
use crate::access::input::InputError;
use crate::config::Secret;

/// Requests that may wait for a hash before further ones are turned away.
const WAITING_MAX: usize = 32;
/// Longer ones are nobody's, and are not hashed.
const BYTES_MAX: usize = 4 * super::rules::PASSWORD_CHARS_MAX;
/// Nobody's hash, with the parameters of today: verified when there is no account, so that a miss does the same work as a hit.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What came of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Another password, or no account.
    Wrong,
    /// The password.
    Right,
    /// The password, hashed with parameters of the past.
    RightButDated,
}

/// argon2id in PHC form, with the library's parameters (19 MiB, two passes). Takes tens of milliseconds: not for an async thread.
///
/// # Errors
/// [`InputError`].
pub fn hash(password: &Secret, salt: &[u8; 16]) -> Result<String, InputError> {
    let hash: PasswordHash = Argon2::default()
        .hash_password_with_salt(password.expose().as_bytes(), salt)
        .map_err(|_| InputError("the password cannot be used".to_owned()))?;
    Ok(hash.to_string())
}

/// Compares in constant time with what is stored, or with nobody's hash.
fn verify(password: &Secret, stored: Option<&str>) -> Verdict {
    let known = stored.and_then(|stored| PasswordHash::new(stored).ok());
    let Some(hash) = known.clone().or_else(|| PasswordHash::new(NOBODYS).ok()) else { return Verdict::Wrong };
    let right = Argon2::default().verify_password(password.expose().as_bytes(), &hash).is_ok();
    match known {
        Some(hash) if right => {
            let dated = hash.algorithm.as_str() != "argon2id"
                || Params::try_from(&hash).map_or(true, |params| {
                    (params.m_cost(), params.t_cost(), params.p_cost())
                        != (Params::DEFAULT_M_COST, Params::DEFAULT_T_COST, Params::DEFAULT_P_COST)
                });
            if dated { Verdict::RightButDated } else { Verdict::Right }
        }
        _ => Verdict::Wrong,
    }
}

/// Hashes passwords, a few at a time. Each takes 19 MiB and a core for tens of milliseconds.
#[derive(Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for Passwords {
    fn default() -> Self {
        // Half of the cores: the rest is for requests that are authenticated already.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self { turns: Arc::new(Semaphore::new((cores / 2).max(1))), waiting: AtomicUsize::new(0) }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Passwords {
    /// As [`hash`].
    ///
    /// # Errors
    /// [`UserError::Busy`] when too many wait.
    pub async fn hash(&self, password: &Secret, salt: [u8; 16]) -> Result<String, UserError> {
        let password = password.clone();
        Ok(self.run(move || hash(&password, &salt)).await??)
    }

    /// Whether it is the password with this hash. `None`: there is no account, or it has no password; that takes as long.
    ///
    /// # Errors
    /// [`UserError::Busy`] when too many wait.
    pub async fn verify(&self, password: &Secret, stored: Option<String>) -> Result<Verdict, UserError> {
        if password.expose().len() > BYTES_MAX {
            return Ok(Verdict::Wrong);
        }
        let password = password.clone();
        self.run(move || verify(&password, stored.as_deref())).await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, UserError> {
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Relaxed) >= WAITING_MAX {
            return Err(UserError::Busy);
        }
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| UserError::Busy)?;
        drop(waiting);
        // The turn goes with the work, which a client that leaves does not end.
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| UserError::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_by_its_hash_and_no_other_is() {
        let password = Secret::from("Correct-Horse-7".to_owned());
        let stored = hash(&password, &[7; 16]).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_eq!(verify(&password, Some(&stored)), Verdict::Right);
        let other = Secret::from("Correct-Horse-8".to_owned());
        for (password, stored) in
            [(&other, Some(stored.as_str())), (&password, None), (&password, Some("")), (&password, Some(NOBODYS))]
        {
            assert_eq!(verify(password, stored), Verdict::Wrong);
        }
        let params = Params::new(8 * 1024, 1, 1, None).unwrap();
        let weak = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let weak: PasswordHash = weak.hash_password_with_salt(password.expose().as_bytes(), &[7; 16]).unwrap();
        assert_eq!(verify(&password, Some(&weak.to_string())), Verdict::RightButDated);
        assert_eq!(verify(&other, Some(&weak.to_string())), Verdict::Wrong);
    }

    #[test]
    fn threat_26_nobodys_hash_costs_what_a_real_one_costs() {
        let nobody = PasswordHash::new(NOBODYS).unwrap();
        let real = PasswordHash::new(&hash(&Secret::from("x".to_owned()), &[1; 16]).unwrap()).unwrap();
        assert_eq!((nobody.algorithm, nobody.version, nobody.params), (real.algorithm, real.version, real.params));
        assert_eq!(nobody.hash.unwrap().len(), real.hash.unwrap().len());
    }

    #[tokio::test]
    async fn too_many_at_once_are_turned_away() {
        let passwords = Passwords::default();
        let password = Secret::from("Correct-Horse-7".to_owned());
        let all = futures::future::join_all((0..WAITING_MAX * 2).map(|_| passwords.verify(&password, None))).await;
        let turned_away = all.iter().filter(|result| matches!(result, Err(UserError::Busy))).count();
        assert!((1..=WAITING_MAX).contains(&turned_away), "{turned_away}");
        assert_eq!(passwords.verify(&password, None).await.unwrap(), Verdict::Wrong, "and then it goes on");
    }
}
