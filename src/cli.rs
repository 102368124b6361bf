//! The command line. Secrets never come by argument: they would be in every process listing.

mod audit;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::ids::OrgId;

pub use audit::{AuditCommand, AuditExport, AuditVerify};

/// An Ethereum intents signing daemon whose keys stay in a PKCS#11 HSM.
///
/// New here? `intentd dev` starts everything on this machine, with demo data and a curl to copy.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub struct Cli {
    /// Configuration file (TOML). Environment variables INTENTD_… win over it; the README lists both.
    #[arg(long, short, global = true, env = "INTENTD_CONFIG")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command needs that works on an installation.
const INSTALLATION: &str = "\
Environment (or the file's keys):
  INTENTD_DATABASE_URL     postgres://user:password@host/database
  INTENTD_HSM_MODULE       the PKCS#11 library, such as /usr/lib/softhsm/libsofthsm2.so
  INTENTD_HSM_TOKEN_LABEL  the token's label
  INTENTD_HSM_PIN_FILE     a file that holds the PIN";

const SERVE: &str = "\
Environment (or the file's keys):
  INTENTD_DATABASE_URL     postgres://user:password@host/database
  INTENTD_HSM_MODULE       the PKCS#11 library, such as /usr/lib/softhsm/libsofthsm2.so
  INTENTD_HSM_TOKEN_LABEL  the token's label
  INTENTD_HSM_PIN_FILE     a file that holds the PIN
  INTENTD_RPC_URL_<CHAIN>  a node for a chain, such as INTENTD_RPC_URL_BASE or INTENTD_RPC_URL_ARBITRUM_ONE
  INTENTD_LISTEN           where to listen (127.0.0.1:8787)

Before the first time: `intentd admin hsm init`, then `intentd admin bootstrap`.

Example:
  intentd serve --config /etc/intentd.toml";

const SIMULATOR: &str = "\
Environment (or the file's keys):
  INTENTD_RPC_URL_<CHAIN>             a node for a chain, such as INTENTD_RPC_URL_BASE
  INTENTD_SIMULATOR_ACCESS_KEY[_FILE] what clients must send as X-Access-Key, or a file that holds it
  INTENTD_SIMULATOR_LISTEN            where to listen (127.0.0.1:8788)
  INTENTD_SIMULATOR_ACCOUNT, _PROJECT the account and project in its paths (local, local)

Example, and a daemon that uses it:
  INTENTD_RPC_URL_BASE=https://… INTENTD_SIMULATOR_ACCESS_KEY_FILE=key intentd simulator
  INTENTD_SIMULATION_BACKEND=tenderly INTENTD_SIMULATION_URL=http://127.0.0.1:8788 INTENTD_SIMULATION_ACCOUNT=local \\
    INTENTD_SIMULATION_PROJECT=local INTENTD_SIMULATION_ACCESS_KEY_FILE=key intentd serve";

const DEV: &str = "\
Example:
  intentd dev --listen 127.0.0.1:8787
  . .intentd/env     # in another shell: INTENTD_URL, INTENTD_AGENT_KEY, …";

const MIGRATE: &str = "\
Needs INTENTD_DATABASE_URL (or `database.url`).

Example:
  INTENTD_DATABASE_URL=postgres://… intentd admin migrate";

const BOOTSTRAP: &str = "\
Needs INTENTD_DATABASE_URL and the INTENTD_HSM_… variables, as `intentd serve --help` lists them.

Example:
  intentd admin bootstrap --organisation Example --email owner@example.com --json";

const INVITE: &str = "\
Needs INTENTD_DATABASE_URL and the INTENTD_HSM_… variables, as `intentd serve --help` lists them.

Example:
  intentd admin invite --organisation-id 7f9c24e8-… --email you@example.com --role admin
  curl https://…/v1/auth/accept-invite -d '{\"token\": \"…\", \"password\": \"…\"}'";

const BENCH: &str = "\
Needs what `intentd admin hsm init` needs, and its keys.

Example:
  intentd admin hsm bench --workers 8 --seconds 5";

const ROTATE: &str = "\
Needs what `intentd admin hsm init` needs. The daemons that run do the work; back up the token when the new key is made.

Example:
  intentd admin hsm rotate seal --wait
  intentd admin hsm rotate --status";

const CHECK: &str = "\
Needs what `intentd admin hsm init` needs. Changes nothing, and leaves with an error when anything does not open.

