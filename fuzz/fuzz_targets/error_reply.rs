#![no_main]

#[allow(dead_code, reason = "the other targets' half, and what the tests use")]
#[path = "../../component/core/tests/properties/invariants.rs"]
mod invariants;

/// Nothing that a mutation comes upon.
const SECRET: &str = "q8Zr0vK3xW5yT1uB";

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    // Then it is not what was sent that is shown.
    if !text.contains(SECRET) {
        invariants::error_reply(&text, SECRET);
    }
});
