//! `intentd admin …`: what only an operator at the machine does.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use std::path::Path;

use anyhow::{Context, bail};
use serde_json::json;
use sqlx::PgPool;

use crate::access::{Role, ip_rules};
use crate::address::parse_address;
use crate::audit::{self, Event, Resource};
use crate::cli::{
    Admin, AuditCommand, Bench, Bootstrap, ClearIpRules, DestroyKeys, HsmCommand, Invite, KeysCommand, PlatformAdmin,
    ReleaseLane,
};
use crate::config::{Config, Secret};
use crate::hsm::bench::BenchOptions;
use crate::hsm::{self, Hsm, HsmConfig, KekPurpose};
use crate::intents::{self, lanes::Lane};
use crate::orgs::invitations::Inviter;
use crate::vaults::keys::destroy::{self, Selection};
use crate::{db, keks, orgs, platform};

/// Runs a command about the audit trail. `verify` needs neither configuration nor database.
///
/// # Errors
/// A sentence for the operator.
pub async fn audit(command: AuditCommand, config: &Config) -> anyhow::Result<ExitCode> {
    match command {
        AuditCommand::Verify(options) => return audit::command::verify(&options),
        AuditCommand::Export(options) => audit::command::export(&database(config).await?, &options).await?,
        AuditCommand::Keys => audit::command::keys(&database(config).await?).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs an admin command.
///
/// # Errors
/// A sentence for the operator.
pub async fn run(command: Admin, config: Config) -> anyhow::Result<()> {
    crate::harden::no_core_dumps();
    match command {
        Admin::Config => {
            println!("{config:#?}");
            let chains = crate::serve::load_chains(&config.chains)?;
            for chain in chains.iter() {
                let spec = chain.spec();
                let rpc = if spec.has_node() { "RPC URL set" } else { "no RPC URL" };
                println!("chain {:<14} id {:<10} group {:<9} {rpc}", spec.name, spec.chain_id, spec.spend_group);
            }
            config.check_complete().map_err(Into::into)
        }
        Admin::Migrate => {
            database(&config).await?;
            println!("The database is at this binary's schema.");
            Ok(())
        }
        Admin::Bootstrap(options) => bootstrap(&config, options).await,
        Admin::Lanes => lanes(&config).await,
        Admin::PlatformAdmin(options) => platform_admin(&config, &options).await,
        Admin::Invite(options) => invite(&config, &options).await,
        Admin::ClearIpRules(options) => clear_ip_rules(&config, &options).await,
        Admin::ReleaseLane(options) => release_lane(&config, &options).await,
        Admin::Hsm(HsmCommand::Init) => hsm_init(&config).await,
        Admin::Hsm(HsmCommand::Check) => hsm_check(&config).await,
        Admin::Hsm(HsmCommand::Bench(options)) => hsm_bench(&config, &options).await,
        Admin::Hsm(HsmCommand::Rotate(options)) => {
            let pool = database(&config).await?;
            match &options.purpose {
                Some(purpose) if !options.status => {
                    with_hsm(&config, async |hsm| keks::command::rotate(&pool, hsm, purpose).await).await?;
                    if options.wait { keks::command::wait(&pool, purpose).await } else { Ok(()) }
                }
                _ => keks::command::show(&pool).await,
            }
        }
        Admin::Hsm(HsmCommand::Keks) => keks::command::show(&database(&config).await?).await,
        Admin::Hsm(HsmCommand::DestroyKek(options)) => {
            let pool = database(&config).await?;
            let id = keks::command::confirmed(&pool, &options.id, options.confirm.as_deref()).await?;
            with_hsm(&config, async |hsm| keks::command::destroy(&pool, hsm, id).await).await
        }
        Admin::Check(options) => {
            let pool = database(&config).await?;
            with_hsm(&config, async |hsm| keks::check::run(&pool, hsm, i64::from(options.sample)).await).await
        }
        Admin::Keys(KeysCommand::Destroy(options)) => keys_destroy(&config, &options).await,
    }
}

fn hsm_config(config: &Config) -> anyhow::Result<&HsmConfig> {
    config.hsm.as_ref().context(
        "no HSM is configured: set hsm.module, hsm.token_label and hsm.pin (INTENTD_HSM_MODULE, INTENTD_HSM_TOKEN_LABEL, INTENTD_HSM_PIN_FILE)",
    )
}

/// The migrated database.
async fn database(config: &Config) -> anyhow::Result<PgPool> {
    let url =
        config.database.url.as_ref().context("no database is configured: set database.url (INTENTD_DATABASE_URL)")?;
    let (pool, _) = db::connect(&config.database, url.expose()).await.context("cannot use the database")?;
    db::migrate(&pool).await.context("cannot bring the database to this binary's schema")?;
    Ok(pool)
}

async fn bootstrap(config: &Config, options: Bootstrap) -> anyhow::Result<()> {
    let password = options.password_file.as_deref().map(read_password).transpose()?;
    let pool = database(config).await?;
    // The key's randomness is the HSM's.
    let made = with_hsm(config, async |hsm| {
        Ok(orgs::bootstrap(&pool, hsm, &options.organisation, &options.email, password.as_ref()).await?)
    })
    .await?;
    if options.json {
        println!("{}", json!({"org_id": made.org_id, "user_id": made.user_id, "api_key": made.api_key.reveal()}));
    } else {
        println!("organisation  {}", made.org_id);
        println!("owner         {} ({})", made.user_id, options.email);
        println!("API key       {}", made.api_key.reveal());
        println!("The key is shown this once. Use it as `Authorization: Bearer <key>`.");
    }
    Ok(())
}

async fn platform_admin(config: &Config, options: &PlatformAdmin) -> anyhow::Result<()> {
    let pool = database(config).await?;
    let on = !options.revoke;
    if platform::set_platform_admin(&pool, &options.email, on).await?.is_none() {
        bail!("there is no active account with the email address {}", options.email);
    }
    println!("{} is {} platform admin.", options.email, if on { "a" } else { "no longer a" });
    Ok(())
}

async fn invite(config: &Config, options: &Invite) -> anyhow::Result<()> {
    let role = match options.role.as_str() {
        "owner" => Role::Owner,
        "admin" => Role::Admin,
        _ => Role::Member,
    };
    let pool = database(config).await?;
    let by = Inviter::Operator(options.organisation_id);
    let (invitation, token) =
        with_hsm(config, async |hsm| Ok(orgs::invitations::invite(&pool, hsm, by, &options.email, role).await?))
            .await?;
    if options.json {
        println!("{}", json!({"invitation_id": invitation.id, "token": token.reveal()}));
    } else {
        println!("{} is invited as {} until {}.", invitation.email, options.role, invitation.expires_at);
        println!("token  {}", token.reveal());
        println!("It is shown this once. POST /v1/auth/accept-invite takes it, with a password.");
    }
    Ok(())
}

async fn clear_ip_rules(config: &Config, options: &ClearIpRules) -> anyhow::Result<()> {
    let pool = database(config).await?;
    let count = ip_rules::clear(&pool, options.organisation_id).await?;
    println!("{count} IP rules were removed; daemons let everybody in again within a second.");
    Ok(())
}

async fn lanes(config: &Config) -> anyhow::Result<()> {
    let pool = database(config).await?;
    let frozen = intents::store::frozen_lanes(&pool).await?;
    if frozen.is_empty() {
        println!("No lane waits for an operator.");
    }
    for entry in frozen {
        let Lane { chain_id, address } = entry.lane;
        println!("chain {chain_id}  {address}  next nonce by our rows {}\n  {}", entry.next_nonce, entry.reason);
    }
    Ok(())
}

async fn release_lane(config: &Config, options: &ReleaseLane) -> anyhow::Result<()> {
    let chains = crate::serve::load_chains(&config.chains)?;
    let chain = chains.get(&options.chain).with_context(|| format!("no chain {:?}", options.chain))?;
    let address = parse_address(&options.address).context("--address")?;
    let lane = Lane { chain_id: chain.spec().chain_id, address };
    let pool = database(config).await?;
    let mut tx = pool.begin().await?;
    if !intents::store::release_lane(&mut tx, lane, options.next).await? {
        bail!("that lane is not frozen: `intentd admin lanes` lists those that are");
    }
    let resource = Resource::new("lane", format!("{}:{address}", lane.chain_id));
    audit::record(&mut tx, Event::new(audit::Actor::System, "lane.release", resource).with("next", options.next))
        .await?;
    tx.commit().await?;
    println!("The lane goes on at nonce {} or later.", options.next);
    Ok(())
}

/// The first line of a file.
fn read_password(path: &Path) -> anyhow::Result<Secret> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the password file {}", path.display()))?;
    Ok(Secret::from(text.lines().next().unwrap_or_default().to_owned()))
}

/// The HSM for one piece of work, closed in order whatever came of it: a module still at work while it is unloaded crashes.
async fn with_hsm<T>(config: &Config, work: impl AsyncFnOnce(&Hsm) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let hsm = Hsm::start(hsm_config(config)?).await.context("cannot use the HSM")?;
    let result = work(&hsm).await;
    hsm.shutdown().await.context("the HSM was not closed in order")?;
    result
}

/// Makes the installation's keys, under the installation lock: two operators at once make one set.
async fn hsm_init(config: &Config) -> anyhow::Result<()> {
    let pool = database(config).await?;
    with_hsm(config, async |hsm| {
        let mut tx = pool.begin().await?;
        db::lock_install(&mut tx).await?;
        let existing = hsm::store::load(&mut tx).await?;
        if !existing.is_empty() {
            hsm.adopt(existing.clone())
                .await
                .context("this database has keys already, and the token does not hold them")?;
            let has_audit = existing.iter().any(|kek| kek.purpose == KekPurpose::Audit);
            if has_audit {
                println!("The keys exist already, and the token holds them. Nothing was changed.");
                return Ok(());
            }
            // Made before audit checkpoints were signed. As in a rotation it is used once every running daemon has found it.
            tx.rollback().await?;
            let kek = keks::begin(&pool, hsm, KekPurpose::Audit).await?;
            println!("made {:<5} key {}. Back up the token now.", kek.purpose.as_str(), kek.id);
            return Ok(());
        }
        let keks = hsm.create_keks().await?;
        hsm::store::insert(&mut tx, &keks).await?;
        tx.commit().await?;
        for kek in &keks {
            println!("made {:<5} key {}", kek.purpose.as_str(), kek.id);
        }
        println!("Back up the token now: without these keys the database opens nothing.");
        Ok(())
    })
    .await
}

/// With the installation's own keys, so that what is measured is what `serve` does.
async fn hsm_bench(config: &Config, options: &Bench) -> anyhow::Result<()> {
    let pool = database(config).await?;
    let keks = hsm::store::load(&mut *pool.acquire().await?).await?;
    if keks.is_empty() {
        bail!("there are no keys on the HSM yet: run `intentd admin hsm init` first");
    }
    let options = BenchOptions {
        keks,
        workers_max: options.workers.max(1),
        measure: Duration::from_secs(options.seconds.max(1)),
        many_keys: options.many_keys,
        progress: Arc::new(|line: &str| eprintln!("{line}")),
    };
    println!("{}", hsm::bench::bench(hsm_config(config)?, options).await?);
    Ok(())
}

/// Lists superseded keys, and destroys those that may go if that was confirmed.
async fn keys_destroy(config: &Config, options: &DestroyKeys) -> anyhow::Result<()> {
    let vault = options.vault.as_deref().map(str::parse).transpose().context("--vault is not an id")?;
    let selection = Selection { grace_s: options.older_than, vault };
    let pool = database(config).await?;
    let (mut due, mut kept) = (Vec::new(), 0_u64);
    destroy::list(&pool, selection, |key| {
        let what = format!("{}  {}  {} version {}, {}", key.id, key.address(), key.path, key.version, key.custody);
        match destroy::kept_by(key) {
            Some(why) => {
                kept += 1;
                println!("keep     {what}: {why}");
            }
            None => {
                println!("{}  {what}", if options.confirm { "due    " } else { "destroy" });
                due.push(key.clone());
            }
        }
    })
    .await?;
    if !options.confirm {
        println!(
            "{} keys would be destroyed, {kept} are kept. Nothing was changed: --confirm destroys them.",
            due.len()
        );
        println!("What is still at their addresses is lost with them.");
        return Ok(());
    }
    let mut failed = 0_u64;
    with_hsm(config, async |hsm| {
        hsm.adopt(hsm::store::load(&mut *pool.acquire().await?).await?).await?;
        for key in &due {
            match destroy::destroy(&pool, hsm, key, selection).await {
                Ok(true) => println!("destroyed  {}", key.id),
                Ok(false) => println!("kept       {}: it is in use again", key.id),
                Err(error) => {
                    failed += 1;
                    println!("FAILED     {}: {error}", key.id);
                }
            }
        }
        Ok(())
    })
    .await?;
    if failed > 0 {
        bail!("{failed} keys could not be destroyed: see above, and run the command again");
    }
    Ok(())
}

async fn hsm_check(config: &Config) -> anyhow::Result<()> {
    let keks = match database(config).await {
        Ok(pool) => hsm::store::load(&mut *pool.acquire().await?).await?,
        Err(error) => {
            eprintln!("checking the module alone: {error:#}");
            Vec::new()
        }
    };
    let report = hsm::admin::check(hsm_config(config)?, keks).await;
    println!("{report}");
    if !report.is_good() {
        bail!("the HSM cannot be used as it is: see above");
    }
    Ok(())
}
