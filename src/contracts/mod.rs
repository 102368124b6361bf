//! The contract ABIs that an organisation has registered: they give functions and errors their names. Hints for people; nothing is
//! decided by them.

pub mod api;
pub mod http;
pub mod store;

use crate::app::App;
use crate::ids::OrgId;
use crate::simulate::Simulation;
use crate::simulate::names::{Kind, Names};

/// Most ABIs of one organisation.
pub const ABIS_MAX: i64 = 500;

/// Names a simulation's own error, where the organisation, or a standard, has a name for it. A registry that cannot be read costs the name
/// alone.
pub async fn name_error(app: &App, org_id: OrgId, simulation: &mut Simulation, contract: alloy::primitives::Address) {
    let Some(selector) = simulation.output.first_chunk::<4>().copied() else { return };
    if simulation.error_code != Some("execution_reverted") {
        return;
    }
    let own = match store::names(&app.db, org_id, Kind::Error, selector).await {
        Ok(names) => names,
        Err(error) => {
            tracing::warn!(org = %org_id, %error, "the names of errors could not be read");
            Names::default()
        }
    };
    simulation.name_error(&own, contract);
    if own.find(Kind::Error, &selector, Some(contract)).is_none() {
        simulation.name_error(&Names::standard(), contract);
    }
}
