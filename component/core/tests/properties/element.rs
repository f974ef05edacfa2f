use std::fmt::Write;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use session_memory_core::message::{Message, NewMessage, Role};

use crate::{cases, invariants, mutated};

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_bytes(element in vec(any::<u8>(), 0..200)) {
        invariants::element(&element);
    }

    #[test]
    fn anything_like_an_element(
        element in mutated(python_element().prop_map(|(element, _)| element.into_bytes())),
    ) {
        invariants::element(&element);
    }

    #[test]
    fn what_strict_json_says(
        role in role(),
        content: String,
        metadata in value(),
        other in prop::collection::btree_map(".*", value(), 0..3),
        pretty: bool,
    ) {
        let mut element: Map<String, Value> = other.into_iter().collect();
        element.insert("role".to_owned(), json!(role.as_str()));
        element.insert("content".to_owned(), json!(content));
        element.insert("metadata".to_owned(), metadata);
        let element = Value::Object(element);
        let element = if pretty {
            format!("{element:#}")
        } else {
            element.to_string()
        };
        let strict: Value = serde_json::from_str(&element).unwrap();
        let metadata = &strict["metadata"];
        let message = Message::decode(element.as_bytes()).unwrap();
        prop_assert_eq!(message.role, role);
        prop_assert_eq!(message.content, content);
        let read = message.metadata.map(|text| serde_json::from_str::<Value>(&text).unwrap());
        prop_assert_eq!(read, metadata.is_object().then(|| metadata.clone()));
        invariants::element(element.as_bytes());
    }

    #[test]
    fn what_python_writes((element, expected) in python_element()) {
        let message = Message::decode(element.as_bytes()).unwrap();
        prop_assert_eq!(message.role, expected.role);
        prop_assert_eq!(message.content, expected.content);
        prop_assert_eq!(message.timestamp, expected.timestamp);
        prop_assert_eq!(message.metadata, expected.metadata);
        prop_assert_eq!(message.id, None);
    }

    #[test]
    fn what_is_written_is_read_back(
        role in role(),
        content in content(),
        metadata in prop::option::of(metadata()),
        timestamp in content(),
        space in "[ \t\r\n]{0,3}",
    ) {
        let mut new = NewMessage::new(role, content.as_str());
        new.metadata = metadata.as_ref().map(|text| format!("{space}{text}{space}"));
        let element = new.encode(&timestamp, None, u32::MAX).unwrap();
        let string = |text: &str| serde_json::to_string(text).unwrap();
        let expected = format!(
            r#"{{"role":"{}","content":{},"timestamp":{}{}}}"#,
            role.as_str(),
            string(&content),
            string(&timestamp),
            metadata.as_ref().map_or(String::new(), |text| format!(r#","metadata":{text}"#)),
        );
        prop_assert_eq!(std::str::from_utf8(&element).unwrap(), expected);
        let message = Message::decode(&element).unwrap();
        prop_assert_eq!(message.role, role);
        prop_assert_eq!(message.content, content);
        prop_assert_eq!(message.metadata, metadata);
        prop_assert_eq!(message.timestamp, timestamp);
        prop_assert_eq!(message.id, None);
    }
}

/// Text with characters that are escaped, anywhere in it.
fn content() -> impl Strategy<Value = String> {
    let part = prop_oneof![any::<String>(), "[a-z ]{0,40}", "[\0-\x1f\"\\\\/]{0,5}"];
    vec(part, 0..4).prop_map(|parts| parts.concat())
}

fn role() -> impl Strategy<Value = Role> {
    select(&[Role::User, Role::Assistant])
}

fn value() -> impl Strategy<Value = Value> {
    let one = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<u64>().prop_map(|value| json!(value)),
        any::<f32>().prop_map(|value| json!(value)),
        any::<String>().prop_map(|value| json!(value)),
    ];
    one.prop_recursive(4, 16, 4, |value| {
        prop_oneof![
            vec(value.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(".*", value, 0..4)
                .prop_map(|object| Value::Object(object.into_iter().collect())),
        ]
    })
}

/// The text of a JSON object, in the ways that there are to write one.
fn metadata() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::collection::btree_map(".*", value(), 0..4)
            .prop_map(|object| json!(object).to_string()),
        prop::collection::btree_map(".*", value(), 0..4)
            .prop_map(|object| format!("{:#}", json!(object))),
        vec((text(), python()), 0..4)
            .prop_map(|object| Python::Object(object).dumps(NonNumbers::Null)),
    ]
}

