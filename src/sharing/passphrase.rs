//! Passphrases of shares: argon2id, on threads of their own and few at a time, so that they hold up nothing else.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::ShareError;

/// How many are worked on at once: each takes 19 MiB and tens of milliseconds of a core.
const AT_ONCE: usize = 2;
/// How long one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(3);

/// The turns.
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// argon2id in PHC form, with the library's parameters (19 MiB, two passes).
///
/// # Errors
/// [`ShareError::Busy`] when too many wait.
pub async fn hash(passphrase: Zeroizing<String>, salt: Zeroizing<[u8; 16]>) -> Result<String, ShareError> {
    let made = in_turn(move || {
        let hash: Result<PasswordHash, _> =
            Argon2::default().hash_password_with_salt(passphrase.as_bytes(), salt.as_slice());
        hash.map(|hash| hash.to_string())
    });
    made.await?.map_err(|_| ShareError::Busy)
}

/// Whether it is the passphrase that was hashed.
///
/// # Errors
/// [`ShareError::Busy`] when too many wait.
pub async fn verify(passphrase: Zeroizing<String>, hash: Arc<str>) -> Result<bool, ShareError> {
    in_turn(move || {
        PasswordHash::new(&hash)
            .is_ok_and(|hash| Argon2::default().verify_password(passphrase.as_bytes(), &hash).is_ok())
    })
    .await
}

async fn in_turn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ShareError> {
    let Ok(Ok(turn)) = tokio::time::timeout(PATIENCE, TURNS.acquire()).await else { return Err(ShareError::Busy) };
    // The turn ends with the work, also when whoever asked has gone.
    tokio::task::spawn_blocking(move || {
        let done = work();
        drop(turn);
        done
    })
    .await
    .map_err(|_| ShareError::Busy)
}
