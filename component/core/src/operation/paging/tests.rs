//! Tests of reading in one reply and in pages.

use super::*;
use crate::fixtures::*;
use crate::operation::{Action, Outcome, Procedure, Progress};
use crate::options::Options;
use crate::resp::{ReplyReader, Scan};

#[test]
fn a_limit_counts_readable_messages() {
    let (a, b) = (|| message("a"), || message("b"));
    for (entries, limit, window, expected) in [
        (&[A, B][..], None, None, Ok(vec![a(), b()])),
        (&[A, UNREADABLE, B], None, None, Ok(vec![a(), b()])),
        (&[], Some(2), Some(2), Ok(vec![])),
        (&[], Some(0), Some(0), Ok(vec![])),
        (&[A, B], Some(2), Some(2), Ok(vec![a(), b()])),
        (&[UNREADABLE, B], Some(2), Some(2), Err(Some(4))),
        (&[A, UNREADABLE, B], Some(2), Some(4), Ok(vec![a(), b()])),
        (
            &[UNREADABLE, UNREADABLE, B],
            Some(2),
            Some(4),
            Ok(vec![b()]),
        ),
        (&[UNREADABLE; 4], Some(2), Some(4), Err(Some(8))),
        (&[UNREADABLE; 4], Some(2), Some(1 << 31), Ok(vec![])),
        (&[A, A, UNREADABLE, B], Some(2), Some(4), Ok(vec![a(), b()])),
    ] {
        let mut paging = Paging {
            limit,
            entries: window,
            ..Paging::default()
        };
        let found = read(1, &list(entries), |replies| {
            paging.response(replies).unwrap()
        });
        let found = match found {
            Some(read) => Ok(read.messages.to_vec()),
            None => Err(paging.entries),
        };
        assert_eq!(found, expected);
    }
}

/// The operation is done, with the messages of these numbers.
fn found(numbers: Range<usize>) -> Result<Progress, Error> {
    let messages: Vec<_> = numbers.map(|number| message(&number.to_string())).collect();
    Ok(Progress::Done(Outcome::Messages(messages.into())))
}

#[test]
fn a_long_session_is_read_in_pages() {
    let entries: Vec<_> = (0..3000).map(numbered).collect();
    let all = "LRANGE k -256 -1|LRANGE k -1280 -256|LRANGE k -5376 -1280";
    for (limit, first, expected) in [
        (None, 0, all),
        (Some(3001), 0, &all.replace("-5376", "-3001")),
        (Some(3000), 0, &all.replace("-5376", "-3000")),
        (Some(257), 2743, "LRANGE k -256 -1|LRANGE k -257 -256"),
        (Some(256), 2744, "LRANGE k -256 -1"),
    ] {
        let reply = |words: &[&str]| range(&entries, words[2], words[3]);
        let (requests, progress) = run(&Action::Get(limit), reply);
        assert_eq!(requests.concat().trim().replace('\n', "|"), expected);
        assert_eq!(progress, found(first..3000));
    }
}

#[test]
fn a_session_that_changes_between_two_pages_is_read_again_in_one() {
    let before: Vec<_> = (0..300).map(numbered).collect();
    let after: Vec<_> = (1..301).map(numbered).collect();
    let emptied = Vec::new();
    for (limit, after, last, expected) in [
        (None, &after, "LRANGE k 0 -1", 1..301),
        (Some(290), &after, "LRANGE k -290 -1", 11..301),
        (None, &emptied, "LRANGE k 0 -1", 0..0),
    ] {
        let reply = |words: &[&str]| match words[3] {
            "-1" if words[2] == "-256" => range(&before, words[2], words[3]),
            _ if after.is_empty() => list(&[]),
            _ => range(after, words[2], words[3]),
        };
        let (requests, progress) = run(&Action::Get(limit), reply);
        assert_eq!(requests.len(), 3, "{requests:?}");
        assert_eq!(requests[2].trim(), last);
        assert_eq!(progress, found(expected));
    }
}

