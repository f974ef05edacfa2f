use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use session_memory_core::error::Error;
use session_memory_core::resp::{ELEMENT_COST, ReplyReader, Scan};

use crate::invariants::{self, Scanned, Tree};
use crate::{cases, heap, mutated};

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_bytes(wire in vec(any::<u8>(), 0..300)) {
        invariants::reply(&wire);
    }

    #[test]
    fn anything_like_replies(wire in mutated(vec(reply(), 0..4).prop_map(wire_of))) {
        invariants::reply(&wire);
    }

    #[test]
    fn replies_in_any_pieces(
        sent in vec(reply(), 0..4),
        cuts in vec(any::<Index>(), 0..8),
    ) {
        let replies = sent.len();
        let expected = sent.iter().map(|reply| reply.tree.clone()).collect();
        let wire = wire_of(sent);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
        cuts.extend([0, wire.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|cut| &wire[cut[0]..cut[1]]).collect();
        let bytes: Vec<_> = (0..wire.len()).map(|at| &wire[at..=at]).collect();
        let complete = Scanned::Complete(expected);
        prop_assert_eq!(&invariants::read(&pieces, replies, u32::MAX), &complete);
        if !bytes.is_empty() {
            prop_assert_eq!(&invariants::read(&bytes, replies, u32::MAX), &complete);
        }
    }

    #[test]
    fn memory_is_taken_for_what_has_arrived(
        wire in prop_oneof![
            vec(reply(), 1..4).prop_map(wire_of),
            mutated(vec(reply(), 1..4).prop_map(wire_of)),
            mutated(Just(b"*3\r\n$5\r\nhello\r\n*99999\r\n$999999\r\nhello\r\n".to_vec())),
        ],
        size in 1..100_usize,
    ) {
        for replies in 1..4 {
            let most = heap::most(|| read_on(&wire, replies, size));
            // While a buffer grows, the old one and one of double size exist.
            let allowed = 3 * (wire.len() + size + elements(&wire) * ELEMENT_COST as usize) + 256;
            prop_assert!(most <= allowed, "{} bytes, allowed are {}", most, allowed);
        }
    }
}

/// Reads in pieces of that size, as far as it goes.
fn read_on(wire: &[u8], replies: usize, size: usize) {
    let mut reader = ReplyReader::new(replies, 1 << 20);
    let mut complete = false;
    for piece in wire.chunks(size) {
        match reader.push(piece) {
            Ok(scan) => complete = scan == Scan::Complete,
            Err(_) => return,
        }
    }
    let received = reader.finish().unwrap();
    assert_eq!(received.replies(0..replies).is_some(), complete);
}

/// No fewer than there are elements.
fn elements(wire: &[u8]) -> usize {
    wire.iter().filter(|byte| **byte == b'\n').count()
}

/// A reply and its bytes.
#[derive(Clone, Debug)]
struct Sent {
    wire: Vec<u8>,
    tree: Tree,
}

fn sent(wire: impl Into<Vec<u8>>, tree: Tree) -> Sent {
    let wire = wire.into();
    Sent { wire, tree }
}

fn wire_of(replies: Vec<Sent>) -> Vec<u8> {
    replies.into_iter().flat_map(|reply| reply.wire).collect()
}

/// A reply of any type, with arrays in arrays as deep as they may be.
fn reply() -> impl Strategy<Value = Sent> {
    let one = prop_oneof![
        "[^\r\n]{0,20}".prop_map(|text| sent(
            format!("+{text}\r\n"),
            Tree::SimpleString(text.into_bytes())
        )),
        "(ERR |NOAUTH |WRONGTYPE |)[^\r\n]{0,20}".prop_map(|text| sent(
            format!("-{text}\r\n"),
            Tree::Error(Error::from_reply(&text))
        )),
        any::<i64>().prop_map(|integer| sent(format!(":{integer}\r\n"), Tree::Integer(integer))),
        vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..40).prop_map(|text| sent(
            [format!("${}\r\n", text.len()).as_bytes(), &text, b"\r\n"].concat(),
            Tree::BulkString(text)
        )),
        Just(sent("$-1\r\n", Tree::Null)),
        Just(sent("*-1\r\n", Tree::Null)),
    ];
    one.prop_recursive(8, 32, 4, |element| {
        vec(element, 0..4).prop_map(|elements| {
            let trees = elements.iter().map(|element| element.tree.clone());
            let tree = Tree::Array(trees.collect());
            let mut wire = format!("*{}\r\n", elements.len()).into_bytes();
            wire.extend(wire_of(elements));
            sent(wire, tree)
        })
    })
}
