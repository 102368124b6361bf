//! The columns that a sealed value has, whatever its table.

use sqlx::FromRow;

use crate::hsm::{Envelope, SealedDek};
use crate::ids::KekId;

/// The sealed value of a row: to be flattened into what the row is read as.
#[derive(Debug, FromRow)]
pub struct SealedColumns {
    kek_id: KekId,
    dek_iv: Vec<u8>,
    dek_sealed: Vec<u8>,
    nonce: Vec<u8>,
    ciphertext: Vec<u8>,
}

impl SealedColumns {
    /// What was sealed; `None` if the row is not one of ours.
    #[must_use]
    pub fn envelope(&self) -> Option<Envelope> {
        let iv = self.dek_iv.as_slice().try_into().ok()?;
        let dek = SealedDek { kek_id: self.kek_id, iv, ciphertext: self.dek_sealed.clone() };
        Some(Envelope { dek, nonce: self.nonce.as_slice().try_into().ok()?, ciphertext: self.ciphertext.clone() })
    }
}
