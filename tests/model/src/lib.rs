//! The reservation protocol (T1) and the life of a nonce as a model. A checker visits every interleaving of it: three requests of one
//! agent on as many daemons, two of them with one idempotency key, under a limit with room for one payment; a daemon that dies, a
//! transaction that is dropped from every pool, a block that is reorganised away, a nonce that is closed with a no-op, 24 hours that
//! pass.
//!
//! [`Rules`] has the rules that the code keeps (`src/intents/`). Each can be switched off; `tests/check.rs` shows that with all of them
//! no invariant breaks in any reachable state, and that without any one of them the checker finds a run that breaks the
//! invariant which that rule is for.
//!
//! Left out: fees, several lanes and windows (their order is one rule, [`Rules::lock_order`]), and simulation, which reserves nothing.

use stateright::{Model, Property};

/// Requests, each on a daemon of its own. The first two have one idempotency key.
pub const RUNS: usize = 3;
/// The idempotency key of each.
const KEY_OF: [usize; RUNS] = [0, 0, 1];
const KEYS: usize = 2;
/// Payments that there is room for in 24 hours, each of one unit.
const LIMIT: u8 = 1;

/// What the code keeps to.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// T1 first asks, and holds, whether the idempotency claim is still this run's (`commit`, step 1).
    pub claim_is_asked: bool,
    /// The window is locked by one statement and summed by a later one (`store::hold`, `store::hold_rights`).
    pub sum_is_a_later_statement: bool,
    /// Window before lane, always (the lock order).
    pub lock_order: bool,
    /// The nonce is read with the lane held (`SELECT … FOR UPDATE`).
    pub lane_is_locked: bool,
    /// Bytes leave the process only after the COMMIT.
    pub send_after_commit: bool,
    /// A slot has failed, and gives its value back, only when something else at its nonce is final.
    pub fail_when_final: bool,
    /// An entry leaves the window after 24 hours only if its nonce is settled.
    pub age_when_settled: bool,
    /// An entry leaves the sum once, by a guarded change of state.
    pub release_once: bool,
}

impl Rules {
    /// As the code is.
    pub const ALL: Self = Self {
        claim_is_asked: true,
        sum_is_a_later_statement: true,
        lock_order: true,
        lane_is_locked: true,
        send_after_commit: true,
        fail_when_final: true,
        age_when_settled: true,
        release_once: true,
    };
}

/// Where a request is. What a run has only in memory, or in a transaction that has not committed, is in here: it is gone when it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Run {
    /// Not begun.
    Idle,
    /// Holds its idempotency key under this token.
    Claimed { token: u8 },
    /// In T1, asking for the window. The statement has taken its snapshot.
    WantsWindow { token: u8, snapshot: u8, lane: bool },
    /// With the window held and summed, asking for the lane.
    WantsLane { token: u8, sum: u8 },
    /// The lane first, where nobody keeps the order.
    WantsLaneFirst { token: u8 },
    /// With the nonce, about to sign.
    HasNonce { token: u8, sum: u8, nonce: u8 },
    /// Signed and not committed.
    Signed { token: u8, sum: u8, nonce: u8 },
    /// Committed, not sent.
    Committed { slot: usize },
    /// Answered, refused or dead.
    Over,
}

/// An idempotency key's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// Nobody's.
    Free,
    /// A run's, by its token.
    InFlight { token: u8 },
    /// A payment came of it.
    Done,
}

/// A signed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tx {
    /// A payment by a request.
    Payment { run: usize, nonce: u8 },
    /// A transaction to ourselves that closes a nonce.
    NoOp { nonce: u8 },
}

impl Tx {
    fn nonce(self) -> u8 {
        match self {
            Self::Payment { nonce, .. } | Self::NoOp { nonce } => nonce,
        }
    }
}

/// What is known of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotState {
    /// Its bytes are stored, and may have been sent.
    Open,
    /// Its payment is final.
    Final,
    /// It will never be paid.
    Failed,
}

/// A nonce that was given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The payment that was signed for it.
    pub payment: Tx,
    /// Whether a no-op was signed for it too.
    pub has_no_op: bool,
    /// What is known of it.
    pub state: SlotState,
    /// Whether its value is in the window's sum.
    pub counted: bool,
    /// Whether 24 hours have passed since it was signed.
    pub is_old: bool,
    /// Whether its entry was looked at after them.
    pub has_aged: bool,
}

