//! The contract ABI's argument encoding, read strictly. Pure; total: no bytes panic it, and a [`Budget`] bounds its work.
//!
//! Stricter than any compiler: an address with dirty upper bytes, a bool that is 2, a length past the end are unreadable, where a
//! contract may mask them and go on. What is unreadable is never taken for something harmless. Bytes after the arguments are
//! ignored, as contracts do. Source: the Solidity contract ABI specification, "Formal Specification of the Encoding".

use alloy::primitives::{Address, U256};

/// Values that are read of one transaction at most, over all its nested calls.
const VALUES_MAX: usize = 20_000;

/// Why bytes are no arguments; the text completes "its arguments cannot be read: …".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable(pub &'static str);

/// What may still be read.
#[derive(Debug)]
pub struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(VALUES_MAX)
    }
}

impl Budget {
    /// For a batch inside of an argument: one of at most 256.
    #[must_use]
    pub fn small() -> Self {
        Self(1_024)
    }

    fn take(&mut self) -> Result<(), Unreadable> {
        self.0 = self.0.checked_sub(1).ok_or(Unreadable("there are too many of them"))?;
        Ok(())
    }
}

/// A type of the ABI, as far as the known functions need them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// `address`.
    Address,
    /// `bool`.
    Bool,
    /// `uintN`, with its bits.
    Uint(usize),
    /// `bytesN`, with its bytes.
    Fixed(usize),
    /// `bytes` and `string`.
    Bytes,
    /// `T[]`.
    Array(Box<Type>),
    /// `(T, …)`.
    Tuple(Vec<Type>),
}

impl Type {
    fn is_dynamic(&self) -> bool {
        match self {
            Self::Bytes | Self::Array(_) => true,
            Self::Tuple(members) => members.iter().any(Self::is_dynamic),
            _ => false,
        }
    }

    /// Bytes in the head.
    fn head_len(&self) -> usize {
        match self {
            Self::Tuple(members) if !self.is_dynamic() => members.iter().map(Self::head_len).sum(),
            _ => 32,
        }
    }
}

/// The argument types of a signature such as `multicall(uint256,bytes[])`; `None` for one that is not well-formed.
#[must_use]
pub fn types_of(signature: &str) -> Option<Vec<Type>> {
    let open = signature.find('(')?;
    let mut rest = &signature[open..];
    match parse(&mut rest)? {
        Type::Tuple(types) if rest.is_empty() => Some(types),
        _ => None,
    }
}

fn parse(rest: &mut &str) -> Option<Type> {
    let mut parsed = if let Some(inside) = rest.strip_prefix('(') {
        *rest = inside;
        let mut members = Vec::new();
        while !rest.starts_with(')') {
            if !members.is_empty() {
                *rest = rest.strip_prefix(',')?;
            }
            members.push(parse(rest)?);
        }
        *rest = rest.strip_prefix(')')?;
        Type::Tuple(members)
    } else {
        let end = rest.find([',', ')', '[']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        *rest = after;
        match name {
            "address" => Type::Address,
            "bool" => Type::Bool,
            "bytes" | "string" => Type::Bytes,
            _ => match (name.strip_prefix("uint"), name.strip_prefix("bytes")) {
                (Some(bits), _) => Type::Uint(bits.parse().ok().filter(|bits| (8..=256).contains(bits))?),
                (_, Some(len)) => Type::Fixed(len.parse().ok().filter(|len| (1..=32).contains(len))?),
                _ => return None,
            },
        }
    };
    while let Some(after) = rest.strip_prefix("[]") {
        *rest = after;
        parsed = Type::Array(Box::new(parsed));
    }
    Some(parsed)
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// An address.
    Address(Address),
    /// A bool.
    Bool(bool),
    /// An unsigned integer, within its bits.
    Uint(U256),
    /// `bytesN`, in the first bytes of the word.
    Fixed([u8; 32]),
    /// Bytes where they lie.
    Bytes(&'a [u8]),
    /// The members of an array or a tuple.
    List(Vec<Value<'a>>),
}

const MISTYPED: Unreadable = Unreadable("another type is there");

impl<'a> Value<'a> {
    /// The address.
    pub fn address(&self) -> Result<Address, Unreadable> {
        if let Self::Address(address) = self { Ok(*address) } else { Err(MISTYPED) }
    }

    /// The bool.
    pub fn bool(&self) -> Result<bool, Unreadable> {
        if let Self::Bool(flag) = self { Ok(*flag) } else { Err(MISTYPED) }
    }

    /// The integer.
    pub fn uint(&self) -> Result<U256, Unreadable> {
        if let Self::Uint(number) = self { Ok(*number) } else { Err(MISTYPED) }
    }

    /// The word of a `bytesN`.
    pub fn fixed(&self) -> Result<[u8; 32], Unreadable> {
        if let Self::Fixed(word) = self { Ok(*word) } else { Err(MISTYPED) }
    }

    /// The bytes.
    pub fn bytes(&self) -> Result<&'a [u8], Unreadable> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(MISTYPED) }
    }

    /// The members.
    pub fn list(&self) -> Result<&[Self], Unreadable> {
        if let Self::List(members) = self { Ok(members) } else { Err(MISTYPED) }
    }

    /// A member.
    pub fn at(&self, index: usize) -> Result<&Self, Unreadable> {
        self.list()?.get(index).ok_or(MISTYPED)
    }
}

/// Reads arguments.
///
/// # Errors
/// [`Unreadable`].
pub fn decode<'a>(types: &[Type], data: &'a [u8], budget: &mut Budget) -> Result<Value<'a>, Unreadable> {
    members(types.iter(), data, budget)
}

