//! The language of the control file, and which order applies to a call. Pure: no file, no clock, no PKCS#11.
//!
//! One order a line; `#` starts a comment; a line that cannot be read makes every call fail with CKR_GENERAL_ERROR,
//! so that a typing error is never mistaken for a well-behaved module.
//!
//! ```text
//! <function | *>  <fault>  [after=N] [every=N] [count=N] [mechanism=0x…]
//! ```
//! The order lets `after` matching calls pass, then strikes every Nth of them (default: each), `count` times (default: for
//! ever). A call that only asks for a length is passed over by faults that spoil the output. `mechanism` narrows it to
//! calls whose mechanism, or that of the session's last …Init, is this one: 0x1041 tells C_Sign by ECDSA from C_Sign by HMAC.
//! Counters start again when the file is rewritten.
//!
//! | fault | any function |
//! |---|---|
//! | `rv=CKR_DEVICE_ERROR`, `rv=0x30` | answers so and does nothing (`rv=0x0` pretends to have done it) |
//! | `lost=0x30` | the module does it, the caller hears this instead of its answer |
//! | `hang_ms=60000` | sleeps first; rewriting the control file ends the sleep |
//! | `abort` | the process dies here |
//!
//! | fault | where | |
//! |---|---|---|
//! | `garbage` `flip` `zero` `truncate` | C_Sign, C_Encrypt, C_Decrypt, C_WrapKey, C_GenerateRandom | spoils the output |
//! | `other_key` | C_SignInit | uses another living key of an earlier C_SignInit of the same mechanism |
//! | `weaken` | C_UnwrapKey | ignores the template: the key shows SENSITIVE=F, EXTRACTABLE=T and its value until it is tightened |
//! | `pkcs7=0x210A` | C_WrapKey, C_UnwrapKey | this mechanism pads by PKCS#7: the blob is 16 bytes longer |
//! | `ec_point=bare\|der\|compressed\|negated\|truncated\|garbage` | C_GetAttributeValue | encodes CKA_EC_POINT so |
//! | `empty` `twice` | C_FindObjects | finds nothing, or each object two times |
//! | `lock` | C_Login | CKR_PIN_LOCKED from the third wrong PIN on (counted in the trace file) |
//! | `hide=0x2109` | C_GetMechanismList, C_GetMechanismInfo | does not have this mechanism |
//! | `reuse` | `handles` (not a function; read at C_Initialize) | handle numbers are reused, lowest first, as opencryptoki does |

use std::collections::HashMap;

/// How an order misbehaves; see the tables above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Answer(u64),
    Lose(u64),
    HangMs(u64),
    Abort,
    Spoil(Spoil),
    OtherKey,
    Weaken,
    Pkcs7(u64),
    EcPoint(EcPoint),
    FindNothing,
    FindTwice,
    LockPin,
    Hide(u64),
    ReuseHandles,
}

/// What becomes of an output buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    Garbage,
    Flip,
    Zero,
    Truncate,
}

/// How CKA_EC_POINT is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EcPoint {
    Bare,
    Der,
    Compressed,
    /// A valid point of the curve, but of another key: (x, −y).
    Negated,
    Truncated,
    Garbage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Order {
    function: String,
    fault: Fault,
    after: u64,
    every: u64,
    count: u64,
    mechanism: Option<u64>,
    seen: u64,
    struck: u64,
}

/// What an order can ask of a call.
#[derive(Clone, Copy, Default)]
pub struct Target<'a> {
    pub function: &'a str,
    pub mechanism: Option<u64>,
    /// It asks only for the length of its output (PKCS#11 §5.2).
    pub query: bool,
}

/// All orders of one control file with their counters.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    orders: Vec<Order>,
}

impl Plan {
    /// Reads a control file. The error names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let orders = lines.filter(|line| !line.is_empty()).map(|line| order(line).ok_or(format!("no order: {line}")));
        Ok(Self { orders: orders.collect::<Result<_, _>>()? })
    }

    /// The faults that strike this call, in the order of the file; counts the call.
    pub fn strike(&mut self, target: Target) -> Vec<Fault> {
        self.orders.iter_mut().filter_map(|order| order.strike(target)).collect()
    }
}

impl Order {
    fn strike(&mut self, target: Target) -> Option<Fault> {
        let named = self.function == "*" || self.function == target.function;
        let narrowed = self.mechanism.is_none() || self.mechanism == target.mechanism;
        let useless = target.query && matches!(self.fault, Fault::Spoil(_));
        if !named || !narrowed || useless {
            return None;
        }
        self.seen += 1;
        let turn = self.seen.checked_sub(self.after).is_some_and(|n| n > 0 && n % self.every == 0);
        if !turn || self.struck == self.count {
            return None;
        }
        self.struck += 1;
        Some(self.fault)
    }
}

