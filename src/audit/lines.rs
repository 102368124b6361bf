//! The lines of an export and of a checkpoint file: one JSON object each.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::rules::{Checkpoint, Trail};
use super::store::Row;
use crate::ids::{EventId, KekId};

/// The format of the lines.
pub const VERSION: u32 = 1;

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// A trail begins.
    Trail {
        /// [`VERSION`].
        version: u32,
        /// Whose; nil for what belongs to no organisation.
        trail: Uuid,
        /// Links up to this one are not in the export.
        after: u64,
        /// The hash of that link; zeros at the beginning.
        after_hash: Bytes<32>,
        /// How many links the chain had.
        head: u64,
        /// The hash of the last one.
        head_hash: Bytes<32>,
        /// When it was exported.
        #[serde(with = "time::serde::rfc3339")]
        at: OffsetDateTime,
    },
    /// The public half of an `audit` key, as the database has it: worth something only where it is known from elsewhere.
    Key {
        /// Its id.
        key_id: KekId,
        /// 32 bytes (RFC 8032).
        public_key: Bytes<32>,
    },
    /// A link with its event.
    Event {
        /// Its place.
        seq: u64,
        /// The link before.
        prev: Bytes<32>,
        /// The link.
        hash: Bytes<32>,
        /// The event's id.
        event_id: EventId,
        /// The event. Empty when it is not there; more than one when somebody has been at it.
        events: Vec<Row>,
    },
    /// A checkpoint.
    Checkpoint(CheckpointLine),
    /// An event without a link.
    Unlinked {
        /// Whether it waits for its link. Otherwise nobody has ever linked it.
        queued: bool,
        /// Its id.
        event_id: EventId,
        /// The event.
        events: Vec<Row>,
    },
    /// A trail ends.
    End {
        /// Whose.
        trail: Uuid,
        /// The last link.
        seq: u64,
    },
}

/// A checkpoint as a line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckpointLine {
    /// Whose; nil for what belongs to no organisation.
    pub trail: Uuid,
    /// How long the chain was.
    pub seq: u64,
    /// The hash of its last link.
    pub hash: Bytes<32>,
    /// When it was signed.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// By which key.
    pub key_id: KekId,
    /// Ed25519.
    pub signature: Bytes<64>,
}

impl From<&Checkpoint> for CheckpointLine {
    fn from(checkpoint: &Checkpoint) -> Self {
        Self {
            trail: checkpoint.trail.uuid(),
            seq: checkpoint.seq,
            hash: Bytes(checkpoint.hash),
            created_at: checkpoint.created_at,
            key_id: checkpoint.key_id,
            signature: Bytes(checkpoint.signature),
        }
    }
}

impl From<CheckpointLine> for Checkpoint {
    fn from(line: CheckpointLine) -> Self {
        Self {
            trail: Trail::of_uuid(line.trail),
            seq: line.seq,
            hash: line.hash.0,
            created_at: line.created_at,
            key_id: line.key_id,
            signature: line.signature.0,
        }
    }
}

impl Line {
    /// As text, with the end of the line.
    ///
    /// # Errors
    /// What JSON has no form for, as a time in a year of five digits.
    pub fn text(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string(self)?;
        text.push('\n');
        Ok(text)
    }
}

/// Bytes, in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes<const N: usize>(pub [u8; N]);

impl<const N: usize> Serialize for Bytes<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        hexed::serialize(&self.0, serializer)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = hexed::deserialize(deserializer)?;
        let wrong = |bytes: Vec<u8>| serde::de::Error::invalid_length(bytes.len(), &"another number of bytes");
        bytes.try_into().map(Self).map_err(wrong)
    }
}

/// Hex in serde.
pub(super) mod hexed {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text).map_err(serde::de::Error::custom)
    }
}
