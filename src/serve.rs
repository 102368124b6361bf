//! `intentd serve`: start in order, serve, stop in order. Any error at start ends the process with a sentence and a non-zero code.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::agent_token::Issuers;
use crate::access::last_used::LastUsed;
use crate::app::App;
use crate::chain::{Chains, DEFAULT_CHAINS, registry};
use crate::config::{ChainsConfig, Config, Environment};
use crate::db;
use crate::hsm::Hsm;
use crate::http::connections;
use crate::http::limits::Limits;
use crate::http::listen::{Listener, Room};
use crate::http::router::router;
use crate::http::tls::{self, OwnCertificate};
use crate::ids::DaemonId;
use crate::intents::lanes::LaneQueues;
use crate::intents::together::Together;
use crate::intents::tracker;
use crate::keks::{self, KekError};
use crate::mail::Mailer;
use crate::outbound::Outbound;
use crate::platform;
use crate::simulate::settings::Simulators;
use crate::telemetry::Metrics;
use crate::users::password::Passwords;

/// Runs the daemon until SIGINT or SIGTERM.
///
/// # Errors
/// Anything that keeps it from starting.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    config.check_complete()?;
    crate::harden::no_core_dumps();
    warn_about(&config);
    tracing::info!(?config, "intentd {} starts", env!("CARGO_PKG_VERSION"));
    let metrics = Metrics::open(&config.metrics).await?;
    let (tls, certificate) = tls::server_config(&config.tls).context("cannot serve TLS")?.unzip();
    let app = start(config).await?;
    let listener = TcpListener::bind(app.config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", app.config.listen))?;
    let address = listener.local_addr().context("no local address")?;
    let url = served_url(&app.config, address);
    let _ = app.served_at.set(url.clone());
    crate::vaults::cmek::end_all_abandoned(&app).await.context("cannot use the database")?;
    let (primary, pool) = (Arc::clone(&app.primary), app.db.clone());
    let until = app.stopping.clone();
    app.tasks.spawn(primary.keep(pool, until));
    tracker::start(&app);
    keks::start(&app);
    if let Some(metrics) = metrics {
        metrics.start(&app);
    }
    app.tasks.spawn(crate::mail::keep_delivering(Arc::clone(&app)));
    app.tasks.spawn(crate::webhooks::keep_delivering(Arc::clone(&app)));
    let checkpoints = app.config.audit.checkpoint_file.as_ref();
    let sink = crate::audit::checkpoints::Sink::open(checkpoints)
        .await
        .context("cannot read and write `audit.checkpoint_file` (environment: INTENTD_AUDIT_CHECKPOINT_FILE)")?;
    crate::audit::checkpoints::warn_about(&app);
    app.tasks.spawn(crate::audit::chainer::keep_linking(Arc::clone(&app)));
    app.tasks.spawn(crate::audit::signer::keep_signing(Arc::clone(&app), sink));
    app.tasks.spawn(crate::audit::Failures::keep_flushing(Arc::clone(&app)));
    app.tasks.spawn(crate::metering::Meter::keep_flushing(Arc::clone(&app)));
    app.tasks.spawn(platform::chains::keep_refreshing(Arc::clone(&app)));
    app.tasks.spawn(LastUsed::keep_flushing(Arc::clone(&app)));
    announce(app.config.ready_file.as_deref(), &url)?;
    let stopping = app.stopping.clone();
    let limits = &app.config.limits;
    let room = Room {
        all: limits.connections,
        of_one: limits.connections_per_address,
        proxies: limits.trusted_proxies.clone(),
    };
    let listener = Listener::new(listener, tls, room);
    if let Some(certificate) = certificate {
        app.tasks.spawn(reload_on_hangup(certificate, stopping.clone()));
    }
    tokio::spawn(wait_for_signal(stopping.clone()));
    let idle = Duration::from_secs(limits.idle_s);
    let server = connections::serve(listener, router(Arc::clone(&app)), idle, stopping.clone());
    let drain = Duration::from_secs(app.config.drain_s);
    let mut server = std::pin::pin!(server);
    let mut failed = None;
    tokio::select! {
        () = &mut server => {}
        // A refused PIN, another token, or a call that hangs where the module has to be finalised: only a new process can help.
        error = app.hsm.failed() => failed = Some(error),
        () = stopping.cancelled() => {
            tracing::info!("stopping: no new requests, waiting for {} s at most for those in flight", drain.as_secs());
            if tokio::time::timeout(drain, &mut server).await.is_err() {
                tracing::warn!("connections were still open after {} s", drain.as_secs());
            }
        }
    }
    stop(app, drain).await;
    failed.map_or(Ok(()), |error| Err(error).context("the HSM failed for good"))
}

