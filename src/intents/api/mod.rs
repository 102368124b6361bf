//! What documents the Intents API.

mod lanes;
mod replace;
mod transactions;

use serde_json::{Value, json};
use utoipa::ToSchema;

pub use self::lanes::{Lane, LaneList, ResumeLane, ResumedLane, lanes, resume_lane};
pub use self::replace::{Nothing, SpeedUpRequest, cancel, speed_up};
pub use self::transactions::{RefusedTransaction, SignedTransaction, Transaction, TransactionList};
use crate::http::api::schemas::{Address, Amount, Id, Time, Wei, text, words};
use crate::http::api::{Doc, Tag};

words!(
    /// The only mode: the key's own account. Smart accounts are refused, never signed otherwise.
    TransactionMode: "eoa"
);
words!(
    /// How far a transaction is. `signed`: not broadcast yet. `sign_only`: the daemon never broadcasts it. `failed`: it is final that it
    /// did nothing, or never will be mined. `simulation_failed`: it was not signed.
    TransactionStatus: "signed" | "sign_only" | "broadcast" | "failed" | "simulation_failed"
);
words!(
    /// What became of the nonce: `success`, `reverted`, `cancelled` (by a transaction of ours that does nothing) or `foreign` (somebody
    /// else used it).
    ReceiptStatus: "success" | "reverted" | "cancelled" | "foreign"
);
words!(
    /// How a simulation ended. `error`: it could not even start.
    SimulationStatus: "success" | "reverted" | "error"
);
text!(
    /// What is called, in hex; `0x` or empty is nothing. At most 128 KiB.
    CallData = "0xa9059cbb", pattern: "^(0x([0-9a-fA-F]{2})*)?$", max_length: 262_146
);
text!(
    /// A change with its sign, in whole units.
    SignedAmount = "-0.51", pattern: r"^[+-]?[0-9]+(\.[0-9]+)?$"
);
text!(
    /// An amount in whole units; below zero where a transaction could not be paid for.
    Holding = "1.5", pattern: r"^-?[0-9]+(\.[0-9]+)?$"
);

/// A transaction to be signed. Members that are not known and would change what is sent are refused.
#[derive(ToSchema)]
pub struct TransactionRequest {
    /// To whom. Contracts cannot be created here.
    pub to: Address,
    /// How much of the native unit, in whole units.
    pub value: Amount,
    /// On which chain: its name, or its id as a text.
    #[schema(examples("base"), max_length = 255)]
    pub chain: String,
    /// What is called.
    pub data: Option<CallData>,
    /// Where the key is; the agent's own key, else `keys/{chain}-signer`, if not given.
    #[schema(examples("keys/base-signer"), max_length = 512)]
    pub signing_key_path: Option<String>,
    /// The nonce; the next one if not given.
    #[schema(minimum = 0)]
    pub nonce: Option<i64>,
    /// The price per gas in wei, for a transaction of the old type (EIP-155).
    pub gas_price: Option<Wei>,
    /// The gas limit; estimated if not given.
    #[schema(minimum = 1)]
    pub gas_limit: Option<i64>,
    /// The most per gas in wei (EIP-1559).
    pub max_fee_per_gas: Option<Wei>,
    /// The tip per gas in wei (EIP-1559).
    pub max_priority_fee_per_gas: Option<Wei>,
    /// Whether it is simulated first, and not signed if that fails.
    pub simulate_first: Option<bool>,
    /// The only mode.
    pub mode: Option<TransactionMode>,
}

/// A transaction to be looked at. What `/transactions` takes is taken here too.
#[derive(ToSchema)]
pub struct SimulationRequest {
    /// To whom.
    pub to: Address,
    /// How much of the native unit, in whole units.
    pub value: Amount,
    /// On which chain: its name, or its id as a text.
    #[schema(examples("base"), max_length = 255)]
    pub chain: String,
    /// What is called.
    pub data: Option<CallData>,
    /// Where the key is; the agent's own key, else `keys/{chain}-signer`, if not given.
    #[schema(max_length = 512)]
    pub signing_key_path: Option<String>,
    /// The gas limit; estimated if not given.
    #[schema(minimum = 1)]
    pub gas_limit: Option<i64>,
}

/// Transactions of one chain, to be looked at one after the other.
#[derive(ToSchema)]
pub struct BundleRequest {
    /// In their order.
    #[schema(min_items = 1, max_items = 32)]
    pub transactions: Vec<SimulationRequest>,
}

