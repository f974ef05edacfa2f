//! Tests of what operations on the same session do to one another.

use super::*;

#[test]
fn only_appends_acknowledged_at_the_first_attempt_are_remembered() {
    let settings = settings(Delivery::ExactlyOnce);
    for (attempts, kept) in [
        (&[(":1\r\n:1\r\n", End::Complete)][..], true),
        (
            &[
                ("-NOSCRIPT x\r\n:1\r\n", End::Complete),
                (":1\r\n", End::Complete),
            ],
            true,
        ),
        (&[(":1\r\n", End::Closed)], true),
        (&[("-WRONGTYPE x\r\n:1\r\n", End::Complete)], false),
        (
            &[
                ("-LOADING x\r\n:1\r\n", End::Complete),
                (":1\r\n", End::Complete),
            ],
            false,
        ),
        (&[(":1\r\n+OK\r\n", End::Complete)], false),
        (&[("", End::Closed), (":1\r\n:1\r\n", End::Complete)], false),
    ] {
        let operations = vec![add("a"), on("b", Action::Count)];
        let mut pipeline = Pipeline::new(operations, &settings, STAMP);
        let mut recent = RecentAppends::new();
        for (replies, end) in attempts {
            attempt(&mut pipeline, replies, end.clone());
        }
        pipeline.remember(&mut recent);
        assert_eq!(recent.of("a").is_some(), kept, "{attempts:?}");
    }

    // An append that is executed again after an earlier one was sent twice.
    let mut pipeline = Pipeline::new(vec![add("a"), add("a")], &settings, STAMP);
    attempt(&mut pipeline, "-LOADING x\r\n:1\r\n", End::Complete);
    attempt(&mut pipeline, ":2\r\n:2\r\n", End::Complete);
    let mut recent = RecentAppends::new();
    pipeline.remember(&mut recent);
    assert_eq!(recent.of("a"), None);
}

#[test]
fn a_repeated_read_fails_if_a_later_clear_was_executed() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = || vec![on("a", Action::Get(None)), on("a", Action::Clear)];
    for (replies, end, expected) in [
        (
            "-ERR max request size\r\n+OK\r\n",
            End::Complete,
            "get \"a\": it has to be read again, but a later clear was executed",
        ),
        ("", End::Closed, "get \"a\": the connection was lost"),
    ] {
        let mut pipeline = Pipeline::new(operations(), &settings, STAMP);
        attempt(&mut pipeline, replies, end);
        if pipeline.plan().is_some() {
            assert_eq!(
                attempt(&mut pipeline, "+OK\r\n", End::Complete).0,
                "LTRIM a\n"
            );
        }
        let expected = Err(Error::Unavailable(expected.to_owned()));
        assert_eq!(results(pipeline), [expected, Ok(Outcome::Cleared)]);
    }
    // If the clear was not executed, the read is repeated.
    let mut pipeline = Pipeline::new(operations(), &settings, STAMP);
    attempt(&mut pipeline, "-LOADING x\r\n-LOADING x\r\n", End::Complete);
    let (sent, _) = attempt(&mut pipeline, "*0\r\n+OK\r\n", End::Complete);
    assert_eq!(sent, "LRANGE a\nLTRIM a\n");
}

#[test]
fn the_first_append_of_several_sends_the_script() {
    let settings = settings(Delivery::ExactlyOnce);
    let count = || on("a", Action::Count);
    for (operations, expected) in [
        (vec![add("a")], "EVALSHA a\n"),
        (vec![count(), add("a")], "LLEN a\nEVALSHA a\n"),
        (vec![add("a"), count()], "EVAL a\nLLEN a\n"),
        (vec![add("a"), add("b")], "EVAL a\nEVALSHA b\n"),
        (vec![count(), count()], "LLEN a\nLLEN a\n"),
    ] {
        let mut pipeline = Pipeline::new(operations, &settings, STAMP);
        let attempt = pipeline.plan().unwrap();
        let request = pipeline.request(&attempt, ScriptCache::Unknown);
        assert_eq!(shown(&request.commands), expected);
    }
}

#[test]
fn retries_keep_the_order() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![
        add("a"),
        on("a", Action::Clear),
        add("a"),
        on("a", Action::Count),
        on("b", Action::Clear),
    ];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    let replies = "-BUSY x\r\n+OK\r\n:1\r\n:1\r\n+OK\r\n";
    attempt(&mut pipeline, replies, End::Complete);
    let (sent, _) = attempt(&mut pipeline, ":1\r\n", End::Closed);
    assert_eq!(sent, "EVALSHA a\nLTRIM a\nEVALSHA a\nLLEN a\n");
    let (sent, _) = attempt(&mut pipeline, "-OOM x\r\n-OOM x\r\n:1\r\n", End::Complete);
    assert_eq!(sent, "LTRIM a\nEVALSHA a\nLLEN a\n");
    // Acknowledged operations stay acknowledged, except for what the clear has deleted.
    let text = "add to \"a\": it was executed, but then an earlier clear was retried: OOM: the server has no memory left for writes (maxmemory)";
    assert_eq!(
        results(pipeline),
        [
            Ok(Outcome::Length(1)),
            Ok(Outcome::Cleared),
            Err(Error::OutcomeUnknown(text.to_owned())),
            Ok(Outcome::Length(1)),
            Ok(Outcome::Cleared),
        ]
    );
}

