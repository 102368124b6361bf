//! Invariants 20 and 6: an imported key is the given one, and after that nobody here has it any more.

use std::io::{Read as _, Seek as _};

use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use intentd::hsm::{Custody, Hsm, HsmError, KeyContext, KeyRef, PublicKey};
use zeroize::Zeroizing;

use super::{oracle, raw};
use crate::harness::hsm::{CUSTODIES, PIN, context, with_token};

/// EIP-155's example key.
const EXAMPLE: ([u8; 32], &str) = ([0x46; 32], "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F");

#[test]
fn an_imported_key_has_the_address_of_its_scalar_and_cannot_be_read_back() {
    with_token(async |token| {
        let hsm = token.start().await;
        for custody in CUSTODIES {
            let ctx = context();
            let (key, public) = hsm.import(&ctx, custody, Zeroizing::new(EXAMPLE.0)).await.unwrap();
            assert_eq!(public.address().to_string(), EXAMPLE.1);
            let signature = hsm.sign(&ctx, &key, &public, [2; 32]).await.unwrap();
            assert!(oracle::is_low(&signature.s) && oracle::recovers(&signature, [2; 32], public.address()));
            let session = raw::session(&token.config);
            let private = match &key {
                KeyRef::Wrapped { .. } => raw::unwrapped_keys(&session),
                KeyRef::Token { cka_id, .. } => session
                    .find_objects(&[Attribute::Id(cka_id.to_vec()), Attribute::Class(ObjectClass::PRIVATE_KEY)])
                    .unwrap(),
            };
            assert!(!private.is_empty());
            for object in private {
                assert!(raw::flag(&session, object, AttributeType::Sensitive));
                assert!(!raw::flag(&session, object, AttributeType::Extractable));
                assert!(!raw::is_readable(&session, object));
                let seal = token.keks().into_iter().find(|kek| kek.purpose == intentd::hsm::KekPurpose::Seal).unwrap();
                let seal = raw::kek(&session, &seal);
                assert!(
                    session.wrap_key(&cryptoki::mechanism::Mechanism::AesKeyWrap, seal, object).is_err(),
                    "wrapped again"
                );
            }
        }
    });
}

#[test]
fn threat_32_scalars_outside_the_group_are_not_imported() {
    with_token(async |token| {
        let hsm = token.start().await;
        let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
        let order: [u8; 32] = order.try_into().unwrap();
        let objects = raw::token_objects(&raw::session(&token.config));
        for custody in CUSTODIES {
            for scalar in [[0; 32], order, [0xff; 32]] {
                let result = hsm.import(&context(), custody, Zeroizing::new(scalar)).await;
                assert!(matches!(result, Err(HsmError::Invalid { .. })), "{result:?}");
            }
        }
        assert_eq!(raw::token_objects(&raw::session(&token.config)), objects);
    });
}

/// Reads this process's own writable memory and counts a pattern. The pattern is given masked, so that it is not itself found.
fn occurrences(masked: &[u8]) -> usize {
    const MASK: u8 = 0xa5;
    const WINDOW: usize = 1 << 20;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut memory = std::fs::File::open("/proc/self/mem").unwrap();
    let mut count = 0;
    let mut buffer = vec![0; WINDOW];
    let own = buffer.as_ptr() as usize..buffer.as_ptr() as usize + WINDOW;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw"))) {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (mut at, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        while at < end {
            let length = usize::try_from(end - at).unwrap().min(WINDOW);
            // Some mappings cannot be read; the heap and the stacks can.
            if memory.seek(std::io::SeekFrom::Start(at)).is_err() || memory.read_exact(&mut buffer[..length]).is_err() {
                break;
            }
            // Masked in place, then compared with the masked pattern. The buffer itself holds the mask of everything, so the clear
            // text where the masked pattern lies: it is not looked at.
            buffer[..length].iter_mut().for_each(|byte| *byte ^= MASK);
            let places = buffer[..length].windows(masked.len()).enumerate().filter(|(_, window)| *window == masked);
            count += places.filter(|(offset, _)| !own.contains(&(at as usize + offset))).count();
            at += if length == WINDOW { (WINDOW - masked.len()) as u64 } else { length as u64 };
        }
    }
    count
}

/// Passing an array by value leaves copies in the caller's frame: here that is one that the next calls overwrite.
#[inline(never)]
fn begin_import(
    hsm: &Hsm,
    ctx: &KeyContext,
    custody: Custody,
    clear: &[u8],
) -> impl Future<Output = Result<(KeyRef, PublicKey), HsmError>> + use<> {
    let mut scalar = Zeroizing::new([0; 32]);
    scalar.copy_from_slice(clear);
    hsm.import(ctx, custody, scalar)
}

#[test]
fn threat_23_no_imported_key_and_no_opened_secret_stays_in_memory() {
    with_token(async |token| {
        let hsm = token.start().await;
        // Known only masked: mask 0xa5 over a repeating pattern that occurs nowhere else.
        let masked_key: Vec<u8> = (0..32u8).map(|n| n.wrapping_mul(37) ^ 0x3c).collect();
        let masked_body: Vec<u8> = (0..64u8).map(|n| n.wrapping_mul(91) ^ 0x77).collect();
        let clear = |masked: &[u8]| Zeroizing::new(masked.iter().map(|byte| byte ^ 0xa5).collect::<Vec<_>>());
        {
            let there = clear(&masked_key);
            assert_eq!((there.len(), occurrences(&masked_key)), (32, 1), "the search finds what is there");
        }
        for custody in CUSTODIES {
            let ctx = context();
            let import = begin_import(&hsm, &ctx, custody, &clear(&masked_key));
            let (key, public) = import.await.unwrap();
            hsm.sign(&ctx, &key, &public, [1; 32]).await.unwrap();
        }
        let sealed = {
            let body = clear(&masked_body);
            hsm.seal(b"aad", &body).await.unwrap()
        };
        for _ in 0..10 {
            assert_eq!(hsm.open(b"aad", &sealed).await.unwrap().len(), 64);
        }
        assert_eq!(occurrences(&masked_body), 0, "an opened secret stays in memory");
        assert_eq!(occurrences(&masked_key), 0, "an imported key stays in memory");
    });
}

#[test]
fn threat_23_the_pin_is_in_no_debug_text_and_no_error() {
    with_token(async |token| {
        let hsm = token.start().await;
        let texts = [
            format!("{:?}", token.config),
            format!("{hsm:?}"),
            format!("{:?}", hsm.health().await),
            format!("{:?}", token.keks()),
        ];
        for text in texts {
            assert!(!text.contains(PIN), "{text}");
        }
        let arguments: Vec<_> = std::env::args().collect();
        assert!(!arguments.concat().contains(PIN));
    });
}
