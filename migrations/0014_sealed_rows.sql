-- What the data key seals outside of vaults is under the same rule as secrets: nothing new is made with a key that is retired. The
-- trigger's argument is the column that names the key.
CREATE FUNCTION check_named_kek() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kek uuid := (to_jsonb(NEW) ->> TG_ARGV[0])::uuid;
BEGIN
    IF kek IS NOT NULL THEN
        PERFORM refuse_unused_kek(kek);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER chains_kek BEFORE INSERT OR UPDATE OF rpc_kek_id ON chains
    FOR EACH ROW EXECUTE FUNCTION check_named_kek('rpc_kek_id');
CREATE TRIGGER second_factors_kek BEFORE INSERT OR UPDATE OF kek_id ON second_factors
    FOR EACH ROW EXECUTE FUNCTION check_named_kek('kek_id');
CREATE TRIGGER mail_outbox_kek BEFORE INSERT OR UPDATE OF kek_id ON mail_outbox
    FOR EACH ROW EXECUTE FUNCTION check_named_kek('kek_id');
-- What is left to do is read by the old key's id.
CREATE INDEX chains_by_kek ON chains (rpc_kek_id) WHERE rpc_kek_id IS NOT NULL;
CREATE INDEX second_factors_by_kek ON second_factors (kek_id);
CREATE INDEX mail_outbox_by_kek ON mail_outbox (kek_id);
