//! Invariants 5 and 10: what the keys on the token can do, and that a daemon starts only with the right ones.

use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass};
use intentd::hsm::{Custody, Hsm, HsmError, HsmStatus, Kek, KekPurpose, KekState, KeyRef};
use intentd::ids::KekId;

use super::raw;
use crate::harness::hsm::{context, with_token};

fn of(keks: &[Kek], purpose: KekPurpose) -> Kek {
    keks.iter().find(|kek| kek.purpose == purpose).unwrap().clone()
}

fn fatal(result: Result<(), HsmError>) -> String {
    match result {
        Err(HsmError::Fatal { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_kek_does_anything_but_its_one_job() {
    with_token(async |token| {
        let hsm = token.start().await;
        let session = raw::session(&token.config);
        let keks = token.keks();
        let (key, _) = hsm.generate(&context(), Custody::Wrapped).await.unwrap();
        let KeyRef::Wrapped { blob, .. } = key else { panic!() };
        let seal = raw::kek(&session, &of(&keks, KekPurpose::Seal));

        for purpose in KekPurpose::ALL {
            let kek = raw::kek(&session, &of(&keks, purpose));
            assert!(
                raw::flag(&session, kek, AttributeType::Sensitive)
                    && !raw::flag(&session, kek, AttributeType::Extractable)
            );
            assert!(!raw::is_readable(&session, kek), "{purpose}");
            // Sixteen bytes of ECB at a time would unwrap by hand.
            let ecb = raw::session(&token.config).decrypt(&Mechanism::AesEcb, kek, &blob[..64]);
            assert!(ecb.is_err(), "{purpose} decrypts");
            if purpose != KekPurpose::Data {
                let mut iv = [1; 12];
                let gcm = Mechanism::AesGcm(GcmParams::new(&mut iv, &[], 128.into()).unwrap());
                assert!(raw::session(&token.config).encrypt(&gcm, kek, &[0; 32]).is_err(), "{purpose} encrypts");
            }
            for more in [
                Attribute::Decrypt(true),
                Attribute::Unwrap(true),
                Attribute::Extractable(true),
                Attribute::Sensitive(false),
            ] {
                assert!(
                    session.update_attributes(kek, std::slice::from_ref(&more)).is_err(),
                    "{purpose} takes {more:?}"
                );
                assert!(
                    session.copy_object(kek, std::slice::from_ref(&more)).is_err(),
                    "{purpose} is copied with {more:?}"
                );
            }
            if purpose != KekPurpose::Seal {
                assert!(
                    session.unwrap_key(&Mechanism::AesKeyWrap, kek, &blob, &honest()).is_err(),
                    "{purpose} unwraps"
                );
                assert!(session.wrap_key(&Mechanism::AesKeyWrap, kek, seal).is_err(), "{purpose} wraps");
            }
            assert!(session.wrap_key(&Mechanism::AesKeyWrap, seal, kek).is_err(), "{purpose} is wrapped");
        }

        // The honest template works; each weaker one does not.
        assert!(session.unwrap_key(&Mechanism::AesKeyWrap, seal, &blob, &honest()).is_ok());
        let weaker = |change: Attribute| {
            let kind = change.attribute_type();
            let mut template = honest();
            template.retain(|attribute| attribute.attribute_type() != kind);
            template.push(change);
            template
        };
        for change in [
            Attribute::Sensitive(false),
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::Class(ObjectClass::SECRET_KEY),
        ] {
            let result = session.unwrap_key(&Mechanism::AesKeyWrap, seal, &blob, &weaker(change.clone()));
            assert!(result.is_err(), "unwrapped with {change:?}");
        }
        let secret = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
        ];
        assert!(session.unwrap_key(&Mechanism::AesKeyWrap, seal, &blob, &secret).is_err(), "unwrapped as a secret");
        assert!(session.unwrap_key(&Mechanism::AesKeyWrapPad, seal, &blob, &honest()).is_err(), "by another mechanism");
    });
}

fn honest() -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::PRIVATE_KEY),
        Attribute::KeyType(KeyType::EC),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
    ]
}

