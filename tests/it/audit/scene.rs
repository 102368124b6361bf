//! An organisation whose trail is linked and signed, somebody with all rights on its database, and somebody who holds an exported file
//! against what was noted outside.

use std::path::{Path, PathBuf};
use std::process::Output;

use intentd::audit::rules::{Link, Trail};
use intentd::audit::{self, Actor, Event, Resource};
use intentd::ids::{EventId, OrgId};
use serde_json::json;

use super::{signed, verified};
use crate::harness::stack::{Options, Stack, text};

const TABLES: [&str; 5] = ["audit_events", "audit_links", "audit_heads", "audit_checkpoints", "keks"];
/// The link that is tampered with.
pub const AT: i64 = 10;

pub struct Scene {
    pub stack: Stack,
    pub folder: PathBuf,
    /// The public key of the installation, noted beforehand.
    key: String,
}

impl Scene {
    pub async fn set() -> Self {
        let folder = std::env::temp_dir().join(format!("intentd-audit-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("checkpoints.jsonl");
        let env = [
            ("INTENTD_AUDIT_CHECKPOINT_LINKS", "10"),
            ("INTENTD_AUDIT_CHECKPOINT_S", "1"),
            ("INTENTD_AUDIT_CHECKPOINT_FILE", file.to_str().unwrap()),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let stack = Stack::with(Options { chains: Vec::new(), env, ..Options::default() }).await;
        for n in 0..3 {
            let vault = stack.owner.post("/v1/vaults", &json!({"name": format!("v{n}")})).await.expect(201);
            for secret in 0..4 {
                let path = format!("/v1/vaults/{}/secrets/s{secret}", text(&vault, "id"));
                stack.owner.put(&path, &json!({"value": "v", "metadata": {"n": 1.5}})).await.expect(201);
                stack.owner.get(&path).await.expect(200);
            }
            signed(&stack).await;
        }
        let keys = stack.owner.get("/v1/audit/keys").await.expect(200);
        let key = text(&keys["keys"][0], "public_key");
        let scene = Self { stack, folder, key };
        for table in TABLES {
            scene.stack.sql(&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
        }
        scene
    }

    pub fn org(&self) -> &str {
        &self.stack.org_id
    }

    pub async fn length(&self) -> i64 {
        self.stack.count(&format!("SELECT count(*) FROM audit_links WHERE org_id = '{}'", self.org())).await
    }

    /// As a superuser whom no trigger stops.
    pub async fn tamper(&self, sql: &str) {
        self.stack.sql(&format!("BEGIN; SET LOCAL session_replication_role = replica; {sql}; COMMIT")).await;
    }

    pub async fn restore(&self) {
        for table in TABLES {
            self.tamper(&format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept_{table}")).await;
        }
    }

    pub async fn event_at(&self, seq: i64) -> String {
        let sql = format!("SELECT event_id::text FROM audit_links WHERE org_id = '{}' AND seq = {seq}", self.org());
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&self.stack.db).await.unwrap()
    }

    /// What the daemon says of the trail: the kind and place of the break.
    pub async fn online(&self) -> Option<(String, Option<i64>)> {
        let last = verified(&self.stack).await.pop().unwrap();
        if last["chain_valid"] == true {
            return None;
        }
        let seq = last["broken"]["seq"].as_i64();
        assert_eq!(last["broken_at_event_id"], last["broken"]["event_id"]);
        Some((text(&last["broken"], "kind"), seq))
    }

    pub fn export(&self) -> PathBuf {
        let output = self.stack.command().args(["audit", "export", "--organisation-id", self.org()]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let file = self.folder.join("audit.jsonl");
        std::fs::write(&file, output.stdout).unwrap();
        file
    }

    pub fn judge(&self, file: &Path, arguments: &[&str]) -> (i32, String) {
        // Neither database nor HSM: nothing of the environment that has them.
        let output: Output = std::process::Command::new(crate::harness::install::DAEMON)
            .env_clear()
            .args(["audit", "verify"])
            .arg(file)
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), said)
    }

    /// With the key that was noted, and the checkpoints of the file outside if wanted.
    pub fn offline(&self, file: &Path, with_checkpoints: bool) -> (i32, String) {
        self.offline_with(file, with_checkpoints, &[])
    }

    pub fn offline_with(&self, file: &Path, with_checkpoints: bool, more: &[&str]) -> (i32, String) {
        let checkpoints = self.folder.join("checkpoints.jsonl");
        let mut arguments = vec!["--key", &self.key];
        if with_checkpoints {
            arguments.extend(["--checkpoints", checkpoints.to_str().unwrap()]);
        }
        arguments.extend(more);
        self.judge(file, &arguments)
    }

    /// An event that never happened, with the hash of its fields, past the queue.
    pub async fn forge(&self, id: EventId) {
        let mut forged = Event::new(Actor::System, "vault.create", Resource::kind("vault"));
        (forged.id, forged.org_id) = (id, Some(self.org().parse().unwrap()));
        let mut tx = self.stack.db.begin().await.unwrap();
        sqlx::raw_sql("SET LOCAL session_replication_role = replica").execute(&mut *tx).await.unwrap();
        audit::record(&mut tx, forged).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// What somebody does who knows the format: event `AT` is another one, with its hash, and every link since is computed anew.
    pub async fn rewrite(&self) {
        let id: EventId = self.event_at(AT).await.parse().unwrap();
        self.tamper(&format!("DELETE FROM audit_events WHERE id = '{id}'")).await;
        self.forge(id).await;
        let org_id: OrgId = self.org().parse().unwrap();
        let mut tx = self.stack.db.begin().await.unwrap();
        sqlx::raw_sql("SET LOCAL session_replication_role = replica").execute(&mut *tx).await.unwrap();
        let rows: Vec<(i64, EventId, Vec<u8>, Vec<u8>)> = sqlx::query_as(
            "SELECT l.seq, l.event_id, e.hash, l.prev FROM audit_links l JOIN audit_events e ON e.id = l.event_id
             WHERE l.org_id = $1 AND l.seq >= $2 ORDER BY l.seq",
        )
        .bind(org_id)
        .bind(AT)
        .fetch_all(&mut *tx)
        .await
        .unwrap();
        let mut last: [u8; 32] = rows[0].3.clone().try_into().unwrap();
        for (seq, event_id, hash, _) in rows {
            let hash: [u8; 32] = hash.try_into().unwrap();
            let link = Link::new(Trail(Some(org_id)), seq.unsigned_abs(), event_id, &hash, last);
            sqlx::query("UPDATE audit_links SET prev = $3, hash = $4 WHERE org_id = $1 AND seq = $2")
                .bind(org_id)
                .bind(seq)
                .bind(link.prev.as_slice())
                .bind(link.hash.as_slice())
                .execute(&mut *tx)
                .await
                .unwrap();
            last = link.hash;
        }
        sqlx::query("UPDATE audit_heads SET hash = $2 WHERE org_id = $1")
            .bind(org_id)
            .bind(last.as_slice())
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
