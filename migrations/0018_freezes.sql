-- What signs nothing new until a human says otherwise: one table, whatever is frozen. A row in force is a freeze; a lifted one is gone, and
-- the audit trail tells of it.
CREATE TABLE freezes (
    id         uuid PRIMARY KEY,
    org_id     uuid NOT NULL REFERENCES organisations (id),
    scope      text NOT NULL CHECK (scope IN ('organisation', 'agent', 'key', 'chain')),
    -- The organisation's or the agent's id, the key's address in lower case, or the chain's id.
    subject    text NOT NULL CHECK (length(subject) <= 64),
    reason     text NOT NULL CHECK (length(reason) <= 500),
    -- Who did it; the daemon itself has no id.
    actor_type text NOT NULL,
    actor_id   uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (org_id, scope, subject)
);
-- An older daemon may be writing one of these columns.
LOCK TABLE organisations, agents IN ACCESS EXCLUSIVE MODE;
INSERT INTO freezes (id, org_id, scope, subject, reason, actor_type, created_at)
SELECT gen_random_uuid(), org_id, 'agent', id::text, 'frozen before freezes had reasons', 'system', frozen_at
FROM agents WHERE frozen_at IS NOT NULL
UNION ALL
SELECT gen_random_uuid(), id, 'organisation', id::text, 'its last human left', 'system', frozen_at
FROM organisations WHERE frozen_at IS NOT NULL;
ALTER TABLE agents DROP COLUMN frozen_at;
ALTER TABLE organisations DROP COLUMN frozen_at;
