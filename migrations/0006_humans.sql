-- How humans prove who they are, and the letters that they get about it.
-- Whatever opens something (a link, a code) is kept as a SHA-256 only, and what a letter says is sealed: a copy of this database
-- lets nobody in.

-- When the address was proven by a letter to it. NULL for owners that an operator made.
ALTER TABLE users ADD COLUMN email_verified_at timestamptz;
-- Stored and echoed for clients that show it; nothing here sends advertisements.
ALTER TABLE users ADD COLUMN marketing_emails boolean NOT NULL DEFAULT false;
-- Deleted accounts keep their row (audit rows, agents and vaults point at it) without name, address and password.
ALTER TABLE users ADD COLUMN deleted_at timestamptz;

-- Sign-ups that wait for their letter's answer: no account before the address is proven. An address may have several, each with its
-- own link and its own password: one that somebody else asked for does not replace mine.
CREATE TABLE signups (
    token_hash    bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    email         text NOT NULL CHECK (email = lower(email) AND char_length(email) BETWEEN 3 AND 320),
    password_hash text NOT NULL,
    display_name  text,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at    timestamptz NOT NULL
);
CREATE INDEX signups_by_email ON signups (email, created_at);
CREATE INDEX signups_expired ON signups (expires_at);

-- The one live link to a new password; a newer one replaces it.
CREATE TABLE password_resets (
    user_id    uuid PRIMARY KEY REFERENCES users,
    token_hash bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    expires_at timestamptz NOT NULL
);

-- The secret of a human's authenticator app (RFC 6238), sealed like any secret with the human as associated data.
CREATE TABLE second_factors (
    user_id      uuid PRIMARY KEY REFERENCES users,
    org_id       uuid NOT NULL REFERENCES organisations,
    kek_id       uuid NOT NULL REFERENCES keks,
    dek_iv       bytea NOT NULL CHECK (octet_length(dek_iv) = 12),
    dek_sealed   bytea NOT NULL,
    nonce        bytea NOT NULL CHECK (octet_length(nonce) = 12),
    ciphertext   bytea NOT NULL,
    -- The last time step whose code was taken: no code is taken twice, whichever daemon is asked.
    last_step    bigint NOT NULL DEFAULT 0,
    -- NULL until the app has shown that it has the secret: until then logins do not ask for it.
    confirmed_at timestamptz,
    created_at   timestamptz NOT NULL DEFAULT now()
);

-- For whoever loses the app: each works once, and goes with its use.
CREATE TABLE recovery_codes (
    user_id   uuid NOT NULL REFERENCES second_factors ON DELETE CASCADE,
    code_hash bytea NOT NULL CHECK (octet_length(code_hash) = 32),
    PRIMARY KEY (user_id, code_hash)
);

-- Logins whose password was right and whose second factor is still to come (what clients know as mfa_token).
CREATE TABLE login_challenges (
    token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    user_id    uuid NOT NULL REFERENCES users,
    -- A new password, set meanwhile, ends them.
    epoch      integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX login_challenges_by_user ON login_challenges (user_id, created_at);
CREATE INDEX login_challenges_expired ON login_challenges (expires_at);

-- The device flow (RFC 8628): a program asks for a code, a human says yes to it elsewhere.
CREATE TABLE device_grants (
    device_hash bytea PRIMARY KEY CHECK (octet_length(device_hash) = 32),
    user_hash   bytea NOT NULL UNIQUE CHECK (octet_length(user_hash) = 32),
    client_id   text NOT NULL CHECK (char_length(client_id) BETWEEN 1 AND 255),
    -- Whom the program says it is for; nobody else may say yes. NULL: it did not say.
    email       text CHECK (char_length(email) <= 320),
    state       text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'approved', 'denied')),
    -- Who said yes, and what that rests on: the token ends with it. A key's prefix, or else the epoch.
    user_id     uuid REFERENCES users,
    epoch       integer,
    key_prefix  text,
    -- Seconds between two questions of the program; asking sooner adds five.
    interval_s  integer NOT NULL,
    polled_at   timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    CHECK ((state = 'approved') = (user_id IS NOT NULL AND epoch IS NOT NULL))
);
CREATE INDEX device_grants_expired ON device_grants (expires_at);
CREATE INDEX device_grants_by_user ON device_grants (user_id) WHERE user_id IS NOT NULL;

-- Letters, written in the transaction of what they tell and sent by whichever daemon comes first. The text may hold a link that lets
-- somebody in, so it is sealed, and the row goes once the letter is sent.
CREATE TABLE mail_outbox (
    id           uuid PRIMARY KEY,
    -- What sort of letter, for the log.
    kind         text NOT NULL,
    recipient    text NOT NULL CHECK (char_length(recipient) <= 320),
    kek_id       uuid NOT NULL REFERENCES keks,
    dek_iv       bytea NOT NULL CHECK (octet_length(dek_iv) = 12),
    dek_sealed   bytea NOT NULL,
    nonce        bytea NOT NULL CHECK (octet_length(nonce) = 12),
    ciphertext   bytea NOT NULL,
    attempts     integer NOT NULL DEFAULT 0,
    -- Not before; while one daemon sends it, the end of that daemon's time for it.
    due_at       timestamptz NOT NULL DEFAULT now(),
    -- Not after: what it says is worth nothing by then.
    expires_at   timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX mail_outbox_due ON mail_outbox (due_at);
