-- The audit trail can be proven: every event gets a link in a hash chain of its organisation, and the chains' ends are signed in the HSM
-- now and then. Events go on being inserted without any shared lock; the links are written behind them.
--
-- Nothing here names an organisation by a foreign key: the trail of what belongs to none (failed logins, the installation's own keys) has
-- the nil id. audit_events stays in its one (default) partition: splitting it would move every row that is there.
SET LOCAL statement_timeout = 0;

-- The key that signs checkpoints is on the token like the others.
ALTER TABLE keks DROP CONSTRAINT keks_purpose_check;
ALTER TABLE keks ADD CONSTRAINT keks_purpose_check CHECK (purpose IN ('seal', 'data', 'mac', 'jwt', 'audit'));

-- Events that have no link yet: a queue, because events do not commit in the order of anything that they carry. Rows come and go all day.
CREATE TABLE audit_unlinked (
    org_id     uuid NOT NULL,
    -- Gives the links' order within what is visible together.
    id         bigint GENERATED ALWAYS AS IDENTITY,
    event_id   uuid NOT NULL,
    -- What has another length could not be linked, and would keep the rest of its trail waiting.
    event_hash bytea NOT NULL CHECK (octet_length(event_hash) = 32),
    PRIMARY KEY (org_id, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX audit_unlinked_by_event ON audit_unlinked (event_id);

-- The end of each chain. Its row is held by whoever writes the next links.
CREATE TABLE audit_heads (
    org_id         uuid PRIMARY KEY,
    seq            bigint NOT NULL DEFAULT 0 CHECK (seq >= 0),
    hash           bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex') CHECK (octet_length(hash) = 32),
    -- Up to where, when and by which key the chain was signed last: one that does not grow is signed again by the next key.
    checkpoint_seq bigint NOT NULL DEFAULT 0 CHECK (checkpoint_seq <= seq),
    checkpoint_key uuid,
    checkpoint_at  timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

CREATE TABLE audit_links (
    org_id   uuid NOT NULL,
    -- From 1, without gaps.
    seq      bigint NOT NULL CHECK (seq > 0),
    -- Not a foreign key: a removed event is to be found by the proof, not kept from being removed by somebody who may drop constraints.
    event_id uuid NOT NULL UNIQUE,
    -- The hash of the link before (of the first: zeros), and of this one: SHA-256 over organisation, seq, event, the event's hash and prev.
    prev     bytea NOT NULL CHECK (octet_length(prev) = 32),
    hash     bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (org_id, seq)
);

CREATE TABLE audit_checkpoints (
    org_id     uuid NOT NULL,
    seq        bigint NOT NULL CHECK (seq > 0),
    -- Of the link with this seq.
    hash       bytea NOT NULL CHECK (octet_length(hash) = 32),
    created_at timestamptz NOT NULL,
    -- The `audit` key. Not a foreign key: what it has signed needs its public half alone and keeps no key on the token.
    key_id     uuid NOT NULL,
    signature  bytea NOT NULL CHECK (octet_length(signature) = 64),
    PRIMARY KEY (org_id, seq, key_id)
);

-- A trigger and not a statement of the daemon's: also what a daemon of an older version writes while others are replaced is linked.
CREATE FUNCTION audit_enqueue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_unlinked (org_id, event_id, event_hash)
    VALUES (coalesce(NEW.org_id, '00000000-0000-0000-0000-000000000000'), NEW.id, NEW.hash);
    RETURN NULL;
END $$;
CREATE TRIGGER audit_events_enqueue AFTER INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION audit_enqueue();
INSERT INTO audit_unlinked (org_id, event_id, event_hash)
    SELECT coalesce(org_id, '00000000-0000-0000-0000-000000000000'), id, hash FROM audit_events ORDER BY created_at, id;

-- Links and checkpoints are append-only as events are.
CREATE FUNCTION audit_table_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER audit_links_append_only BEFORE UPDATE OR DELETE ON audit_links
    FOR EACH ROW EXECUTE FUNCTION audit_table_is_append_only();
CREATE TRIGGER audit_checkpoints_append_only BEFORE UPDATE OR DELETE ON audit_checkpoints
    FOR EACH ROW EXECUTE FUNCTION audit_table_is_append_only();
CREATE TRIGGER audit_events_not_emptied BEFORE TRUNCATE ON audit_events EXECUTE FUNCTION audit_table_is_append_only();
CREATE TRIGGER audit_links_not_emptied BEFORE TRUNCATE ON audit_links EXECUTE FUNCTION audit_table_is_append_only();
CREATE TRIGGER audit_checkpoints_not_emptied BEFORE TRUNCATE ON audit_checkpoints EXECUTE FUNCTION audit_table_is_append_only();
