//! Contracts in a few instructions each, for `anvil_setCode`. No compiler: what they do can be read here.

use alloy::primitives::{Address, Bytes, U256, hex};
use alloy::sol_types::{Panic, Revert, SolError};

/// Instructions by name; jump targets by label.
#[derive(Default)]
struct Assembler {
    code: Vec<u8>,
    labels: Vec<(&'static str, usize)>,
    jumps: Vec<(&'static str, usize)>,
}

impl Assembler {
    /// Raw instructions.
    fn op(mut self, code: &[u8]) -> Self {
        self.code.extend_from_slice(code);
        self
    }

    /// PUSHn.
    fn push(mut self, bytes: &[u8]) -> Self {
        self.code.push(0x5f + u8::try_from(bytes.len()).expect("at most 32 bytes"));
        self.op(bytes)
    }

    /// PUSH2 of a label's place.
    fn push_label(mut self, label: &'static str) -> Self {
        self.jumps.push((label, self.code.len() + 1));
        self.push(&[0, 0])
    }

    /// JUMPDEST.
    fn label(mut self, label: &'static str) -> Self {
        self.labels.push((label, self.code.len()));
        self.op(&[0x5b])
    }

    fn bytes(mut self) -> Vec<u8> {
        for (label, place) in self.jumps {
            let (_, target) = self.labels.iter().find(|(name, _)| *name == label).expect(label);
            self.code[place..place + 2].copy_from_slice(&u16::try_from(*target).expect("short code").to_be_bytes());
        }
        self.code
    }
}

/// Reverts with these bytes, whatever it is called with.
pub fn reverting(data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).expect("short data").to_be_bytes();
    // CODECOPY(0, 13, len); REVERT(0, len)
    let mut code =
        Assembler::default().push(&len).push(&[0, 13]).op(&[0x5f, 0x39]).push(&len).op(&[0x5f, 0xfd]).bytes();
    assert_eq!(code.len(), 13);
    code.extend_from_slice(data);
    code
}

pub fn revert_text(text: &str) -> Vec<u8> {
    reverting(&Revert::from(text).abi_encode())
}

pub fn panicking(code: u64) -> Vec<u8> {
    reverting(&Panic::from(code).abi_encode())
}

/// Runs until the gas is gone: JUMPDEST, PUSH0, JUMP.
pub fn endless() -> Vec<u8> {
    vec![0x5b, 0x5f, 0x56]
}

/// An instruction that does not exist (EIP-141).
pub fn invalid() -> Vec<u8> {
    vec![0xfe]
}

/// Sends the ether that it gets on to `to`: CALL(gas, to, callvalue, 0, 0, 0, 0).
pub fn forwarder(to: Address) -> Vec<u8> {
    Assembler::default().op(&[0x5f, 0x5f, 0x5f, 0x5f, 0x34]).push(to.as_slice()).op(&[0x5a, 0xf1, 0x00]).bytes()
}

/// An ERC-20 of 6 decimals called USDX: `transfer`, `balanceOf`, `decimals`, `symbol`. An account's balance is in the storage
/// slot of its address. Moving more than there is reverts with `Error("not enough")`.
pub fn token() -> Vec<u8> {
    let topic = hex!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
    let error = Revert::from("not enough").abi_encode();
    let assembler = Assembler::default()
        // CALLDATALOAD(0) >> 224
        .op(&[0x5f, 0x35, 0x60, 0xe0, 0x1c])
        .op(&[0x80])
        .push(&hex!("a9059cbb"))
        .op(&[0x14])
        .push_label("transfer")
        .op(&[0x57])
        .op(&[0x80])
        .push(&hex!("70a08231"))
        .op(&[0x14])
        .push_label("balanceOf")
        .op(&[0x57])
        .op(&[0x80])
        .push(&hex!("313ce567"))
        .op(&[0x14])
        .push_label("decimals")
        .op(&[0x57])
        .op(&[0x80])
        .push(&hex!("95d89b41"))
        .op(&[0x14])
        .push_label("symbol")
        .op(&[0x57])
        .op(&[0x5f, 0x5f, 0xfd])
        .label("transfer")
        // if SLOAD(caller) < amount: fail
        .op(&[0x60, 0x24, 0x35, 0x33, 0x54, 0x10])
        .push_label("fail")
        .op(&[0x57])
        // SSTORE(caller, SLOAD(caller) - amount)
        .op(&[0x60, 0x24, 0x35, 0x33, 0x54, 0x03, 0x33, 0x55])
        // SSTORE(to, SLOAD(to) + amount)
        .op(&[0x60, 0x24, 0x35, 0x60, 0x04, 0x35, 0x54, 0x01, 0x60, 0x04, 0x35, 0x55])
        // MSTORE(0, amount); LOG3(0, 32, topic, caller, to)
        .op(&[0x60, 0x24, 0x35, 0x5f, 0x52, 0x60, 0x04, 0x35, 0x33])
        .push(&topic)
        .op(&[0x60, 0x20, 0x5f, 0xa3])
        .op(&[0x60, 0x01])
        .push_label("answer")
        .op(&[0x56])
        .label("balanceOf")
        .op(&[0x60, 0x04, 0x35, 0x54])
        .push_label("answer")
        .op(&[0x56])
        .label("decimals")
        .op(&[0x60, 0x06])
        .push_label("answer")
        .op(&[0x56])
        .label("symbol")
        .op(&[0x60, 0x20, 0x5f, 0x52, 0x60, 0x04, 0x60, 0x20, 0x52])
        .push(b"USDX")
        .op(&[0x60, 0xe0, 0x1b, 0x60, 0x40, 0x52, 0x60, 0x60, 0x5f, 0xf3])
        .label("answer")
        .op(&[0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3])
        .label("fail");
    // The error's bytes, word by word, and REVERT(0, 100).
    let mut assembler = assembler;
    for (index, word) in error.chunks(32).enumerate() {
        let mut padded = [0; 32];
        padded[..word.len()].copy_from_slice(word);
        assembler = assembler.push(&padded).push(&[u8::try_from(32 * index).expect("short")]).op(&[0x52]);
    }
    assembler.op(&[0x60, u8::try_from(error.len()).expect("short"), 0x5f, 0xfd]).bytes()
}

/// `transfer(to, amount)`.
pub fn transfer_call(to: Address, amount: u64) -> Bytes {
    let amount = U256::from(amount).to_be_bytes::<32>();
    [&hex!("a9059cbb")[..], to.into_word().as_slice(), &amount].concat().into()
}
