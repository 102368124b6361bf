//! The life of a slot: one enum, one transition function. The table repeats it as CHECKs. Pure.

/// Where a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum SlotState {
    /// Bytes are committed; no node is known to have taken them.
    Signed,
    /// A node took them.
    Broadcast,
    /// In a block that can still be reorganised away.
    Mined,
    /// Nothing changes any more, but that a nonce which was called used by others comes out to be unused.
    Final,
    /// The nonce is used, or was left out, by somebody else, and is not final yet; or its payment was called failed for that, and it is to be
    /// closed.
    Foreign,
}

impl SlotState {
    /// As the tables write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Broadcast => "broadcast",
            Self::Mined => "mined",
            Self::Final => "final",
            Self::Foreign => "foreign",
        }
    }
}

/// How a mined or final slot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Outcome {
    /// The intent's transaction, and it succeeded.
    Success,
    /// The intent's transaction, and it reverted.
    Reverted,
    /// Our own no-op took the nonce.
    Cancelled,
    /// None of our bytes took the nonce.
    Foreign,
}

impl Outcome {
    /// As the tables and the API write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Reverted => "reverted",
            Self::Cancelled => "cancelled",
            Self::Foreign => "foreign",
        }
    }

    /// Whether the value that was reserved is free again at once: only with positive evidence, the receipt of our own no-op, that the
    /// intent's bytes can never be mined.
    #[must_use]
    pub fn releases_value(self) -> bool {
        match self {
            Self::Cancelled => true,
            // A reverted transaction moved no value, but it was spent budget. And that a receipt is missing is no evidence: a node
            // that lies, or lags, must not be able to free a limit.
            Self::Success | Self::Reverted | Self::Foreign => false,
        }
    }
}

/// What was learnt about a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node answered that it has the bytes.
    Sent,
    /// A receipt of one of our attempts was found.
    Receipt(Outcome),
    /// The block of the receipt is gone.
    Reorged(Before),
    /// The receipt's block is deep enough.
    Confirmed,
    /// The nonce is used at the confirmation depth, and none of our attempts has a receipt.
    TakenByOthers,
    /// It was called used by others, and the chain says otherwise.
    Unused,
}

/// What a slot was before it was in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// No node was known to have its bytes.
    Unsent,
    /// A node had them.
    Sent,
    /// Nobody's, or of a payment that was called failed: it is only closed.
    NotOurs,
}

/// The state after an event; `None` when the event means nothing in that state.
#[must_use]
pub fn next(state: SlotState, event: Event) -> Option<SlotState> {
    use SlotState::{Broadcast, Final, Foreign, Mined, Signed};
    match (state, event) {
        (Signed, Event::Sent) => Some(Broadcast),
        (Signed | Broadcast | Foreign, Event::Receipt(_)) => Some(Mined),
        // A reorganisation may bring another attempt, or the same one in another block.
        (Mined, Event::Receipt(_)) => Some(Mined),
        (Mined, Event::Reorged(Before::Unsent)) => Some(Signed),
        (Mined, Event::Reorged(Before::Sent)) => Some(Broadcast),
        (Mined, Event::Reorged(Before::NotOurs)) => Some(Foreign),
        (Mined, Event::Confirmed) => Some(Final),
        (Signed | Broadcast | Foreign, Event::TakenByOthers) => Some(Final),
        (Final, Event::Unused) => Some(Foreign),
        (Broadcast | Mined | Final | Foreign, Event::Sent)
        | (Signed | Broadcast | Final | Foreign, Event::Reorged(_) | Event::Confirmed)
        | (Signed | Broadcast | Mined | Foreign, Event::Unused)
        | (Mined | Final, Event::TakenByOthers)
        | (Final, Event::Receipt(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [SlotState; 5] =
        [SlotState::Signed, SlotState::Broadcast, SlotState::Mined, SlotState::Final, SlotState::Foreign];
    const EVENTS: [Event; 9] = [
        Event::Sent,
        Event::Receipt(Outcome::Success),
        Event::Receipt(Outcome::Cancelled),
        Event::Reorged(Before::Unsent),
        Event::Reorged(Before::Sent),
        Event::Reorged(Before::NotOurs),
        Event::Confirmed,
        Event::TakenByOthers,
        Event::Unused,
    ];

    #[test]
    fn only_a_nonce_that_nobody_used_leaves_final_and_only_to_be_closed() {
        for event in EVENTS {
            let expected = (event == Event::Unused).then_some(SlotState::Foreign);
            assert_eq!(next(SlotState::Final, event), expected, "{event:?}");
        }
    }

    #[test]
    fn what_was_called_failed_is_never_to_be_sent_again() {
        for event in EVENTS {
            let next = next(SlotState::Foreign, event);
            assert!(!matches!(next, Some(SlotState::Signed | SlotState::Broadcast)), "{event:?}");
        }
    }

    #[test]
    fn only_a_confirmed_receipt_or_anothers_final_use_is_final() {
        for state in STATES {
            for event in EVENTS {
                let is_final = next(state, event) == Some(SlotState::Final);
                let may = matches!((state, event), (SlotState::Mined, Event::Confirmed))
                    || (event == Event::TakenByOthers && state != SlotState::Mined && state != SlotState::Final);
                assert_eq!(is_final, may, "{state:?} {event:?}");
            }
        }
    }

    #[test]
    fn only_the_receipt_of_our_own_no_op_frees_what_was_reserved() {
        let freeing: Vec<Outcome> = [Outcome::Success, Outcome::Reverted, Outcome::Cancelled, Outcome::Foreign]
            .into_iter()
            .filter(|outcome| outcome.releases_value())
            .collect();
        assert_eq!(freeing, [Outcome::Cancelled]);
    }
}
