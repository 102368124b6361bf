//! What can go wrong, in two layers: [`HsmError`] for the rest of the program (its text is safe to show), and inside it the
//! [`Cause`] for the log. PKCS#11 names stand in the cause only.

use cryptoki::error::{Error as P11Error, RvError};

/// The internal cause of an error: for the log, never for a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Cause(String);

impl Cause {
    /// A cause in words.
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// `C_Sign: CKR_…` by the library's names; never carries data.
impl From<&P11Error> for Cause {
    fn from(error: &P11Error) -> Self {
        match error {
            P11Error::Pkcs11(rv, function) => Self(format!("C_{function:?}: {rv:?}")),
            other => Self(other.to_string()),
        }
    }
}

/// Why the HSM did not do what was asked. Display is safe to show to anyone; the source is for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HsmError {
    /// Nothing will work until an operator acts: wrong PIN, wrong token, a missing mechanism, a hung module. Never retried.
    #[error("the HSM cannot be used: {what}")]
    Fatal {
        /// What to put right, in plain words.
        what: String,
        /// For the log.
        #[source]
        cause: Option<Cause>,
    },
    /// The HSM does not answer properly now; recovery is under way. Nothing was signed. (503)
    #[error("the HSM is not available at the moment")]
    Unavailable {
        /// When to try again, in seconds.
        retry_after_s: u32,
        /// For the log.
        #[source]
        cause: Cause,
    },
    /// The queue is full. Nothing was signed. (503)
    #[error("the HSM is busy")]
    Busy {
        /// When to try again, in seconds.
        retry_after_s: u32,
    },
    /// The call's deadline passed. Whatever the HSM still does with it, its result is thrown away. (503)
    #[error("the HSM did not answer in time")]
    Timeout,
    /// Something stored does not belong to what it is presented with, or a signature is not by the expected key. (500)
    #[error("integrity check failed: {what}")]
    Integrity {
        /// What did not fit, without any value.
        what: &'static str,
        /// For the log.
        #[source]
        cause: Option<Cause>,
    },
    /// A row names a key of the token that this process has not adopted: it was away while keys were rotated, and looks again within a
    /// second. Nothing was signed. (503)
    #[error("a key of the HSM that this daemon has not found yet is needed: try again")]
    UnknownKek {
        /// Which.
        id: crate::ids::KekId,
    },
    /// The key is not on the token.
    #[error("the key is not in the HSM")]
    NotFound,
    /// The caller's input cannot be used.
    #[error("{what}")]
    Invalid {
        /// What is wrong with it, without any value.
        what: &'static str,
    },
    /// A bug here or in the module: the call itself was refused. (500)
    #[error("the HSM refused the operation")]
    Internal {
        /// For the log.
        #[source]
        cause: Cause,
    },
}

impl HsmError {
    /// A short word for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Fatal { .. } => "fatal",
            Self::Unavailable { .. } => "unavailable",
            Self::Busy { .. } => "busy",
            Self::Timeout => "timeout",
            Self::Integrity { .. } => "integrity",
            Self::UnknownKek { .. } => "unknown_kek",
            Self::NotFound => "not_found",
            Self::Invalid { .. } => "invalid",
            Self::Internal { .. } => "internal",
        }
    }

    /// Refuses to start, in words for the operator.
    pub(super) fn fatal(what: impl Into<String>) -> Self {
        Self::Fatal { what: what.into(), cause: None }
    }

    /// As [`HsmError::fatal`], with what the module said.
    pub(super) fn fatal_by(what: impl Into<String>, error: &P11Error) -> Self {
        Self::Fatal { what: what.into(), cause: Some(error.into()) }
    }

    /// A failed check of what is stored.
    pub(super) fn integrity(what: &'static str) -> Self {
        Self::Integrity { what, cause: None }
    }

    /// Seconds for a Retry-After header, where trying again makes sense.
    #[must_use]
    pub fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Unavailable { retry_after_s, .. } | Self::Busy { retry_after_s } => Some(*retry_after_s),
            Self::Timeout | Self::UnknownKek { .. } => Some(1),
            _ => None,
        }
    }
}

/// Why a worker's attempt failed: by the module (perhaps worth another attempt), or refused by us (final).
#[derive(Debug)]
pub(super) enum Fault {
    /// The module returned an error.
    Module(P11Error),
    /// The module answered CKR_OK with something that cannot be: a key that exists is not found, a fresh login is not logged in.
    Strange(Class, &'static str),
    /// A check of ours failed; trying again would not change it.
    Refused(HsmError),
}

impl From<P11Error> for Fault {
    fn from(error: P11Error) -> Self {
        Self::Module(error)
    }
}

impl From<HsmError> for Fault {
    fn from(error: HsmError) -> Self {
        Self::Refused(error)
    }
}

/// What a failure says about the state of the module (HSM.md 2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// This session is of no more use.
    Session,
    /// Nobody is logged in any more.
    Login,
    /// A handle is dead: another process deleted the object, or the login was lost and found again.
    Handle,
    /// The device, or any error that could be the device.
    Device,
    /// The device is gone for this initialisation: reopening cannot help.
    Gone,
    /// The PIN was refused. Modules lock it at the third try: there is no second.
    Pin,
    /// The call was refused for its own sake: a bug or a module that cannot do this.
    Refusal,
}

/// How far recovery goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// A new session for this worker.
    Reopen,
    /// All sessions closed, login.
    Login,
    /// All workers joined, C_Finalize, C_Initialize, login.
    Module,
}

