-- What every signed transaction writes has no foreign keys: each is a statement of its own for every row, of rows that the same transaction
-- holds or writes. What they guarded is given by the transactions that write, and what they kept from being deleted never is:
-- * organisation, agent and key of an intent, and of its slot: T1 holds the agent's and the key's rows when it writes (an intent that was
--   only simulated has just read them); an organisation's id is its agent's.
-- * an intent's slot, first bytes and first spends are written by the statement that writes the intent. Further attempts, and what a
--   replacement or a receipt adds to the spends, are written with the slot held, which names the intent.
-- * a slot's lane and a spend's window are held for update by whoever writes.
-- * an idempotency key is claimed by an agent whose row was just read, and completed by the statement that writes the intent.
-- * an audit event's organisation is that of an authenticated principal, or of a row that was read in the same transaction.

-- Daemons of before may be at work: all locks are taken at once and first, in the order in which a transaction that signs, and one that makes
-- nonces final, come to these tables, so that this waits for them and they for it. What comes in another order may be ended as a deadlock, or
-- end this: then nothing was done, and it is begun again.
LOCK TABLE idempotency, spending_windows, organisations, agents, signing_keys, lanes, slots, spends, intents, attempts, audit_events
    IN ACCESS EXCLUSIVE MODE;

ALTER TABLE intents DROP CONSTRAINT intents_org_id_fkey, DROP CONSTRAINT intents_agent_id_fkey, DROP CONSTRAINT intents_key_id_fkey;
ALTER TABLE slots DROP CONSTRAINT slots_intent_id_fkey, DROP CONSTRAINT slots_key_id_fkey, DROP CONSTRAINT slots_chain_id_address_fkey;
ALTER TABLE attempts DROP CONSTRAINT attempts_chain_id_address_nonce_fkey;
ALTER TABLE spends DROP CONSTRAINT spends_intent_id_fkey, DROP CONSTRAINT spends_agent_id_spend_group_fkey;
ALTER TABLE idempotency DROP CONSTRAINT idempotency_agent_id_fkey, DROP CONSTRAINT idempotency_intent_id_fkey;
ALTER TABLE audit_events DROP CONSTRAINT audit_events_org_id_fkey;

-- The rows that they named stay for good. That was so by foreign keys; now it is said, and costs those who insert nothing.
CREATE FUNCTION row_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never deleted: others name them', TG_TABLE_NAME;
END $$;
CREATE TRIGGER organisations_kept BEFORE DELETE ON organisations FOR EACH ROW EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER organisations_not_emptied BEFORE TRUNCATE ON organisations EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER agents_kept BEFORE DELETE ON agents FOR EACH ROW EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER agents_not_emptied BEFORE TRUNCATE ON agents EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER signing_keys_kept BEFORE DELETE ON signing_keys FOR EACH ROW EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER signing_keys_not_emptied BEFORE TRUNCATE ON signing_keys EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER lanes_kept BEFORE DELETE ON lanes FOR EACH ROW EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER lanes_not_emptied BEFORE TRUNCATE ON lanes EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER intents_kept BEFORE DELETE ON intents FOR EACH ROW EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER intents_not_emptied BEFORE TRUNCATE ON intents EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER slots_kept BEFORE DELETE ON slots FOR EACH ROW EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER slots_not_emptied BEFORE TRUNCATE ON slots EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER spending_windows_kept BEFORE DELETE ON spending_windows FOR EACH ROW EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER spending_windows_not_emptied BEFORE TRUNCATE ON spending_windows EXECUTE FUNCTION row_is_kept();
