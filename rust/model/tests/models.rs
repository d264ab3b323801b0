//! The quick configurations of every model hold; every rule that is left out is noticed.
use framegate_model::explore::{Model, Verdict, explore};
use framegate_model::{buckets, counts, frames, group, mailbox, membership, retire, wake};

const STATES_MAX: usize = 5_000_000;

fn holds<M: Model>(name: &str, model: &M) {
    let report = explore(model, STATES_MAX);
    assert_eq!(
        report.verdict,
        Verdict::Holds,
        "{name}, {} states",
        report.states
    );
}

fn is_noticed<M: Model>(mutant: &dyn std::fmt::Debug, model: &M) {
    let report = explore(model, STATES_MAX);
    assert!(
        matches!(report.verdict, Verdict::Violated { .. }),
        "{mutant:?} changes nothing: {:?}",
        report.verdict
    );
}

#[test]
fn frames_hold() {
    for (name, _, model) in frames::cases().iter().filter(|case| case.1) {
        holds(name, model);
    }
}

#[test]
fn frames_need_every_rule() {
    for mutant in frames::Mutant::ALL {
        is_noticed(&mutant, &frames::case_of(mutant));
    }
}

#[test]
fn groups_hold() {
    for (name, _, model) in group::cases().iter().filter(|case| case.1) {
        holds(name, model);
    }
}

#[test]
fn groups_need_every_rule() {
    for mutant in group::Mutant::ALL {
        is_noticed(&mutant, &group::case_of(mutant));
    }
}

#[test]
fn mailboxes_hold() {
    for (name, _, model) in mailbox::cases().iter().filter(|case| case.1) {
        holds(name, model);
    }
}

#[test]
fn mailboxes_need_every_rule() {
    for mutant in mailbox::Mutant::ALL {
        is_noticed(&mutant, &mailbox::case_of(mutant));
    }
}

#[test]
fn membership_holds() {
    for (name, _, model) in membership::cases().iter().filter(|case| case.1) {
        holds(name, model);
    }
}

#[test]
fn membership_needs_every_rule() {
    for mutant in membership::Mutant::ALL {
        is_noticed(&mutant, &membership::case_of(mutant));
    }
}

#[test]
fn retirement_holds() {
    for (name, _, model) in retire::cases().iter().filter(|case| case.1) {
        holds(name, model);
    }
}

#[test]
fn retirement_needs_every_rule() {
    for mutant in retire::Mutant::ALL {
        is_noticed(&mutant, &retire::case_of(mutant));
    }
}

#[test]
fn event_loops_are_woken() {
    for (name, _, model) in wake::cases().iter().filter(|case| case.1) {
        holds(name, model);
    }
}

#[test]
fn event_loops_need_every_rule() {
    for mutant in wake::Mutant::ALL {
        is_noticed(&mutant, &wake::case_of(mutant));
    }
}

#[test]
fn counts_of_all_workers_hold() {
    for (name, _, model) in counts::cases().iter().filter(|case| case.1) {
        holds(name, model);
    }
}

#[test]
fn counts_of_all_workers_need_every_rule() {
    for mutant in counts::Mutant::ALL {
        is_noticed(&mutant, &counts::case_of(mutant));
    }
}

#[test]
fn buckets_hold() {
    for (name, _, model) in buckets::cases().iter().filter(|case| case.1) {
        holds(name, model);
    }
}

#[test]
fn buckets_need_every_rule() {
    for mutant in buckets::Mutant::ALL {
        is_noticed(&mutant, &buckets::case_of(mutant));
    }
}
