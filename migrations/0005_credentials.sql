-- Credentials that are not keys, and limits that hold across daemons.

-- Whoever comes in without an API key (a human by password, an agent by certificate or OIDC) holds a token of an epoch. Raising
-- the epoch ends all of them at once: a new password, another certificate, "log out everywhere".
ALTER TABLE users ADD COLUMN auth_epoch integer NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN auth_epoch integer NOT NULL DEFAULT 0;

-- What may happen only so often, whichever daemon is asked: one row per kind and key, with the times of the last ones. The key is
-- a SHA-256, so that nothing a caller sends is kept here.
CREATE TABLE throttles (
    kind   text NOT NULL,
    key    bytea NOT NULL CHECK (octet_length(key) = 32),
    taken  timestamptz[] NOT NULL,
    -- When the last of them no longer counts: the row may go then.
    until  timestamptz NOT NULL,
    PRIMARY KEY (kind, key)
);
CREATE INDEX throttles_until ON throttles (until);
