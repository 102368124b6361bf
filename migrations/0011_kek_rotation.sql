-- Rotation of the keys on the token: a new key is made beside the old one, every daemon finds it, it becomes the active one, and
-- what the old one made is made again by the new one, row by row.

ALTER TABLE keks
    ADD COLUMN activated_at timestamptz,
    ADD COLUMN retiring_at  timestamptz,
    ADD COLUMN retired_at   timestamptz,
    ADD COLUMN destroyed_at timestamptz,
    -- Rows of the last round that did not open under this key, and one of them: they keep it from being retired.
    ADD COLUMN stuck_rows   bigint NOT NULL DEFAULT 0,
    ADD COLUMN stuck_note   text;
UPDATE keks SET activated_at = created_at WHERE state <> 'adding';
-- destroying: to be taken off the token as soon as no daemon has it in its memory; destroyed: it is off the token. The row stays,
-- because it says which backups are unreadable since when, and (jwt) keeps the public key of what was signed.
ALTER TABLE keks DROP CONSTRAINT keks_state_check;
ALTER TABLE keks ADD CONSTRAINT keks_state_check
    CHECK (state IN ('adding', 'active', 'retiring', 'retired', 'destroying', 'destroyed'));
-- One rotation of a purpose at a time.
CREATE UNIQUE INDEX keks_one_adding ON keks (purpose) WHERE state = 'adding';
CREATE UNIQUE INDEX keks_one_retiring ON keks (purpose) WHERE state = 'retiring';

-- The daemons that run, and which keys of the token each of them has found and uses for new things. A key becomes active only when
-- all of them have it, and is retired only when all of them have stopped making new things with it.
CREATE TABLE daemons (
    id          uuid PRIMARY KEY,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    keks        uuid[] NOT NULL DEFAULT '{}',
    active_keks uuid[] NOT NULL DEFAULT '{}',
    -- Why it does not have a key that it should have, for the operator.
    note        text
);

-- Which daemon does the rotation's work just now. Only saves work: every step is guarded by the state that it saw.
CREATE TABLE kek_leases (
    name   text PRIMARY KEY,
    holder uuid NOT NULL,
    until  timestamptz NOT NULL
);

-- What is left to do is read by the old key's id, in the order of the rows' ids.
CREATE INDEX signing_keys_by_kek ON signing_keys (kek_id, id);
CREATE INDEX signing_keys_by_mac_kek ON signing_keys (mac_kek_id, id);
CREATE INDEX secret_versions_by_kek ON secret_versions (kek_id, secret_id, version);
-- What may be destroyed.
CREATE INDEX signing_keys_superseded ON signing_keys (superseded_at) WHERE state = 'superseded';
CREATE INDEX slots_by_key ON slots (key_id) WHERE state <> 'final';

-- A destroyed signing key keeps its row, because transactions and audit rows point at it, and nothing that could sign.
ALTER TABLE signing_keys ALTER COLUMN mac_kek_id DROP NOT NULL, ALTER COLUMN mac DROP NOT NULL;
ALTER TABLE signing_keys ADD COLUMN destroyed_at timestamptz;
DO $$
DECLARE
    named text;
BEGIN
    -- The two checks of 0002 have names that Postgres gave them.
    FOR named IN SELECT conname FROM pg_constraint
        WHERE conrelid = 'signing_keys'::regclass AND contype = 'c' AND pg_get_constraintdef(oid) LIKE '%(custody = %blob%'
           OR conrelid = 'signing_keys'::regclass AND contype = 'c' AND pg_get_constraintdef(oid) LIKE '%(custody = %cka_id%'
    LOOP
        EXECUTE format('ALTER TABLE signing_keys DROP CONSTRAINT %I', named);
    END LOOP;
END $$;
ALTER TABLE signing_keys ADD CONSTRAINT signing_keys_wrapped CHECK (
    (custody = 'wrapped' AND state <> 'destroyed') = (blob IS NOT NULL AND mechanism IS NOT NULL AND kek_id IS NOT NULL)
    AND (blob IS NULL) = (kek_id IS NULL) AND (blob IS NULL) = (mechanism IS NULL));
ALTER TABLE signing_keys ADD CONSTRAINT signing_keys_token CHECK (
    (custody = 'token' AND state <> 'destroyed') = (cka_id IS NOT NULL));
ALTER TABLE signing_keys ADD CONSTRAINT signing_keys_mac CHECK (
    (state = 'destroyed') = (mac IS NULL) AND (mac IS NULL) = (mac_kek_id IS NULL));

-- Nothing new is made with a key that is retired, whatever a daemon that has slept believes. The key's row is held until the insert
-- commits, so that retiring waits for it and then sees it. 40001: the caller is told to try again, by when the daemon has looked.
CREATE FUNCTION refuse_unused_kek(kek uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM keks WHERE id = kek AND state IN ('active', 'retiring') FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'key-encryption key % is not in use', kek USING ERRCODE = '40001';
    END IF;
END $$;
CREATE FUNCTION check_kek() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.kek_id IS NOT NULL THEN
        PERFORM refuse_unused_kek(NEW.kek_id);
    END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION check_mac_kek() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.mac_kek_id IS NOT NULL THEN
        PERFORM refuse_unused_kek(NEW.mac_kek_id);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER secret_versions_kek BEFORE INSERT OR UPDATE OF kek_id ON secret_versions FOR EACH ROW EXECUTE FUNCTION check_kek();
CREATE TRIGGER signing_keys_kek BEFORE INSERT OR UPDATE OF kek_id ON signing_keys FOR EACH ROW EXECUTE FUNCTION check_kek();
CREATE TRIGGER signing_keys_mac_kek BEFORE INSERT OR UPDATE OF mac_kek_id ON signing_keys
    FOR EACH ROW EXECUTE FUNCTION check_mac_kek();

-- How many rows name a key, by table and column: every column that references keks, also those that later migrations add, so that
-- a table which the rotation does not know keeps its key instead of losing it.
CREATE FUNCTION kek_uses(kek uuid) RETURNS TABLE (place text, named bigint) LANGUAGE plpgsql AS $$
DECLARE
    reference record;
BEGIN
    FOR reference IN
        SELECT c.conrelid::regclass::text AS tab, a.attname AS col FROM pg_constraint c
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        WHERE c.contype = 'f' AND c.confrelid = 'keks'::regclass AND c.conparentid = 0 ORDER BY 1, 2
    LOOP
        place := reference.tab || '.' || reference.col;
        EXECUTE format('SELECT count(*) FROM %s WHERE %I = $1', reference.tab, reference.col) INTO named USING kek;
        RETURN NEXT;
    END LOOP;
    -- The canary of a `seal` key is bound by a `mac` key.
    place := 'keks.canary';
    SELECT count(*) INTO named FROM keks k
        WHERE k.state IN ('adding', 'active', 'retiring') AND k.canary #>> '{seal,key,mac_kek_id}' = kek::text;
    RETURN NEXT;
END $$;
