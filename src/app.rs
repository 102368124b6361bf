//! What every request needs: the pool, the HSM, the chains, and the running tasks.

use std::sync::{Arc, OnceLock};

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::agent_token::Issuers;
use crate::chain::Chains;
use crate::config::Config;
use crate::hsm::Hsm;
use crate::http::limits::Limits;
use crate::ids::DaemonId;
use crate::intents::lanes::LaneQueues;
use crate::intents::together::Together;
use crate::intents::tracker::Nudges;
use crate::mail::Mailer;
use crate::outbound::Outbound;
use crate::users::password::Passwords;

/// One running daemon.
pub struct App {
    /// This process, among the daemons that share the database.
    pub daemon_id: DaemonId,
    /// When it last knew where the token's keys stand.
    pub kek_look: crate::keks::LastLook,
    /// When it started.
    pub started_at: time::OffsetDateTime,
    /// The configuration it started with.
    pub config: Config,
    /// Everything durable.
    pub db: PgPool,
    /// Which of the database's servers the pool is on.
    pub primary: Arc<crate::db::Primary>,
    /// The keys.
    pub hsm: Hsm,
    /// The chains.
    pub chains: Chains,
    /// Who is asked what a transaction would do.
    pub simulators: crate::simulate::settings::Simulators,
    /// One queue per lane in front of the lane's row.
    pub lanes: LaneQueues,
    /// The intents that wait for those turns, and may be committed together.
    pub together: Together,
    /// Rate limits.
    pub limits: Limits,
    /// Requests to addresses that people give us.
    pub outbound: Outbound,
    /// The keys of the providers that vouch for agents.
    pub issuers: Issuers,
    /// Wakes the tracker.
    pub tracker: Nudges,
    /// Letters to humans.
    pub mail: Mailer,
    /// The hashing of passwords, which is kept from taking the whole machine.
    pub passwords: Passwords,
    /// Where the daemon serves, once it does.
    pub served_at: OnceLock<String>,
    /// When humans' keys were last used, until it is written.
    pub last_used: crate::access::last_used::LastUsed,
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

impl App {
    /// What links to this installation begin with, without a slash at the end: as configured, or else where it listens. Never what a
    /// request's headers say.
    #[must_use]
    pub fn public_url(&self) -> String {
        let configured = self.config.public_url.as_ref().map(ToString::to_string);
        let url = configured.or_else(|| self.served_at.get().cloned());
        url.unwrap_or_else(|| format!("http://{}", self.config.listen)).trim_end_matches('/').to_owned()
    }
}
