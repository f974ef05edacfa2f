//! The seeds of the fuzz targets, and inputs that are a few edits away from them.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;

use crate::{cases, invariants, mutated};

#[test]
fn seeds_of_reply() {
    seeds("reply")
        .iter()
        .for_each(|seed| invariants::reply(seed));
}

#[test]
fn seeds_of_element() {
    seeds("element")
        .iter()
        .for_each(|seed| invariants::element(seed));
}

#[test]
fn seeds_of_error_reply() {
    seeds("error_reply")
        .iter()
        .for_each(|seed| error_reply(seed));
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn near_seeds_of_error_reply(text in mutated(select(seeds("error_reply")))) {
        error_reply(&text);
    }

    #[test]
    fn near_seeds_of_reply(wire in mutated(select(seeds("reply")))) {
        invariants::reply(&wire);
    }

    #[test]
    fn near_seeds_of_element(element in mutated(select(seeds("element")))) {
        invariants::element(&element);
    }
}

fn error_reply(text: &[u8]) {
    invariants::error_reply(&String::from_utf8_lossy(text), SECRET);
}

/// That of the fuzz target.
const SECRET: &str = "q8Zr0vK3xW5yT1uB";

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let mut seeds = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        seeds.push(fs::read(entry.unwrap().path()).unwrap());
    }
    assert!(!seeds.is_empty(), "{} is empty", folder.display());
    seeds
}
