//! Whom an organisation asks: the daemon's own simulator, the chains' nodes, or an account of its own at a service.

pub mod api;
pub mod http;
pub mod store;

use std::sync::Arc;

use secrecy::ExposeSecret as _;

use super::tenderly::{Client, Credentials, Session, Slug};
use super::{Backend, SimulateError};
use crate::access::{Actor, SecretPath};
use crate::app::App;
use crate::config::{BackendKind, Secret, SimulationConfig};
use crate::ids::{OrgId, UserId, VaultId};
use crate::vaults::secrets;

/// What an organisation has set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The chains' nodes.
    Rpc,
    /// An account of its own.
    Tenderly(Account),
}

/// An account, and the secret that holds its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The account.
    pub account: Slug,
    /// The project.
    pub project: Slug,
    /// The vault of the key.
    pub vault_id: VaultId,
    /// The path of the key.
    pub path: SecretPath,
    /// Who named it.
    pub set_by: UserId,
}

/// The simulators of this process.
#[derive(Debug)]
pub struct Simulators {
    own: Backend,
    /// For organisations with an account of their own.
    organisations: Client,
    save: bool,
}

impl Simulators {
    /// From the configuration.
    ///
    /// # Errors
    /// A sentence: the key's file cannot be read, or TLS cannot be set up.
    pub fn new(config: &SimulationConfig) -> Result<Self, String> {
        let own = match config.backend {
            BackendKind::Rpc => Backend::Node,
            BackendKind::Tenderly => {
                let credentials = config
                    .credentials()
                    .map_err(|error| format!("cannot read `simulation.access_key_file`: {error}"))?
                    .ok_or("the tenderly backend needs `simulation.account`, `.project` and an access key that is not empty")?;
                let client = Client::new(config.base_url.clone(), config.dashboard_url.clone())?;
                Backend::Tenderly(Arc::new(Session { client, credentials, save: config.save }))
            }
        };
        let organisations = Client::new(config.organisations_base_url.clone(), None)?;
        Ok(Self { own, organisations, save: config.save })
    }
}

/// Whom to ask for an organisation, with its key opened.
///
/// # Errors
/// [`SimulateError`]: its own account cannot be used, and nobody else is asked in its place.
pub async fn backend(app: &Arc<App>, org_id: OrgId) -> Result<Backend, SimulateError> {
    let failed = |cause: &dyn std::error::Error| {
        tracing::warn!(org = %org_id, cause = %crate::http::problem::chain(cause), "whom to ask for a simulation cannot be told");
        SimulateError::Simulator { retry_after_s: 2 }
    };
    let choice = store::get(&app.db, org_id).await.map_err(|error| failed(&error))?;
    let account = match choice {
        None => return Ok(app.simulators.own.clone()),
        Some(Choice::Rpc) => return Ok(Backend::Node),
        Some(Choice::Tenderly(account)) => account,
    };
    let Account { account, project, vault_id, path, set_by } = account;
    let opened = secrets::open_for_daemon(app, org_id, vault_id, &path, Actor::User(set_by), "simulation").await;
    let key = match opened {
        Ok(key) => key,
        Err(secrets::SecretError::Db(error)) => return Err(failed(&error)),
        Err(secrets::SecretError::Hsm(error)) => return Err(failed(&error)),
        Err(error) => {
            tracing::warn!(org = %org_id, %vault_id, path = path.as_str(), cause = %error, "the simulator's key cannot be opened");
            return Err(SimulateError::Configuration(
                "its access key is not readable as a secret; an owner looks at GET /v1/org/simulation",
            ));
        }
    };
    let access_key = Secret::from(key.expose_secret().trim().to_owned());
    let credentials = Credentials { account, project, access_key };
    let Simulators { organisations, save, .. } = &app.simulators;
    Ok(Backend::Tenderly(Arc::new(Session { client: organisations.clone(), credentials, save: *save })))
}