Example:
  intentd admin check --sample 200";

const KEYS_DESTROY: &str = "\
Needs what `intentd admin hsm init` needs. Move what is still at the addresses first.

Example:
  intentd admin keys destroy --older-than 30d
  intentd admin keys destroy --older-than 30d --confirm";

const CONFIG: &str = "\
Example:
  INTENTD_LISTEN=127.0.0.1:9000 intentd admin config --config /etc/intentd.toml";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon against your Postgres, your HSM and your RPC nodes.
    #[command(after_help = SERVE)]
    Serve,
    /// Serve simulations in Tenderly's HTTP API, on the chains' own nodes. Needs neither database nor HSM.
    #[command(after_help = SIMULATOR)]
    Simulator,
    /// Run a whole private stack (Postgres, HSM token, local chains, demo data) and the daemon on it.
    #[command(after_help = DEV)]
    Dev(crate::dev::DevOptions),
    /// Set up and inspect an installation.
    #[command(subcommand)]
    Admin(Admin),
    /// Print the API's description (OpenAPI 3.1), as `GET /openapi.json` serves it. Needs nothing.
    Openapi,
    /// The audit trail: take it out, and prove that nothing in it was changed.
    #[command(subcommand)]
    Audit(AuditCommand),
}

/// `intentd admin …`
#[derive(Debug, Subcommand)]
pub enum Admin {
    /// Bring the database to this binary's schema. `serve` does it too; this is for doing it beforehand.
    #[command(after_help = MIGRATE)]
    Migrate,
    /// Create an organisation and its owner, and print the owner's API key. It is shown once.
    #[command(after_help = BOOTSTRAP)]
    Bootstrap(Bootstrap),
    /// The HSM: what it offers, its keys, its speed.
    #[command(subcommand)]
    Hsm(HsmCommand),
    /// Open a sample of everything that is stored, as after a restore: the token's keys, secrets, signing keys, the rows between them.
    #[command(after_help = CHECK)]
    Check(Check),
    /// The signing keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// List the lanes (a key on a chain) that wait for an operator, and why.
    Lanes,
    /// Let a frozen lane go on, after finding out who used its key: nonces below --next are taken as used by others.
    ///
    /// Example: intentd admin release-lane --chain base --address 0x… --next 57
    ReleaseLane(ReleaseLane),
    /// Make a human a platform admin, who manages chains, limits and settings of the installation; or unmake one.
    ///
    /// Example: intentd admin platform-admin --email you@example.com
    PlatformAdmin(PlatformAdmin),
    /// Invite somebody into an organisation, and print the invitation's token. It is shown once.
    #[command(after_help = INVITE)]
    Invite(Invite),
    /// Remove every IP rule of an organisation, when nobody gets in by them any more.
    ///
    /// Example: intentd admin clear-ip-rules --organisation-id 7f9c24e8-…
    ClearIpRules(ClearIpRules),
    /// Print the configuration as it would be used, with secrets redacted.
    #[command(after_help = CONFIG)]
    Config,
}

/// `intentd admin bootstrap`
#[derive(Debug, Args)]
pub struct Bootstrap {
    /// Name of the organisation.
    #[arg(long)]
    pub organisation: String,
    /// Email address of its owner.
    #[arg(long)]
    pub email: String,
    /// A file whose first line is the owner's password (at least 12 characters: upper and lower case, a digit and a special one). Without it the owner has the API key only.
    #[arg(long)]
    pub password_file: Option<PathBuf>,
    /// Print JSON: {"org_id", "user_id", "api_key"}.
    #[arg(long)]
    pub json: bool,
}

/// `intentd admin platform-admin`
#[derive(Debug, Args)]
pub struct PlatformAdmin {
    /// Email address of the human.
    #[arg(long)]
    pub email: String,
    /// Take the right away instead.
    #[arg(long)]
    pub revoke: bool,
}

/// `intentd admin invite`
#[derive(Debug, Args)]
pub struct Invite {
    /// The organisation.
    #[arg(long)]
    pub organisation_id: OrgId,
    /// Email address of who is invited.
    #[arg(long)]
    pub email: String,
    /// owner, admin or member.
    #[arg(long, default_value = "member", value_parser = ["owner", "admin", "member"])]
    pub role: String,
    /// Print JSON: {"invitation_id", "token"}.
    #[arg(long)]
    pub json: bool,
}