/// Who gains or loses what. The network's fee is not in it.
#[derive(ToSchema)]
pub struct BalanceChange {
    /// Whose.
    pub address: Address,
    /// The token's contract; `null` is the native unit.
    #[schema(required = true)]
    pub token: Option<Address>,
    /// What the token calls itself. Anybody can choose any symbol.
    #[schema(required = true)]
    pub token_symbol: Option<String>,
    /// Before it; `null` where the token does not say.
    #[schema(required = true)]
    pub before: Option<Holding>,
    /// After it.
    #[schema(required = true)]
    pub after: Option<Holding>,
    /// The difference.
    pub change: SignedAmount,
}

/// What the guardrails would say to a submit, as of now.
#[derive(ToSchema)]
pub struct Verdict {
    /// Whether they would let it through.
    pub allowed: bool,
    /// The rules that it would break.
    pub violations: Vec<String>,
}

/// What a transaction would do.
#[derive(ToSchema)]
pub struct Simulation {
    /// Its id.
    pub simulation_id: Id,
    /// How it ended.
    pub status: SimulationStatus,
    /// Gas used; 0 where it could not start, or nobody says.
    pub gas_used: u64,
    /// What that costs, where the chain's unit has a price.
    #[schema(required = false, examples("0.5775"))]
    pub gas_estimate_usd: String,
    /// Who gains and loses what. Empty unless it succeeds.
    pub balance_changes: Vec<BalanceChange>,
    /// Why it failed, in the words of the machine.
    #[schema(required = false)]
    pub error: String,
    /// Why it failed, as a short word.
    #[schema(required = false, examples("execution_reverted"))]
    pub error_code: String,
    /// Why it failed, for people.
    #[schema(required = false)]
    pub error_human_readable: String,
    /// What the contract said.
    #[schema(required = false)]
    pub revert_reason: String,
    /// Where people can look at it.
    #[schema(required = false, format = "uri")]
    pub tenderly_dashboard_url: String,
    /// When.
    pub simulated_at: Time,
    /// What the guardrails would say.
    pub guardrails: Verdict,
}

/// What transactions would do one after the other.
#[derive(ToSchema)]
pub struct BundleSimulation {
    /// In their order, up to the first that fails.
    pub simulations: Vec<Simulation>,
    /// What the guardrails would say to them.
    pub guardrails: Verdict,
}

const TO: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const FROM: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
const HASH: &str = "0x2f0b1c9a5a4f3a7d8e6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a39281706";

fn request() -> Value {
    json!({"to": TO, "value": "0.05", "chain": "base", "simulate_first": true})
}

fn transaction() -> Value {
    json!({
        "id": "1c3e5a7b-9d1f-4b3d-8f5a-7c9e1b3d5f7a",
        "agent_id": "9d5ed678-fe57-4cca-9a10-1f6b2c3d4e5f",
        "chain": "base",
        "chain_id": 8453,
        "from": FROM,
        "to": TO,
        "value_wei": "50000000000000000",
        "gas_limit": 21000,
        "max_fee_per_gas": "2000000000",
        "max_priority_fee_per_gas": "1000000",
        "status": "broadcast",
        "created_at": "2026-11-21T12:00:00Z",
        "signed_at": "2026-11-21T12:00:00Z",
        "broadcast_at": "2026-11-21T12:00:01Z",
        "nonce": 57,
        "tx_hash": HASH,
    })
}

fn with_bytes() -> Value {
    let mut transaction = transaction();
    transaction["signed_tx"] = json!("0x02f86c");
    transaction
}

fn simulation() -> Value {
    json!({
        "simulation_id": "6e8a0c2d-4f5b-4c7e-9a9d-1b3d5f7a9c1e",
        "status": "success",
        "gas_used": 21000,
        "balance_changes": [{
            "address": FROM, "token": null, "token_symbol": "ETH", "before": "1", "after": "0.95", "change": "-0.05",
        }],
        "simulated_at": "2026-11-21T12:00:00Z",
        "guardrails": {"allowed": true, "violations": []},
    })
}

fn refused() -> Value {
    let mut refused = transaction();
    if let Some(members) = refused.as_object_mut() {
        for name in ["signed_at", "broadcast_at", "nonce", "tx_hash"] {
            members.remove(name);
        }
    }
    for (name, value) in [
        ("type", "about:blank"),
        ("title", "Unprocessable Entity"),
        ("detail", "the simulation reverted, so nothing was signed: paused"),
        ("status", "simulation_failed"),
        ("simulation_status", "reverted"),
        ("error_message", "paused"),
    ] {
        refused[name] = json!(value);
    }
    refused
}

