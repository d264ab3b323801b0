//! The pairs of operations that the protocol rests on, as small programs: with the orders of the code the bad outcome
//! must be impossible, and with any one of them weakened it must be possible, else the order would be there for nothing.
//! The table "Memory orders" of `docs/design/crash-safety.md` is the same list in words.

use crate::rc11::Op::{Cas, Clear, Or, Read, Write};
use crate::rc11::Order::{self, AcqRel, Acquire, Plain, Relaxed, Release, SeqCst};
use crate::rc11::{Outcome, Program};

/// One pair: the program as the code has it, and its weakened versions by name.
pub struct Pair {
    /// What meets what.
    pub name: &'static str,
    /// As in the code.
    pub program: Program,
    /// Weakened, each in one place.
    pub weakened: Vec<(&'static str, Program)>,
}

type Build = fn(&[Order]) -> Program;

// `orders` of the code, and (name, place, weaker order) for each version.
fn pair(
    name: &'static str,
    build: Build,
    orders: &[Order],
    weaker: &[(&'static str, usize, Order)],
) -> Pair {
    let weakened = weaker.iter().map(|&(name, place, order)| {
        let mut orders = orders.to_vec();
        orders[place] = order;
        (name, build(&orders))
    });
    Pair {
        name,
        program: build(orders),
        weakened: weakened.collect(),
    }
}

fn program(
    initial: &[(&'static str, u32)],
    threads: Vec<Vec<crate::rc11::Op>>,
    is_bad: fn(&Outcome<'_>) -> bool,
) -> Program {
    Program {
        initial: initial.to_vec(),
        threads,
        is_bad,
    }
}

/// All pairs.
pub fn pairs() -> Vec<Pair> {
    vec![
        pair(
            "TRY CAS, holders / holder bit, word",
            |o| {
                program(
                    &[("word", 7), ("holders", 0)],
                    vec![
                        vec![
                            Cas("word", 7, 1, o[0], "cas"),
                            Read("holders", o[1], "seen"),
                        ],
                        vec![Or("holders", 1, o[2], "_"), Read("word", o[3], "word")],
                    ],
                    |out| out.get("cas") == 7 && out.get("seen") == 0 && out.get("word") == 7,
                )
            },
            &[SeqCst; 4],
            &[
                ("TRY CAS acq_rel", 0, AcqRel),
                ("holders load acquire", 1, Acquire),
                ("holder bit acq_rel", 2, AcqRel),
                ("word load acquire", 3, Acquire),
            ],
        ),
        pair(
            "head CAS, waiters / waiter bit, head; a helper may have moved head",
            |o| {
                program(
                    &[("head", 0), ("waiters", 0)],
                    vec![
                        vec![
                            Cas("head", 0, 1, o[0], "_"),
                            Read("waiters", o[1], "waiters"),
                        ],
                        vec![Or("waiters", 1, o[2], "_"), Read("head", o[3], "head")],
                        vec![Cas("head", 0, 1, o[4], "_")],
                    ],
                    |out| out.get("waiters") == 0 && out.get("head") == 0,
                )
            },
            &[SeqCst; 5],
            &[
                ("head CAS acq_rel", 0, AcqRel),
                ("waiters load acquire", 1, Acquire),
                ("waiter bit acq_rel", 2, AcqRel),
                ("head load acquire", 3, Acquire),
                ("the helper's head CAS acq_rel", 4, AcqRel),
            ],
        ),
        pair(
            "head CAS, armed / armed, head",
            |o| {
                program(
                    &[("head", 0), ("armed", 0)],
                    vec![
                        vec![Cas("head", 0, 1, o[0], "_"), Read("armed", o[1], "armed")],
                        vec![Write("armed", 1, o[2]), Read("head", o[3], "head")],
                    ],
                    |out| out.get("armed") == 0 && out.get("head") == 0,
                )
            },
            &[SeqCst; 4],
            &[
                ("head CAS acq_rel", 0, AcqRel),
                ("armed load acquire", 1, Acquire),
                ("armed store release", 2, Release),
                ("head load acquire", 3, Acquire),
            ],
        ),
        pair(
            "holder bit off, space bits / space bit, holders",
            |o| {
                program(
                    &[("holders", 1), ("space", 0)],
                    vec![
                        vec![Clear("holders", 1, o[0], "_"), Read("space", o[1], "space")],
                        vec![Or("space", 1, o[2], "_"), Read("holders", o[3], "holders")],
                    ],
                    |out| out.get("space") == 0 && out.get("holders") == 1,
                )
            },
            &[SeqCst; 4],
            &[
                ("holder bit off release", 0, Release),
                ("space load relaxed", 1, Relaxed),
                ("space bit acq_rel", 2, AcqRel),
                ("holders load acquire", 3, Acquire),
            ],
        ),
        pair(
            "word to PUB or FREE by a CAS, space bits / space bit, word",
            |o| {
                program(
                    &[("word", 1), ("space", 0)],
                    vec![
                        vec![Cas("word", 1, 7, o[0], "_"), Read("space", o[1], "space")],
                        vec![Or("space", 1, o[2], "_"), Read("word", o[3], "word")],
                    ],
                    |out| out.get("space") == 0 && out.get("word") == 1,
                )
            },
            &[SeqCst; 4],
            &[
                ("word CAS acq_rel", 0, AcqRel),
                ("space load acquire", 1, Acquire),
                ("space bit acq_rel", 2, AcqRel),
                ("word load acquire", 3, Acquire),
            ],
        ),
        pair(
            "PUB, head CAS, space bits / space bit, head, word",
            |o| {
                program(
                    &[("word", 3), ("head", 0), ("space", 0)],
                    vec![
                        vec![
                            Write("word", 4, Relaxed),
                            Cas("head", 0, 1, o[0], "_"),
                            Read("space", o[1], "space"),
                        ],
                        vec![
                            Or("space", 1, o[2], "_"),
                            Read("head", o[3], "_"),
                            Read("word", SeqCst, "word"),
                        ],
                    ],
                    |out| out.get("space") == 0 && out.get("word") == 3,
                )
            },
            &[SeqCst; 4],
            &[
                ("head CAS acq_rel", 0, AcqRel),
                ("space load acquire", 1, Acquire),
                ("space bit acq_rel", 2, AcqRel),
                ("head load acquire", 3, Acquire),
            ],
        ),
        pair(
            "PUB, head moved by a helper, head touched, space bits / space bit, head, word",
            |o| {
                program(
                    &[("word", 3), ("head", 1), ("space", 0)],
                    vec![
                        vec![
                            Write("word", 4, Relaxed),
                            Cas("head", 0, 1, SeqCst, "_"),
                            Or("head", 0, o[0], "_"),
                            Read("space", o[1], "space"),
                        ],
                        vec![
                            Or("space", 1, o[2], "_"),
                            Read("head", o[3], "_"),
                            Read("word", SeqCst, "word"),
                        ],
                    ],
                    |out| out.get("space") == 0 && out.get("word") == 3,
                )
            },
            &[SeqCst; 4],
            &[
                ("head touched acq_rel", 0, AcqRel),
                ("space load acquire", 1, Acquire),
                ("space bit acq_rel", 2, AcqRel),
                ("head load acquire", 3, Acquire),
            ],
        ),
        pair(
            "reliable bit, head / head CAS / head, reliable bits",
            |o| {
                program(
                    &[("head", 0), ("reliable", 0)],
                    vec![
                        vec![Cas("head", 0, 1, o[0], "_")],
                        vec![Or("reliable", 1, o[1], "_"), Read("head", o[2], "start")],
                        vec![Read("head", o[3], "head"), Read("reliable", o[4], "bits")],
                    ],
                    |out| out.get("head") == 1 && out.get("bits") == 0 && out.get("start") == 0,
                )
            },
            &[SeqCst; 5],
            &[
                ("the loan's head load acquire", 3, Acquire),
                ("reliable load acquire", 4, Acquire),
            ],
        ),
        pair(
            "holder bit, cursor / cursor, holders",
            |o| {
                program(
                    &[("holders", 0), ("cursor", 0)],
                    vec![
                        vec![Or("holders", 1, SeqCst, "_"), Write("cursor", 1, o[0])],
                        vec![
                            Read("cursor", o[1], "cursor"),
                            Read("holders", SeqCst, "holders"),
                        ],
                    ],
                    |out| out.get("cursor") == 1 && out.get("holders") == 0,
                )
            },
            &[Release, Acquire],
            &[
                ("cursor store relaxed", 0, Relaxed),
                ("cursor load relaxed", 1, Relaxed),
            ],
        ),
        pair(
            "last read, holder bit off / TRY CAS, holders, first write; another subscriber's bit in between",
            |o| {
                program(
                    &[("data", 5), ("holders", 1), ("word", 7)],
                    vec![
                        vec![Read("data", Plain, "data"), Clear("holders", 1, o[0], "_")],
                        vec![
                            Cas("word", 7, 1, SeqCst, "_"),
                            Read("holders", o[1], "seen"),
                            Write("data", 9, Plain),
                        ],
                        vec![
                            Or("holders", 2, Relaxed, "_"),
                            Clear("holders", 2, Relaxed, "_"),
                        ],
                    ],
                    |out| out.has_race && out.get("seen") == 0,
                )
            },
            &[Release, SeqCst],
            &[
                ("holder bit off relaxed", 0, Relaxed),
                ("holders load relaxed", 1, Relaxed),
            ],
        ),
        pair(
            "bytes, COMMIT, PUB / word load, bytes",
            |o| {
                program(
                    &[("data", 5), ("word", 1), ("holders", 0)],
                    vec![
                        vec![
                            Write("data", 9, Plain),
                            Write("word", 3, o[0]),
                            Write("word", 4, o[1]),
                        ],
                        vec![
                            Or("holders", 1, SeqCst, "_"),
                            Read("word", o[2], "word"),
                            Read("data", Plain, "data"),
                        ],
                    ],
                    |out| out.get("word") >= 3 && out.get("word") != u32::MAX && out.has_race,
                )
            },
            &[Release, Release, SeqCst],
            &[
                ("COMMIT relaxed", 0, Relaxed),
                ("PUB relaxed", 1, Relaxed),
                ("word load relaxed", 2, Relaxed),
            ],
        ),
        pair(
            "ring CAS / ring load, head CAS of a helper / head load, ring load",
            |o| {
                program(
                    &[("ring", 0), ("head", 0)],
                    vec![
                        vec![Cas("ring", 0, 1, o[0], "_")],
                        vec![Read("ring", o[1], "helper"), Cas("head", 0, 1, o[2], "_")],
                        vec![Read("head", o[3], "head"), Read("ring", o[4], "ring")],
                    ],
                    |out| out.get("helper") == 1 && out.get("head") == 1 && out.get("ring") == 0,
                )
            },
            &[SeqCst, Acquire, SeqCst, SeqCst, Acquire],
            &[
                ("the helper's head CAS relaxed", 2, Relaxed),
                ("head load relaxed", 3, Relaxed),
            ],
        ),
        pair(
            "limits: own row, other rows / the same of another worker",
            |o| {
                program(
                    &[("mine", 0), ("theirs", 0)],
                    vec![
                        vec![Or("mine", 1, o[0], "_"), Read("theirs", o[1], "theirs")],
                        vec![Or("theirs", 1, o[2], "_"), Read("mine", o[3], "mine")],
                    ],
                    // Both were let in where one may be.
                    |out| out.get("theirs") == 0 && out.get("mine") == 0,
                )
            },
            &[SeqCst; 4],
            &[
                ("row added acq_rel", 0, AcqRel),
                ("rows load acquire", 1, Acquire),
                ("the other's row added acq_rel", 2, AcqRel),
                ("the other's rows load acquire", 3, Acquire),
            ],
        ),
    ]
}
