//! What every request needs: the pool, the HSM, the chains, and the running tasks.

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chain::Chains;
use crate::config::Config;
use crate::hsm::Hsm;
use crate::http::limits::Limits;
use crate::ids::DaemonId;
use crate::intents::lanes::LaneQueues;
use crate::intents::tracker::Nudges;

/// One running daemon.
pub struct App {
    /// This process, among the daemons that share the database.
    pub daemon_id: DaemonId,
    /// When it started.
    pub started_at: time::OffsetDateTime,
    /// The configuration it started with.
    pub config: Config,
    /// Everything durable.
    pub db: PgPool,
    /// The keys.
    pub hsm: Hsm,
    /// The chains.
    pub chains: Chains,
    /// One queue per lane in front of the lane's row.
    pub lanes: LaneQueues,
    /// Rate limits.
    pub limits: Limits,
    /// Wakes the tracker.
    pub tracker: Nudges,
    /// Failed authentications, counted until they are written.
    pub auth_failures: crate::audit::failures::Failures,
    /// The organisations' rules about addresses, as they were read lately.
    pub ip_rules: crate::access::ip_rules::IpRules,
    /// What was used, counted until it is written.
    pub meter: crate::metering::Meter,
    /// What the database says of chains, as it was read last.
    pub chain_rows: crate::platform::chains::Rows,
    /// Work that outlives its request: pipelines and the tracker. Waited for at shutdown.
    pub tasks: TaskTracker,
    /// Cancelled when the daemon is to stop.
    pub stopping: CancellationToken,
}
