//! Names for selectors, from contract ABIs: what an error or a call is called, and with what arguments. Pure.
//!
//! Anybody can give a contract an error with any selector, so a name is a hint for people and never decides anything.

use std::collections::BTreeMap;

use alloy::dyn_abi::{DynSolType, DynSolValue, Specifier};
use alloy::json_abi::{Function, JsonAbi, Param};
use alloy::primitives::{Address, hex, keccak256};
use serde_json::Value;

/// Longest ABI that is read, in bytes of JSON.
pub const ABI_BYTES_MAX: usize = 256 * 1024;
/// Most functions and errors of one ABI.
pub const ITEMS_MAX: usize = 2_000;
/// Longest signature that is kept, in characters.
const SIGNATURE_CHARS_MAX: usize = 512;
/// Longest name of an argument, in characters.
const NAME_CHARS_MAX: usize = 64;
/// Longest encoding whose arguments are shown, in bytes.
const DECODED_BYTES_MAX: usize = 8 * 1024;
/// Longest text of one value, in characters.
const VALUE_CHARS_MAX: usize = 200;
/// Most arguments that are shown.
const ARGUMENTS_MAX: usize = 16;

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Calldata begins with its selector.
    Function,
    /// The return data of a revert begins with its selector.
    Error,
}

impl Kind {
    /// As tables and replies write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Error => "error",
        }
    }
}

/// A function or an error with its arguments' names and types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which.
    pub kind: Kind,
    /// The first four bytes of the keccak-256 of [`Item::signature`].
    pub selector: [u8; 4],
    /// `transfer(address,uint256)`.
    pub signature: String,
    /// The arguments' names, empty where they have none.
    pub names: Vec<String>,
}

/// Why a text is no ABI. Completes the sentence "abi …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AbiError {
    /// Longer than [`ABI_BYTES_MAX`].
    #[error("is longer than {ABI_BYTES_MAX} bytes")]
    TooLong,
    /// Not what a compiler writes.
    #[error("must be a contract's JSON ABI: an array of functions, errors and events, as compilers write it")]
    NotAnAbi,
    /// More than [`ITEMS_MAX`].
    #[error("has more than {ITEMS_MAX} functions and errors")]
    TooMany,
    /// Neither functions nor errors.
    #[error("has neither functions nor errors: there is nothing in it to name")]
    Empty,
}

/// Reads an ABI: the array itself, that array as a text, or a compiler's artifact with the array under `abi`.
///
/// # Errors
/// [`AbiError`].
pub fn read_abi(abi: &Value) -> Result<Vec<Item>, AbiError> {
    let parsed;
    let abi = match abi {
        Value::String(text) if text.len() > ABI_BYTES_MAX => return Err(AbiError::TooLong),
        Value::String(text) => {
            parsed = serde_json::from_str(text).map_err(|_| AbiError::NotAnAbi)?;
            &parsed
        }
        other => other,
    };
    let abi = abi.as_object().and_then(|artifact| artifact.get("abi")).unwrap_or(abi);
    let Value::Array(entries) = abi else { return Err(AbiError::NotAnAbi) };
    if entries.len() > 4 * ITEMS_MAX {
        return Err(AbiError::TooMany);
    }
    if abi.to_string().len() > ABI_BYTES_MAX {
        return Err(AbiError::TooLong);
    }
    let abi: JsonAbi = serde_json::from_value(abi.clone()).map_err(|_| AbiError::NotAnAbi)?;
    let functions = abi.functions().map(|f| Item::new(Kind::Function, f.selector().0, f.signature(), &f.inputs));
    let errors = abi.errors().map(|e| Item::new(Kind::Error, e.selector().0, e.signature(), &e.inputs));
    let mut items: Vec<Item> = functions.chain(errors).filter(Item::is_usual).collect();
    items.sort_by_key(|item| (item.kind, item.selector));
    items.dedup_by(|a, b| (a.kind, a.selector) == (b.kind, b.selector));
    match items.len() {
        0 => Err(AbiError::Empty),
        n if n > ITEMS_MAX => Err(AbiError::TooMany),
        _ => Ok(items),
    }
}

