//! A finished installation to copy: a migrated database with the HSM's keys in it, the token that holds them, and an
//! organisation with its owner. Made once for a build of the daemon, then copied into every stack.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use intentd::dev::postgres::{Cluster, ClusterOptions};
use intentd::dev::user;
use intentd::hsm::softhsm;
use serde_json::Value;

pub const TOKEN_LABEL: &str = "intentd-it";
pub const PIN: &str = "it-pin-90210";
/// The daemon under test.
pub const DAEMON: &str = env!("CARGO_BIN_EXE_intentd");

/// Folders of one installation: `pg` (the cluster's data), `token` and `owner.json`.
pub struct Installation {
    pub root: PathBuf,
    /// The organisation's owner: `org_id`, `user_id`, `api_key`.
    pub owner: Value,
}

impl Installation {
    /// A fresh copy in a folder of its own.
    pub async fn fresh() -> Self {
        let template = template().await;
        let root = base().join(format!("stack-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&root).unwrap();
        open_to_all(&root);
        copy(&template.join("pg"), &root.join("pg"));
        copy(&template.join("token/tokens"), &root.join("token/tokens"));
        softhsm::prepare(&root.join("token")).unwrap();
        std::fs::write(root.join("pin"), PIN).unwrap();
        let owner = serde_json::from_slice(&std::fs::read(template.join("owner.json")).unwrap()).unwrap();
        Self { root, owner }
    }

    /// Starts its Postgres, which ends with this process.
    pub async fn postgres(&self, settings: &[&str]) -> Cluster {
        start_postgres(&self.root, settings).await
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the stack's logs are in {}", self.root.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }
}

async fn start_postgres(root: &Path, settings: &[&str]) -> Cluster {
    let options = ClusterOptions {
        data: root.join("pg"),
        log: root.join("postgres.log"),
        owner: user::for_postgres().unwrap(),
        settings: ["shared_buffers=32MB", "max_connections=200"]
            .iter()
            .chain(settings)
            .map(|s| (*s).to_owned())
            .collect(),
        bound: true,
    };
    Cluster::start(options).await.unwrap()
}

/// One folder for each checkout, so that two of them do not take away each other's templates.
fn base() -> PathBuf {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut checkout = DefaultHasher::new();
    env!("CARGO_MANIFEST_DIR").hash(&mut checkout);
    let base = std::env::temp_dir().join(format!("intentd-it-{:016x}", checkout.finish()));
    std::fs::create_dir_all(&base).unwrap();
    open_to_all(&base);
    base
}

/// Postgres runs as another user when the tests run as root.
fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "cp {} {}", from.display(), to.display());
}

/// The template for this build of the daemon, made by the first test that asks.
async fn template() -> PathBuf {
    let meta = std::fs::metadata(DAEMON).unwrap();
    let stamp = meta.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let base = base();
    let lock = File::create(base.join("template.lock")).unwrap();
    lock.lock().unwrap();
    let done = base.join(format!("template-{stamp}-{}", meta.len()));
    if !done.exists() {
        for old in std::fs::read_dir(&base).unwrap().flatten() {
            if old.file_name().to_string_lossy().starts_with("template-") {
                let _ = std::fs::remove_dir_all(old.path());
            }
        }
        let part = base.join("template-part");
        std::fs::create_dir(&part).unwrap();
        open_to_all(&part);
        make(&part).await;
        std::fs::rename(&part, &done).unwrap();
    }
    done
}

async fn make(root: &Path) {
    let conf = softhsm::prepare(&root.join("token")).unwrap();
    std::fs::write(root.join("pin"), PIN).unwrap();
    let status = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", TOKEN_LABEL, "--pin", PIN, "--so-pin", PIN])
        .env(softhsm::CONF_VARIABLE, &conf)
        .stdout(Stdio::null())
        .status()
        .expect("softhsm2-util is not installed: run anvil/test once");
    assert!(status.success(), "softhsm2-util made no token");
    let cluster = start_postgres(root, &[]).await;
    let url = cluster.url(intentd::dev::postgres::NAME);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(DAEMON);
        environment(&mut command, root, &url);
        let output = command.arg("admin").args(arguments).output().unwrap();
        assert!(output.status.success(), "intentd admin {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(&["hsm", "init"]);
    let owner = run(&["bootstrap", "--organisation", "Test", "--email", "owner@example.test", "--json"]);
    std::fs::write(root.join("owner.json"), owner).unwrap();
    tokio::time::timeout(Duration::from_secs(30), cluster.stop()).await.unwrap();
}

/// The settings that every call of the binary needs, and nothing of the caller's own.
pub fn environment(command: &mut Command, root: &Path, database_url: &str) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("INTENTD_")) {
        command.env_remove(name);
    }
    command
        .env(softhsm::CONF_VARIABLE, root.join("token/softhsm2.conf"))
        .env("INTENTD_DATABASE_URL", database_url)
        .env("INTENTD_HSM_MODULE", softhsm::library().expect("SoftHSM is not installed: run anvil/test once"))
        .env("INTENTD_HSM_TOKEN_LABEL", TOKEN_LABEL)
        .env("INTENTD_HSM_PIN_FILE", root.join("pin"));
}
