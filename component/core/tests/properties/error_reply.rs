use proptest::prelude::*;
use proptest::sample::select;

use crate::{cases, invariants};

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_error_reply_is_shown(
        secret in "[!-~]{16}",
        code in select(CODES),
        before in select(TEXTS),
        quotes in select(QUOTES),
        between in select(TEXTS),
        twice in any::<bool>(),
        after in select(TEXTS),
    ) {
        let (open, close) = quotes;
        let first = format!("{code}{before}{open}SECRET{close}{between}");
        let second = if twice { format!("{open}SECRET{close}") } else { String::new() };
        invariants::error_reply(&format!("{first}{second}{after}"), &secret);
    }
}

const CODES: &[&str] = &[
    "",
    "ERR ",
    "NOPERM ",
    "WRONGTYPE ",
    "OOPS ",
    "MOVED 1 ",
    "ASK 1 ",
    "NOAUTH ",
    "WRONGPASS ",
    "EXECABORT Transaction discarded because of: ",
    "@user_script: 1: -",
    "LOADING ",
    "err ",
];

const TEXTS: &[&str] = &[
    "",
    " ",
    ":6379",
    "127.0.0.1:",
    "unknown command ",
    ", with args beginning with: ",
    "wrong number of arguments for ",
    "max number of clients reached ",
    "max request size exceeded. Limit: ",
    "AUTH <password> called without any password ",
    " command",
    " access the ",
    " AUTH u ",
    "ACL failure in script: ",
    "*2 $4 AUTH $16 ",
    r#"{"role":"user","content":"#,
    "upstream failure: ",
];

const QUOTES: &[(&str, &str)] = &[
    ("", ""),
    ("'", "'"),
    ("\"", "\""),
    ("`", "`"),
    ("\u{2018}", "\u{2019}"),
    ("\u{ab}", "\u{bb}"),
    ("(", ")"),
    ("<", ">"),
    ("\\\"", "\\\""),
    ("\\x27", "\\x27"),
];