impl Item {
    fn new(kind: Kind, selector: [u8; 4], signature: String, inputs: &[Param]) -> Self {
        let name = |input: &Param| {
            let usual = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
            if input.name.len() <= NAME_CHARS_MAX && input.name.chars().all(usual) {
                input.name.clone()
            } else {
                String::new()
            }
        };
        Self { kind, selector, signature, names: inputs.iter().map(name).collect() }
    }

    /// Whether the signature is short, and reads back as itself.
    fn is_usual(&self) -> bool {
        let chars = self.signature.chars();
        chars.clone().count() <= SIGNATURE_CHARS_MAX
            && chars.clone().all(|c| c.is_ascii_graphic())
            && Self::parse(self.kind, &self.signature, Vec::new()).is_some_and(|read| read.selector == self.selector)
    }

    /// From a signature and names, as they were kept. `None` where the signature is none.
    #[must_use]
    pub fn parse(kind: Kind, signature: &str, names: Vec<String>) -> Option<Self> {
        Function::parse(signature).ok()?;
        let [a, b, c, d, ..] = keccak256(signature).0;
        Some(Self { kind, selector: [a, b, c, d], signature: signature.to_owned(), names })
    }

    /// The name alone.
    #[must_use]
    pub fn name(&self) -> &str {
        self.signature.split('(').next().unwrap_or_default()
    }

    /// `InsufficientBalance(available: 3, required: 5)`, from an encoding that begins with the selector; `None` where the rest is not
    /// an encoding of these arguments.
    #[must_use]
    pub fn decode(&self, data: &[u8]) -> Option<String> {
        let (selector, arguments) = data.split_first_chunk::<4>()?;
        if *selector != self.selector || arguments.len() > DECODED_BYTES_MAX {
            return None;
        }
        let types: Vec<DynSolType> =
            Function::parse(&self.signature).ok()?.inputs.iter().map(|p| p.resolve().ok()).collect::<Option<_>>()?;
        let DynSolValue::Tuple(values) = DynSolType::Tuple(types).abi_decode_params(arguments).ok()? else {
            return None;
        };
        let shown = values.iter().take(ARGUMENTS_MAX).enumerate().map(|(index, value)| {
            let text = shorten(&show(value));
            match self.names.get(index).filter(|name| !name.is_empty()) {
                Some(name) => format!("{}: {text}", shorten(name)),
                None => text,
            }
        });
        let mut shown: Vec<String> = shown.collect();
        if values.len() > ARGUMENTS_MAX {
            shown.push("…".to_owned());
        }
        Some(format!("{}({})", shorten(self.name()), shown.join(", ")))
    }
}

fn show(value: &DynSolValue) -> String {
    let list = |values: &[DynSolValue]| {
        let shown: Vec<String> = values.iter().take(ARGUMENTS_MAX).map(show).collect();
        let more = if values.len() > ARGUMENTS_MAX { ", …" } else { "" };
        format!("{}{more}", shown.join(", "))
    };
    match value {
        DynSolValue::Bool(flag) => flag.to_string(),
        DynSolValue::Int(number, _) => number.to_string(),
        DynSolValue::Uint(number, _) => number.to_string(),
        DynSolValue::FixedBytes(word, size) => hex::encode_prefixed(&word[..(*size).min(32)]),
        DynSolValue::Address(address) => address.to_string(),
        DynSolValue::Function(pointer) => hex::encode_prefixed(pointer),
        DynSolValue::Bytes(bytes) => hex::encode_prefixed(bytes.get(..64).unwrap_or(bytes)),
        DynSolValue::String(text) => format!("{:?}", super::revert::clean(text)),
        DynSolValue::Array(values) | DynSolValue::FixedArray(values) => format!("[{}]", list(values)),
        DynSolValue::Tuple(values) => format!("({})", list(values)),
    }
}

