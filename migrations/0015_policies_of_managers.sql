-- Whether a policy opens signing keys to an agent. Only those of managers do: a member who may share a vault of their own could
-- otherwise put a second key before an agent, which then signs nothing more, or signs with it.
ALTER TABLE policies ADD COLUMN opens_signing boolean NOT NULL DEFAULT true;
UPDATE policies SET opens_signing = created_by_type = 'user';