/// `intentd admin clear-ip-rules`
#[derive(Debug, Args)]
pub struct ClearIpRules {
    /// The organisation.
    #[arg(long)]
    pub organisation_id: OrgId,
}

/// `intentd admin release-lane`
#[derive(Debug, Args)]
pub struct ReleaseLane {
    /// The chain's name or id.
    #[arg(long)]
    pub chain: String,
    /// The key's address.
    #[arg(long)]
    pub address: String,
    /// The next nonce to use: what a node that you trust answers. Never moves back.
    #[arg(long)]
    pub next: u64,
}

/// `intentd admin hsm …`
#[derive(Debug, Subcommand)]
pub enum HsmCommand {
    /// Create this installation's keys on the token: seal, data, mac, jwt and audit. Changes nothing when they exist.
    #[command(after_help = INSTALLATION)]
    Init,
    /// Print what the module offers, what is missing, and whether the keys of the database are on the token.
    #[command(after_help = INSTALLATION)]
    Check,
    /// Replace one of the token's keys while the daemons run: what the old key made is made again by the new one, row by row.
    #[command(after_help = ROTATE)]
    Rotate(Rotate),
    /// List the token's keys, what still needs each, and the running daemons.
    #[command(after_help = INSTALLATION)]
    Keks,
    /// Take a retired key off the token, for ever, after saying which backups that makes unreadable.
    #[command(after_help = INSTALLATION)]
    DestroyKek(DestroyKek),
    /// Measure the module: signatures, generation, unwrapping, sealing.
    #[command(after_help = BENCH)]
    Bench(Bench),
}

/// `intentd admin hsm rotate`
#[derive(Debug, Args)]
pub struct Rotate {
    /// The key to rotate: seal (wraps signing keys), data (seals secrets), mac (authenticates stored keys), jwt (signs tokens) or audit (signs checkpoints of the audit trail).
    #[arg(value_parser = ["seal", "data", "mac", "jwt", "audit"], required_unless_present = "status")]
    pub purpose: Option<String>,
    /// Only show how far the rotations are.
    #[arg(long)]
    pub status: bool,
    /// Wait until the running daemons are done. (`jwt`: until the new key is in use; the old one is kept until its tokens have ended.)
    #[arg(long, conflicts_with = "status")]
    pub wait: bool,
}

/// `intentd admin hsm destroy-kek`
#[derive(Debug, Args)]
pub struct DestroyKek {
    /// The key, as `intentd admin hsm keks` lists it.
    pub id: String,
    /// The same id once more. Without it nothing is destroyed, and it is said what would be lost.
    #[arg(long)]
    pub confirm: Option<String>,
}

/// `intentd admin check`
#[derive(Debug, Args)]
pub struct Check {
    /// How many secrets, and how many signing keys, are opened.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub sample: u16,
}

/// `intentd admin keys …`
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Destroy signing keys that were replaced or deleted long ago and whose transactions are all final. Lists them, and what keeps the
    /// others, unless --confirm is given.
    #[command(after_help = KEYS_DESTROY)]
    Destroy(DestroyKeys),
}

/// `intentd admin keys destroy`
#[derive(Debug, Args)]
pub struct DestroyKeys {
    /// Superseded for at least so long: a number and d, h, m or s.
    #[arg(long, value_parser = seconds)]
    pub older_than: i64,
    /// Keys of this vault only.
    #[arg(long)]
    pub vault: Option<String>,
    /// Destroy them. This cannot be undone.
    #[arg(long)]
    pub confirm: bool,
}

/// `30d`, `12h`, `5m`, `10s`.
fn seconds(text: &str) -> Result<i64, String> {
    let units = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
    let found = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, *seconds)));
    found
        .and_then(|(number, seconds)| number.parse::<u32>().ok().map(|n| i64::from(n) * seconds))
        .ok_or_else(|| "must be a number and d, h, m or s, such as 30d".to_owned())
}

/// `intentd admin hsm bench`
#[derive(Debug, Args)]
pub struct Bench {
    /// Most workers to measure with. Each step doubles them.
    #[arg(long, default_value_t = 2)]
    pub workers: usize,
    /// Seconds for each measurement.
    #[arg(long, default_value_t = 2)]
    pub seconds: u64,
    /// Also make this many wrapped keys and sign once with each, to see what a large installation costs.
    #[arg(long)]
    pub many_keys: Option<usize>,
}