/// Each way to loosen one KEK, made by hand on the token, with the row of the real one pointing to it.
#[test]
fn a_looser_kek_is_refused_at_the_start_and_named() {
    with_token(async |token| {
        let hsm = token.start().await;
        let session = raw::session(&token.config);
        let keks = token.keks();
        let tight = |purpose| {
            let (wraps, encrypts, signs) =
                (purpose == KekPurpose::Seal, purpose == KekPurpose::Data, purpose == KekPurpose::Mac);
            let mechanism = match purpose {
                KekPurpose::Seal => MechanismType::AES_KEY_WRAP,
                KekPurpose::Data => MechanismType::AES_GCM,
                _ => MechanismType::SHA256_HMAC,
            };
            vec![
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Modifiable(false),
                Attribute::Copyable(false),
                Attribute::Wrap(wraps),
                Attribute::Unwrap(wraps),
                Attribute::Encrypt(encrypts),
                Attribute::Decrypt(encrypts),
                Attribute::Sign(signs),
                Attribute::Verify(false),
                Attribute::Derive(false),
                Attribute::AllowedMechanisms(vec![mechanism]),
                Attribute::ValueLen(32.into()),
            ]
        };
        let two = Attribute::AllowedMechanisms(vec![MechanismType::AES_GCM, MechanismType::AES_ECB]);
        let cases = [
            (KekPurpose::Seal, Attribute::Decrypt(true), "CKA_DECRYPT"),
            (KekPurpose::Seal, Attribute::Encrypt(true), "CKA_ENCRYPT"),
            (KekPurpose::Seal, Attribute::Copyable(true), "CKA_COPYABLE"),
            (KekPurpose::Seal, Attribute::Modifiable(true), "CKA_MODIFIABLE"),
            (KekPurpose::Seal, Attribute::Extractable(true), "CKA_EXTRACTABLE"),
            (KekPurpose::Seal, Attribute::Label(b"tight, without a template".to_vec()), "CKA_UNWRAP_TEMPLATE"),
            (KekPurpose::Data, Attribute::Unwrap(true), "CKA_UNWRAP"),
            (KekPurpose::Data, Attribute::Sensitive(false), "CKA_SENSITIVE"),
            (KekPurpose::Data, Attribute::Private(false), "CKA_PRIVATE"),
            (KekPurpose::Data, two, "CKA_ALLOWED_MECHANISMS"),
            (KekPurpose::Mac, Attribute::Derive(true), "CKA_DERIVE"),
            (KekPurpose::Mac, Attribute::Verify(true), "CKA_VERIFY"),
            (
                KekPurpose::Mac,
                Attribute::Label(b"tight, but another".to_vec()),
                "not the one this database was made with",
            ),
        ];
        for (n, (purpose, change, named)) in cases.into_iter().enumerate() {
            let mut template = tight(purpose);
            let kind = change.attribute_type();
            template.retain(|attribute| attribute.attribute_type() != kind);
            let cka_id = [n as u8; 16];
            template.extend([change, Attribute::Id(cka_id.to_vec())]);
            let mechanism =
                if purpose == KekPurpose::Mac { Mechanism::GenericSecretKeyGen } else { Mechanism::AesKeyGen };
            session.generate_key(&mechanism, &template).unwrap();
            let mut rows = keks.clone();
            rows.iter_mut().find(|kek| kek.purpose == purpose).unwrap().cka_id = cka_id;
            let what = fatal(hsm.adopt(rows).await);
            assert!(what.contains(named) && what.contains(purpose.as_str()), "{purpose} {named}: {what}");
        }
        hsm.adopt(keks).await.unwrap();
    });
}

