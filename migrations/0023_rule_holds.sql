-- Why the rules of its agent, as they are by now, forbid to send a slot's payment that no node has: written when it was about to be sent,
-- judged again each time, and shown with what else holds payments. What freezes and agents hold is asked of their own rows; rules are
-- applied by the daemon, to calldata too, so their answer has to be kept to be shown, and to be known to what comes after it in the lane.
ALTER TABLE slots ADD COLUMN rule_hold text CHECK (length(rule_hold) <= 1000);
