//! A session beside the product's, in the same process: what an attacker with the PIN, or another program, could do.

use cryptoki::context::Pkcs11;
use cryptoki::object::{Attribute, AttributeInfo, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use intentd::hsm::{HsmConfig, Kek};

/// The library is initialised and logged in by the running `Hsm`: login is a matter of the process.
pub fn session(config: &HsmConfig) -> Session {
    let module = Pkcs11::new(&config.module).unwrap();
    let slots = module.get_slots_with_initialized_token().unwrap();
    let ours = |slot: &&_| module.get_token_info(**slot).unwrap().label() == config.token_label;
    let slot = *slots.iter().find(ours).unwrap();
    module.open_rw_session(slot).unwrap()
}

/// The object of a KEK.
pub fn kek(session: &Session, kek: &Kek) -> ObjectHandle {
    let found = session.find_objects(&[Attribute::Id(kek.cka_id.to_vec())]).unwrap();
    let private = |object: &ObjectHandle| flag(session, *object, AttributeType::Private);
    found.into_iter().find(private).unwrap()
}

/// Every object on the token.
pub fn token_objects(session: &Session) -> usize {
    session.find_objects(&[Attribute::Token(true)]).unwrap().len()
}

/// The private keys that are session objects: the unwrapped ones.
pub fn unwrapped_keys(session: &Session) -> Vec<ObjectHandle> {
    session.find_objects(&[Attribute::Token(false), Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap()
}

/// A boolean attribute.
pub fn flag(session: &Session, object: ObjectHandle, kind: AttributeType) -> bool {
    use Attribute as A;
    match session.get_attributes(object, &[kind]).unwrap().as_slice() {
        [A::Sensitive(on) | A::Extractable(on) | A::Private(on)] => *on,
        other => panic!("{kind}: {other:?}"),
    }
}

/// Whether the module would hand out the value.
pub fn is_readable(session: &Session, object: ObjectHandle) -> bool {
    let info = session.get_attribute_info(object, &[AttributeType::Value]).unwrap();
    matches!(info.as_slice(), [AttributeInfo::Available(_)])
}
