-- The vaults that an agent has made, wherever it is asked what it reaches: with each of its intents.
CREATE INDEX vaults_by_maker ON vaults (created_by) WHERE created_by_type = 'agent' AND deleted_at IS NULL;
