//! libFuzzer around one target, whose name is in `COLIBRI_FUZZ_TARGET`. Built and run by `cargo xtask fuzz`.

#![no_main]

use std::sync::LazyLock;

use colibri_fuzz::Target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("COLIBRI_FUZZ_TARGET").expect("COLIBRI_FUZZ_TARGET names a target");
    colibri_fuzz::target(&name).expect("COLIBRI_FUZZ_TARGET is the name of a target")
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.property)(data));
