//! With every rule, no invariant breaks in any reachable state; without any one rule, the one that it is for does.

use intentd_model::{Protocol, Rules};
use stateright::{Checker as _, Model as _};

#[test]
fn with_every_rule_no_interleaving_breaks_an_invariant() {
    let checker = Protocol(Rules::ALL).checker().threads(2).spawn_bfs().join();
    println!("{} states, {} deep", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
}

/// The checker finds a run that breaks this property.
fn breaks(rules: Rules, property: &'static str) {
    let checker = Protocol(rules)
        .checker()
        .threads(2)
        .finish_when(stateright::HasDiscoveries::AnyOf([property].into()))
        .spawn_bfs()
        .join();
    let Some(path) = checker.discovery(property) else {
        panic!("{property} holds without the rule, so it is not what keeps it");
    };
    println!("{property}: {:?}", path.into_actions());
}

#[test]
fn without_asking_for_the_claim_one_key_pays_twice() {
    breaks(Rules { claim_is_asked: false, ..Rules::ALL }, "one payment for one idempotency key");
}

#[test]
fn a_sum_in_the_statement_that_locks_overshoots() {
    breaks(
        Rules { sum_is_a_later_statement: false, ..Rules::ALL },
        "I6 the limit holds for what is or can still be paid within 24 hours",
    );
}

#[test]
fn without_one_order_of_locks_there_is_a_deadlock() {
    breaks(Rules { lock_order: false, ..Rules::ALL }, "nobody waits in a circle");
}

#[test]
fn without_the_lanes_lock_a_nonce_is_given_twice() {
    breaks(Rules { lane_is_locked: false, ..Rules::ALL }, "I3 one slot per nonce");
}

#[test]
fn bytes_that_leave_before_the_commit_are_nobodys() {
    breaks(Rules { send_after_commit: false, ..Rules::ALL }, "I2 what the network has is committed");
    breaks(Rules { send_after_commit: false, ..Rules::ALL }, "I4 a nonce is one payment's");
}

#[test]
fn a_missing_receipt_that_frees_its_value_pays_twice() {
    let rules = Rules { fail_when_final: false, ..Rules::ALL };
    breaks(rules, "I5 a slot has failed only when the contrary is final");
    breaks(rules, "I6 the limit holds for what is or can still be paid within 24 hours");
}

#[test]
fn bytes_that_age_before_they_are_settled_go_out_in_one_burst() {
    breaks(
        Rules { age_when_settled: false, ..Rules::ALL },
        "I6 the limit holds for what is or can still be paid within 24 hours",
    );
}

#[test]
fn an_entry_that_leaves_the_sum_twice_makes_room_that_is_not_there() {
    breaks(
        Rules { release_once: false, ..Rules::ALL },
        "I6 the limit holds for what is or can still be paid within 24 hours",
    );
}
