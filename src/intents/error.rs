//! Why an intent was not carried out. Refused by a rule, refused by its own content, and could-not-check are three things.

use serde_json::{Map, Value};

use super::guardrails::Violation;
use super::parse::ParseError;
use crate::chain::fees::FeeError;
use crate::db::DbError;
use crate::hsm::HsmError;
use crate::ids::IntentId;
use crate::simulate::SimulateError;
use crate::vaults::keys::ResolveError;

/// Everything that can stop an intent. The text is what the caller reads.
#[derive(Debug, thiserror::Error)]
pub enum IntentError {
    /// The request cannot be read, or contradicts itself: 400.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The `Idempotency-Key` header cannot be used: 400.
    #[error("Idempotency-Key must be 1 to 255 visible ASCII characters")]
    BadIdempotencyKey,
    /// The caller is not the agent whose intent it would be: 403.
    #[error("{0}")]
    NotAllowed(String),
    /// No such agent or transaction in the caller's organisation: 404.
    #[error("{0}")]
    NotFound(String),
    /// A human's rule says no: 403.
    #[error("Transaction denied by guardrail: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Guardrail(Vec<Violation>),
    /// Which key signs cannot be told, or it may not be used.
    #[error(transparent)]
    Key(ResolveError),
    /// The operator of the installation has disabled the chain: 403.
    #[error(
        "chain {0} is disabled on this installation: nothing new is signed for it until a platform admin enables it"
    )]
    ChainDisabled(String),
    /// The same idempotency key is being worked on: 409.
    #[error("a request with this Idempotency-Key is in flight: ask again in a second")]
    InFlight,
    /// The same idempotency key came with another request: 422.
    #[error("this Idempotency-Key was used with another request; use a new key for a new transaction")]
    IdempotencyMismatch,
    /// The claim was taken over by another run while this one stalled: 409. Nothing was signed by this run.
    #[error("another run took over this Idempotency-Key: ask again in a second for its result")]
    ClaimLost,
    /// An explicit nonce cannot be used: 409 (occupied) or 422.
    #[error("{detail}")]
    Nonce {
        /// Whether one of our transactions holds the nonce.
        occupied: bool,
        /// What is wrong with it and what to do.
        detail: String,
    },
    /// The transaction is not in a state in which that can be done to it: 409.
    #[error("{0}")]
    Conflict(String),
    /// A node would refuse the transaction: 422, before anything was reserved.
    #[error("{0}")]
    Doomed(String),
    /// The fees that were asked for, or that the node asks, do not fit.
    #[error(transparent)]
    Fees(#[from] FeeError),
    /// The simulation reverted: 422, with the recorded transaction.
    #[error("the simulation reverted, so nothing was signed: {reason}")]
    SimulationReverted {
        /// The decoded reason.
        reason: String,
        /// The transaction as it was recorded, which the reply carries too.
        transaction: Map<String, Value>,
    },
    /// A chain, its node, or the simulator could not be asked: 503.
    #[error("{detail}")]
    CouldNotCheck {
        /// What could not be asked.
        detail: String,
        /// When to try again, in seconds.
        retry_after_s: u64,
    },
    /// The chain's nonce is too far ahead of ours: 503, and the lane is frozen when mined blocks say so.
    #[error(
        "the nonce of this key on {chain} jumped from {ours} to {theirs}: the key may be used elsewhere, or the node may be wrong{}",
        if *mined { "; the lane is frozen until a human has looked (GET /v1/lanes, POST /v1/lanes/{{chain}}/{{address}}/resume, or `intentd admin lanes`)" } else { "; nothing is signed while it says so" }
    )]
    LaneJump {
        /// The chain's name.
        chain: String,
        /// The next nonce by our rows.
        ours: u64,
        /// The next nonce by the node.
        theirs: u64,
        /// Whether they are in mined blocks, and not only in the node's pool.
        mined: bool,
    },
    /// The HSM did not sign.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The database did not answer, or refused.
    #[error(transparent)]
    Db(#[from] DbError),
    /// COMMIT was sent and its outcome cannot be told yet: 503, and the claim stays, so that a retry reads the truth.
    #[error("the outcome of transaction {0} is not known yet; ask again with the same Idempotency-Key, or GET it")]
    OutcomeUnknown(IntentId),
    /// The daemon is stopping: 503.
    #[error("the daemon is stopping; nothing was signed")]
    Stopping,
}

/// A database that fails while the key is looked up is a database that fails: T1 must not go on with its connection.
impl From<ResolveError> for IntentError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Db(error) => Self::Db(error),
            refused => Self::Key(refused),
        }
    }
}

impl From<SimulateError> for IntentError {
    fn from(error: SimulateError) -> Self {
        Self::CouldNotCheck { detail: error.to_string(), retry_after_s: error.retry_after_s() }
    }
}

/// It cannot happen; if it does, nothing is signed.
impl From<super::bound::NotTheSame> for IntentError {
    fn from(error: super::bound::NotTheSame) -> Self {
        Self::Doomed(error.to_string())
    }
}

impl From<sqlx::Error> for IntentError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

impl IntentError {
    /// Could not be checked: try again.
    pub fn could_not_check(detail: impl Into<String>) -> Self {
        Self::CouldNotCheck { detail: detail.into(), retry_after_s: 1 }
    }

    /// Something that decides was changed while this was checked: nothing was signed.
    pub(super) fn changed_meanwhile(what: &str) -> Self {
        Self::could_not_check(format!("{what} while this was checked: nothing was signed; try again"))
    }

    /// The organisation or the installation has come to want simulations, and there is none.
    pub(super) fn simulation_came_to_be_required() -> Self {
        Self::changed_meanwhile("it came to be required that every intent is simulated")
    }

    /// Whether the idempotency claim must stay because something may have been signed, or is not ours.
    #[must_use]
    pub fn keeps_claim(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_) | Self::ClaimLost | Self::InFlight | Self::IdempotencyMismatch)
    }

    /// A short word for audit rows and logs.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Parse(_) | Self::BadIdempotencyKey => "bad_request",
            Self::NotAllowed(_) | Self::NotFound(_) => "not_allowed",
            Self::Guardrail(_) => "guardrail",
            Self::ChainDisabled(_) => "chain_disabled",
            Self::Key(_) => "key",
            Self::InFlight | Self::ClaimLost => "in_flight",
            Self::IdempotencyMismatch => "idempotency_mismatch",
            Self::Nonce { .. } => "nonce",
            Self::Conflict(_) => "conflict",
            Self::Doomed(_) => "doomed",
            Self::Fees(_) => "fees",
            Self::SimulationReverted { .. } => "simulation_reverted",
            Self::CouldNotCheck { .. } => "could_not_check",
            Self::LaneJump { .. } => "lane_jump",
            Self::Hsm(_) => "hsm",
            Self::Db(_) => "database",
            Self::OutcomeUnknown(_) => "outcome_unknown",
            Self::Stopping => "stopping",
        }
    }
}
