-- What every signed transaction writes has no foreign keys: each is a statement of its own for every row, of rows that the same transaction
-- holds or writes. What they guarded is given by the transactions that write, and what they kept from being deleted never is:
-- * organisation, agent and key of an intent, and of its slot: T1 holds the agent's and the key's rows when it writes (an intent that was
--   only simulated has just read them); an organisation's id is its agent's.
-- * an intent's slot, bytes and spends are written by the statement that writes the intent. Further attempts are written with their slot held.
-- * a slot's lane and a spend's window are held for update by whoever writes.
-- * an idempotency key is claimed by an agent whose row was just read, and completed by the statement that writes the intent.
-- * an audit event's organisation is that of an authenticated principal, or of a row that was read in the same transaction.
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
CREATE TRIGGER agents_kept BEFORE DELETE ON agents FOR EACH ROW EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER signing_keys_kept BEFORE DELETE ON signing_keys FOR EACH ROW EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER lanes_kept BEFORE DELETE ON lanes FOR EACH ROW EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER intents_kept BEFORE DELETE ON intents FOR EACH ROW EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER slots_kept BEFORE DELETE ON slots FOR EACH ROW EXECUTE FUNCTION row_is_kept();
CREATE TRIGGER spending_windows_kept BEFORE DELETE ON spending_windows FOR EACH ROW EXECUTE FUNCTION row_is_kept();
