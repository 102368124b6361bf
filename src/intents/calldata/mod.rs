//! What calldata says: the calls inside of calls, whom they pay, what they approve. Pure.
//!
//! - [`abi`]: arguments, read strictly.
//! - [`known`]: the functions whose meaning is known; [`privileged`]: those that are off unless they are allowed.
//! - [`walk`]: through batches and wallets to the calls inside, to a bound.
//!
//! Calldata says what a contract is asked, by the selector that standards give it. What the contract does then is its own affair:
//! rules about that need contracts that a human has listed, or a simulation.

pub mod abi;
mod known;
mod privileged;
mod walk;

use alloy::primitives::{Address, U256};

pub use walk::read;

/// From here on an approval is taken as unlimited: 2^128. No token has that many of its smallest unit.
pub const UNLIMITED: U256 = U256::from_limbs([0, 0, 1, 0]);
/// And this one amount, 2^96 − 1: tokens with 96-bit amounts (COMP, UNI) write "unlimited" so.
pub const UNLIMITED_96: U256 = U256::from_limbs([u64::MAX, u32::MAX as u64, 0, 0]);

/// Everything that a transaction does as far as its calldata tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// The transaction's own call first, then those inside it.
    pub calls: Vec<Call>,
    /// What happens to tokens.
    pub tokens: Vec<TokenEffect>,
    /// The most native value that leaves the signer, or a wallet that it commands, in wei: the transaction's own, or that of its
    /// inner calls where they say more.
    pub native: U256,
}

impl Calls {
    /// Whether all of it is understood: no calldata, or functions whose meaning is known.
    #[must_use]
    pub fn understood(&self) -> bool {
        self.calls.iter().all(|call| matches!(call.kind, Kind::Plain | Kind::Understood))
    }
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The contract, or the account that is paid.
    pub target: Address,
    /// Native value that it carries, in wei.
    pub value: U256,
    /// The first four bytes of its calldata; `None` with fewer, which only a fallback takes.
    pub selector: Option<[u8; 4]>,
    /// What is known of it.
    pub kind: Kind,
    /// Why it needs `tx_allow_privileged_calls`, if so.
    pub privileged: Option<&'static str>,
    /// The batch or wallet that makes it; `None` where the signer does, or a contract calls itself for the signer.
    pub by: Option<Address>,
}

/// What is known of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No calldata: a payment.
    Plain,
    /// A function whose meaning is known; what it does is in the lists.
    Understood,
    /// A function that is not known.
    Unknown,
    /// A known function with arguments that cannot be read, or nested beyond the bound. The contract may read them otherwise, so
    /// nothing is believed of it.
    Unreadable(&'static str),
}

/// What happens to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// An amount goes to somebody.
    Transfer,
    /// Somebody may take an amount.
    Approval,
    /// Somebody may take everything (`setApprovalForAll`, DAI's `permit`).
    Operator,
    /// Somebody may take less, or nothing.
    Revocation,
}

/// One effect on a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenEffect {
    /// The token's contract.
    pub token: Address,
    /// What happens.
    pub change: Change,
    /// The recipient, or the spender.
    pub party: Address,
    /// In the token's smallest unit; items of an NFT count 1 each where the call says that it is one.
    pub amount: U256,
}

impl TokenEffect {
    /// Whether it lets somebody take as much as there is.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        match self.change {
            Change::Operator => true,
            Change::Approval => self.amount >= UNLIMITED || self.amount == UNLIMITED_96,
            Change::Transfer | Change::Revocation => false,
        }
    }
}

/// In short, for audit rows.
impl std::fmt::Display for TokenEffect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { token, change, party, amount } = self;
        match change {
            Change::Transfer => write!(f, "transfer {amount} of {token} to {party}"),
            Change::Approval if self.is_unlimited() => write!(f, "approve {party} for unlimited {token}"),
            Change::Approval => write!(f, "approve {party} for {amount} of {token}"),
            Change::Operator => write!(f, "approve {party} for all of {token}"),
            Change::Revocation => write!(f, "approve {party} for less of {token}"),
        }
    }
}

/// The selector as people write it.
#[must_use]
pub fn show(selector: Option<[u8; 4]>) -> String {
    selector.map_or_else(|| "without a selector".to_owned(), alloy::primitives::hex::encode_prefixed)
}
