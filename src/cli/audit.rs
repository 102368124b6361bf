//! `intentd audit …`: the arguments.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::audit::Trail;
use crate::ids::OrgId;

const AUDIT_EXPORT: &str = "\
Needs INTENTD_DATABASE_URL (or `database.url`).

Example:
  intentd audit export > audit.jsonl
  intentd audit verify audit.jsonl --key 3b6a27bc… --checkpoints /var/log/intentd/checkpoints.jsonl";

const AUDIT_VERIFY: &str = "\
Needs nothing but the files. Exit codes: 0 whole, 1 not readable, 3 broken, 4 (with --key) whole, and no checkpoint of those keys proves
it, or some of --checkpoints are of other keys. Without --key, 0 says only that the file agrees with itself.

What proves what: an event's hash, that it was edited; the links, that events were removed, put in or moved; a signed checkpoint, that
nothing before it was changed by anybody who could compute all of that anew. That the end was cut off is shown only by a checkpoint that
was kept elsewhere: give it by --checkpoints.

Example:
  intentd audit verify audit.jsonl --key 3b6a27bc… --checkpoints checkpoints.jsonl";

/// `intentd audit …`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Write audit trails to stdout as JSON Lines: events, links, checkpoints. All of them unless some are named.
    #[command(after_help = AUDIT_EXPORT)]
    Export(AuditExport),
    /// Judge an exported file, with neither database nor HSM.
    #[command(after_help = AUDIT_VERIFY)]
    Verify(AuditVerify),
    /// List the public keys that checkpoints are signed by, with their ids.
    Keys,
}

/// `intentd audit export`
#[derive(Debug, Args)]
pub struct AuditExport {
    /// Only this organisation's. May be repeated.
    #[arg(long)]
    pub organisation_id: Vec<OrgId>,
    /// Only the trail of what belongs to no organisation (or that one too).
    #[arg(long)]
    pub installation: bool,
    /// Leave out what is up to this link: it was exported before.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub after: u64,
}

/// `intentd audit verify`
#[derive(Debug, Args)]
pub struct AuditVerify {
    /// The exported file; - is stdin.
    pub file: PathBuf,
    /// A public key (hex) whose checkpoints are believed. May be repeated.
    #[arg(long, value_parser = public_key)]
    pub key: Vec<[u8; 32]>,
    /// A file of checkpoints that was kept outside of the database. May be repeated: each daemon writes its own.
    #[arg(long, requires = "key")]
    pub checkpoints: Vec<PathBuf>,
    /// Judge only this organisation's trail, or the `installation`'s own. May be repeated. Otherwise every trail that a checkpoint of
    /// --checkpoints is of must be in the file.
    #[arg(long, value_parser = trail)]
    pub trail: Vec<Trail>,
    /// The file may begin behind this link, as an export with --after does: what is before was judged another time.
    #[arg(long, default_value_t = 0)]
    pub after: u64,
}

fn trail(text: &str) -> Result<Trail, String> {
    let wrong = || "must be an organisation's id, or `installation`".to_owned();
    if text == "installation" {
        return Ok(Trail(None));
    }
    text.parse::<OrgId>().map(|id| Trail::of_uuid(id.0)).map_err(|_| wrong())
}

/// 32 bytes in hex.
fn public_key(text: &str) -> Result<[u8; 32], String> {
    let bytes = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| "must be 64 hexadecimal digits, as `intentd audit keys` prints them".to_owned())
}
