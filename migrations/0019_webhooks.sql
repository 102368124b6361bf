-- Where an organisation wants to hear of its audit events.
CREATE TABLE webhooks (
    id           uuid PRIMARY KEY,
    org_id       uuid NOT NULL REFERENCES organisations (id),
    url          text NOT NULL CHECK (length(url) <= 2048),
    description  text NOT NULL CHECK (length(description) <= 500),
    -- Actions (`transaction.final`), families of them (`transaction.*`), or `*`.
    events       text[] NOT NULL CHECK (cardinality(events) BETWEEN 1 AND 100),
    is_active    boolean NOT NULL DEFAULT true,
    -- Why the daemon turned it off by itself.
    disabled_reason text,
    -- What deliveries are signed with, sealed.
    kek_id       uuid NOT NULL REFERENCES keks,
    dek_iv       bytea NOT NULL CHECK (octet_length(dek_iv) = 12),
    dek_sealed   bytea NOT NULL,
    nonce        bytea NOT NULL CHECK (octet_length(nonce) = 12),
    ciphertext   bytea NOT NULL,
    created_by   uuid NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- One daemon at a time delivers to it, until then.
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    -- It did not answer: nothing is sent before then.
    rests_until  timestamptz NOT NULL DEFAULT '-infinity',
    -- Failures to reach it since the last time that it took something.
    failures     integer NOT NULL DEFAULT 0,
    delivered    bigint NOT NULL DEFAULT 0,
    delivered_at timestamptz,
    -- It is gone for people; the row goes when its deliveries are gone.
    deleted_at   timestamptz
);
CREATE INDEX webhooks_of_org ON webhooks (org_id);
CREATE INDEX webhooks_by_kek ON webhooks (kek_id);
CREATE TRIGGER webhooks_kek BEFORE INSERT OR UPDATE OF kek_id ON webhooks
    FOR EACH ROW EXECUTE FUNCTION check_named_kek('kek_id');

-- What is still to be delivered, and what never was. Written by the statement that writes the event; gone once it is taken.
CREATE TABLE webhook_deliveries (
    id               uuid PRIMARY KEY,
    -- No foreign key: every transaction that signs writes here, and must not share a lock with whoever changes a webhook.
    webhook_id       uuid NOT NULL,
    -- The event, of which the message is made when it is sent.
    event_id         uuid NOT NULL,
    event_created_at timestamptz NOT NULL,
    action           text NOT NULL,
    is_dead          boolean NOT NULL DEFAULT false,
    attempts         integer NOT NULL DEFAULT 0,
    due_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- What the last attempt met.
    last_status      integer,
    last_error       text,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook_id, due_at) WHERE NOT is_dead;
CREATE INDEX webhook_deliveries_old ON webhook_deliveries (created_at);
CREATE INDEX webhook_deliveries_listed ON webhook_deliveries (webhook_id, created_at, id);
