//! libFuzzer on the target that `FUZZ_TARGET` names: see `../src/fuzz.rs`. One binary, so that the crate is built and linked once.
#![no_main]

use std::{env, sync::OnceLock};

use framegate_routes::fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<Target> = OnceLock::new();

fn target() -> Target {
    let name = env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let Some((_, target)) = found else {
        let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        panic!("FUZZ_TARGET is {name:?}, which is none of {}", names.join(", "));
    };
    *target
}

fuzz_target!(|data: &[u8]| TARGET.get_or_init(target)(data));
