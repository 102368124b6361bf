//! How long a daemon takes to serve, by how many keys there are.

use std::time::Instant;

use crate::report::Report;
use crate::world::World;

/// 10, 1,000 and 10,000 keys, which are rows: with wrapped custody the HSM holds the KEKs alone.
pub async fn measure(report: &mut Report) {
    report.part("start-up, until the first request is served");
    let mut world = World::start(&[]).await;
    world.agents(1).await;
    for keys in [10, 1_000, 10_000] {
        let have = world.stack.count("SELECT count(*) FROM signing_keys").await;
        // Copies of a real row under other addresses, each of a secret of its own: what a start looks at is how many there are.
        copy_keys(&world, have, keys).await;
        world.stack.daemons.clear();
        let began = Instant::now();
        world.stack.add_daemon("daemon-again").await;
        report.figure(&format!("{keys} keys"), &format!("{:.2} s", began.elapsed().as_secs_f64()));
    }
}

/// From `have` of them to `keys`.
async fn copy_keys(world: &World, have: i64, keys: i64) {
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT column_name::text FROM information_schema.columns WHERE table_name = 'signing_keys' AND is_generated = 'NEVER'",
    )
    .fetch_all(&world.stack.db)
    .await
    .unwrap();
    let value = |name: &String| match name.as_str() {
        "id" => "gen_random_uuid()".to_owned(),
        "address" => "substring(sha256(gen_random_uuid()::text::bytea) for 20)".to_owned(),
        "path" => "copy.path".to_owned(),
        "secret_id" => "copy.id".to_owned(),
        _ => format!("k.{name}"),
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    let sql = format!(
        "WITH k AS (SELECT * FROM signing_keys ORDER BY created_at, id LIMIT 1), copy AS (
             INSERT INTO secrets (id, org_id, vault_id, path, version, type)
             SELECT gen_random_uuid(), s.org_id, s.vault_id, s.path || '-' || n, s.version, s.type
             FROM k JOIN secrets s ON s.id = k.secret_id, generate_series({have} + 1, {keys}) n RETURNING id, path)
         INSERT INTO signing_keys ({}) SELECT {} FROM k, copy",
        columns.join(", "),
        values.join(", ")
    );
    world.stack.sql(&sql).await;
}
