//! The orders of the code are enough, and each of them is needed.
use framegate_model::orderings::pairs;
use framegate_model::rc11::bad_outcome_is_reachable;

#[test]
fn orders_of_the_code_are_enough() {
    for pair in pairs() {
        assert!(!bad_outcome_is_reachable(&pair.program), "{}", pair.name);
    }
}

#[test]
fn every_weakened_order_is_caught() {
    for pair in pairs() {
        assert!(!pair.weakened.is_empty());
        for (name, program) in &pair.weakened {
            assert!(
                bad_outcome_is_reachable(program),
                "{}: nothing happens with {name}",
                pair.name
            );
        }
    }
}