fn shorten(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A collection of items, by what they belong to.
#[derive(Clone, Debug, Default)]
pub struct Names(BTreeMap<(Kind, [u8; 4]), Vec<Owned>>);

/// An item, and the contract that it belongs to.
type Owned = (Option<Address>, Item);

impl Names {
    /// Adds an item; of a contract, or of any.
    pub fn add(&mut self, contract: Option<Address>, item: Item) {
        self.0.entry((item.kind, item.selector)).or_default().push((contract, item));
    }

    /// The item that the selector means: the contract's own, else the one that all others agree on.
    #[must_use]
    pub fn find(&self, kind: Kind, data: &[u8], contract: Option<Address>) -> Option<&Item> {
        let selector = data.first_chunk::<4>()?;
        let known = self.0.get(&(kind, *selector))?;
        if let Some((_, item)) = known.iter().find(|(owner, _)| owner.is_some() && *owner == contract) {
            return Some(item);
        }
        let (_, first) = known.first()?;
        known.iter().all(|(_, item)| item.signature == first.signature).then_some(first)
    }

    /// The decoded text of an encoding, where its item is known.
    #[must_use]
    pub fn decode(&self, kind: Kind, data: &[u8], contract: Option<Address>) -> Option<String> {
        self.find(kind, data, contract)?.decode(data)
    }

    /// The standard tokens' functions and errors (ERC-20, 721, 1155, 2612 and 6093), WETH, multicalls, Permit2 and Safe.
    #[must_use]
    pub fn standard() -> Self {
        const FUNCTIONS: &[&str] = &[
            "transfer(address,uint256)",
            "transferFrom(address,address,uint256)",
            "approve(address,uint256)",
            "increaseAllowance(address,uint256)",
            "decreaseAllowance(address,uint256)",
            "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)",
            "balanceOf(address)",
            "allowance(address,address)",
            "symbol()",
            "decimals()",
            "name()",
            "totalSupply()",
            "mint(address,uint256)",
            "burn(uint256)",
            "safeTransferFrom(address,address,uint256)",
            "safeTransferFrom(address,address,uint256,bytes)",
            "safeTransferFrom(address,address,uint256,uint256,bytes)",
            "safeBatchTransferFrom(address,address,uint256[],uint256[],bytes)",
            "setApprovalForAll(address,bool)",
            "ownerOf(uint256)",
            "deposit()",
            "withdraw(uint256)",
            "multicall(bytes[])",
            "multicall(uint256,bytes[])",
            "aggregate3((address,bool,bytes)[])",
            "execTransaction(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes)",
            "approve(address,address,uint160,uint48)",
            "transferFrom(address,address,uint160,address)",
            "transferOwnership(address)",
            "upgradeTo(address)",
            "upgradeToAndCall(address,bytes)",
        ];
        const ERRORS: &[(&str, &[&str])] = &[
            ("ERC20InsufficientBalance(address,uint256,uint256)", &["sender", "balance", "needed"]),
            ("ERC20InvalidSender(address)", &["sender"]),
            ("ERC20InvalidReceiver(address)", &["receiver"]),
            ("ERC20InsufficientAllowance(address,uint256,uint256)", &["spender", "allowance", "needed"]),
            ("ERC20InvalidApprover(address)", &["approver"]),
            ("ERC20InvalidSpender(address)", &["spender"]),
            ("ERC721NonexistentToken(uint256)", &["tokenId"]),
            ("ERC721IncorrectOwner(address,uint256,address)", &["sender", "tokenId", "owner"]),
            ("ERC721InsufficientApproval(address,uint256)", &["operator", "tokenId"]),
            (
                "ERC1155InsufficientBalance(address,uint256,uint256,uint256)",
                &["sender", "balance", "needed", "tokenId"],
            ),
            ("OwnableUnauthorizedAccount(address)", &["account"]),
            ("AccessControlUnauthorizedAccount(address,bytes32)", &["account", "neededRole"]),
            ("ERC2612ExpiredSignature(uint256)", &["deadline"]),
            ("ERC2612InvalidSigner(address,address)", &["signer", "owner"]),
            ("EnforcedPause()", &[]),
            ("ReentrancyGuardReentrantCall()", &[]),
            ("SafeERC20FailedOperation(address)", &["token"]),
        ];
        let mut names = Self::default();
        let functions = FUNCTIONS.iter().map(|signature| (Kind::Function, *signature, &[][..]));
        let errors = ERRORS.iter().map(|(signature, names)| (Kind::Error, *signature, *names));
        for (kind, signature, arguments) in functions.chain(errors) {
            let arguments = arguments.iter().map(|name| (*name).to_owned()).collect();
            if let Some(item) = Item::parse(kind, signature, arguments) {
                names.add(None, item);
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::primitives::U256;
    use proptest::prelude::*;
    use serde_json::json;

    fn abi() -> Value {
        json!([
            {"type": "constructor", "inputs": []},
            {"type": "function", "name": "move", "stateMutability": "nonpayable", "outputs": [],
             "inputs": [{"name": "to", "type": "address"}, {"name": "legs", "type": "tuple[]", "components": [
                {"name": "a", "type": "uint8"}, {"name": "b", "type": "string"}]}]},
            {"type": "error", "name": "Short", "inputs": [{"name": "have", "type": "uint256"}, {"name": "", "type": "int8"}]},
            {"type": "event", "name": "E", "anonymous": false, "inputs": []},
        ])
    }

    #[test]
    fn an_abi_is_read_as_array_text_and_artifact() {
        let items = read_abi(&abi()).unwrap();
        let signatures: Vec<_> = items.iter().map(|item| (item.kind, item.signature.as_str())).collect();
        assert_eq!(
            signatures,
            [(Kind::Function, "move(address,(uint8,string)[])"), (Kind::Error, "Short(uint256,int8)")]
        );
        assert_eq!(read_abi(&json!(abi().to_string())).unwrap(), items);
        assert_eq!(read_abi(&json!({"contractName": "C", "abi": abi()})).unwrap(), items);
        for item in items {
            assert_eq!(Item::parse(item.kind, &item.signature, item.names.clone()), Some(item));
        }
        for (wrong, error) in [
            (json!(1), AbiError::NotAnAbi),
            (json!("["), AbiError::NotAnAbi),
            (json!([{"type": "function"}]), AbiError::NotAnAbi),
            (json!([]), AbiError::Empty),
            (json!("x".repeat(ABI_BYTES_MAX + 1)), AbiError::TooLong),
        ] {
            assert_eq!(read_abi(&wrong).unwrap_err(), error, "{wrong}");
        }
    }

    #[test]
    fn arguments_are_shown_with_their_names() {
        let items = read_abi(&abi()).unwrap();
        let word = |n: U256| n.to_be_bytes::<32>();
        let error = [&items[1].selector[..], &word(U256::from(3)), &word(U256::MAX)].concat();
        assert_eq!(items[1].decode(&error).unwrap(), "Short(have: 3, -1)");
        // Too short, another selector, and not the arguments' encoding (an int8 that is no int8 decodes as its low byte).
        assert_eq!(items[1].decode(&error[..36]), None);
        assert_eq!(items[0].decode(&error), None);
        assert_eq!(items[0].decode(&[&items[0].selector[..], &word(U256::MAX)].concat()), None);
    }

    #[test]
    fn a_contracts_own_name_wins_and_a_disputed_one_is_not_used() {
        let (a, b) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let item = |signature: &str| Item::parse(Kind::Error, signature, vec![]).unwrap();
        let data = [&item("Locked()").selector[..], &[]].concat();
        let mut names = Names::default();
        names.add(None, item("Locked()"));
        assert_eq!(names.decode(Kind::Error, &data, Some(a)).unwrap(), "Locked()");
        // The same four bytes under another name.
        names.add(Some(b), Item { signature: "Other()".to_owned(), ..item("Locked()") });
        assert_eq!(names.find(Kind::Error, &data, Some(a)), None);
        assert_eq!(names.find(Kind::Error, &data, Some(b)).unwrap().name(), "Other");
        assert_eq!(names.find(Kind::Function, &data, None), None);
    }

    #[test]
    fn the_standard_names_are_all_there() {
        let names = Names::standard();
        let call = hex!(
            "a9059cbb00000000000000000000000011111111111111111111111111111111111111110000000000000000000000000000000000000000000000000000000000000005"
        );
        let shown = names.decode(Kind::Function, &call, None).unwrap();
        assert_eq!(shown, "transfer(0x1111111111111111111111111111111111111111, 5)");
        assert_eq!(names.0.len(), 31 + 17);
    }

    proptest! {
        #[test]
        fn no_data_breaks_the_decoder(data in prop::collection::vec(any::<u8>(), 0..600)) {
            for item in read_abi(&abi()).unwrap() {
                let _ = item.decode(&[&item.selector[..], &data].concat());
            }
            for ((_, selector), items) in &Names::standard().0 {
                let _ = items[0].1.decode(&[&selector[..], &data].concat());
            }
        }
    }
}
