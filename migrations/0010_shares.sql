-- Shares: one secret, lent to somebody until a time, always as its latest version.

CREATE TABLE shares (
    -- Of a share that anybody with the link may open, the id is all that the link holds: 122 random bits. So it stands in no audit row
    -- and in no log line (they name a hash of it).
    id              uuid PRIMARY KEY,
    org_id          uuid NOT NULL REFERENCES organisations,
    -- A share has no life of its own.
    secret_id       uuid NOT NULL REFERENCES secrets ON DELETE CASCADE,
    -- Whose right to read it lends. That right is looked up again at every opening.
    created_by      uuid NOT NULL,
    created_by_type text NOT NULL CHECK (created_by_type IN ('user', 'agent')),
    recipient_type  text NOT NULL CHECK (recipient_type IN ('user', 'agent', 'creator', 'external_email', 'anyone_with_link')),
    -- The human or agent who alone may open it, once accepted. `creator` is resolved when the share is made.
    recipient_id    uuid,
    recipient_email text CHECK (char_length(recipient_email) BETWEEN 3 AND 320),
    -- argon2id in PHC form: people choose passphrases.
    passphrase_hash text,
    -- Networks that it may be opened from; empty: from anywhere.
    ip_allowlist    text[] NOT NULL DEFAULT '{}',
    max_access_count integer CHECK (max_access_count > 0),
    access_count    integer NOT NULL DEFAULT 0 CHECK (access_count >= 0),
    expires_at      timestamptz NOT NULL,
    accepted_at     timestamptz,
    declined_at     timestamptz,
    revoked_at      timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    -- The count is exact however many ask at once.
    CHECK (access_count <= max_access_count),
    CHECK ((recipient_type IN ('user', 'agent', 'creator')) = (recipient_id IS NOT NULL)),
    CHECK ((recipient_type = 'external_email') = (recipient_email IS NOT NULL)),
    -- Only who is named can answer.
    CHECK (recipient_id IS NOT NULL OR (accepted_at IS NULL AND declined_at IS NULL))
);
-- Newest first, by keyset.
CREATE INDEX shares_outbound ON shares (created_by, created_at DESC, id DESC) WHERE revoked_at IS NULL;
CREATE INDEX shares_inbound ON shares (recipient_id, created_at DESC, id DESC)
    WHERE recipient_id IS NOT NULL AND revoked_at IS NULL AND declined_at IS NULL;
CREATE INDEX shares_by_secret ON shares (secret_id);
-- Rows go some weeks after their end: the audit trail keeps what happened.
CREATE INDEX shares_by_end ON shares (expires_at);