#[test]
fn a_page_with_a_repeated_first_entry_is_read_again_in_one_reply() {
    let mut entries: Vec<_> = (0..300).map(numbered).collect();
    for (twin, expected) in [
        (43, "LRANGE k -256 -1|LRANGE k -1280 -256"),
        (299, "LRANGE k -256 -1|LRANGE k 0 -1"),
    ] {
        entries[twin] = numbered(44);
        let reply = |words: &[&str]| range(&entries, words[2], words[3]);
        let (requests, progress) = run(&Action::Get(None), reply);
        assert_eq!(requests.concat().trim().replace('\n', "|"), expected);
        assert!(matches!(progress, Ok(Progress::Done(_))), "{progress:?}");
    }
}

#[test]
fn pages_grow_with_what_was_read_and_stay_within_bounds() {
    let (small, large) = ("x".repeat(1000), "x".repeat(1 << 14));
    for (content, expected) in [
        (small, [256, 519, 517, 517, 517, 601]),
        (large, [256, 64, 80, 100, 126, 157]),
    ] {
        let mut paging = Paging::new(None, ReadMode::InPages);
        let mut entries: Vec<String> = Vec::new();
        let mut asked = Vec::new();
        for page in 0..expected.len() {
            asked.push(paging.entries.unwrap());
            let mut new: Vec<_> = (0..paging.entries.unwrap())
                .map(|number| format!("{page} {number} {content}"))
                .collect();
            new.extend(entries.first().cloned());
            let words: Vec<_> = new.iter().map(String::as_str).collect();
            let bytes = list(&words);
            let mut reader = ReplyReader::new(1, u32::MAX);
            assert_eq!(reader.push(bytes.as_bytes()), Ok(Scan::Complete));
            let received = reader.finish().unwrap();
            let replies = received.replies(0..1).unwrap();
            assert!(paging.response(replies).unwrap().is_none());
            entries = new;
        }
        assert_eq!(asked, expected);
    }
}

#[test]
fn pages_that_do_not_have_enough_messages_are_read_again_in_one() {
    let mut entries: Vec<_> = (0..900).map(numbered).collect();
    entries[899] = UNREADABLE.to_owned();
    let reply = |words: &[&str]| range(&entries, words[2], words[3]);
    let (requests, progress) = run(&Action::Get(Some(300)), reply);
    assert_eq!(
        requests.concat(),
        "LRANGE k -256 -1\nLRANGE k -300 -256\nLRANGE k -600 -1\n"
    );
    assert_eq!(progress, found(599..899));
}

#[test]
fn previous_pages_take_a_part_of_the_limit() {
    let settings = settings(Options::default());
    let mut procedure = start_alone(&Action::Get(None), &settings);
    let reserved = |procedure: &dyn Procedure| {
        let mut commands = Commands::default();
        procedure.request(session(&settings), &mut commands);
        commands.reserved()
    };
    assert_eq!(reserved(&*procedure), 0);
    let entries: Vec<_> = (0..256).map(numbered).collect();
    let page = range(&entries, "0", "255");
    let progress = respond(&mut *procedure, 1, &page);
    assert_eq!(progress, Ok(Progress::NeedsMore));
    assert_eq!(reserved(&*procedure), page.len() as u64 + 256 * 32);
}

/// The reply of Redis behind a proxy that allows this many entries in a reply.
fn capped(entries: &[String], words: &[&str], most: usize) -> String {
    let at = if words[0] == "EVAL" { 4 } else { 2 };
    let reply = range(entries, words[at], words[at + 1]);
    if reply.matches("$").count() > most {
        return "-ERR max request size exceeded. Limit: 1 bytes, Actual: 2 bytes\r\n".to_owned();
    }
    match words[0] {
        "EVAL" => format!("*3\r\n{reply}:{}\r\n:9\r\n", entries.len()),
        _ => reply,
    }
}