const DENIED: &str = "A human's rule says no (the detail begins with \"Transaction denied by guardrail\"), or the agent may not do this.";
const NOT_SIGNED: &str = "A node would refuse it, its simulation failed, or there is no key for it. Nothing was signed or reserved. \
    `idempotency_mismatch`: the key was sent with another request.";

fn signs(doc: Doc) -> Doc {
    doc.header(
        "Idempotency-Key",
        false,
        json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]*$"}),
        "The same key with the same request is the same transaction for 24 hours, however often it is sent.",
    )
    .body::<TransactionRequest>(request())
    .problem(403, DENIED)
    .problem(409, "A request with this key is in flight, or the nonce is taken.")
    .problem_with::<RefusedTransaction>(422, NOT_SIGNED, refused())
    .problem(503, "It could not be checked. Nothing was signed, unless the detail says that the outcome is not known.")
}

fn replayed(doc: Doc, status: u16) -> Doc {
    doc.reply_header(
        status,
        "Idempotency-Replayed",
        json!({"type": "string", "const": "true"}),
        "There when the key was sent before.",
    )
}

/// Sign a transaction and send it.
#[must_use]
pub fn submit() -> Doc {
    let doc = Doc::new(Tag::Intents, "submitTransaction", "Sign a transaction and send it").says(
        "For the agent itself. The guardrails are judged and the nonce is taken in one step; a broadcast that fails is 201 with \
         `status` `signed`, and is repeated by the daemon.",
    );
    let doc = signs(doc)
        .reply::<Transaction>(200, "The transaction as it is now: the key was sent before.", with_bytes())
        .reply::<Transaction>(201, "The transaction.", with_bytes());
    replayed(doc, 200)
}

/// List an agent's transactions.
#[must_use]
pub fn list() -> Doc {
    signed_too(Doc::new(Tag::Intents, "listTransactions", "List an agent's transactions"))
        .says("For the agent itself, and for humans of the organisation.")
        .pages(50, 200)
        .reply::<TransactionList>(200, "The transactions.", json!({"transactions": [transaction()]}))
}

fn signed_too(doc: Doc) -> Doc {
    doc.query(
        "include_signed_tx",
        json!({"type": ["boolean", "string", "integer"], "default": false}),
        "Whether the signed bytes are shown: only the literal `true` and `1` say so.",
    )
}

/// Sign a transaction and hand it out.
#[must_use]
pub fn sign() -> Doc {
    let mut signed = with_bytes();
    if let Some(members) = signed.as_object_mut() {
        for name in ["agent_id", "signed_at", "broadcast_at"] {
            members.remove(name);
        }
    }
    signed["status"] = json!("sign_only");
    let doc = Doc::new(Tag::Intents, "signTransaction", "Sign a transaction and hand it out").says(
        "For the agent itself. It is held to the same guardrails and counts like one that is sent; the daemon never broadcasts it.",
    );
    replayed(signs(doc).reply::<SignedTransaction>(200, "The signed transaction.", signed), 200)
}

fn looks(doc: Doc) -> Doc {
    doc.problem(403, "The agent may not do this.")
        .problem(422, "There is no key for it, or it cannot be simulated.")
        .problem(409, "The key is not active.")
}

/// See what a transaction would do.
#[must_use]
pub fn simulate() -> Doc {
    looks(Doc::new(Tag::Intents, "simulateTransaction", "See what a transaction would do"))
        .says("Nothing is signed or reserved. That it would fail is an answer (200).")
        .body::<SimulationRequest>(json!({"to": TO, "value": "0.05", "chain": "base"}))
        .reply::<Simulation>(200, "What it would do.", simulation())
}

/// See what transactions would do one after the other.
#[must_use]
pub fn simulate_bundle() -> Doc {
    looks(Doc::new(Tag::Intents, "simulateBundle", "See what transactions would do one after the other"))
        .says("Each on the state that the one before left, up to the first that would fail. All of them on one chain.")
        .body::<BundleRequest>(json!({"transactions": [{"to": TO, "value": "0.05", "chain": "base"}]}))
        .reply::<BundleSimulation>(
            200,
            "What they would do.",
            json!({"simulations": [simulation()], "guardrails": {"allowed": true, "violations": []}}),
        )
}

/// Look at a transaction.
#[must_use]
pub fn get_one() -> Doc {
    signed_too(Doc::new(Tag::Intents, "getTransaction", "Look at a transaction"))
        .says("For the agent itself, and for humans of the organisation.")
        .reply::<Transaction>(200, "The transaction.", transaction())
}