/// Database, then HSM, then the rest: nothing listens before all of it is there.
async fn start(config: Config) -> anyhow::Result<Arc<App>> {
    let chains = load_chains(&config.chains)?;
    let simulators =
        Simulators::new(&config.simulation).map_err(|why| anyhow::anyhow!(why)).context("cannot simulate")?;
    let (Some(url), Some(hsm_config)) = (&config.database.url, &config.hsm) else {
        bail!("the configuration is not complete")
    };
    let (pool, primary) = db::connect(&config.database, url.expose()).await.context("cannot use the database")?;
    db::migrate(&pool).await.context("cannot bring the database to this binary's schema")?;
    let hsm = Hsm::start(hsm_config).await.context("cannot use the HSM")?;
    let app = assemble(config, chains, simulators, (pool, primary), hsm.clone()).await;
    if app.is_err()
        && let Err(error) = hsm.shutdown().await
    {
        // The library's threads must not meet the end of the process.
        tracing::warn!(%error, "the HSM was not closed in order");
    }
    app
}

async fn assemble(
    config: Config,
    chains: Chains,
    simulators: Simulators,
    (pool, primary): (db::Pool, Arc<db::Primary>),
    hsm: Hsm,
) -> anyhow::Result<Arc<App>> {
    let daemon_id = DaemonId::random();
    let began = std::time::Instant::now();
    match keks::join(&pool, &hsm, daemon_id).await {
        Ok(()) => {}
        Err(KekError::Hsm(error)) => {
            return Err(error).context("the token does not hold this database's keys");
        }
        Err(KekError::None) => bail!(
            "this database has no keys on an HSM yet: run `intentd admin hsm init` once, with the same configuration"
        ),
        Err(error) => return Err(error.into()),
    }
    let outbound = Outbound::new(&config.outbound).context("cannot make requests of its own")?;
    let app = Arc::new(App {
        daemon_id,
        kek_look: keks::LastLook::new(began),
        started_at: crate::clock::now(),
        limits: Limits::new(&config.limits),
        issuers: Issuers::new(outbound.clone()),
        outbound,
        db: pool,
        primary,
        hsm,
        chains,
        simulators,
        lanes: LaneQueues::default(),
        together: Together::default(),
        tracker: tracker::Nudges::default(),
        mail: Mailer::new(&config.mail)?,
        passwords: Passwords::default(),
        served_at: OnceLock::new(),
        last_used: LastUsed::default(),
        auth_failures: crate::audit::failures::Failures::default(),
        ip_rules: crate::access::ip_rules::IpRules::default(),
        meter: crate::metering::Meter::default(),
        chain_rows: platform::chains::Rows::default(),
        tasks: TaskTracker::new(),
        stopping: CancellationToken::new(),
        config,
    });
    platform::chains::refresh(&app).await.context("cannot read the chains of the database")?;
    Ok(app)
}

