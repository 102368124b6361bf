//! Attributes that are not what the real module says: weak unwrapped keys, other encodings of CKA_EC_POINT.
//!
//! SAFETY of every `unsafe` block: as in [`crate::twists`].

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use cryptoki_sys::*;

use crate::call::{Call, real};
use crate::faults::{EcPoint, Fault};
use crate::twists::{lock, noise};

/// What an object shows instead of its real attributes.
#[derive(Clone, Copy)]
struct Weak {
    sensitive: bool,
    extractable: bool,
}

/// Objects whose unwrap template was "ignored". The real key stays strong; only its face is weak, so that this works
/// whatever UNWRAP_TEMPLATE the wrapping key has.
static WEAK: LazyLock<Mutex<HashMap<CK_OBJECT_HANDLE, Weak>>> = LazyLock::new(Mutex::default);

/// C_UnwrapKey: the new key ignores its template.
pub fn weaken(call: &Call, rv: CK_RV, key: *mut CK_OBJECT_HANDLE) -> CK_RV {
    if rv == CKR_OK && call.fault(|f| (f == Fault::Weaken).then_some(())).is_some() {
        lock(&WEAK).insert(unsafe { *key }, Weak { sensitive: false, extractable: true });
    }
    rv
}

/// C_SetAttributeValue on a weak object: one may tighten, not loosen.
pub fn tighten(object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG) -> Option<CK_RV> {
    let mut weak = lock(&WEAK);
    let weak = weak.get_mut(&object)?;
    for attribute in unsafe { std::slice::from_raw_parts(template, count as usize) } {
        let value = unsafe { *attribute.pValue.cast::<u8>() } != 0;
        match (attribute.type_, value) {
            (CKA_SENSITIVE, true) => weak.sensitive = true,
            (CKA_EXTRACTABLE, false) => weak.extractable = false,
            _ => return Some(CKR_ATTRIBUTE_READ_ONLY),
        }
    }
    Some(CKR_OK)
}

/// C_DestroyObject: its number may come again.
pub fn destroyed(object: CK_OBJECT_HANDLE) {
    lock(&WEAK).remove(&object);
}

/// C_GetAttributeValue: weak faces and other encodings of CKA_EC_POINT.
pub fn answer(call: &Call, object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG) -> Option<CK_RV> {
    let weak = lock(&WEAK).get(&object).copied();
    let point = call.fault(|f| if let Fault::EcPoint(form) = f { Some(form) } else { None });
    if weak.is_none() && point.is_none() {
        return None;
    }
    let (session, get) = (call.session?, real().C_GetAttributeValue?);
    let attributes = unsafe { std::slice::from_raw_parts_mut(template, count as usize) };
    let room: Vec<CK_ULONG> = attributes.iter().map(|a| a.ulValueLen).collect();
    let mut rv = unsafe { get(session, object, template, count) };
    let mut answered = true;
    for (attribute, room) in attributes.iter_mut().zip(room) {
        let value = match (attribute.type_, weak, point) {
            (CKA_SENSITIVE, Some(weak), _) => vec![weak.sensitive.into()],
            (CKA_EXTRACTABLE, Some(weak), _) => vec![weak.extractable.into()],
            (CKA_VALUE, Some(weak), _) if weak.extractable && !weak.sensitive => vec![0x42; 32],
            (CKA_EC_POINT, _, Some(form)) => match read(session, object, CKA_EC_POINT) {
                Some(der) => encode(form, &der),
                None => continue,
            },
            _ => {
                answered &= attribute.ulValueLen != CK_UNAVAILABLE_INFORMATION;
                continue;
            }
        };
        if !put(attribute, room, &value) {
            (answered, rv) = (false, CKR_BUFFER_TOO_SMALL);
        }
    }
    Some(if answered { CKR_OK } else { rv })
}

/// Answers one attribute as §5.7.5 says: the length, the value, or "too small".
fn put(attribute: &mut CK_ATTRIBUTE, room: CK_ULONG, value: &[u8]) -> bool {
    let len = value.len() as CK_ULONG;
    attribute.ulValueLen = len;
    if attribute.pValue.is_null() {
        return true;
    }
    if room < len {
        attribute.ulValueLen = CK_UNAVAILABLE_INFORMATION;
        return false;
    }
    unsafe { attribute.pValue.cast::<u8>().copy_from_nonoverlapping(value.as_ptr(), value.len()) };
    true
}

