//! The private SoftHSM2 token: DIR/token with its configuration, its PINs and its objects.

use std::path::PathBuf;

use secrecy::SecretString;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::DevError;
use super::state::StateDir;
use crate::hsm::softhsm;

/// Label of the token.
pub const LABEL: &str = "intentd-dev";
const PIN: &str = "token/pin";
const SO_PIN: &str = "token/so-pin";

/// What the daemon needs to know.
#[derive(Clone, Debug)]
pub struct Token {
    /// The PKCS#11 library.
    pub library: PathBuf,
    /// The value of SOFTHSM2_CONF.
    pub conf: PathBuf,
    /// The file (0600) that holds the PIN.
    pub pin_file: PathBuf,
}

/// Where the configuration of a state folder's token is, whether or not it is there yet.
///
/// # Errors
/// When the path cannot be made absolute.
pub fn conf_path(state: &std::path::Path) -> std::io::Result<PathBuf> {
    Ok(std::path::absolute(state)?.join("token").join("softhsm2.conf"))
}

/// Makes the token unless it is there. This process must have been started with SOFTHSM2_CONF naming its configuration
/// ([`softhsm::enter`]): otherwise the token would land in somebody else's folder.
///
/// # Errors
/// When SoftHSM2 is not installed, or does not make the token.
pub fn ensure(state: &StateDir) -> Result<Token, DevError> {
    let library = softhsm::library().ok_or_else(|| DevError::Missing {
        what: "SoftHSM2 (libsofthsm2)".to_owned(),
        mend: "`anvil/run` installs it on Debian and Ubuntu (package softhsm2); with Homebrew: brew install softhsm"
            .to_owned(),
    })?;
    let folder = state.path("token");
    let conf = softhsm::prepare(&folder).map_err(DevError::file("prepare", &folder))?;
    if std::env::var_os(softhsm::CONF_VARIABLE).is_none_or(|current| current != conf.as_os_str()) {
        return Err(DevError::start(
            "the token",
            format!("{} does not name {}", softhsm::CONF_VARIABLE, conf.display()),
        ));
    }
    let so_pin = pin(state, SO_PIN)?;
    let user_pin = pin(state, PIN)?;
    softhsm::ensure_token(&library, LABEL, &so_pin, &user_pin).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        DevError::start("the SoftHSM2 token", format!("{error}{cause}"))
    })?;
    Ok(Token { library, conf, pin_file: state.path(PIN) })
}

/// The PIN in a file; made at random first. SoftHSM takes PINs of 4 to 255 characters.
fn pin(state: &StateDir, name: &str) -> Result<SecretString, DevError> {
    if let Some(text) = state.read(name).map(Zeroizing::new) {
        return Ok(SecretString::from(text.trim()));
    }
    let fresh = Zeroizing::new(Uuid::new_v4().simple().to_string());
    state.write(name, &fresh)?;
    Ok(SecretString::from(fresh.as_str()))
}