#[test]
fn an_append_that_is_acknowledged_after_a_clear_stays_so() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![on("a", Action::Clear), add("a"), add("a")];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    attempt(&mut pipeline, "-BUSY x\r\n:1\r\n:2\r\n", End::Complete);
    let (sent, _) = attempt(&mut pipeline, "+OK\r\n-BUSY x\r\n:1\r\n", End::Complete);
    assert_eq!(sent, "LTRIM a\nEVALSHA a\nEVALSHA a\n");
    let (sent, _) = attempt(&mut pipeline, ":2\r\n-OOM x\r\n", End::Complete);
    assert_eq!(sent, "EVALSHA a\nEVALSHA a\n");
    let expected = [
        Ok(Outcome::Cleared),
        Ok(Outcome::Length(2)),
        Ok(Outcome::Length(1)),
    ];
    assert_eq!(results(pipeline), expected);
}

#[test]
fn a_clear_ahead_of_an_at_most_once_append_is_not_retried() {
    let settings = settings(Delivery::AtMostOnce);
    let refused = || Err(Error::from_reply("BUSY x").during("clear", "a"));
    const QUEUED: &str = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n";
    let appended = format!("{QUEUED}*3\r\n:-2\r\n:1\r\n:1\r\n");
    let operations = || vec![on("a", Action::Clear), on("b", Action::Clear), add("a")];
    // The append was executed.
    let mut pipeline = Pipeline::new(operations(), &settings, STAMP);
    let replies = format!("-BUSY x\r\n-BUSY x\r\n{appended}");
    attempt(&mut pipeline, &replies, End::Complete);
    let (sent, _) = attempt(&mut pipeline, "+OK\r\n", End::Complete);
    assert_eq!(sent, "LTRIM b\n");
    let expected = [refused(), Ok(Outcome::Cleared), Ok(Outcome::Length(1))];
    assert_eq!(results(pipeline), expected);
    // The append may have been executed.
    let mut pipeline = Pipeline::new(operations(), &settings, STAMP);
    attempt(&mut pipeline, "-BUSY x\r\n+OK\r\n", End::Closed);
    assert!(pipeline.plan().is_none());
    assert_eq!(results(pipeline)[0], refused());
    // The append was refused too.
    let mut pipeline = Pipeline::new(operations(), &settings, STAMP);
    let replies = format!("-BUSY x\r\n+OK\r\n-BUSY x\r\n{}", "-BUSY x\r\n".repeat(4));
    attempt(&mut pipeline, &replies, End::Complete);
    assert!(waits(&pipeline));
}

#[test]
fn a_server_without_the_script_is_given_it_at_once_and_reads_come_after() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![
        on("a", Action::Count),
        add("a"),
        on("a", Action::Count),
        on("b", Action::Count),
    ];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    let replies = ":0\r\n-NOSCRIPT x\r\n:0\r\n:5\r\n";
    let (_, usable) = attempt(&mut pipeline, replies, End::Complete);
    assert!(usable);
    assert!(!waits(&pipeline));
    let (sent, _) = attempt(&mut pipeline, ":1\r\n:1\r\n", End::Complete);
    assert_eq!(sent.lines().count(), 2);
    let lengths = [0, 1, 1, 5].map(|length| Ok(Outcome::Length(length)));
    assert_eq!(results(pipeline), lengths);
}

#[test]
fn a_read_behind_a_write_that_never_came_keeps_its_result() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![add("a"), on("a", Action::Count)];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    attempt(&mut pipeline, "-BUSY x\r\n:4\r\n", End::Complete);
    assert!(waits(&pipeline));
    assert_eq!(results(pipeline)[1], Ok(Outcome::Length(4)));
}

#[test]
fn appends_to_one_session_look_behind_one_another() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![add("a"), add("b"), add("a"), add("a")];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    let request = request(&mut pipeline);
    let text = String::from_utf8(request.commands.bytes().to_vec()).unwrap();
    let words: Vec<_> = text.split("\r\n").collect();
    let back: Vec<_> = words
        .windows(7)
        .filter(|w| w[0] == "1" && w[1] == "$1")
        .collect();
    let back: Vec<_> = back.iter().map(|w| (w[2], w[4])).collect();
    assert_eq!(back, [("a", "66"), ("b", "64"), ("a", "66"), ("a", "66")]);
}

#[test]
fn a_key_of_another_type_gets_back_the_expiry_it_had_at_first() {
    let settings = settings(Delivery::AtMostOnce);
    let mut pipeline = Pipeline::new(vec![add("a"), add("a")], &settings, STAMP);
    const QUEUED: &str = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n";
    let foreign = |ttl| format!("{QUEUED}*3\r\n:{ttl}\r\n-WRONGTYPE x\r\n:1\r\n");
    let replies = foreign(-1) + &foreign(3_600_000);
    attempt(&mut pipeline, &replies, End::Complete);
    let (sent, _) = attempt(&mut pipeline, ":1\r\n", End::Complete);
    assert_eq!(sent, "PERSIST a\n");
    let expected = Error::from_reply("WRONGTYPE x").during("add to", "a");
    assert_eq!(results(pipeline), [Err(expected.clone()), Err(expected)]);
}