/// The built-in chains or those of a file, with their URLs from the configuration or the environment.
///
/// # Errors
/// Names the file, the chain and the key.
pub fn load_chains(config: &ChainsConfig) -> anyhow::Result<Chains> {
    let text = match &config.file {
        None => DEFAULT_CHAINS.to_owned(),
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read the chains file {}", path.display()))?
        }
    };
    let urls = |variable: &str| {
        config
            .rpc_urls
            .iter()
            .find(|(name, _)| variable == format!("INTENTD_RPC_URL_{}", name.to_ascii_uppercase().replace('-', "_")))
            .map(|(_, url)| url.expose().to_owned())
    };
    let chains = Chains::load(registry::read(&text, urls)?)?;
    for name in config.rpc_urls.keys() {
        if chains.get(name).is_none() {
            bail!("there is an RPC URL for chain `{name}`, which is not in the chains file");
        }
    }
    Ok(chains)
}

/// What an operator should know about the way it is run.
fn warn_about(config: &Config) {
    if config.environment == Environment::Production && rustix::process::geteuid().is_root() {
        tracing::warn!("running as root: give the daemon a user of its own");
    }
    if !config.listen.ip().is_loopback() && config.tls.files().is_none() {
        tracing::warn!(
            listen = %config.listen,
            "listening beyond loopback without TLS: set `tls.cert_file` and `tls.key_file`, or put a TLS proxy in front"
        );
    }
}

fn served_url(config: &Config, address: SocketAddr) -> String {
    let scheme = if config.tls.files().is_some() { "https" } else { "http" };
    format!("{scheme}://{address}")
}

/// Says where it serves: a line for people, a file for scripts.
pub(crate) fn announce(ready_file: Option<&Path>, url: &str) -> anyhow::Result<()> {
    if let Some(path) = ready_file {
        write_whole(path, url).with_context(|| format!("cannot write the ready file {}", path.display()))?;
    }
    tracing::info!("listening on {url}");
    Ok(())
}

/// Readers never see half of it.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, text)?;
    std::fs::rename(part, path)
}

/// SIGHUP: the certificate was renewed.
async fn reload_on_hangup(certificate: Arc<OwnCertificate>, stopping: CancellationToken) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        tracing::error!("cannot wait for SIGHUP: a new certificate needs a restart");
        return;
    };
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = hangup.recv() => match certificate.reload() {
                Ok(()) => tracing::info!("the certificate was read again"),
                Err(error) => tracing::error!("the old certificate stays: {error:#}"),
            }
        }
    }
}

/// Cancels at the first of SIGINT and SIGTERM.
pub(crate) async fn wait_for_signal(stopping: CancellationToken) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::error!("cannot wait for signals");
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = stopping.cancelled() => {}
    }
    stopping.cancel();
}

/// Pipelines end, the tracker stops, the HSM is closed with no call in flight, then the pool.
async fn stop(app: Arc<App>, drain: Duration) {
    app.stopping.cancel();
    app.tasks.close();
    if tokio::time::timeout(drain, app.tasks.wait()).await.is_err() {
        tracing::warn!(
            "work was still in flight after {} s; what was committed is picked up at the next start",
            drain.as_secs()
        );
    }
    if let Err(error) = app.auth_failures.flush(&app.db).await {
        tracing::warn!(%error, "the count of failed authentications was not written");
    }
    if let Err(error) = app.meter.flush(&app.db).await {
        tracing::warn!(%error, "the last counts of usage were not written");
    }
    if let Err(error) = app.last_used.flush(&app.db).await {
        tracing::warn!(%error, "the last uses of API keys were not written");
    }
    if let Err(error) = tracker::store::drop_turns(&app.db, app.daemon_id).await {
        tracing::debug!(%error, "turns at lanes were not given back; they end by themselves");
    }
    if let Err(error) = keks::store::leave(&app.db, app.daemon_id).await {
        tracing::debug!(%error, "this daemon is still listed; it is forgotten by itself");
    }
    if let Err(error) = app.hsm.clone().shutdown().await {
        tracing::warn!(%error, "the HSM was not closed in order");
    }
    app.db.close().await;
    tracing::info!("stopped");
}