/// An element as `json.dumps` writes it, and the message that it is.
fn python_element() -> impl Strategy<Value = (String, Message)> {
    let keys = vec((text(), python()), 0..4);
    (role(), text(), prop::option::of(keys)).prop_map(|(role, content, metadata)| {
        let metadata = metadata.map(Python::Object);
        let string = |text: &str| Python::Text(text.encode_utf16().collect());
        let mut element = vec![
            ("role", string(role.as_str())),
            ("content", Python::Text(content.clone())),
            ("timestamp", string("2024-01-15T10:30:00.250000")),
        ];
        element.extend(metadata.clone().map(|metadata| ("metadata", metadata)));
        let element = element
            .into_iter()
            .map(|(key, value)| (key.encode_utf16().collect(), value));
        let content = String::from_utf16_lossy(&content);
        let mut message = Message::new(role, content, "2024-01-15T10:30:00.250000");
        message.metadata = metadata.map(|metadata| metadata.dumps(NonNumbers::Null));
        let element = Python::Object(element.collect()).dumps(NonNumbers::Python);
        (element, message)
    })
}

/// What Python's `json.dumps` writes. Text is in UTF-16, which is how it is
/// escaped.
#[derive(Clone, Debug)]
enum Python {
    /// `None`, `True`, an integer of any size, a float: the same in JSON.
    Literal(String),
    NonNumber(&'static str),
    Text(Vec<u16>),
    Array(Vec<Python>),
    Object(Vec<(Vec<u16>, Python)>),
}

/// How `NaN` and the infinities are written.
#[derive(Clone, Copy)]
enum NonNumbers {
    /// As Python does.
    Python,
    /// As the contract has it.
    Null,
}

impl Python {
    fn dumps(&self, non_numbers: NonNumbers) -> String {
        match self {
            Python::Literal(literal) => literal.clone(),
            Python::NonNumber(word) => match non_numbers {
                NonNumbers::Python => (*word).to_owned(),
                NonNumbers::Null => "null".to_owned(),
            },
            Python::Text(text) => quoted(text),
            Python::Array(elements) => {
                let elements = elements.iter().map(|element| element.dumps(non_numbers));
                format!("[{}]", elements.collect::<Vec<_>>().join(", "))
            }
            Python::Object(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, value)| format!("{}: {}", quoted(key), value.dumps(non_numbers)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

fn quoted(text: &[u16]) -> String {
    let mut quoted = "\"".to_owned();
    for unit in text {
        match char::from_u32(u32::from(*unit)) {
            Some(c @ ('"' | '\\')) => quoted.extend(['\\', c]),
            Some('\n') => quoted += "\\n",
            Some(c @ ' '..='~') => quoted.push(c),
            _ => write!(quoted, "\\u{unit:04x}").unwrap(),
        }
    }
    quoted + "\""
}

fn python() -> impl Strategy<Value = Python> {
    let one = prop_oneof![
        prop_oneof![
            "null|true|false|-?[1-9][0-9]{0,40}|-?[0-9]\\.[0-9]{1,20}",
            "[1-9](\\.[0-9]{1,5})?e[+-][0-9]{2,3}",
        ]
        .prop_map(Python::Literal),
        select(&["NaN", "Infinity", "-Infinity"]).prop_map(Python::NonNumber),
        text().prop_map(Python::Text),
    ];
    one.prop_recursive(4, 16, 4, |value| {
        prop_oneof![
            vec(value.clone(), 0..4).prop_map(Python::Array),
            vec((text(), value), 0..4).prop_map(Python::Object),
        ]
    })
}

/// Text in which surrogates stand in pairs and alone, and what would be something
/// else outside of a string.
fn text() -> impl Strategy<Value = Vec<u16>> {
    let part = prop_oneof![
        any::<char>().prop_map(|c| c.encode_utf16(&mut [0; 2]).to_vec()),
        "[ -~\n]{1,5}".prop_map(|text| text.encode_utf16().collect()),
        (0xD800..=0xDFFF_u16).prop_map(|surrogate| vec![surrogate]),
        select(&["NaN", "-Infinity", "\\", "\"", "\\ud800", "\u{FFFD}"])
            .prop_map(|text| text.encode_utf16().collect()),
    ];
    vec(part, 0..6).prop_map(|parts| parts.concat())
}