fn order(line: &str) -> Option<Order> {
    let mut words = line.split_whitespace();
    let function = words.next().filter(|f| *f == "*" || *f == "handles" || f.starts_with("C_"))?.to_owned();
    let fault = fault(words.next()?)?;
    let mut limits = HashMap::from([("after", 0), ("every", 1), ("count", u64::MAX)]);
    for word in words {
        let (name, value) = word.split_once('=')?;
        if !["after", "every", "count", "mechanism"].contains(&name) {
            return None;
        }
        limits.insert(name, number(value)?);
    }
    let mechanism = limits.get("mechanism").copied();
    let (after, every, count) = (limits["after"], limits["every"].max(1), limits["count"]);
    Some(Order { function, fault, after, every, count, mechanism, seen: 0, struck: 0 })
}

fn fault(word: &str) -> Option<Fault> {
    Some(match word.split_once('=').unwrap_or((word, "")) {
        ("rv", value) => Fault::Answer(return_value(value)?),
        ("lost", value) => Fault::Lose(return_value(value)?),
        ("hang_ms", value) => Fault::HangMs(number(value)?),
        ("abort", "") => Fault::Abort,
        ("garbage", "") => Fault::Spoil(Spoil::Garbage),
        ("flip", "") => Fault::Spoil(Spoil::Flip),
        ("zero", "") => Fault::Spoil(Spoil::Zero),
        ("truncate", "") => Fault::Spoil(Spoil::Truncate),
        ("other_key", "") => Fault::OtherKey,
        ("weaken", "") => Fault::Weaken,
        ("pkcs7", value) => Fault::Pkcs7(number(value)?),
        ("ec_point", "bare") => Fault::EcPoint(EcPoint::Bare),
        ("ec_point", "der") => Fault::EcPoint(EcPoint::Der),
        ("ec_point", "compressed") => Fault::EcPoint(EcPoint::Compressed),
        ("ec_point", "negated") => Fault::EcPoint(EcPoint::Negated),
        ("ec_point", "truncated") => Fault::EcPoint(EcPoint::Truncated),
        ("ec_point", "garbage") => Fault::EcPoint(EcPoint::Garbage),
        ("empty", "") => Fault::FindNothing,
        ("twice", "") => Fault::FindTwice,
        ("lock", "") => Fault::LockPin,
        ("hide", value) => Fault::Hide(number(value)?),
        ("reuse", "") => Fault::ReuseHandles,
        _ => return None,
    })
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A return value by number or by its name in the standard; the names are those a test has a use for.
fn return_value(text: &str) -> Option<u64> {
    use cryptoki_sys::*;
    let named = [
        ("CKR_OK", CKR_OK),
        ("CKR_GENERAL_ERROR", CKR_GENERAL_ERROR),
        ("CKR_FUNCTION_FAILED", CKR_FUNCTION_FAILED),
        ("CKR_ATTRIBUTE_READ_ONLY", CKR_ATTRIBUTE_READ_ONLY),
        ("CKR_DEVICE_ERROR", CKR_DEVICE_ERROR),
        ("CKR_DEVICE_MEMORY", CKR_DEVICE_MEMORY),
        ("CKR_DEVICE_REMOVED", CKR_DEVICE_REMOVED),
        ("CKR_KEY_HANDLE_INVALID", CKR_KEY_HANDLE_INVALID),
        ("CKR_MECHANISM_INVALID", CKR_MECHANISM_INVALID),
        ("CKR_OBJECT_HANDLE_INVALID", CKR_OBJECT_HANDLE_INVALID),
        ("CKR_OPERATION_ACTIVE", CKR_OPERATION_ACTIVE),
        ("CKR_PIN_INCORRECT", CKR_PIN_INCORRECT),
        ("CKR_PIN_LOCKED", CKR_PIN_LOCKED),
        ("CKR_SESSION_CLOSED", CKR_SESSION_CLOSED),
        ("CKR_SESSION_HANDLE_INVALID", CKR_SESSION_HANDLE_INVALID),
        ("CKR_TOKEN_NOT_PRESENT", CKR_TOKEN_NOT_PRESENT),
        ("CKR_USER_NOT_LOGGED_IN", CKR_USER_NOT_LOGGED_IN),
        ("CKR_CRYPTOKI_NOT_INITIALIZED", CKR_CRYPTOKI_NOT_INITIALIZED),
    ];
    named.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).or_else(|| number(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_the_language_is_read() {
        let cases = [
            ("C_Sign rv=0x30", Fault::Answer(0x30)),
            ("C_Sign rv=48", Fault::Answer(48)),
            ("* rv=CKR_TOKEN_NOT_PRESENT", Fault::Answer(0xE0)),
            ("C_GenerateKeyPair lost=CKR_DEVICE_ERROR", Fault::Lose(0x30)),
            ("C_Sign hang_ms=60000", Fault::HangMs(60_000)),
            ("C_WrapKey abort", Fault::Abort),
            ("C_Sign garbage", Fault::Spoil(Spoil::Garbage)),
            ("C_Sign flip", Fault::Spoil(Spoil::Flip)),
            ("C_Sign zero", Fault::Spoil(Spoil::Zero)),
            ("C_Sign truncate", Fault::Spoil(Spoil::Truncate)),
            ("C_SignInit other_key", Fault::OtherKey),
            ("C_UnwrapKey weaken", Fault::Weaken),
            ("C_WrapKey pkcs7=0x210A", Fault::Pkcs7(0x210A)),
            ("C_GetAttributeValue ec_point=bare", Fault::EcPoint(EcPoint::Bare)),
            ("C_GetAttributeValue ec_point=der", Fault::EcPoint(EcPoint::Der)),
            ("C_GetAttributeValue ec_point=compressed", Fault::EcPoint(EcPoint::Compressed)),
            ("C_GetAttributeValue ec_point=negated", Fault::EcPoint(EcPoint::Negated)),
            ("C_GetAttributeValue ec_point=truncated", Fault::EcPoint(EcPoint::Truncated)),
            ("C_GetAttributeValue ec_point=garbage", Fault::EcPoint(EcPoint::Garbage)),
            ("C_FindObjects empty", Fault::FindNothing),
            ("C_FindObjects twice", Fault::FindTwice),
            ("C_Login lock", Fault::LockPin),
            ("C_GetMechanismList hide=0x2109", Fault::Hide(0x2109)),
            ("handles reuse", Fault::ReuseHandles),
        ];
        for (line, fault) in cases {
            let plan = Plan::parse(line).unwrap();
            assert_eq!(plan.orders.len(), 1, "{line}");
            assert_eq!(plan.orders[0].fault, fault, "{line}");
        }
    }

    #[test]
    fn what_is_no_order_is_an_error_that_names_the_line() {
        for line in [
            "C_Sign",
            "Sign flip",
            "C_Sign wobble",
            "C_Sign rv=",
            "C_Sign rv=CKR_NO_SUCH",
            "C_Sign rv=0xZZ",
            "C_Sign flip=3",
            "C_Sign flip after",
            "C_Sign flip after=x",
            "C_Sign flip later=1",
            "C_GetAttributeValue ec_point=round",
        ] {
            let error = Plan::parse(&format!("C_Sign flip\n{line}\n")).unwrap_err();
            assert!(error.contains(line), "{error}");
        }
    }

    #[test]
    fn comments_and_blank_lines_are_nothing() {
        assert_eq!(Plan::parse("\n  # C_Sign flip\n\n").unwrap(), Plan::default());
        assert_eq!(Plan::parse("C_Sign flip # always").unwrap().orders.len(), 1);
    }

    /// One character a call: x = struck, . = left alone.
    fn pattern(line: &str, function: &str, calls: usize) -> String {
        let mut plan = Plan::parse(line).unwrap();
        (0..calls)
            .map(|_| if plan.strike(Target { function, ..Target::default() }).is_empty() { '.' } else { 'x' })
            .collect()
    }

    #[test]
    fn after_and_count_bound_the_strikes() {
        for (line, expected) in [
            ("C_Sign flip", "xxxxxx"),
            ("C_Sign flip count=1", "x....."),
            ("C_Sign flip after=3", "...xxx"),
            ("C_Sign flip after=3 count=2", "...xx."),
            ("C_Sign flip count=0", "......"),
            ("C_Sign flip every=2", ".x.x.x"),
            ("C_Sign flip every=2 count=2", ".x.x.."),
            ("C_Sign flip after=1 every=3 count=1", "...x.."),
            ("* flip after=1 count=1", ".x...."),
            ("C_Signs flip", "......"),
        ] {
            assert_eq!(pattern(line, "C_Sign", 6), expected, "{line}");
        }
    }

    #[test]
    fn a_mechanism_narrows_and_other_calls_are_not_counted() {
        let mut plan = Plan::parse("C_Sign flip after=1 mechanism=0x1041").unwrap();
        let struck: Vec<bool> = [Some(0x1041), Some(0x251), None, Some(0x1041), Some(0x251)]
            .map(|mechanism| !plan.strike(Target { function: "C_Sign", mechanism, query: false }).is_empty())
            .into();
        assert_eq!(struck, [false, false, false, true, false]);
    }

    #[test]
    fn a_length_query_is_not_spoiled_but_may_fail() {
        let query = Target { function: "C_Sign", mechanism: None, query: true };
        let mut plan = Plan::parse("C_Sign flip count=1\nC_Sign rv=0x30 count=1").unwrap();
        assert_eq!(plan.strike(query), [Fault::Answer(0x30)]);
        assert_eq!(plan.strike(Target { query: false, ..query }), [Fault::Spoil(Spoil::Flip)]);
    }

    #[test]
    fn orders_add_up() {
        let mut plan = Plan::parse("C_Sign hang_ms=5\nC_Sign rv=0x30").unwrap();
        assert_eq!(
            plan.strike(Target { function: "C_Sign", ..Target::default() }),
            [Fault::HangMs(5), Fault::Answer(0x30)]
        );
    }
}
