//! Tests of the retry: requests, and what becomes of them.

mod order;
mod unsent;

use super::*;
use crate::fixtures::STAMP;
use crate::message::{NewMessage, Role};
use crate::operation::Action;
use crate::options::Options;
use crate::resp::{ReplyReader, Scan};

fn settings(delivery: Delivery) -> Settings {
    crate::fixtures::settings(Options {
        delivery: Some(delivery),
        key_prefix: Some(String::new()),
        ..Options::default()
    })
}

fn add(session_id: &str) -> Operation {
    let message = NewMessage {
        role: Role::User,
        content: String::new(),
        metadata: None,
    };
    on(session_id, Action::Add(message))
}

fn on(session_id: &str, action: Action) -> Operation {
    Operation {
        session_id: session_id.to_owned(),
        action,
    }
}

/// The request of the next attempt.
fn request(pipeline: &mut Pipeline<'_>) -> Request {
    let attempt = pipeline.plan().expect("an operation has no result");
    pipeline.request(&attempt, ScriptCache::Known)
}

/// Makes an attempt whose request is written in full and gets these bytes. Returns what was
/// sent, and whether the connection may be used again.
fn attempt(pipeline: &mut Pipeline<'_>, replies: &str, end: End) -> (String, bool) {
    let request = request(pipeline);
    let written = request.commands.bytes().len();
    let sent = shown(&request.commands);
    let is_reusable = settle(pipeline, request, replies, written, end);
    (sent, is_reusable)
}

fn settle(
    pipeline: &mut Pipeline<'_>,
    request: Request,
    replies: &str,
    written: usize,
    end: End,
) -> bool {
    let mut reader = ReplyReader::new(request.commands.count(), 1 << 20);
    let end = match reader.push(replies.as_bytes()) {
        Ok(Scan::Complete | Scan::Missing(_)) => end,
        Err(error) => End::Malformed(error),
    };
    let exchange = Exchange {
        partial: reader.partial(),
        received: reader.finish().unwrap(),
        written,
        end,
    };
    pipeline.settle(request, Ok(exchange)).is_reusable
}

/// An attempt without a connection.
fn not_sent(pipeline: &mut Pipeline<'_>, error: Error) {
    let attempt = pipeline.plan().expect("an operation has no result");
    pipeline.not_sent(&attempt, &error);
}

/// Whether the next attempt comes after a wait.
fn waits(pipeline: &Pipeline<'_>) -> bool {
    pipeline
        .plan()
        .is_some_and(|attempt| attempt.wait.is_some())
}

/// The names and keys of commands, one command a line.
fn shown(commands: &Commands) -> String {
    let text = String::from_utf8(commands.bytes().to_vec()).unwrap();
    let mut lines = text.split("\r\n").peekable();
    let mut shown = String::new();
    while let Some(count) = lines.next().and_then(|line| line.strip_prefix('*')) {
        // Scripts have lines of their own, which do not begin with an asterisk.
        let words: Vec<_> = (0..count.parse().unwrap())
            .map(|_| lines.nth(1).unwrap())
            .collect();
        let key = if words[0].starts_with("EVAL") { 3 } else { 1 };
        shown += &format!("{} {}\n", words[0], words.get(key).unwrap_or(&""));
    }
    shown
}

fn results(pipeline: Pipeline<'_>) -> Vec<Result<Outcome<Messages>, Error>> {
    pipeline.results().collect()
}

fn lost(text: &str) -> Result<Outcome<Messages>, Error> {
    Err(Error::OutcomeUnknown(text.to_owned()))
}

#[test]
fn operations_are_sent_together_and_each_gets_its_reply() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![
        add("a"),
        on("a", Action::Get(Some(10))),
        on("", Action::Count),
        on("b", Action::Get(Some(0))),
        on("b", Action::History(None)),
        on("b", Action::Exists),
    ];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    assert!(!waits(&pipeline));
    assert!(!pipeline.plan().unwrap().is_read_only);
    let replies = ":7\r\n*0\r\n\
        *3\r\n*0\r\n:0\r\n:-2\r\n:1\r\n";
    let (sent, usable) = attempt(&mut pipeline, replies, End::Complete);
    assert_eq!(sent, "EVALSHA a\nLRANGE a\nEVAL b\nLLEN b\n");
    assert!(usable);
    assert!(pipeline.plan().is_none());
    let [added, got, refused, nothing, history, exists] = &results(pipeline)[..] else {
        panic!("not six");
    };
    assert_eq!(added, &Ok(Outcome::Length(7)));
    assert_eq!(got, &Ok(Outcome::Messages(Messages::default())));
    assert_eq!(
        refused,
        &Err(Error::InvalidArgument(
            "count \"\": the session id is empty, allowed is any other text".to_owned()
        ))
    );
    assert_eq!(nothing, &Ok(Outcome::Messages(Messages::default())));
    assert!(matches!(history, Ok(Outcome::History(_))));
    assert_eq!(exists, &Ok(Outcome::Exists(true)));
}

