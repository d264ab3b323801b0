//! The configurations that must hold, and one per mutant that must not.

use super::Policy::{Latest, Queue, Reliable};
use super::Role::{LateSubscriber, Nobody, Publisher, Sealer, Subscriber};
use super::{Frames, Mutant, PROCESSES, Role};

/// A name, whether it is part of the quick set, and the configuration.
pub type Case = (&'static str, bool, Frames);

const fn publisher(loans: u8) -> Role {
    Publisher { loans }
}

fn with(roles: [Role; PROCESSES]) -> Frames {
    Frames {
        roles,
        ..Frames::default()
    }
}

// Publishers that never abandon: fewer states.
fn lean(roles: [Role; PROCESSES]) -> Frames {
    Frames {
        abandon: false,
        ..with(roles)
    }
}

/// The protocol as it is; all of them must hold.
#[rustfmt::skip] // a table
pub fn cases() -> Vec<Case> {
    const P1: Role = publisher(1);
    const P2: Role = publisher(2);
    const P3: Role = publisher(3);
    let space = Frames { space: true, ..lean([P2, P2, Subscriber(Queue), Nobody]) };
    let space_reliable = Frames { roles: [P2, P2, Subscriber(Reliable), Nobody], ..space };
    let seal = lean([P2, P1, Subscriber(Reliable), Sealer]);
    vec![
        ("frames: 1 publisher, queue, 1 death", true,
            Frames { deaths: 1, ..with([P3, Nobody, Subscriber(Queue), Nobody]) }),
        ("frames: 2 publishers, latest, 1 death", true,
            Frames { deaths: 1, ..lean([P2, P2, Subscriber(Latest), Nobody]) }),
        ("frames: 2 publishers, reliable, 1 death", true,
            Frames { deaths: 1, ..lean([P2, P2, Subscriber(Reliable), Nobody]) }),
        ("frames: 2 publishers, late reliable, 3 slots", true,
            Frames { slots: 3, ..lean([P2, P1, LateSubscriber(Reliable), Nobody]) }),
        ("frames: 2 publishers, 2 deaths, reaper death, restart", true,
            Frames { deaths: 2, reaper_deaths: 1, restarts: 1, ..lean([P2, P1, Nobody, Nobody]) }),
        ("frames: 7 sequences (the ring wraps), death, restart", true,
            Frames { deaths: 1, restarts: 1, ..lean([publisher(7), Nobody, Subscriber(Queue), Nobody]) }),
        ("frames: futex, 1 death", true,
            Frames { sleep: true, deaths: 1, ..lean([P2, P1, Subscriber(Queue), Nobody]) }),
        ("frames: space futex", true, space),
        ("frames: space futex, loans may give up", true,
            Frames { give_up: true, roles: [P2, P1, Subscriber(Queue), Nobody], ..space }),
        ("frames: space futex, a subscriber takes once", true,
            Frames { one_take: true, roles: [P3, P2, Subscriber(Queue), Nobody], ..space }),
        ("frames: resize", true, seal),
        // Big from here on.
        ("frames: 2 publishers, late reliable, 3 slots, 4 loans", false,
            Frames { slots: 3, ..lean([P2, P2, LateSubscriber(Reliable), Nobody]) }),
        ("frames: late reliable, 3 slots, 1 death", false,
            Frames { slots: 3, deaths: 1, ..lean([P2, P2, LateSubscriber(Reliable), Nobody]) }),
        ("frames: late reliable and late queue, 3 slots, 1 death", false,
            Frames { slots: 3, deaths: 1, ..lean([P3, Nobody, LateSubscriber(Reliable), LateSubscriber(Queue)]) }),
        ("frames: space futex, abandon, 1 death", false, Frames { abandon: true, deaths: 1, ..space }),
        ("frames: space futex, reliable, abandon", false, Frames { abandon: true, ..space_reliable }),
        ("frames: space futex, reliable, 1 death", false, Frames { deaths: 1, ..space_reliable }),
        ("frames: resize, abandon, 1 death", false, Frames { abandon: true, deaths: 1, ..seal }),
        ("frames: resize, futex, 1 death", false, Frames { sleep: true, deaths: 1, ..seal }),
        ("frames: two resizes at once, 3 slots", false,
            Frames { slots: 3, ..with([P2, Sealer, Subscriber(Reliable), Sealer]) }),
        ("frames: queue and reliable, 3 slots, 6 sequences, 1 death", false,
            Frames { slots: 3, deaths: 1, ..lean([publisher(6), Nobody, Subscriber(Queue), Subscriber(Reliable)]) }),
        ("frames: latest, 2 deaths, 2 reapers", false,
            Frames { deaths: 2, reapers: 2, ..lean([P2, P1, Subscriber(Latest), Nobody]) }),
        ("frames: latest, death, reaper death, restart", false,
            Frames { deaths: 1, reaper_deaths: 1, restarts: 1, ..lean([P2, P1, Subscriber(Latest), Nobody]) }),
        ("frames: queue, 6 sequences", false, lean([P3, P3, Subscriber(Queue), Nobody])),
        ("frames: latest and queue", false, lean([P2, P2, Subscriber(Latest), Subscriber(Queue)])),
        ("frames: latest and reliable, 1 death", false,
            Frames { deaths: 1, ..lean([P2, P1, Subscriber(Latest), Subscriber(Reliable)]) }),
        ("frames: latest and queue, 1 death", false,
            Frames { deaths: 1, ..lean([P2, P1, Subscriber(Latest), Subscriber(Queue)]) }),
        ("frames: two queues, futex", false,
            Frames { sleep: true, ..lean([P2, P1, Subscriber(Queue), Subscriber(Queue)]) }),
    ]
}

/// The configuration in which the lack of this rule must show.
#[rustfmt::skip] // a table
pub fn case_of(mutant: Mutant) -> Frames {
    const P1: Role = publisher(1);
    const P2: Role = publisher(2);
    const P3: Role = publisher(3);
    let space = Frames { space: true, ..lean([P2, P2, Subscriber(Queue), Nobody]) };
    let frames = match mutant {
        Mutant::NoHoldersRecheck
        | Mutant::NoPutBack
        | Mutant::WordBeforeBit
        | Mutant::TakeIgnoresSequence
        | Mutant::RingStore => lean([P2, P2, Subscriber(Latest), Subscriber(Queue)]),
        Mutant::NobodyHelps => Frames { slots: 3, deaths: 1, ..lean([P2, P2, Nobody, Nobody]) },
        Mutant::OnlyPublishHelps => Frames { deaths: 1, ..lean([P2, P2, Nobody, Nobody]) },
        Mutant::ScrubDoesNotHelp => Frames { slots: 3, deaths: 1, ..lean([P1, Nobody, Subscriber(Queue), Nobody]) },
        Mutant::ScrubIgnoresRing => Frames { deaths: 1, ..lean([P2, P2, Subscriber(Reliable), Nobody]) },
        Mutant::ScrubRestoresClaim => Frames { deaths: 1, ..lean([P3, P1, Nobody, Nobody]) },
        Mutant::TryOfFreeKeepsSequence => Frames { deaths: 1, ..with([publisher(4), Nobody, Nobody, Nobody]) },
        Mutant::RowFreedFirst => {
            Frames { deaths: 1, reaper_deaths: 1, ..lean([P2, Nobody, Subscriber(Queue), Nobody]) }
        }
        Mutant::KickAfterRowFreed => {
            Frames { deaths: 1, reaper_deaths: 1, sleep: true, ..lean([P1, Nobody, Subscriber(Queue), Nobody]) }
        }
        Mutant::NoKick => Frames { deaths: 1, sleep: true, ..lean([P1, Nobody, Subscriber(Queue), Nobody]) },
        Mutant::ShortRing => Frames { slots: 3, ..lean([publisher(4), Nobody, Subscriber(Reliable), Nobody]) },
        Mutant::SleeperDoesNotLookAgain => Frames { sleep: true, ..lean([P2, Nobody, Subscriber(Queue), Nobody]) },
        Mutant::BoundBeforeHead | Mutant::AttachDoesNotLookAgain => {
            Frames { slots: 3, ..lean([P3, P2, LateSubscriber(Reliable), Nobody]) }
        }
        Mutant::MarkBeforeInUse => Frames { deaths: 1, ..lean([P2, Nobody, LateSubscriber(Reliable), Nobody]) },
        Mutant::CursorBeforeTake => lean([P3, P2, Subscriber(Reliable), Nobody]),
        Mutant::SharedDescription => {
            Frames { deaths: 1, restarts: 1, reapers: 2, ..lean([P2, P2, Nobody, Nobody]) }
        }
        Mutant::SealBesideRing => lean([P2, P1, Subscriber(Reliable), Sealer]),
        Mutant::NoSpaceWakeOnPutBack => Frames { give_up: true, ..space },
        Mutant::NoSpaceWakeOnUndo => {
            Frames { one_take: true, roles: [P3, P2, Subscriber(Queue), Nobody], ..space }
        }
        Mutant::NoSpaceWakeOnAbandon => Frames { abandon: true, ..space },
        Mutant::LoanDoesNotLookAgain | Mutant::NoSpaceWakeOnPublish | Mutant::NoSpaceWakeOnRelease => space,
    };
    Frames { mutant: Some(mutant), ..frames }
}
