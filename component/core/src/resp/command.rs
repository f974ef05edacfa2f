//! Encodes commands as Redis reads them: arrays of bulk strings.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;
use core::ops::Deref;

/// The commands of a request.
#[derive(Default)]
pub struct Commands {
    bytes: Vec<u8>,
    count: usize,
    /// Number of bytes of elements that are expected in the replies.
    elements: usize,
    /// The part of the limit for replies that previous replies take.
    reserved: u64,
    /// Work for the time in which the server prepares its replies.
    work: Cell<Option<Box<dyn FnOnce()>>>,
}

impl Commands {
    /// Appends a command: its name and its arguments.
    pub fn push(&mut self, words: &[&[u8]]) {
        self.push_with(words, &[]);
    }

    /// Appends a command with further arguments.
    pub fn push_with(&mut self, words: &[&[u8]], more: &[Vec<u8>]) {
        let words = || words.iter().copied().chain(more.iter().map(Vec::as_slice));
        let size: usize = words().map(|word| word.len() + MAX_HEADER).sum();
        self.bytes.reserve(size + MAX_HEADER);
        self.header(b'*', words().count());
        for word in words() {
            self.header(b'$', word.len());
            self.bytes.extend_from_slice(word);
            self.bytes.extend_from_slice(b"\r\n");
        }
        self.count += 1;
    }

    /// Appends the line that announces the kind and the size of what follows.
    fn header(&mut self, kind: u8, number: usize) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&decimal(number as u64));
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// The encoded commands.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of commands, and so of replies.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Expects this many elements of a list in the reply to the last command.
    pub fn expect_elements(&mut self, elements: usize) {
        self.elements = self
            .elements
            .saturating_add(elements.saturating_mul(ELEMENT));
    }

    /// Estimates the number of bytes of the replies.
    pub fn expected(&self) -> usize {
        self.elements.saturating_add(self.count * SHORT_REPLY)
    }

    /// Reserves a part of the limit for replies: previous replies that belong to the same
    /// operation take it.
    pub fn reserve_reply_cost(&mut self, cost: u64) {
        self.reserved += cost;
    }

    /// The part of the limit for replies that is reserved.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Leaves work for the time in which the server prepares its replies. It is not done
    /// if nothing waits for them. A later call replaces the work, because only an operation
    /// that is sent on its own has anything to do.
    pub fn while_waiting(&mut self, work: impl FnOnce() + 'static) {
        self.work.set(Some(Box::new(work)));
    }

    /// Does the work that is left. Whoever sends the commands calls this before waiting for
    /// the replies.
    pub fn do_work(&self) {
        if let Some(work) = self.work.take() {
            work();
        }
    }

    /// Puts other commands before these.
    pub fn prepend(&mut self, mut first: Commands) {
        first.bytes.extend_from_slice(&self.bytes);
        self.bytes = first.bytes;
        self.count += first.count;
        self.elements = self.elements.saturating_add(first.elements);
        self.reserved += first.reserved;
    }
}

/// Formats a number as a decimal argument.
pub fn decimal(number: u64) -> Decimal {
    let mut text = [0; MAX_DIGITS];
    let mut start = text.len();
    let mut rest = number;
    loop {
        start -= 1;
        text[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return Decimal { text, start };
        }
    }
}

/// The digits of a number.
pub struct Decimal {
    text: [u8; MAX_DIGITS],
    start: usize,
}

impl Deref for Decimal {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.text[self.start..]
    }
}

/// Bytes of an element: a guess, right for a short message.
const ELEMENT: usize = 512;
/// Bytes of a reply without elements, generously.
const SHORT_REPLY: usize = 64;
/// Digits of the largest `u64`.
const MAX_DIGITS: usize = 20;
/// Bytes of `$`, a number and its line end, and of the line end behind the word.
const MAX_HEADER: usize = 1 + MAX_DIGITS + 2 + 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        for (words, expected) in [
            (&[&b"PING"[..]][..], &b"*1\r\n$4\r\nPING\r\n"[..]),
            (
                &[b"SET", b"k", b"", b"\r\n\0"],
                b"*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n$3\r\n\r\n\0\r\n",
            ),
            (
                &[b"ECHO", &[b'x'; 12]],
                b"*2\r\n$4\r\nECHO\r\n$12\r\nxxxxxxxxxxxx\r\n",
            ),
        ] {
            let mut commands = Commands::default();
            commands.push(words);
            assert_eq!(commands.bytes(), expected);
            assert_eq!(commands.count(), 1);
        }
    }

    #[test]
    fn more_arguments_follow_the_others() {
        let mut commands = Commands::default();
        commands.push_with(&[b"RPUSH", b"k"], &[b"a".to_vec(), b"bc".to_vec()]);
        assert_eq!(
            commands.bytes(),
            b"*4\r\n$5\r\nRPUSH\r\n$1\r\nk\r\n$1\r\na\r\n$2\r\nbc\r\n"
        );
        assert_eq!(commands.count(), 1);
    }

    #[test]
    fn commands_follow_one_another() {
        let mut commands = Commands::default();
        commands.push(&[b"A"]);
        commands.push(&[b"B"]);
        assert_eq!(commands.bytes(), b"*1\r\n$1\r\nA\r\n*1\r\n$1\r\nB\r\n");
        assert_eq!(commands.count(), 2);
    }

    #[test]
    fn decimals() {
        for (number, expected) in [
            (0, "0"),
            (9, "9"),
            (10, "10"),
            (u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(*decimal(number), *expected.as_bytes());
        }
    }
}
