//! One target under libFuzzer: the one that `FUZZ_TARGET` names.

#![no_main]

use std::sync::OnceLock;

static CHECK: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let check = CHECK.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
        fastpath_fuzz::target(&name).expect("there is such a target")
    });
    check(bytes);
});