impl Class {
    /// Classifies a module's error. Everything unknown counts as the device: it is retried and then answered 503.
    pub(super) fn of(error: &P11Error) -> Self {
        let P11Error::Pkcs11(rv, _) = error else { return Self::Refusal };
        match rv {
            RvError::SessionClosed
            | RvError::SessionHandleInvalid
            | RvError::SessionCount
            | RvError::SessionExists
            | RvError::SessionReadOnly
            | RvError::SessionReadOnlyExists
            | RvError::OperationActive
            | RvError::OperationNotInitialized
            | RvError::FunctionCanceled
            | RvError::Cancel => Self::Session,
            RvError::UserNotLoggedIn => Self::Login,
            RvError::ObjectHandleInvalid
            | RvError::KeyHandleInvalid
            | RvError::WrappingKeyHandleInvalid
            | RvError::UnwrappingKeyHandleInvalid => Self::Handle,
            RvError::CryptokiNotInitialized
            | RvError::DeviceRemoved
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::SlotIdInvalid => Self::Gone,
            RvError::PinIncorrect
            | RvError::PinLocked
            | RvError::PinExpired
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::UserPinNotInitialized => Self::Pin,
            RvError::ArgumentsBad
            | RvError::AttributeReadOnly
            | RvError::AttributeSensitive
            | RvError::AttributeTypeInvalid
            | RvError::AttributeValueInvalid
            | RvError::ActionProhibited
            | RvError::BufferTooSmall
            | RvError::CurveNotSupported
            | RvError::DataInvalid
            | RvError::DataLenRange
            | RvError::DomainParamsInvalid
            | RvError::FunctionNotSupported
            | RvError::KeyChanged
            | RvError::KeyFunctionNotPermitted
            | RvError::KeyIndigestible
            | RvError::KeyNeeded
            | RvError::KeyNotNeeded
            | RvError::KeyNotWrappable
            | RvError::KeySizeRange
            | RvError::KeyTypeInconsistent
            | RvError::KeyUnextractable
            | RvError::MechanismInvalid
            | RvError::MechanismParamInvalid
            | RvError::TemplateIncomplete
            | RvError::TemplateInconsistent
            | RvError::TokenWriteProtected
            | RvError::UnwrappingKeySizeRange
            | RvError::UnwrappingKeyTypeInconsistent
            | RvError::WrappingKeySizeRange
            | RvError::WrappingKeyTypeInconsistent => Self::Refusal,
            _ => Self::Device,
        }
    }

    /// The recovery before attempt `attempts + 1`, or `None` when the caller gets the error.
    pub(super) fn ladder(self, attempts: u8) -> Option<Level> {
        match (self, attempts) {
            (Self::Session | Self::Handle | Self::Device, 0) => Some(Level::Reopen),
            (Self::Session | Self::Handle, 1) | (Self::Login, 0) => Some(Level::Login),
            (Self::Session, 2) | (Self::Login | Self::Device, 1) | (Self::Gone, 0) => Some(Level::Module),
            _ => None,
        }
    }

    /// The error for a caller whose attempts are used up.
    pub(super) fn error(self, cause: Cause) -> HsmError {
        match self {
            Self::Refusal => HsmError::Internal { cause },
            Self::Pin => HsmError::Fatal { what: "the PIN was refused".into(), cause: Some(cause) },
            _ => HsmError::Unavailable { retry_after_s: 1, cause },
        }
    }
}

impl Fault {
    /// What it says about the module; `None` for a refusal of ours.
    pub(super) fn class(&self) -> Option<Class> {
        match self {
            Self::Module(error) => Some(Class::of(error)),
            Self::Strange(class, _) => Some(*class),
            Self::Refused(_) => None,
        }
    }

    /// The error for the caller.
    pub(super) fn into_error(self) -> HsmError {
        match self {
            Self::Module(error) => Class::of(&error).error((&error).into()),
            Self::Strange(class, what) => class.error(Cause::new(what)),
            Self::Refused(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptoki::context::Function;

    fn class(rv: RvError) -> Class {
        Class::of(&P11Error::Pkcs11(rv, Function::Sign))
    }

    #[test]
    fn every_path_up_the_ladder_ends() {
        use Class::{Device, Gone, Handle, Login, Pin, Refusal, Session};
        for class in [Session, Login, Handle, Device, Gone, Pin, Refusal] {
            assert_eq!(class.ladder(3), None, "{class:?}");
            let levels: Vec<_> = (0..3).map_while(|n| class.ladder(n)).collect();
            assert!(levels.is_sorted(), "{class:?} goes down the ladder: {levels:?}");
        }
    }

    #[test]
    fn a_refused_pin_is_never_worth_another_try() {
        for rv in [RvError::PinIncorrect, RvError::PinLocked, RvError::PinExpired, RvError::PinLenRange] {
            assert_eq!(class(rv).ladder(0), None);
            assert!(matches!(class(rv).error(Cause::new("")), HsmError::Fatal { .. }));
        }
    }

    #[test]
    fn unknown_and_vendor_errors_are_the_device() {
        for rv in [RvError::VendorDefined(0x8000_0001), RvError::UnknownErrorCode(0x1234), RvError::GeneralError] {
            assert_eq!(class(rv), Class::Device);
        }
    }

    #[test]
    fn no_pkcs11_name_is_in_the_public_text() {
        let error = P11Error::Pkcs11(RvError::DeviceError, Function::Sign);
        let error = Fault::Module(error).into_error();
        assert!(!error.to_string().contains("C_") && !error.to_string().contains("Device"), "{error}");
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert_eq!(cause, "C_Sign: DeviceError");
    }
}
