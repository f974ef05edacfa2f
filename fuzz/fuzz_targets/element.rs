#![no_main]

#[allow(dead_code, reason = "the other targets' half, and what the tests use")]
#[path = "../../component/core/tests/properties/invariants.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|data: &[u8]| invariants::element(data));
