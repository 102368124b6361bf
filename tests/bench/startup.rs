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
        // Copies of a real row under other addresses: what a start looks at is how many there are.
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
        "path" => "k.path || '-' || n".to_owned(),
        "version" => "n + 1".to_owned(),
        _ => format!("k.{name}"),
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    let sql = format!(
        "INSERT INTO signing_keys ({}) SELECT {} FROM (SELECT * FROM signing_keys WHERE version = 1 LIMIT 1) k,
         generate_series({have} + 1, {keys}) n",
        columns.join(", "),
        values.join(", ")
    );
    world.stack.sql(&sql).await;
}
