-- Lanes that wait for an operator are counted every few seconds, among all that ever were.
CREATE INDEX lanes_frozen ON lanes (chain_id) WHERE frozen_at IS NOT NULL;
