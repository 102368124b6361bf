-- Guardrails on what a transaction does to tokens and contracts, and sums of more than the native unit.

-- The newer guardrails of an agent in the form in which the API shows them. One column, read strictly: a member that a binary does not
-- know is an error to it, so a rule can be added without an older daemon overlooking it.
ALTER TABLE agents ADD COLUMN tx_rules jsonb NOT NULL DEFAULT '{}';

-- A window counts in some unit. A spend group is one (its names have no colon); others are a chain by itself ("chain:8453"), a token on
-- a chain in its smallest unit ("token:8453:0x..."), and the number of transactions ("count:all", "count:8453"). They are counted only
-- where a rule counts there. So an intent has an entry for each of its windows, and all of them age, settle and are given back alike.
-- The windows of an agent are locked in the order of their units' bytes.
ALTER TABLE spends DROP CONSTRAINT spends_pkey;
ALTER TABLE spends ADD PRIMARY KEY (intent_id, spend_group);
COMMENT ON COLUMN spending_windows.spend_group IS 'a spend group, or another unit: see migration 0013';
