//! Properties of replies, error replies and elements for any bytes.

#![allow(clippy::unwrap_used, reason = "a test ends there, and says where")]

mod corpus;
mod element;
mod error_reply;
mod heap;
mod invariants;
mod reply;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Bytes like those of `original`, a few edits away.
fn mutated(original: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (original, vec(edit(), 1..4)).prop_map(|(mut bytes, edits)| {
        for edit in &edits {
            edit.apply(&mut bytes);
        }
        bytes
    })
}

#[derive(Clone, Debug)]
enum Edit {
    Replace(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Repeat(Index, Index),
    Truncate(Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let byte = || prop_oneof![prop::sample::select(TELLING), any::<u8>()];
    prop_oneof![
        (any::<Index>(), byte()).prop_map(|(at, byte)| Edit::Replace(at, byte)),
        (any::<Index>(), byte()).prop_map(|(at, byte)| Edit::Insert(at, byte)),
        any::<Index>().prop_map(Edit::Remove),
        any::<(Index, Index)>().prop_map(|(from, to)| Edit::Repeat(from, to)),
        any::<Index>().prop_map(Edit::Truncate),
    ]
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let position = |index: &Index| index.index(bytes.len() + 1);
        match self {
            Edit::Insert(at, byte) => bytes.insert(position(at), *byte),
            Edit::Truncate(at) => bytes.truncate(position(at)),
            Edit::Repeat(from, to) => {
                let (from, to) = (position(from), position(to));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(from..from, part);
            }
            Edit::Replace(at, byte) => {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
            }
            Edit::Remove(at) => {
                if !bytes.is_empty() {
                    bytes.remove(at.index(bytes.len()));
                }
            }
        }
    }
}

/// How each property is tried.
fn cases() -> ProptestConfig {
    ProptestConfig {
        cases: 10_000,
        // A case that fails is shown in its smallest form, to become a file of
        // the corpus.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// The bytes that mean something in RESP or in JSON.
const TELLING: &[u8] = b"+-:$*>%_\r\n0123456789{}[]\",\\uNaI ";