#[test]
fn an_error_is_that_of_its_operation_alone() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![add("a"), add("b"), on("c", Action::Clear)];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    let replies = ":1\r\n-WRONGTYPE x\r\n+OK\r\n";
    let (_, usable) = attempt(&mut pipeline, replies, End::Complete);
    assert!(usable);
    assert_eq!(
        results(pipeline),
        [
            Ok(Outcome::Length(1)),
            Err(Error::from_reply("WRONGTYPE x").during("add to", "b")),
            Ok(Outcome::Cleared)
        ]
    );
}

#[test]
fn operations_without_a_reply_are_retried() {
    for (end, why) in [
        (End::Closed, "the connection was lost"),
        (End::Timeout(5), "no reply within 5 ms"),
    ] {
        let operations = vec![add("a"), add("b"), on("c", Action::Exists)];
        for delivery in [Delivery::ExactlyOnce, Delivery::AtMostOnce] {
            let settings = settings(delivery);
            let mut pipeline = Pipeline::new(operations.clone(), &settings, STAMP);
            let (first, end, again) = match delivery {
                Delivery::ExactlyOnce => (":1\r\n", end.clone(), "EVALSHA b\nLLEN c\n"),
                Delivery::AtMostOnce => (
                    "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n:-2\r\n:1\r\n:1\r\n",
                    end.clone(),
                    "LLEN c\n",
                ),
            };
            let (_, usable) = attempt(&mut pipeline, first, end);
            assert!(!usable);
            assert!(waits(&pipeline));
            let (sent, _) = attempt(&mut pipeline, "", End::Closed);
            assert_eq!(sent, again);
            let results = results(pipeline);
            let during = match delivery {
                Delivery::ExactlyOnce => "the connection was lost",
                Delivery::AtMostOnce => why,
            };
            assert_eq!(results[0], Ok(Outcome::Length(1)));
            assert_eq!(
                results[1],
                lost(&format!(
                    "add to \"b\": {during} after the request was sent"
                ))
            );
            assert_eq!(
                results[2],
                Err(Error::Unavailable(
                    "exists \"c\": the connection was lost".to_owned()
                ))
            );
        }
    }
}

#[test]
fn what_was_not_sent_to_its_last_byte_was_not_executed() {
    let settings = settings(Delivery::AtMostOnce);
    let mut pipeline = Pipeline::new(vec![add("a"), add("b")], &settings, STAMP);
    let request = request(&mut pipeline);
    let written = request.commands.bytes().len() - 1;
    settle(&mut pipeline, request, "", written, End::Closed);
    assert!(waits(&pipeline));
    let (sent, _) = attempt(&mut pipeline, "", End::Closed);
    assert_eq!(sent, "MULTI \nPTTL b\nRPUSH b\nEXPIRE b\nEXEC \n");
}

#[test]
fn a_refusal_before_the_connection_closes_is_reported() {
    let settings = settings(Delivery::AtMostOnce);
    let mut pipeline = Pipeline::new(vec![add("a")], &settings, STAMP);
    attempt(&mut pipeline, "-DENIED x\r\n", End::Closed);
    let expected = Error::from_reply("DENIED x").during("add to", "a");
    assert_eq!(results(pipeline), [Err(expected)]);
}

#[test]
fn a_transient_refusal_is_retried_on_a_new_connection() {
    for (delivery, replies, is_retried) in [
        (Delivery::ExactlyOnce, "-READONLY x\r\n", true),
        (
            Delivery::AtMostOnce,
            "+OK\r\n+QUEUED\r\n-READONLY x\r\n+QUEUED\r\n-EXECABORT y\r\n",
            false,
        ),
    ] {
        let settings = settings(delivery);
        let mut pipeline = Pipeline::new(vec![add("a")], &settings, STAMP);
        let (_, usable) = attempt(&mut pipeline, replies, End::Complete);
        assert!(!usable);
        assert_eq!(waits(&pipeline), is_retried);
        assert_eq!(pipeline.plan().is_some(), is_retried);
        let [Err(Error::Server { code, .. })] = &results(pipeline)[..] else {
            panic!("{replies}");
        };
        assert_eq!(code, "READONLY");
    }
}