/// Members one after the other, with offsets from the beginning of `base`.
fn members<'a, 't>(
    types: impl Iterator<Item = &'t Type>,
    base: &'a [u8],
    budget: &mut Budget,
) -> Result<Value<'a>, Unreadable> {
    let mut values = Vec::new();
    let mut at = 0;
    for kind in types {
        budget.take()?;
        values.push(if kind.is_dynamic() {
            let offset = usize_of(word(base, at)?).ok_or(Unreadable("an offset points past the end"))?;
            tail(kind, base.get(offset..).ok_or(Unreadable("an offset points past the end"))?, budget)?
        } else {
            fixed(kind, base, at, budget)?
        });
        at += kind.head_len();
    }
    Ok(Value::List(values))
}

fn fixed<'a>(kind: &Type, base: &'a [u8], at: usize, budget: &mut Budget) -> Result<Value<'a>, Unreadable> {
    if let Type::Tuple(types) = kind {
        return members(types.iter(), base.get(at..).ok_or(Unreadable("there are too few bytes"))?, budget);
    }
    let word = word(base, at)?;
    let number = U256::from_be_bytes(word);
    match kind {
        Type::Address if word[..12] == [0; 12] => Ok(Value::Address(Address::from_slice(&word[12..]))),
        Type::Address => Err(Unreadable("an address has bytes in front of its twenty")),
        Type::Bool if number <= U256::from(1) => Ok(Value::Bool(!number.is_zero())),
        Type::Bool => Err(Unreadable("a bool is neither 0 nor 1")),
        Type::Uint(bits) if number.bit_len() <= *bits => Ok(Value::Uint(number)),
        Type::Uint(_) => Err(Unreadable("a number is too large for its type")),
        Type::Fixed(len) if word[*len..].iter().all(|byte| *byte == 0) => Ok(Value::Fixed(word)),
        Type::Fixed(_) => Err(Unreadable("fixed bytes have more behind them")),
        Type::Bytes | Type::Array(_) | Type::Tuple(_) => Err(MISTYPED),
    }
}

fn tail<'a>(kind: &Type, base: &'a [u8], budget: &mut Budget) -> Result<Value<'a>, Unreadable> {
    const LONG: Unreadable = Unreadable("a length goes past the end");
    match kind {
        Type::Tuple(types) => members(types.iter(), base, budget),
        Type::Bytes => {
            let len = usize_of(word(base, 0)?).ok_or(LONG)?;
            base[32..].get(..len).map(Value::Bytes).ok_or(LONG)
        }
        Type::Array(element) => {
            let len = usize_of(word(base, 0)?).ok_or(LONG)?;
            let elements = &base[32..];
            if len > elements.len() / element.head_len().max(32) {
                return Err(LONG);
            }
            members(std::iter::repeat_n(element.as_ref(), len), elements, budget)
        }
        _ => Err(MISTYPED),
    }
}