/// Everything: the database, the daemons, the network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    runs: [Run; RUNS],
    claims: [Claim; KEYS],
    claim_held_by: [Option<usize>; KEYS],
    window_held_by: Option<usize>,
    lane_held_by: Option<usize>,
    /// The window's running sum. Signed: a broken protocol could take out more than is in it.
    sum: i8,
    next_nonce: u8,
    slots: Vec<Slot>,
    /// Sorted.
    pool: Vec<Tx>,
    /// Mined, by nonce.
    chain: Vec<Tx>,
    /// How many of them are final.
    finals: usize,
    tokens: u8,
    crashes: u8,
    drops: u8,
    reorgs: u8,
}

/// One step of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A request claims its key, or takes over a dead one's claim.
    Claim(usize),
    /// It goes on by one statement.
    Go(usize),
    /// It signs and sends before it commits, where nobody forbids it.
    SendEarly(usize),
    /// Its daemon dies.
    Crash(usize),
    /// The tracker sends a slot's stored bytes.
    Send(usize),
    /// The tracker closes a slot's nonce.
    Close(usize),
    /// The tracker settles a slot.
    Settle(usize),
    /// 24 hours pass for a slot.
    Pass(usize),
    /// Its entry leaves the window.
    Age(usize),
    /// Something of the pool is mined.
    Mine(Tx),
    /// A block becomes final.
    Finalise,
    /// The newest block is reorganised away, and nobody has its transaction any more.
    Reorganise,
    /// The pools forget a transaction.
    Drop(Tx),
}

/// The model under some rules.
pub struct Protocol(pub Rules);

impl World {
    fn release(&mut self, run: usize) {
        for held in self.claim_held_by.iter_mut().chain([&mut self.window_held_by, &mut self.lane_held_by]) {
            if *held == Some(run) {
                *held = None;
            }
        }
    }

    fn send(&mut self, tx: Tx) {
        // A node refuses a nonce that is mined, and keeps the first of two with one nonce.
        if usize::from(tx.nonce()) >= self.chain.len() && !self.pool.iter().any(|other| other.nonce() == tx.nonce()) {
            self.pool.push(tx);
            self.pool.sort();
        }
    }

    fn is_final(&self, nonce: u8) -> Option<Tx> {
        self.chain.get(usize::from(nonce)).copied().filter(|_| usize::from(nonce) < self.finals)
    }

    /// What could still be paid now, or was paid in the last 24 hours.
    fn exposure(&self) -> usize {
        let counts = |slot: &&Slot| match self.is_final(slot.payment.nonce()) {
            Some(tx) if tx == slot.payment => !slot.is_old,
            Some(_) => false,
            None => true,
        };
        self.slots.iter().filter(counts).count()
    }

    fn forget_claim(&mut self, run: usize, token: u8) {
        let claim = &mut self.claims[KEY_OF[run]];
        if *claim == (Claim::InFlight { token }) {
            *claim = Claim::Free;
        }
    }

    fn take_out(&mut self, slot: usize, once: bool) {
        if self.slots[slot].counted || !once {
            self.sum -= 1;
            self.slots[slot].counted = false;
        }
    }
}

impl Protocol {
    /// The next statement of a run; `None`: it waits for a lock.
    fn go(&self, mut world: World, run: usize) -> Option<World> {
        let Self(rules) = self;
        let key = KEY_OF[run];
        match world.runs[run] {
            Run::Idle | Run::Over => return None,
            Run::Claimed { token } => {
                if rules.claim_is_asked {
                    if world.claim_held_by[key].is_some() {
                        return None;
                    }
                    if world.claims[key] != (Claim::InFlight { token }) {
                        world.runs[run] = Run::Over;
                        return Some(world);
                    }
                    world.claim_held_by[key] = Some(run);
                }
                world.runs[run] = if !rules.lock_order && run == RUNS - 1 {
                    Run::WantsLaneFirst { token }
                } else {
                    Run::WantsWindow { token, snapshot: world.sum.unsigned_abs(), lane: false }
                };
            }
            Run::WantsLaneFirst { token } => {
                if world.lane_held_by.is_some() {
                    return None;
                }
                world.lane_held_by = Some(run);
                world.runs[run] = Run::WantsWindow { token, snapshot: world.sum.unsigned_abs(), lane: true };
            }
            Run::WantsWindow { token, snapshot, lane } => {
                if world.window_held_by.is_some() {
                    return None;
                }
                world.window_held_by = Some(run);
                let sum = if rules.sum_is_a_later_statement { world.sum.unsigned_abs() } else { snapshot };
                if sum >= LIMIT {
                    world.forget_claim(run, token);
                    world.release(run);
                    world.runs[run] = Run::Over;
                } else if lane {
                    world.runs[run] = Run::HasNonce { token, sum, nonce: world.next_nonce };
                } else {
                    world.runs[run] = Run::WantsLane { token, sum };
                }
            }
            Run::WantsLane { token, sum } => {
                if rules.lane_is_locked {
                    if world.lane_held_by.is_some() {
                        return None;
                    }
                    world.lane_held_by = Some(run);
                } else {
                    // Without the lane's lock nothing keeps another of the same agent out but the window, which it then does not take.
                    world.window_held_by = None;
                }
                world.runs[run] = Run::HasNonce { token, sum, nonce: world.next_nonce };
            }
            Run::HasNonce { token, sum, nonce } => world.runs[run] = Run::Signed { token, sum, nonce },
            Run::Signed { sum, nonce, .. } => {
                let payment = Tx::Payment { run, nonce };
                let open = Slot {
                    payment,
                    has_no_op: false,
                    state: SlotState::Open,
                    counted: true,
                    is_old: false,
                    has_aged: false,
                };
                world.slots.push(open);
                world.next_nonce = nonce + 1;
                world.sum = i8::try_from(sum + 1).ok()?;
                world.claims[key] = Claim::Done;
                world.release(run);
                world.runs[run] = Run::Committed { slot: world.slots.len() - 1 };
            }
            Run::Committed { slot } => {
                world.send(world.slots[slot].payment);
                world.runs[run] = Run::Over;
            }
        }
        Some(world)
    }

