//! Tests of attempts that are not made, and of outcomes that stay unknown.

use super::*;

#[test]
fn an_unknown_outcome_is_not_forgotten_when_it_is_executed_again() {
    let settings = settings(Delivery::ExactlyOnce);
    let mut pipeline = Pipeline::new(vec![add("a"), add("a")], &settings, STAMP);
    for _ in 0..4 {
        attempt(
            &mut pipeline,
            "-BUSY x\r\n-upstream failure\r\n",
            End::Complete,
        );
    }
    // The second one has ended with outcome-unknown, and follows the first one again.
    let (sent, _) = attempt(&mut pipeline, ":1\r\n-OOM x\r\n", End::Complete);
    assert_eq!(sent, "EVALSHA a\nEVALSHA a\n");
    let results = results(pipeline);
    assert!(
        matches!(results[1], Err(Error::OutcomeUnknown(_))),
        "{:?}",
        results[1]
    );
}

#[test]
fn a_read_behind_a_write_that_is_refused_to_the_end_keeps_its_result() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![add("a"), on("a", Action::Get(None))];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    for _ in 0..3 {
        attempt(&mut pipeline, "-READONLY x\r\n*0\r\n", End::Complete);
    }
    assert!(waits(&pipeline));
    assert_eq!(
        results(pipeline)[1],
        Ok(Outcome::Messages(Messages::default()))
    );
}

#[test]
fn an_append_stays_acknowledged_if_the_clear_ahead_is_not_sent_again() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![on("a", Action::Clear), add("a")];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    attempt(&mut pipeline, "-BUSY x\r\n:1\r\n", End::Complete);
    assert!(waits(&pipeline));
    assert_eq!(results(pipeline)[1], Ok(Outcome::Length(1)));
}

#[test]
fn what_was_acknowledged_stays_so_if_no_connection_is_made() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![on("a", Action::Clear), add("a"), on("a", Action::Count)];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    attempt(&mut pipeline, "-BUSY x\r\n:1\r\n:1\r\n", End::Complete);
    not_sent(&mut pipeline, Error::Unavailable("refused".to_owned()));
    let results = results(pipeline);
    assert_eq!(
        results[1..],
        [Ok(Outcome::Length(1)), Ok(Outcome::Length(1))]
    );
}

#[test]
fn a_refused_handshake_does_not_end_what_has_its_result() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![add("a"), on("a", Action::Count)];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    attempt(&mut pipeline, "-BUSY x\r\n:1\r\n", End::Complete);
    not_sent(&mut pipeline, Error::AccessDenied("password".to_owned()));
    assert_eq!(results(pipeline)[1], Ok(Outcome::Length(1)));
}

#[test]
fn a_failed_connection_does_not_give_up_a_read() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![add("a"), on("a", Action::Count), on("a", Action::Clear)];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    attempt(&mut pipeline, "-BUSY x\r\n:5\r\n+OK\r\n", End::Complete);
    not_sent(&mut pipeline, Error::Unavailable("refused".to_owned()));
    let (sent, _) = attempt(&mut pipeline, ":6\r\n:6\r\n+OK\r\n", End::Complete);
    assert_eq!(sent, "EVALSHA a\nLLEN a\nLTRIM a\n");
}

#[test]
fn a_clear_with_an_unknown_outcome_may_have_cleared_though_it_is_stale() {
    let settings = settings(Delivery::ExactlyOnce);
    let operations = vec![add("a"), on("a", Action::Count), on("a", Action::Clear)];
    let mut pipeline = Pipeline::new(operations, &settings, STAMP);
    for _ in 0..3 {
        attempt(
            &mut pipeline,
            "-BUSY x\r\n:5\r\n-upstream failure\r\n",
            End::Complete,
        );
    }
    attempt(
        &mut pipeline,
        "-BUSY x\r\n-LOADING x\r\n-upstream failure\r\n",
        End::Complete,
    );
    let (sent, _) = attempt(&mut pipeline, ":1\r\n", End::Closed);
    assert_eq!(sent, "EVALSHA a\nLTRIM a\n");
}