#[test]
fn where_replies_are_capped_smaller_pages_are_read_to_the_end() {
    let mut entries: Vec<_> = (0..40).map(numbered).collect();
    entries[38] = UNREADABLE.to_owned();
    for (limit, most, expected) in [
        (None, 16, 0..40),
        (None, 1, 0..40),
        (Some(20), 16, 19..40),
        (Some(20), 1, 19..40),
        (Some(300), 20, 0..40),
    ] {
        let expected = expected.filter(|number| *number != 38);
        let expected: Vec<_> = expected.map(|n| message(&n.to_string())).collect();
        let reply = |words: &[&str]| capped(&entries, words, most);
        let (requests, progress) = run(&Action::Get(limit), reply);
        let Ok(Progress::Done(Outcome::Messages(messages))) = progress else {
            panic!("{limit:?} {most}: {progress:?} after {requests:?}");
        };
        assert_eq!(
            messages.to_vec(),
            expected,
            "{limit:?} {most}: {requests:?}"
        );
        let (_, progress) = run(&Action::History(limit), reply);
        let Ok(Progress::Done(Outcome::History(history))) = progress else {
            panic!("{limit:?} {most}: {progress:?}");
        };
        assert_eq!(history.messages.to_vec(), expected, "{limit:?} {most}");
        assert_eq!((history.total, history.skipped), (40, 1));
    }
    let reply = |words: &[&str]| capped(&entries, words, 16);
    let (requests, _) = run(&Action::Get(None), reply);
    assert_eq!(
        requests.concat(),
        "LRANGE k -256 -1\nLRANGE k -16 -1\nLRANGE k -32 -17\nLRANGE k -16 -16\n\
         LRANGE k -48 -33\nLRANGE k -32 -32\n"
    );
    // One that is too large by itself.
    let reply = |words: &[&str]| capped(&entries, words, 0);
    let (_, progress) = run(&Action::Get(None), reply);
    assert_eq!(progress, Err(Error::from_reply("ERR max request size")));
}

#[test]
fn a_capped_session_that_changes_is_read_from_its_end_again() {
    let before: Vec<_> = (0..20).map(numbered).collect();
    let after: Vec<_> = (0..21).map(numbered).collect();
    let asked = std::cell::Cell::new(0);
    let reply = |words: &[&str]| {
        asked.set(asked.get() + 1);
        let entries = if asked.get() < 4 { &before } else { &after };
        capped(entries, words, 16)
    };
    let (requests, progress) = run(&Action::Get(None), reply);
    assert_eq!(progress, found(0..21), "{requests:?}");

    // A page must not follow an entry that occurs twice.
    let twins: Vec<_> = (0..40).map(|n| numbered(n / 24 * 24 + n % 3)).collect();
    let reply = |words: &[&str]| capped(&twins, words, 16);
    let (requests, progress) = run(&Action::Get(None), reply);
    let Ok(Progress::Done(Outcome::Messages(messages))) = progress else {
        panic!("{progress:?} after {requests:?}");
    };
    assert_eq!(messages.len(), 40);
}

#[test]
fn a_reply_that_is_cut_twice_at_one_place_is_asked_for_in_smaller_pages() {
    let settings = settings(Options::default());
    let mut procedure = start_alone(&Action::Get(None), &settings);
    for (bytes, expected) in [
        (0, "LRANGE k -256 -1\n"),
        (0, "LRANGE k -256 -1\n"),
        (1000, "LRANGE k -256 -1\n"),
        (900, "LRANGE k -256 -1\n"),
        (900, "LRANGE k -16 -1\n"),
        (900, "LRANGE k -16 -1\n"),
        (900, "LRANGE k -1 -1\n"),
        (900, "LRANGE k -1 -1\n"),
        (900, "LRANGE k -1 -1\n"),
        (900, "LRANGE k -1 -1\n"),
    ] {
        assert_eq!(procedure.reply_was_cut(bytes), Ok(()), "{bytes}");
        assert_eq!(request(&*procedure, &settings), expected);
    }
    let text = "an entry is too large for something between the server and the component";
    let expected = Err(Error::LimitExceeded(text.to_owned()));
    assert_eq!(procedure.reply_was_cut(900), expected);
    // It tells nothing about a write.
    let mut procedure = start(&Action::Add(new("a")), &settings);
    assert!((0..9).all(|_| procedure.reply_was_cut(900).is_ok()));
}
