//! What documents the routes of agents' signing keys.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::api::schemas::{Address, Amount, HexBytes, Id, Time, Wei, text, words};
use crate::http::api::{Doc, Tag};

words!(
    /// `wrapped`: kept in the database, encrypted by the HSM. `token`: an object of the HSM.
    KeyCustody: "wrapped" | "token"
);
words!(
    /// All EVM chains share one key.
    KeyChain: "ethereum"
);
words!(
    /// The curve.
    Curve: "secp256k1"
);
text!(
    /// An amount in whole tokens, exact.
    TokenAmount = "1.5", pattern: r"^[0-9]+(\.[0-9]+)?$"
);

/// A signing key to be made.
#[derive(ToSchema)]
pub struct CreateSigningKey {
    /// For which chain: `ethereum`, or the name or id of any EVM chain of this installation; they share one key.
    #[schema(examples("ethereum"), max_length = 255)]
    pub chain: String,
    /// Where it is kept; as the installation is configured if not given.
    pub custody: Option<KeyCustody>,
}

/// How a signing key is to be replaced.
#[derive(ToSchema)]
pub struct RotateSigningKey {
    /// Where the new one is kept; as the installation is configured if not given.
    pub custody: Option<KeyCustody>,
}

/// A version of an agent's signing key.
#[derive(ToSchema)]
pub struct SigningKey {
    /// The version's id.
    pub id: Id,
    /// Whose.
    pub agent_id: Id,
    /// For which chains.
    pub chain: KeyChain,
    /// On which curve.
    pub curve: Curve,
    /// The public key: SEC 1, uncompressed.
    pub public_key: HexBytes,
    /// Its address.
    pub address: Address,
    /// Which version, from 1.
    #[schema(minimum = 1)]
    pub key_version: i32,
    /// Whether it signs.
    pub is_active: bool,
    /// Where it is kept.
    pub custody: KeyCustody,
    /// When it was made.
    pub created_at: Time,
    /// When it took the place of the one before, or lost its own.
    #[schema(required = true)]
    pub rotated_at: Option<Time>,
}

/// All versions of an agent's signing keys.
#[derive(ToSchema)]
pub struct SigningKeyList {
    /// The newest first: money may still be at an older one's address.
    pub keys: Vec<SigningKey>,
    /// The same, for clients that read this name.
    pub signing_keys: Vec<SigningKey>,
}

/// What an address has of a token.
#[derive(ToSchema)]
pub struct TokenHolding {
    /// The token's contract.
    pub address: Address,
    /// In its smallest unit.
    #[schema(required = false)]
    pub balance_raw: Wei,
    /// In whole tokens, where the token says how many decimals it has.
    #[schema(required = false)]
    pub balance: TokenAmount,
    /// How many decimals it says it has.
    #[schema(required = false)]
    pub decimals: u8,
    /// What it calls itself. Anybody can choose any symbol.
    #[schema(required = false)]
    pub symbol: String,
    /// Why it could not be read; the rest is not there then.
    #[schema(required = false)]
    pub error: String,
}

/// What a signing key's address has on a chain.
#[derive(ToSchema)]
pub struct SigningKeyBalance {
    /// Whose key.
    pub agent_id: Id,
    /// On which chain.
    #[schema(examples("base"))]
    pub chain: String,
    /// Its id.
    pub chain_id: u64,
    /// The key's address.
    pub address: Address,
    /// The native unit.
    #[schema(examples("ETH"))]
    pub symbol: String,
    /// How much of it.
    pub balance: Amount,
    /// The same in wei.
    pub balance_wei: Wei,
    /// The tokens that were asked for, in their order.
    pub tokens: Vec<TokenHolding>,
}

fn example() -> Value {
    json!({
        "id": "8e3b9a5f-4c6d-4e8f-9a2b-d3e4f5a6b7c8",
        "agent_id": "9d5ed678-fe57-4cca-9a10-1f6b2c3d4e5f",
        "chain": "ethereum",
        "curve": "secp256k1",
        "public_key": format!("0x04{}", "8d".repeat(64)),
        "address": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "key_version": 1,
        "is_active": true,
        "custody": "wrapped",
        "created_at": "2026-11-21T12:00:00Z",
        "rotated_at": null,
    })
}

const NO_EVM: &str = "The chain has no signing keys here: EVM chains only, which all share the key `ethereum`.";

/// Make an agent's signing key in the HSM.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::SigningKeys, "createSigningKey", "Make an agent's signing key in the HSM")
        .says("For owners and admins. No route gives the private key out.")
        .body::<CreateSigningKey>(json!({"chain": "ethereum"}))
        .reply::<SigningKey>(201, "The key.", example())
        .problem(409, "The agent has one already: rotate it.")
        .problem(422, NO_EVM)
}

/// List an agent's signing keys.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::SigningKeys, "listSigningKeys", "List an agent's signing keys")
        .says("For humans of the organisation, and for the agent itself.")
        .reply::<SigningKeyList>(200, "The keys.", json!({"keys": [example()], "signing_keys": [example()]}))
}

/// Stop an agent's signing key.
#[must_use]
pub fn deactivate() -> Doc {
    Doc::new(Tag::SigningKeys, "deactivateSigningKey", "Stop an agent's signing key")
        .says("It signs nothing new from then on. Another one can be made.")
        .empty(204, "It signs nothing any more.")
        .problem(422, NO_EVM)
}

/// Replace an agent's signing key.
#[must_use]
pub fn rotate() -> Doc {
    let mut second = example();
    second["key_version"] = json!(2);
    second["rotated_at"] = json!("2026-11-21T12:00:00Z");
    Doc::new(Tag::SigningKeys, "rotateSigningKey", "Replace an agent's signing key")
        .says("The new key has another address: what is at the old one stays there.")
        .optional_body::<RotateSigningKey>(json!({}))
        .reply::<SigningKey>(200, "The new key.", second)
        .problem(422, NO_EVM)
}

/// What the signing key's address has on a chain.
#[must_use]
pub fn balance() -> Doc {
    let tokens =
        json!({"type": "string", "examples": ["0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"], "maxLength": 4096});
    Doc::new(Tag::SigningKeys, "getSigningKeyBalance", "What the signing key's address has on a chain")
        .query("tokens", tokens, "Contracts of tokens to look at too: up to 20 addresses, separated by commas.")
        .reply::<SigningKeyBalance>(
            200,
            "What it has.",
            json!({
                "agent_id": "9d5ed678-fe57-4cca-9a10-1f6b2c3d4e5f",
                "chain": "base",
                "chain_id": 8453,
                "address": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
                "symbol": "ETH",
                "balance": "0.5",
                "balance_wei": "500000000000000000",
                "tokens": [{
                    "address": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
                    "balance_raw": "1500000",
                    "decimals": 6,
                    "balance": "1.5",
                    "symbol": "USDC",
                }],
            }),
        )
        .problem(422, "The chain is none of this installation's.")
}