fn word(base: &[u8], at: usize) -> Result<[u8; 32], Unreadable> {
    base.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Unreadable("there are too few bytes"))
}

fn usize_of(word: [u8; 32]) -> Option<usize> {
    U256::from_be_bytes(word).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::primitives::Bytes;
    use alloy::sol_types::SolValue;
    use proptest::prelude::*;

    fn read<'a>(signature: &str, data: &'a [u8]) -> Result<Value<'a>, Unreadable> {
        decode(&types_of(signature).expect(signature), data, &mut Budget::default())
    }

    #[test]
    fn dirty_words_and_lengths_past_the_end_are_unreadable() {
        let clean = (Address::repeat_byte(1), true, U256::from(5)).abi_encode_params();
        assert!(read("f(address,bool,uint8)", &clean).is_ok());
        for (at, byte) in [(0, 1), (11, 1), (63, 2), (32, 1), (94, 1)] {
            let mut dirty = clean.clone();
            dirty[at] = byte;
            assert!(read("f(address,bool,uint8)", &dirty).is_err(), "byte {at}");
        }
        assert!(read("f(address,bool,uint8)", &clean[..95]).is_err(), "short calldata is not padded");
        let trailing = [&clean[..], b"referrer"].concat();
        assert_eq!(read("f(address,bool,uint8)", &trailing), read("f(address,bool,uint8)", &clean));
        let word = |n: U256| n.to_be_bytes::<32>();
        for bad in [
            [word(U256::from(33)), word(U256::ZERO)].concat(),
            [word(U256::from(32)), word(U256::from(1))].concat(),
            [word(U256::from(32)), word(U256::MAX)].concat(),
            [word(U256::MAX), word(U256::ZERO)].concat(),
            // An offset that is negative in the two's complement that compilers compare with.
            [word(U256::ZERO.wrapping_sub(U256::from(32))), word(U256::ZERO)].concat(),
        ] {
            assert!(read("f(bytes)", &bad).is_err() && read("f(uint256[])", &bad).is_err(), "{}", hex::encode(&bad));
        }
    }

    #[test]
    fn work_is_bounded_whatever_the_offsets_say() {
        // An array whose thousand elements are all the same thousand words.
        let words = |n: u64| U256::from(n).to_be_bytes::<32>();
        let mut data = [words(32), words(1000)].concat();
        (0..1000).for_each(|_| data.extend(words(32_000)));
        data.extend(words(1000));
        (0..1000).for_each(|_| data.extend(words(7)));
        assert_eq!(read("f(uint256[][])", &data), Err(Unreadable("there are too many of them")));
    }

    proptest! {
        #[test]
        fn reads_what_the_library_encodes(
            calls in prop::collection::vec((any::<[u8; 20]>(), any::<bool>(), any::<u128>(), prop::collection::vec(any::<u8>(), 0..70)), 0..6),
            flag in any::<bool>(),
        ) {
            let encoded: Vec<(Address, bool, U256, Bytes)> =
                calls.iter().map(|(to, may, value, data)| (Address::from(*to), *may, U256::from(*value), data.clone().into())).collect();
            let data = (flag, encoded.clone()).abi_encode_params();
            let read = read("f(bool,(address,bool,uint256,bytes)[])", &data).unwrap();
            prop_assert_eq!(read.at(0).unwrap().bool(), Ok(flag));
            let list = read.at(1).unwrap().list().unwrap();
            prop_assert_eq!(list.len(), encoded.len());
            for (got, (to, may, value, data)) in list.iter().zip(&encoded) {
                prop_assert_eq!(got.at(0).unwrap().address(), Ok(*to));
                prop_assert_eq!(got.at(1).unwrap().bool(), Ok(*may));
                prop_assert_eq!(got.at(2).unwrap().uint(), Ok(*value));
                prop_assert_eq!(got.at(3).unwrap().bytes(), Ok(data.as_ref()));
            }
        }

        #[test]
        fn no_bytes_panic_it(data in prop::collection::vec(any::<u8>(), 0..300)) {
            for signature in ["f(bytes[])", "f((address,(uint160,bytes)[])[],string)", "f(bytes4[],uint256[][],bool)"] {
                let _ = read(signature, &data);
            }
        }
    }
}
