//! What an operator meets: wrong settings at the start, the check, the benchmark. Invariants 9 (in part) and 19 (in part).

use std::time::Duration;

use intentd::hsm::{Custody, Hsm, HsmConfig, HsmError, PinSource, admin, bench};

use super::raw;
use crate::harness::hsm::{LABEL, PIN, context, with_token};

async fn refused(config: &HsmConfig) -> String {
    match Hsm::start(config).await {
        Err(error @ HsmError::Fatal { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_wrong_setting_is_refused_in_words_that_name_it() {
    with_token(async |token| {
        let good = &token.config;
        let wrong_pin = token.dir.join("pin");
        std::fs::write(&wrong_pin, "wrong-pin-0815").unwrap();
        let cases = [
            (HsmConfig { module: "/nonexistent.so".into(), ..good.clone() }, "/nonexistent.so"),
            (HsmConfig { token_label: "other".into(), ..good.clone() }, "no token labelled \"other\""),
            (HsmConfig { token_serial: Some("0".into()), ..good.clone() }, "another serial number"),
            (HsmConfig { pin: PinSource::Env("NOT_SET_AT_ALL".into()), ..good.clone() }, "NOT_SET_AT_ALL"),
            (HsmConfig { pin: PinSource::File("/no/pin".into()), ..good.clone() }, "/no/pin"),
            (
                HsmConfig { pin: PinSource::File(wrong_pin), ..good.clone() },
                "the PIN was refused; it is not tried again",
            ),
            (HsmConfig { wrap_mechanism: "rot13".into(), ..good.clone() }, "rot13"),
            (HsmConfig { wrap_mechanism: "aes-key-wrap-kwp".into(), ..good.clone() }, "0x210b"),
        ];
        for (config, named) in cases {
            let text = refused(&config).await;
            assert!(text.contains(named), "{named}: {text}");
            assert!(!text.contains(PIN) && !text.contains("wrong-pin"), "{text}");
        }
        assert!(
            refused(&HsmConfig { token_label: "other".into(), ..good.clone() }).await.contains(LABEL),
            "it says what there is"
        );
        token.start().await;
    });
}

#[test]
fn the_wrap_mechanism_of_the_configuration_must_be_that_of_the_seal_key() {
    with_token(async |token| {
        let hsm = token.start().await;
        let ctx = context();
        let (key, public) = hsm.generate(&ctx, Custody::Wrapped).await.unwrap();
        hsm.shutdown().await.unwrap();
        // On SoftHSM 0x210A is RFC 5649, so the module passes its self-test; the key made for 0x2109 does not fit it.
        let padded = HsmConfig { wrap_mechanism: "aes-key-wrap-pad".into(), ..token.config.clone() };
        let error = token.start_with(&padded).await.unwrap_err();
        assert!(error.to_string().contains("0x2109"), "{error}");
        for hsm in token.started() {
            hsm.shutdown().await.unwrap();
        }
        let hsm = token.start().await;
        hsm.sign(&ctx, &key, &public, [1; 32]).await.unwrap();
    });
}

#[test]
fn padded_wrapping_works_where_it_is_rfc_5649() {
    with_token(async |token| {
        let padded = HsmConfig { wrap_mechanism: "aes-key-wrap-pad".into(), ..token.config.clone() };
        let hsm = token.start_with(&padded).await.unwrap();
        let ctx = context();
        let (key, public) = hsm.generate(&ctx, Custody::Wrapped).await.unwrap();
        hsm.sign(&ctx, &key, &public, [1; 32]).await.unwrap();
    });
}

#[test]
fn the_check_says_what_is_there_and_what_is_wrong_and_changes_nothing() {
    with_token(async |token| {
        token.start().await.shutdown().await.unwrap();
        let report = admin::check(&token.config, token.keks()).await;
        assert!(report.is_good(), "{report}");
        let text = report.to_string();
        for part in [
            "sign transactions",
            "wrap signing keys",
            "self-test",
            "seal (active)",
            "canary good",
            "The HSM can be used.",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        let without = admin::check(&token.config, Vec::new()).await;
        assert!(!without.is_good() && without.to_string().contains("admin hsm init"), "{without}");
        let mut keks = token.keks();
        keks[0].cka_id = [0; 16];
        let other = admin::check(&token.config, keks).await;
        assert!(other.to_string().contains("WRONG   mac (active)"), "{other}");
        let label = HsmConfig { token_label: "other".into(), ..token.config.clone() };
        let label = admin::check(&label, token.keks()).await;
        assert!(label.to_string().contains("WRONG token"), "{label}");
        token.start().await;
    });
}

#[test]
fn the_benchmark_measures_and_leaves_no_key_behind() {
    with_token(async |token| {
        token.start().await;
        let objects = raw::token_objects(&raw::session(&token.config));
        for hsm in token.started() {
            hsm.shutdown().await.unwrap();
        }
        let measure = Duration::from_millis(100);
        let options = bench::BenchOptions { workers_max: 2, measure, many_keys: Some(20), ..Default::default() };
        let report = bench::bench(&token.config, options).await.unwrap();
        let text = report.to_string();
        for what in [bench::SIGN_RAW, bench::SIGN_HIT, bench::SIGN_MISS, bench::GENERATE, bench::SEAL, bench::OPEN] {
            for workers in [1, 2] {
                assert!(report.rate(what, workers).unwrap() > 0.0, "{text}");
            }
        }
        assert!(text.contains("second round") && text.contains("processors") && report.scaling().is_some(), "{text}");
        println!("{text}");
        token.start().await;
        assert_eq!(raw::token_objects(&raw::session(&token.config)), objects, "temporary keys are removed");
    });
}
