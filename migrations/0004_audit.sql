-- What happened. A row is written in the transaction of the effect that it records: no row, no effect.
-- Partitioned by month, so that old months can be archived whole; a default partition catches a month that was not made in time.
CREATE TABLE audit_events (
    id            uuid NOT NULL,
    org_id        uuid REFERENCES organisations,
    action        text NOT NULL,
    actor_type    text NOT NULL CHECK (actor_type IN ('user', 'agent', 'system', 'anonymous')),
    actor_id      uuid,
    resource_type text NOT NULL,
    resource_id   text,
    details       jsonb NOT NULL DEFAULT '{}',
    ip_address    inet,
    created_at    timestamptz NOT NULL,
    -- SHA-256 over a canonical encoding of every field above.
    hash          bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE audit_events_default PARTITION OF audit_events DEFAULT;
CREATE INDEX audit_events_by_org ON audit_events (org_id, created_at DESC, id DESC);

-- Append-only, also for whoever holds the daemon's own role by mistake.
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_events is append-only';
END $$;
CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
