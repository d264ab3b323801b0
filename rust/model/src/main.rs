//! Explores the models: `framegate-model quick|big|mutants [part of a name]`. Prints states and seconds; a violation with
//! its trace. Ends with 1 if anything is not as it should be.

use std::process::ExitCode;
use std::time::Instant;

use framegate_model::explore::{Model, Verdict, explore};
use framegate_model::{buckets, counts, frames, group, mailbox, membership, retire, wake};

// Of the big configurations; about 15 GB.
const STATES_MAX: usize = 60_000_000;

struct Choice {
    set: String,
    part: String,
    all_good: bool,
}

impl Choice {
    fn configuration<M: Model>(&mut self, name: &str, is_quick: bool, model: &M) {
        if self.set == if is_quick { "quick" } else { "big" } {
            self.run(name, model, false);
        }
    }

    fn mutant<M: Model>(&mut self, name: &str, model: &M) {
        if self.set == "mutants" {
            self.run(name, model, true);
        }
    }

    fn run<M: Model>(&mut self, name: &str, model: &M, is_mutant: bool) {
        if !name.contains(&self.part) {
            return;
        }
        let start = Instant::now();
        let report = explore(model, STATES_MAX);
        let seconds = start.elapsed().as_secs_f64();
        let is_good = match &report.verdict {
            Verdict::Holds => !is_mutant,
            Verdict::Violated { .. } => is_mutant,
            Verdict::TooLarge => false,
        };
        self.all_good &= is_good;
        let end = if is_good {
            ""
        } else {
            "  <== not as it should be"
        };
        match report.verdict {
            Verdict::Violated { what, trace } => {
                println!(
                    "{name:<60} {:>10} states {seconds:>6.1} s  {what}{end}",
                    report.states
                );
                if !is_good || !self.part.is_empty() {
                    for step in trace {
                        println!("    {step}");
                    }
                }
            }
            verdict => println!(
                "{name:<60} {:>10} states {seconds:>6.1} s  {verdict:?}{end}",
                report.states
            ),
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut choice = Choice {
        set: arguments.next().unwrap_or_default(),
        part: arguments.next().unwrap_or_default(),
        all_good: true,
    };
    if !["quick", "big", "mutants"].contains(&choice.set.as_str()) {
        eprintln!("usage: framegate-model quick|big|mutants [part of a name]");
        return ExitCode::from(2);
    }
    for (name, is_quick, model) in frames::cases() {
        choice.configuration(name, is_quick, &model);
    }
    for (name, is_quick, model) in group::cases() {
        choice.configuration(name, is_quick, &model);
    }
    for (name, is_quick, model) in mailbox::cases() {
        choice.configuration(name, is_quick, &model);
    }
    for (name, is_quick, model) in membership::cases() {
        choice.configuration(name, is_quick, &model);
    }
    for (name, is_quick, model) in retire::cases() {
        choice.configuration(name, is_quick, &model);
    }
    for (name, is_quick, model) in wake::cases() {
        choice.configuration(name, is_quick, &model);
    }
    for (name, is_quick, model) in counts::cases() {
        choice.configuration(name, is_quick, &model);
    }
    for (name, is_quick, model) in buckets::cases() {
        choice.configuration(name, is_quick, &model);
    }
    for mutant in frames::Mutant::ALL {
        choice.mutant(&format!("frames: {mutant:?}"), &frames::case_of(mutant));
    }
    for mutant in group::Mutant::ALL {
        choice.mutant(&format!("group: {mutant:?}"), &group::case_of(mutant));
    }
    for mutant in mailbox::Mutant::ALL {
        choice.mutant(&format!("mailbox: {mutant:?}"), &mailbox::case_of(mutant));
    }
    for mutant in membership::Mutant::ALL {
        choice.mutant(
            &format!("membership: {mutant:?}"),
            &membership::case_of(mutant),
        );
    }
    for mutant in retire::Mutant::ALL {
        choice.mutant(&format!("retire: {mutant:?}"), &retire::case_of(mutant));
    }
    for mutant in wake::Mutant::ALL {
        choice.mutant(&format!("event loop: {mutant:?}"), &wake::case_of(mutant));
    }
    for mutant in counts::Mutant::ALL {
        choice.mutant(&format!("counts: {mutant:?}"), &counts::case_of(mutant));
    }
    for mutant in buckets::Mutant::ALL {
        choice.mutant(&format!("buckets: {mutant:?}"), &buckets::case_of(mutant));
    }
    ExitCode::from(u8::from(!choice.all_good))
}
