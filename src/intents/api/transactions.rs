//! Transactions, as they are shown.

use super::{ReceiptStatus, SimulationStatus, TransactionStatus};
use crate::http::api::schemas::{Address, Cursor, Hash, HexBytes, Id, ProblemType, Time, Wei, words};
use utoipa::ToSchema;

/// A transaction.
#[derive(ToSchema)]
pub struct Transaction {
    /// Its id.
    pub id: Id,
    /// Whose.
    pub agent_id: Id,
    /// On which chain.
    #[schema(examples("base"))]
    pub chain: String,
    /// That chain's id.
    pub chain_id: u64,
    /// From which address.
    pub from: Address,
    /// To whom.
    pub to: Address,
    /// How much, in wei.
    pub value_wei: Wei,
    /// What is called.
    #[schema(required = false)]
    pub data: HexBytes,
    /// The gas limit.
    pub gas_limit: u64,
    /// The price per gas in wei, of the old type.
    #[schema(required = false)]
    pub gas_price: Wei,
    /// The most per gas in wei.
    #[schema(required = false)]
    pub max_fee_per_gas: Wei,
    /// The tip per gas in wei.
    #[schema(required = false)]
    pub max_priority_fee_per_gas: Wei,
    /// How far it is.
    pub status: TransactionStatus,
    /// When it was asked for.
    pub created_at: Time,
    /// When it was signed.
    #[schema(required = false)]
    pub signed_at: Time,
    /// When it was first broadcast.
    #[schema(required = false)]
    pub broadcast_at: Time,
    /// Its nonce.
    #[schema(required = false)]
    pub nonce: u64,
    /// Its hash.
    #[schema(required = false)]
    pub tx_hash: Hash,
    /// The signed bytes. Whoever has them can have them mined, so they are not there while something holds the transaction back, nor while
    /// it is being cancelled.
    #[schema(required = false)]
    pub signed_tx: HexBytes,
    /// Why it was not broadcast, or not signed.
    #[schema(required = false)]
    pub error_message: String,
    /// Why it is not broadcast: something of it is frozen, its agent signs nothing any more, or its agent's guardrails forbid it by now.
    #[schema(required = false)]
    pub hold_reason: String,
    /// Why it is not mined: an earlier transaction of the same key is held back.
    #[schema(required = false)]
    pub wait_reason: String,
    /// The simulation's id.
    #[schema(required = false)]
    pub simulation_id: Id,
    /// How that ended.
    #[schema(required = false)]
    pub simulation_status: SimulationStatus,
    /// Where people can look at it.
    #[schema(required = false, format = "uri")]
    pub tenderly_dashboard_url: String,
    /// What became of it, once it is mined.
    #[schema(required = false)]
    pub receipt_status: ReceiptStatus,
    /// In which block.
    #[schema(required = false)]
    pub block_number: u64,
    /// That block's hash.
    #[schema(required = false)]
    pub block_hash: Hash,
    /// Gas used.
    #[schema(required = false)]
    pub gas_used: u64,
    /// What was paid per gas, in wei.
    #[schema(required = false)]
    pub effective_gas_price: Wei,
    /// How many blocks are on top of its own, that one included.
    #[schema(required = false)]
    pub confirmations: u64,
    /// Whether that can change any more.
    #[schema(required = false)]
    pub r#final: bool,
    /// The hash of the transaction that was mined instead.
    #[schema(required = false)]
    pub replaced_by: Hash,
}

/// Transactions.
#[derive(ToSchema)]
pub struct TransactionList {
    /// The newest first.
    pub transactions: Vec<Transaction>,
    /// Only when there are more.
    #[schema(required = false)]
    pub next_cursor: Cursor,
}

words!(
    /// The daemon never broadcasts it, but sees what becomes of it.
    SignedStatus: "sign_only" | "failed"
);