/// The value of one attribute as the real module has it.
fn read(session: u64, object: CK_OBJECT_HANDLE, type_: CK_ATTRIBUTE_TYPE) -> Option<Vec<u8>> {
    let mut value = vec![0u8; 256];
    let mut attribute = CK_ATTRIBUTE { type_, pValue: value.as_mut_ptr().cast(), ulValueLen: 256 };
    let rv = unsafe { real().C_GetAttributeValue?(session, object, &mut attribute, 1) };
    value.truncate(attribute.ulValueLen as usize);
    (rv == CKR_OK).then_some(value)
}

/// Re-encodes the DER OCTET STRING of an uncompressed secp256k1 point (67 bytes; others pass as they are).
fn encode(form: EcPoint, der: &[u8]) -> Vec<u8> {
    /// p = 2^256 − 2^32 − 977, big-endian.
    const P: [u8; 32] = {
        let mut p = [0xFF; 32];
        (p[27], p[30], p[31]) = (0xFE, 0xFC, 0x2F);
        p
    };
    let [0x04, 0x41, bare @ ..] = der else { return der.to_vec() };
    let Some((x, y)) = bare.get(1..).filter(|xy| xy.len() == 64).map(|xy| xy.split_at(32)) else { return der.to_vec() };
    match form {
        EcPoint::Bare => bare.to_vec(),
        EcPoint::Der => der.to_vec(),
        EcPoint::Compressed => [&[0x02 + (y[31] & 1)], x].concat(),
        EcPoint::Negated => {
            let mut negated = [0u8; 32];
            let mut borrow = 0;
            for i in (0..32).rev() {
                let digit = i16::from(P[i]) - i16::from(y[i]) - borrow;
                borrow = i16::from(digit < 0);
                negated[i] = digit as u8;
            }
            [&der[..3], x, &negated].concat()
        }
        EcPoint::Truncated => der[..65].to_vec(),
        EcPoint::Garbage => {
            let mut garbage = der.to_vec();
            noise(&mut garbage[3..]);
            garbage
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generator of secp256k1 (SEC 2 §2.4.1) as SoftHSM would show it.
    const G: &str = "04410479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798\
                     483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn a_point_is_encoded_in_every_form() {
        let der = hex(G);
        assert_eq!(encode(EcPoint::Der, &der), der);
        assert_eq!(encode(EcPoint::Bare, &der), der[2..]);
        assert_eq!(encode(EcPoint::Compressed, &der)[..2], [0x02, 0x79]);
        assert_eq!(encode(EcPoint::Truncated, &der), der[..65]);
        assert_eq!(encode(EcPoint::Garbage, &der).len(), 67);
        assert_ne!(encode(EcPoint::Garbage, &der), der);
    }

    #[test]
    fn negating_twice_gives_the_point_back() {
        let der = hex(G);
        let negated = encode(EcPoint::Negated, &der);
        // −G: y = b7c52588d95c3b9aa25b0403f1eef75702e84bb7597aabe663b82f6f04ef2777
        assert_eq!(negated[35..39], [0xb7, 0xc5, 0x25, 0x88]);
        assert_eq!(negated[66], 0x77);
        assert_eq!(encode(EcPoint::Negated, &negated), der);
    }

    #[test]
    fn an_attribute_is_answered_by_its_length_its_value_or_too_small() {
        let mut buffer = [0u8; 4];
        let mut attribute = CK_ATTRIBUTE { type_: CKA_VALUE, pValue: std::ptr::null_mut(), ulValueLen: 0 };
        assert!(put(&mut attribute, 0, &[1, 2, 3]));
        assert_eq!({ attribute.ulValueLen }, 3);
        attribute.pValue = buffer.as_mut_ptr().cast();
        assert!(put(&mut attribute, 4, &[1, 2, 3]));
        assert_eq!(({ attribute.ulValueLen }, buffer), (3, [1, 2, 3, 0]));
        assert!(!put(&mut attribute, 2, &[9, 9, 9]));
        assert_eq!(({ attribute.ulValueLen }, buffer), (CK_UNAVAILABLE_INFORMATION, [1, 2, 3, 0]));
    }
}