    fn settle(&self, mut world: World, index: usize) -> Option<World> {
        let Slot { payment, state, .. } = world.slots[index];
        if state != SlotState::Open {
            return None;
        }
        match world.is_final(payment.nonce()) {
            Some(tx) if tx == payment => world.slots[index].state = SlotState::Final,
            Some(_) => {
                world.slots[index].state = SlotState::Failed;
                world.take_out(index, self.0.release_once);
            }
            // Its receipt is missing: a node that lags, drops or lies says so of what is mined tomorrow.
            None if !self.0.fail_when_final && !world.pool.contains(&payment) && !world.chain.contains(&payment) => {
                world.slots[index].state = SlotState::Failed;
                world.take_out(index, self.0.release_once);
            }
            None => return None,
        }
        Some(world)
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            runs: [Run::Idle; RUNS],
            claims: [Claim::Free; KEYS],
            claim_held_by: [None; KEYS],
            window_held_by: None,
            lane_held_by: None,
            sum: 0,
            next_nonce: 0,
            slots: Vec::new(),
            pool: Vec::new(),
            chain: Vec::new(),
            finals: 0,
            tokens: 0,
            crashes: 0,
            drops: 0,
            reorgs: 0,
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for run in 0..RUNS {
            steps.extend([Step::Claim(run), Step::Go(run), Step::Crash(run)]);
            if !self.0.send_after_commit {
                steps.push(Step::SendEarly(run));
            }
        }
        for slot in 0..world.slots.len() {
            steps.extend([Step::Send(slot), Step::Close(slot), Step::Settle(slot), Step::Pass(slot), Step::Age(slot)]);
        }
        steps.extend(world.pool.iter().flat_map(|tx| [Step::Mine(*tx), Step::Drop(*tx)]));
        steps.extend([Step::Finalise, Step::Reorganise]);
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        match step {
            Step::Claim(run) => {
                let key = KEY_OF[run];
                // A claim in flight is taken over once its lease has passed: at any time, as far as the other run can tell.
                if world.runs[run] != Run::Idle
                    || world.claims[key] == Claim::Done
                    || world.claim_held_by[key].is_some()
                {
                    return None;
                }
                let token = world.tokens;
                world.tokens += 1;
                world.claims[key] = Claim::InFlight { token };
                world.runs[run] = Run::Claimed { token };
            }
            Step::Go(run) => return self.go(world, run),
            Step::SendEarly(run) => {
                let Run::Signed { nonce, .. } = world.runs[run] else { return None };
                world.send(Tx::Payment { run, nonce });
            }
            Step::Crash(run) => {
                if world.crashes > 0 || matches!(world.runs[run], Run::Idle | Run::Over) {
                    return None;
                }
                world.crashes += 1;
                world.release(run);
                world.runs[run] = Run::Over;
            }
            Step::Send(slot) => {
                let Slot { payment, has_no_op, state, .. } = world.slots[slot];
                if state != SlotState::Open {
                    return None;
                }
                world.send(payment);
                if has_no_op {
                    world.send(Tx::NoOp { nonce: payment.nonce() });
                }
            }
            Step::Close(slot) => {
                let Slot { payment, has_no_op, state, .. } = world.slots[slot];
                if state != SlotState::Open || has_no_op {
                    return None;
                }
                world.slots[slot].has_no_op = true;
                // With higher fees, it takes the payment's place.
                world.pool.retain(|tx| tx.nonce() != payment.nonce());
                world.send(Tx::NoOp { nonce: payment.nonce() });
            }
            Step::Settle(slot) => return self.settle(world, slot),
            Step::Pass(slot) => {
                if world.slots[slot].is_old {
                    return None;
                }
                world.slots[slot].is_old = true;
            }
            Step::Age(slot) => {
                let Slot { state, is_old, has_aged, .. } = world.slots[slot];
                let settled = state != SlotState::Open;
                if !is_old || has_aged || self.0.age_when_settled && !settled {
                    return None;
                }
                world.slots[slot].has_aged = true;
                world.take_out(slot, self.0.release_once);
            }
            Step::Mine(tx) => {
                if usize::from(tx.nonce()) != world.chain.len() {
                    return None;
                }
                world.pool.retain(|other| other.nonce() != tx.nonce());
                world.chain.push(tx);
            }
            Step::Finalise => {
                if world.finals >= world.chain.len() {
                    return None;
                }
                world.finals += 1;
            }
            Step::Reorganise => {
                if world.reorgs > 0 || world.chain.len() <= world.finals {
                    return None;
                }
                world.reorgs += 1;
                world.chain.pop();
            }
            Step::Drop(tx) => {
                if world.drops > 0 {
                    return None;
                }
                world.drops += 1;
                world.pool.retain(|other| *other != tx);
            }
        }
        Some(world).filter(|world| world != last)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I1 every nonce below the next has a slot with stored bytes", |_, world: &World| {
                (0..world.next_nonce).all(|nonce| world.slots.iter().any(|slot| slot.payment.nonce() == nonce))
            }),
            Property::always("I2 what the network has is committed", |_, world: &World| {
                world.pool.iter().chain(&world.chain).all(|tx| match tx {
                    Tx::Payment { .. } => world.slots.iter().any(|slot| slot.payment == *tx),
                    Tx::NoOp { nonce } => {
                        world.slots.iter().any(|slot| slot.payment.nonce() == *nonce && slot.has_no_op)
                    }
                })
            }),
            Property::always("I3 one slot per nonce", |_, world: &World| {
                let nonces = world.slots.iter().map(|slot| slot.payment.nonce());
                nonces.collect::<std::collections::BTreeSet<_>>().len() == world.slots.len()
            }),
            Property::always("I4 a nonce is one payment's", |_, world: &World| {
                let all = || world.slots.iter().map(|slot| slot.payment).chain(world.chain.iter().copied());
                let payments = || all().filter(|tx| matches!(tx, Tx::Payment { .. }));
                payments().all(|one| payments().all(|other| one == other || one.nonce() != other.nonce()))
            }),
            Property::always("I5 a slot has failed only when the contrary is final", |_, world: &World| {
                world.slots.iter().all(|slot| {
                    let contrary = world.is_final(slot.payment.nonce()).is_some_and(|tx| tx != slot.payment);
                    slot.state != SlotState::Failed || contrary
                })
            }),
            Property::always(
                "I6 the limit holds for what is or can still be paid within 24 hours",
                |_, world: &World| world.exposure() <= usize::from(LIMIT) && world.sum >= 0,
            ),
            Property::always("one payment for one idempotency key", |_, world: &World| {
                let of = |key: usize| {
                    let is = |slot: &&Slot| matches!(slot.payment, Tx::Payment { run, .. } if KEY_OF[run] == key);
                    world.slots.iter().filter(is).count()
                };
                (0..KEYS).all(|key| of(key) <= 1)
            }),
            Property::always("nobody waits in a circle", |_, world: &World| {
                let waits_for_lane = |run: usize| matches!(world.runs[run], Run::WantsLane { .. });
                let waits_for_window = |run: usize| matches!(world.runs[run], Run::WantsWindow { .. });
                !(world.window_held_by.is_some_and(waits_for_lane) && world.lane_held_by.is_some_and(waits_for_window))
            }),
            // The model is not empty: what is to happen does.
            Property::sometimes("two payments are made, a day apart", |_, world: &World| {
                world.slots.iter().filter(|slot| slot.state == SlotState::Final).count() == 2
            }),
            Property::sometimes("a payment outlives a reorganisation", |_, world: &World| {
                world.reorgs > 0 && world.slots.iter().any(|slot| slot.state == SlotState::Final)
            }),
            Property::sometimes("a closed nonce gives its value back, and the next pays", |_, world: &World| {
                world.slots.len() == 2
                    && world.slots[0].state == SlotState::Failed
                    && world.slots[1].state == SlotState::Final
            }),
        ]
    }
}
