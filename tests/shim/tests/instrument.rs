//! The shim before SoftHSM: is it transparent, and does it see and do what other tests rely on?
//!
//! One process a test (nextest): the library under the shim is process-wide.

use std::path::{Path, PathBuf};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use tempfile::TempDir;

const PIN: &str = "1234";
/// The OID of secp256k1 (SEC 2 §A.2).
const SECP256K1: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];

/// A folder with the shim, its files and a token.
struct Bench {
    folder: TempDir,
    module: Pkcs11,
}

impl Bench {
    fn new(orders: &str) -> Self {
        let exe = std::env::current_exe().unwrap();
        let built = exe.parent().and_then(Path::parent).unwrap().join("libpkcs11_fault_shim.so");
        assert!(built.exists(), "run `cargo build -p pkcs11-fault-shim` first");
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::copy(built, path("shim.so")).unwrap();
        std::fs::create_dir(path("tokens")).unwrap();
        let conf = format!("directories.tokendir = {}\nlog.level = ERROR\n", path("tokens").display());
        std::fs::write(path("softhsm2.conf"), conf).unwrap();
        std::fs::write(path("control"), orders).unwrap();
        let made = std::process::Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", "t", "--pin", PIN, "--so-pin", PIN])
            .env("SOFTHSM2_CONF", path("softhsm2.conf"))
            .output()
            .unwrap();
        assert!(made.status.success());
        let module = Pkcs11::new(path("shim.so")).unwrap();
        let bench = Self { folder, module };
        bench.initialize();
        bench
    }

    fn initialize(&self) {
        self.module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    }

    fn session(&self) -> Session {
        let slots = self.module.get_slots_with_token().unwrap();
        let ours = |slot: &&_| self.module.get_token_info(**slot).unwrap().label() == "t";
        self.module.open_rw_session(*slots.iter().find(ours).unwrap()).unwrap()
    }

    fn logged_in(&self) -> Session {
        let session = self.session();
        session.login(UserType::User, Some(&AuthPin::from(PIN))).unwrap();
        session
    }

    fn order(&self, orders: &str) {
        let new = self.path("control.new");
        std::fs::write(&new, orders).unwrap();
        std::fs::rename(new, self.path("control")).unwrap();
    }