#[test]
fn an_unclear_error_is_retried_three_times() {
    const UNCLEAR: &str = "-ERR Connection timed out\r\n";
    const WHY: &str =
        "ERR: the error reply is unknown; a proxy in front of the server may have sent it";
    let unknown = |name: &str| format!("{name} \"a\": {WHY}");
    for (delivery, action, replies, tries, expected) in [
        (
            Delivery::ExactlyOnce,
            add("a").action,
            1,
            4,
            Error::OutcomeUnknown(unknown("add to")),
        ),
        (
            Delivery::AtMostOnce,
            add("a").action,
            5,
            1,
            Error::OutcomeUnknown(unknown("add to")),
        ),
        (
            Delivery::ExactlyOnce,
            Action::Clear,
            1,
            4,
            Error::OutcomeUnknown(unknown("clear")),
        ),
        (
            Delivery::AtMostOnce,
            Action::Clear,
            1,
            1,
            Error::OutcomeUnknown(unknown("clear")),
        ),
        (
            Delivery::AtMostOnce,
            Action::Exists,
            1,
            4,
            Error::from_reply("oops").during("exists", "a"),
        ),
    ] {
        let settings = settings(delivery);
        let operations = || vec![on("a", action.clone())];
        let replies = match replies {
            1 => UNCLEAR.to_owned(),
            _ => "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n".to_owned() + UNCLEAR,
        };
        let mut pipeline = Pipeline::new(operations(), &settings, STAMP);
        for _ in 1..tries {
            let (_, usable) = attempt(&mut pipeline, &replies, End::Complete);
            assert!(!usable);
            assert!(pipeline.plan().and_then(|attempt| attempt.wait) >= Some(100));
        }
        attempt(&mut pipeline, &replies, End::Complete);
        assert!(pipeline.plan().is_none());
        assert_eq!(results(pipeline), [Err(expected)]);
    }
}

#[test]
fn a_refusal_after_an_unclear_reply_leaves_the_outcome_unknown() {
    let settings = settings(Delivery::ExactlyOnce);
    let mut pipeline = Pipeline::new(vec![add("a")], &settings, STAMP);
    attempt(&mut pipeline, "-upstream failure\r\n", End::Complete);
    attempt(&mut pipeline, "-OOM x\r\n", End::Complete);
    let result = results(pipeline).pop().unwrap();
    assert!(
        matches!(result, Err(Error::OutcomeUnknown(_))),
        "{result:?}"
    );
    // If it was applied, the retry finds it.
    let mut pipeline = Pipeline::new(vec![add("a")], &settings, STAMP);
    attempt(&mut pipeline, "-upstream failure\r\n", End::Complete);
    attempt(&mut pipeline, ":1\r\n", End::Complete);
    assert_eq!(results(pipeline), [Ok(Outcome::Length(1))]);
}

#[test]
fn silence_is_retried_if_a_late_arrival_does_no_harm() {
    for (delivery, operations, expected) in [
        (Delivery::ExactlyOnce, vec![add("a")], true),
        (
            Delivery::ExactlyOnce,
            vec![add("a"), on("a", Action::Get(None))],
            true,
        ),
        (
            Delivery::ExactlyOnce,
            vec![add("a"), on("a", Action::Clear)],
            false,
        ),
        (Delivery::AtMostOnce, vec![add("a")], false),
        (
            Delivery::AtMostOnce,
            vec![on("a", Action::History(None))],
            true,
        ),
    ] {
        let settings = settings(delivery);
        let pipeline = Pipeline::new(operations, &settings, STAMP);
        let attempt = pipeline.plan().unwrap();
        assert_eq!(attempt.reply_silence_limit != u32::MAX, expected);
    }
}

#[test]
fn silence_on_several_connections_is_told_as_a_whole() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![add("a"), on("b", Action::Count)];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    for milliseconds in [1000, 2000, 1990] {
        attempt(&mut pipeline, "", End::Timeout(milliseconds));
    }
    let why = "no reply within 5000 ms, on 3 connections";
    assert_eq!(
        results(pipeline),
        [
            lost(&format!("add to \"a\": {why} after the request was sent")),
            Err(Error::Timeout(format!("count \"b\": {why}"))),
        ]
    );
}