#[test]
fn rows_that_do_not_fit_the_token_are_refused_and_nothing_is_made() {
    with_token(async |token| {
        let hsm = token.start().await;
        let keks = token.keks();
        let session = raw::session(&token.config);
        let objects = raw::token_objects(&session);
        let second = hsm.create_keks().await.unwrap();

        let without = |purpose| keks.iter().filter(|kek| kek.purpose != purpose).cloned().collect::<Vec<_>>();
        for purpose in KekPurpose::ALL {
            // An installation from before there were audit checkpoints has no key for them.
            if purpose == KekPurpose::Audit {
                hsm.adopt(without(purpose)).await.unwrap();
                assert_eq!((hsm.audit_key(), hsm.audit_public_keys()), (None, vec![]));
            } else {
                let refused = fatal(hsm.adopt(without(purpose)).await);
                assert!(refused.contains(&format!("0 active `{purpose}`")), "{refused}");
            }
            let both = [keks.clone(), vec![of(&second, purpose)]].concat();
            let refused = fatal(hsm.adopt(both).await);
            assert!(refused.contains(&format!("2 active `{purpose}`")), "{refused}");

            // The row of one installation, the object of another.
            let mut rows = keks.clone();
            rows.iter_mut().find(|kek| kek.purpose == purpose).unwrap().cka_id = of(&second, purpose).cka_id;
            let refused = fatal(hsm.adopt(rows).await);
            assert!(refused.contains("not the one this database was made with"), "{purpose}: {refused}");

            let mut rows = keks.clone();
            rows.iter_mut().find(|kek| kek.purpose == purpose).unwrap().cka_id = [0xee; 16];
            let refused = fatal(hsm.adopt(rows).await);
            assert!(refused.contains(&format!("`{purpose}` key of this database is not on the token")), "{refused}");

            let mut rows = keks.clone();
            rows.iter_mut().find(|kek| kek.purpose == purpose).unwrap().canary = of(&second, purpose).canary;
            assert!(hsm.adopt(rows).await.is_err(), "{purpose} with another's canary");
        }
        assert!(hsm.adopt(Vec::new()).await.is_err());
        // Rotation's middle: a retiring key beside the active one, and a retired one that is gone.
        let mut rows = keks.clone();
        rows.extend(second.iter().cloned().map(|kek| Kek { state: KekState::Retiring, ..kek }));
        rows.push(Kek { id: KekId::random(), state: KekState::Retired, cka_id: [0xdd; 16], ..keks[0].clone() });
        hsm.adopt(rows).await.unwrap();
        assert_eq!(raw::token_objects(&session), objects * 2, "adopting makes nothing");
    });
}

/// Invariant 10: a KEK that vanishes under a running daemon turns it red; it is not made again.
#[test]
fn a_kek_that_vanishes_turns_health_red_and_is_never_made_again() {
    with_token(async |token| {
        let hsm = token.start().await;
        let ctx = context();
        let (key, public) = hsm.generate(&ctx, Custody::Wrapped).await.unwrap();
        let session = raw::session(&token.config);
        let mac = raw::kek(&session, &of(&token.keks(), KekPurpose::Mac));
        session.destroy_object(mac).unwrap();
        let objects = raw::token_objects(&session);
        drop(session);

        let health = hsm.health().await;
        assert_eq!((health.status, health.connected), (HsmStatus::Unavailable, false));
        let generated = hsm.generate(&context(), Custody::Wrapped).await;
        assert!(matches!(generated, Err(HsmError::Unavailable { .. })), "{generated:?}");
        let signed = hsm.sign(&ctx, &key, &public, [1; 32]).await;
        assert!(matches!(signed, Err(HsmError::Unavailable { retry_after_s: 1.., .. })), "{signed:?}");
        hsm.shutdown().await.unwrap();

        let hsm = Hsm::start(&token.config).await.unwrap();
        assert!(fatal(hsm.adopt(token.keks()).await).contains("`mac`"));
        assert_eq!(raw::token_objects(&raw::session(&token.config)), objects);
        hsm.shutdown().await.unwrap();
    });
}

#[test]
fn jwt_signatures_verify_by_the_published_key() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    with_token(async |token| {
        let hsm = token.start().await;
        let signature = BASE64.encode(hsm.sign_jwt(b"header.payload").await.unwrap());
        let key = jsonwebtoken::DecodingKey::from_ed_der(&hsm.jwt_public_key().unwrap());
        let verify =
            |message: &[u8]| jsonwebtoken::crypto::verify(&signature, message, &key, jsonwebtoken::Algorithm::EdDSA);
        assert!(verify(b"header.payload").unwrap() && !verify(b"header.payloae").unwrap());
        assert_eq!(hsm.jwt_kid(), Some(of(&token.keks(), KekPurpose::Jwt).id));
    });
}
