-- Replacements of a transaction, and the tracker's turns.

-- A slot has several attempts when it is sped up, cancelled or closed: in their order, with why each was signed and what it pays, so that
-- the next one can outbid all of them. The order is unique: two that replace a slot at once do so one after the other, each of them
-- knowing what it replaces.
ALTER TABLE attempts ADD COLUMN ordinal integer NOT NULL DEFAULT 0 CHECK (ordinal >= 0);
UPDATE attempts a SET ordinal = o.place
FROM (SELECT id, row_number() OVER (PARTITION BY chain_id, address, nonce ORDER BY created_at, id) - 1 AS place FROM attempts) AS o
WHERE o.id = a.id AND o.place > 0;
DROP INDEX attempts_by_slot;
CREATE UNIQUE INDEX attempts_by_slot ON attempts (chain_id, address, nonce, ordinal);
-- A no-op that is priced too low is replaced by another.
DROP INDEX attempts_one_noop;

ALTER TABLE attempts ADD COLUMN reason text NOT NULL DEFAULT 'submit'
    CHECK (reason IN ('submit', 'speed_up', 'bump', 'cancel', 'close'));
UPDATE attempts SET reason = 'close' WHERE kind = 'noop';

-- NULL in no-ops from before this migration.
ALTER TABLE attempts ADD COLUMN gas_limit bigint CHECK (gas_limit > 0);
ALTER TABLE attempts ADD COLUMN gas_price numeric(78, 0);
ALTER TABLE attempts ADD COLUMN max_fee_per_gas numeric(78, 0);
ALTER TABLE attempts ADD COLUMN max_priority_fee_per_gas numeric(78, 0);
UPDATE attempts a SET gas_limit = i.gas_limit, gas_price = i.gas_price, max_fee_per_gas = i.max_fee_per_gas,
    max_priority_fee_per_gas = i.max_priority_fee_per_gas
FROM slots s JOIN intents i ON i.id = s.intent_id
WHERE a.kind = 'intent' AND (a.chain_id, a.address, a.nonce) = (s.chain_id, s.address, s.nonce);

-- The highest fee per gas of the slot's attempts, once there is more than one: what an open slot can still cost is asked at every
-- signature, and must not look into the attempts.
ALTER TABLE slots ADD COLUMN max_per_gas_wei numeric(78, 0);
-- When the daemon thinks again about raising its fee, after a rule or a ceiling forbade it.
ALTER TABLE slots ADD COLUMN no_bump_before timestamptz;

-- Which daemon looks at which lane just now, and at which block it was looked at last. Takes the place of the lease on a whole chain:
-- daemons share the lanes, and the lane that was not looked at for longest comes first, however many there are. A table of its own,
-- because a lane's row is held while its key signs. Only saves work: every step of the tracker is safe when two do it.
CREATE TABLE lane_turns (
    chain_id     bigint NOT NULL,
    address      bytea NOT NULL CHECK (octet_length(address) = 20),
    holder       uuid,
    until        timestamptz NOT NULL DEFAULT '-infinity',
    looked_at    timestamptz NOT NULL DEFAULT '-infinity',
    looked_block bytea CHECK (octet_length(looked_block) = 32),
    PRIMARY KEY (chain_id, address)
);
CREATE INDEX lane_turns_waiting ON lane_turns (chain_id, looked_at);
DROP TABLE tracker_leases;