#[test]
fn a_server_that_is_full_is_asked_again_over_another_connection() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![on("a", Action::Count)];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    let full = "-ERR max number of clients reached\r\n";
    let (_, usable) = attempt(&mut pipeline, full, End::Complete);
    assert!(!usable);
    assert!(waits(&pipeline));
}

#[test]
fn one_malformed_reply_fails_the_whole_request() {
    for replies in [
        ":1\r\n:1\r\n:1\r\n",
        ":1\r\n*0\r\n:1\r\nx",
        ":1\r\n*0\r\n?",
        ":1\r\n*0\r\n:1\r\n:1\r\n",
        "*0\r\n*0\r\n:1\r\n",
    ] {
        let settings = settings(Delivery::ExactlyOnce);
        let operations = vec![add("a"), on("b", Action::Get(None)), on("c", Action::Count)];
        let mut pipeline = Pipeline::new(operations, &settings, STAMP);
        let (_, usable) = attempt(&mut pipeline, replies, End::Complete);
        assert!(!usable);
        for result in results(pipeline) {
            assert!(matches!(result, Err(Error::Protocol(_))), "{result:?}");
        }
    }
}

#[test]
fn a_later_refusal_keeps_the_outcome_unknown() {
    let settings = settings(Delivery::ExactlyOnce);
    let mut pipeline = Pipeline::new(vec![add("a")], &settings, STAMP);
    attempt(&mut pipeline, "", End::Closed);
    attempt(&mut pipeline, "-OOM x\r\n", End::Complete);
    assert!(pipeline.plan().is_none());
    assert_eq!(
        results(pipeline),
        [lost(
            "add to \"a\": an earlier attempt was sent and its outcome is unknown; then: OOM: \
             the server has no memory left for writes (maxmemory)"
        )]
    );
}

#[test]
fn a_timeout_does_not_replace_an_earlier_error() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![on("a", Action::Exists)];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    not_sent(&mut pipeline, Error::Unavailable("refused".to_owned()));
    not_sent(&mut pipeline, Error::Timeout("too late".to_owned()));
    let expected = Error::Unavailable("exists \"a\": refused".to_owned());
    assert_eq!(results(pipeline), [Err(expected)]);
}

#[test]
fn a_reply_that_does_not_fit_beside_others_is_requested_again() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = ["a", "b", "c"].map(|id| on(id, Action::Count));
    let mut pipeline = Pipeline::new(operations.into(), &settings, STAMP);
    let too_large = || End::Malformed(Error::LimitExceeded("too large".to_owned()));
    let (_, usable) = attempt(&mut pipeline, ":1\r\n", too_large());
    assert!(!usable);
    assert!(waits(&pipeline));
    let (sent, _) = attempt(&mut pipeline, "", too_large());
    assert_eq!(sent, "LLEN b\nLLEN c\n");
    let (sent, _) = attempt(&mut pipeline, ":3\r\n", End::Complete);
    assert_eq!(sent, "LLEN c\n");
    assert!(pipeline.plan().is_none());
    assert_eq!(
        results(pipeline),
        [
            Ok(Outcome::Length(1)),
            Err(Error::LimitExceeded("count \"b\": too large".to_owned())),
            Ok(Outcome::Length(3))
        ]
    );
}

#[test]
fn an_entry_that_is_cut_at_one_place_does_not_hold_up_what_is_behind_it() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![on("a", Action::Get(Some(1))), add("b")];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    for _ in 0..4 {
        assert!(pipeline.plan().is_some());
        attempt(&mut pipeline, "*1\r\n$9\r\nx", End::Closed);
    }
    let (sent, _) = attempt(&mut pipeline, ":1\r\n", End::Complete);
    assert_eq!(sent, "EVALSHA b\n");
    let results = results(pipeline);
    assert!(
        matches!(results[0], Err(Error::LimitExceeded(_))),
        "{results:?}"
    );
    assert_eq!(results[1], Ok(Outcome::Length(1)));
}

#[test]
fn a_large_reply_to_a_write_is_malformed() {
    let settings = settings(Delivery::ExactlyOnce);
    let mut pipeline = Pipeline::new(vec![add("a")], &settings, STAMP);
    let too_large = End::Malformed(Error::LimitExceeded("too large".to_owned()));
    attempt(&mut pipeline, "", too_large);
    let expected = Error::Protocol("add to \"a\": too large".to_owned());
    assert_eq!(results(pipeline), [Err(expected)]);
}