/// A signed transaction.
#[derive(ToSchema)]
pub struct SignedTransaction {
    /// Its id.
    pub id: Id,
    /// The signed bytes. Whoever has them can have them mined, so a repeat under the same idempotency key has none while something of it is
    /// frozen, nor while it is being cancelled.
    #[schema(required = false)]
    pub signed_tx: HexBytes,
    /// Its hash.
    pub tx_hash: Hash,
    /// From which address.
    pub from: Address,
    /// To whom.
    pub to: Address,
    /// On which chain.
    #[schema(examples("base"))]
    pub chain: String,
    /// That chain's id.
    pub chain_id: u64,
    /// Its nonce.
    pub nonce: u64,
    /// How much, in wei.
    pub value_wei: Wei,
    /// The gas limit.
    pub gas_limit: u64,
    /// The price per gas in wei, of the old type.
    #[schema(required = false)]
    pub gas_price: Wei,
    /// The most per gas in wei.
    #[schema(required = false)]
    pub max_fee_per_gas: Wei,
    /// The tip per gas in wei.
    #[schema(required = false)]
    pub max_priority_fee_per_gas: Wei,
    /// How far it is.
    pub status: SignedStatus,
    /// When it was asked for.
    pub created_at: Time,
    /// The simulation's id.
    #[schema(required = false)]
    pub simulation_id: Id,
    /// How that ended.
    #[schema(required = false)]
    pub simulation_status: SimulationStatus,
    /// Where people can look at it.
    #[schema(required = false, format = "uri")]
    pub tenderly_dashboard_url: String,
    /// What somebody should know about it.
    #[schema(required = false)]
    pub error_message: String,
    /// Why its bytes are not given out: something of it is frozen, or its agent signs nothing any more.
    #[schema(required = false)]
    pub hold_reason: String,
    /// Why it cannot be mined: an earlier transaction of the same key is held back.
    #[schema(required = false)]
    pub wait_reason: String,
    /// What became of it, once it is mined.
    #[schema(required = false)]
    pub receipt_status: ReceiptStatus,
    /// When the daemon first saw it sent.
    #[schema(required = false)]
    pub broadcast_at: Time,
    /// In which block.
    #[schema(required = false)]
    pub block_number: u64,
    /// That block's hash.
    #[schema(required = false)]
    pub block_hash: Hash,
    /// Gas used.
    #[schema(required = false)]
    pub gas_used: u64,
    /// What was paid per gas, in wei.
    #[schema(required = false)]
    pub effective_gas_price: Wei,
    /// How many blocks are on top of its own, that one included.
    #[schema(required = false)]
    pub confirmations: u64,
    /// Whether that can change any more.
    #[schema(required = false)]
    pub r#final: bool,
    /// The hash of the transaction that was mined instead.
    #[schema(required = false)]
    pub replaced_by: Hash,
}

/// Why nothing was signed. When a simulation reverted, the members of the transaction that was recorded are here too, and `status` is
/// its word and not the number.
#[derive(ToSchema)]
pub struct RefusedTransaction {
    /// What kind of problem.
    pub r#type: ProblemType,
    /// The status' own phrase.
    pub title: String,
    /// What was wrong, and what to do.
    pub detail: String,
    /// The HTTP status, or `simulation_failed`.
    pub status: ProblemOrTransactionStatus,
    /// The transaction's id, and so on, as it is read later.
    #[schema(required = false)]
    pub id: Id,
    /// Whose.
    #[schema(required = false)]
    pub agent_id: Id,
    /// On which chain.
    #[schema(required = false)]
    pub chain: String,
    /// That chain's id.
    #[schema(required = false)]
    pub chain_id: u64,
    /// From which address.
    #[schema(required = false)]
    pub from: Address,
    /// To whom.
    #[schema(required = false)]
    pub to: Address,
    /// How much, in wei.
    #[schema(required = false)]
    pub value_wei: Wei,
    /// What is called.
    #[schema(required = false)]
    pub data: HexBytes,
    /// The gas limit.
    #[schema(required = false)]
    pub gas_limit: u64,
    /// The price per gas in wei, of the old type.
    #[schema(required = false)]
    pub gas_price: Wei,
    /// The most per gas in wei.
    #[schema(required = false)]
    pub max_fee_per_gas: Wei,
    /// The tip per gas in wei.
    #[schema(required = false)]
    pub max_priority_fee_per_gas: Wei,
    /// When it was asked for.
    #[schema(required = false)]
    pub created_at: Time,
    /// Why it was not signed.
    #[schema(required = false)]
    pub error_message: String,
    /// The simulation's id.
    #[schema(required = false)]
    pub simulation_id: Id,
    /// How that ended.
    #[schema(required = false)]
    pub simulation_status: SimulationStatus,
    /// Where people can look at it.
    #[schema(required = false, format = "uri")]
    pub tenderly_dashboard_url: String,
}

/// The HTTP status, or the transaction's.
pub struct ProblemOrTransactionStatus;

impl utoipa::PartialSchema for ProblemOrTransactionStatus {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
        let word = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["simulation_failed"]));
        OneOfBuilder::new()
            .description(Some("The HTTP status, or `simulation_failed`."))
            .item(ObjectBuilder::new().schema_type(Type::Integer))
            .item(word)
            .into()
    }
}

impl ToSchema for ProblemOrTransactionStatus {}