    fn trace(&self) -> String {
        std::fs::read_to_string(self.path("trace")).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A session key pair: (public, private).
fn key_pair(session: &Session) -> (ObjectHandle, ObjectHandle) {
    let public = [Attribute::Token(false), Attribute::Verify(true), Attribute::EcParams(SECP256K1.into())];
    let private = [Attribute::Token(false), Attribute::Sign(true), Attribute::Sensitive(true)];
    session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap()
}

fn rv(error: Error) -> RvError {
    match error {
        Error::Pkcs11(rv, _) => rv,
        other => panic!("{other}"),
    }
}

#[test]
fn without_orders_it_is_transparent() {
    let bench = Bench::new("");
    let session = bench.logged_in();
    let (public, private) = key_pair(&session);
    let signature = session.sign(&Mechanism::Ecdsa, private, &[7; 32]).unwrap();
    session.verify(&Mechanism::Ecdsa, public, &[7; 32], &signature).unwrap();
    assert_eq!(
        rv(session.verify(&Mechanism::Ecdsa, public, &[8; 32], &signature).unwrap_err()),
        RvError::SignatureInvalid
    );
    assert!(bench.trace().contains("C_SignInit 0x1041"));
    assert!(!bench.trace().contains("VIOLATION"));
}

#[test]
fn orders_strike_and_end_when_they_are_taken_back() {
    let bench = Bench::new("C_Sign rv=CKR_DEVICE_ERROR");
    let session = bench.logged_in();
    let (public, private) = key_pair(&session);
    assert_eq!(rv(session.sign(&Mechanism::Ecdsa, private, &[7; 32]).unwrap_err()), RvError::DeviceError);
    bench.order("C_Sign flip");
    let session = bench.session();
    let signature = session.sign(&Mechanism::Ecdsa, private, &[7; 32]).unwrap();
    session.verify(&Mechanism::Ecdsa, public, &[7; 32], &signature).unwrap_err();
    bench.order("C_Sign wobble");
    assert_eq!(rv(session.sign(&Mechanism::Ecdsa, private, &[7; 32]).unwrap_err()), RvError::GeneralError);
    bench.order("");
    let signature = session.sign(&Mechanism::Ecdsa, private, &[7; 32]).unwrap();
    session.verify(&Mechanism::Ecdsa, public, &[7; 32], &signature).unwrap();
}

#[test]
fn with_reused_handles_a_stale_one_signs_by_another_key() {
    let bench = Bench::new("handles reuse");
    let session = bench.logged_in();
    let (_, stale) = key_pair(&session);
    drop(session);
    let session = bench.logged_in();
    let (public, other) = key_pair(&session);
    assert_eq!(stale, other);
    let signature = session.sign(&Mechanism::Ecdsa, stale, &[7; 32]).unwrap();
    session.verify(&Mechanism::Ecdsa, public, &[7; 32], &signature).unwrap();
    // A number that is free is no handle.
    session.destroy_object(other).unwrap();
    assert_eq!(rv(session.sign(&Mechanism::Ecdsa, other, &[7; 32]).unwrap_err()), RvError::ObjectHandleInvalid);
}

#[test]
fn another_key_signs_only_as_long_as_it_lives() {
    let bench = Bench::new("C_SignInit other_key");
    let session = bench.logged_in();
    let (public_one, one) = key_pair(&session);
    let (public_two, two) = key_pair(&session);
    let verify = |key, signature: &[u8]| session.verify(&Mechanism::Ecdsa, key, &[7; 32], signature);
    let sign = |key| session.sign(&Mechanism::Ecdsa, key, &[7; 32]).unwrap();
    verify(public_one, &sign(one)).unwrap();
    verify(public_one, &sign(two)).unwrap();
    verify(public_two, &sign(one)).unwrap();
    session.destroy_object(one).unwrap();
    verify(public_two, &sign(two)).unwrap();
}

#[test]
fn finalize_with_a_call_in_flight_is_written_down_and_not_forwarded() {
    let bench = Bench::new("");
    let session = bench.logged_in();
    bench.order("C_GenerateRandom hang_ms=60000");
    let hanging = std::thread::spawn(move || session.generate_random_vec(8).map(|_| session));
    while !bench.trace().contains("HangMs") {
        std::thread::yield_now();
    }
    assert_eq!(rv(bench.module.clone().finalize().unwrap_err()), RvError::FunctionFailed);
    assert!(bench.trace().contains("! VIOLATION C_Finalize entered while C_GenerateRandom was in flight"));
    bench.order("");
    // The library was not finalised: the call and the session are alive.
    hanging.join().unwrap().unwrap().generate_random_vec(8).unwrap();
}

#[test]
fn a_weak_key_shows_its_value_until_it_is_tightened() {
    let bench = Bench::new("C_UnwrapKey weaken");
    let session = bench.logged_in();
    let secret = [Attribute::Token(false), Attribute::Sensitive(true), Attribute::ValueLen(32.into())];
    let template = |extra: &[Attribute]| [&secret[..], extra].concat();
    let kek = template(&[Attribute::Wrap(true), Attribute::Unwrap(true)]);
    let kek = session.generate_key(&Mechanism::AesKeyGen, &kek).unwrap();
    let key = session.generate_key(&Mechanism::AesKeyGen, &template(&[Attribute::Extractable(true)])).unwrap();
    let blob = session.wrap_key(&Mechanism::AesKeyWrap, kek, key).unwrap();
    let strict = [
        Attribute::Class(cryptoki::object::ObjectClass::SECRET_KEY),
        Attribute::KeyType(cryptoki::object::KeyType::AES),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
    ];
    let unwrapped = session.unwrap_key(&Mechanism::AesKeyWrap, kek, &blob, &strict).unwrap();
    let seen = || {
        session.get_attributes(unwrapped, &[AttributeType::Sensitive, AttributeType::Extractable, AttributeType::Value])
    };
    let weak = [Attribute::Sensitive(false), Attribute::Extractable(true), Attribute::Value(vec![0x42; 32])];
    assert_eq!(seen().unwrap(), weak);
    session.update_attributes(unwrapped, &[Attribute::Sensitive(true)]).unwrap();
    session.update_attributes(unwrapped, &[Attribute::Extractable(false)]).unwrap();
    let [Attribute::Sensitive(true), Attribute::Extractable(false), ..] = seen().unwrap()[..] else {
        panic!("{:?}", seen())
    };
    assert_eq!(
        session.update_attributes(unwrapped, &[Attribute::Sensitive(false)]).map_err(rv),
        Err(RvError::AttributeReadOnly)
    );
}
