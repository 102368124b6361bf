//! Mechanism numbers that the `cryptoki` crate has no name for. The one place with `unsafe`.

use std::ffi::c_ulong;

use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};

use super::error::HsmError;

/// The type of a mechanism number: the crate's where it has one, the vendor range, or (CKM_AES_KEY_WRAP_KWP, 0x210B) by hand.
///
/// # Errors
/// [`HsmError::Invalid`] for a number that does not fit the platform's CK_ULONG.
pub(super) fn mechanism_type(id: u64) -> Result<MechanismType, HsmError> {
    let id = c_ulong::try_from(id).map_err(|_| HsmError::Invalid { what: "not a mechanism number" })?;
    Ok(MechanismType::try_from(id).or_else(|_| MechanismType::new_vendor_defined(id)).unwrap_or_else(|_| by_hand(id)))
}

#[allow(unsafe_code)]
fn by_hand(id: c_ulong) -> MechanismType {
    // SAFETY: `MechanismType` is `repr(transparent)` over CK_MECHANISM_TYPE, documented so in its source ("transparent so that
    // a vector of MechanismType should have the same layout"), CK_MECHANISM_TYPE is `c_ulong`, and every value of it is a valid
    // MechanismType: the type only hides its constructor. The sizes are compared at compile time by `transmute` itself.
    unsafe { std::mem::transmute::<c_ulong, MechanismType>(id) }
}

/// A mechanism without parameters.
pub(super) fn plain(mechanism: MechanismType) -> Mechanism<'static> {
    Mechanism::VendorDefined(VendorDefinedMechanism::new::<u8>(mechanism, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back_as_it_went_in() {
        for id in [0x2109, 0x210A, 0x210B, 0x1054, 0x8000_0001, 0] {
            assert_eq!(*mechanism_type(id).unwrap(), id as c_ulong);
        }
        assert_eq!(mechanism_type(0x2109).unwrap(), MechanismType::AES_KEY_WRAP);
    }
}
