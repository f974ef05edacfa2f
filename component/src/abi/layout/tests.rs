//! Compares the layout of every type with `wit/`.
//!
//! `wit-parser` computes sizes, alignments and offsets from `wit/`. The types here
//! implement [`AbiType`] by macros that list their fields or cases. A field or case that
//! is missing in such a list does not compile. One that is missing in `wit/`, or is there
//! alone, fails the test. A comparison includes all types that a type consists of.

#![allow(unsafe_code, reason = "tags are read from memory")]

use core::mem::offset_of;
use core::ptr::from_ref;
use std::path::Path;

use wit_parser::{Case, Function, Handle, Int, Interface, Resolve, SizeAlign, Type, TypeDefKind};

use super::*;

/// A type whose layout is that of a type in `wit/`.
trait AbiType {
    /// Any value.
    fn sample() -> Self;

    /// Compares a type that is not an alias.
    ///
    /// # Panics
    ///
    /// If the type of `wit/` has another name or layout.
    fn compare(wit: &Wit, of_wit: &Type);
}

/// A type that a function returns or a case holds, which may be nothing.
trait Payload {
    /// Any value.
    fn sample() -> Self;

    /// Compares a type.
    ///
    /// # Panics
    ///
    /// If the type of `wit/` has another name or layout.
    fn compare(wit: &Wit, of_wit: Option<&Type>);
}

impl Payload for () {
    fn sample() {}

    fn compare(_: &Wit, of_wit: Option<&Type>) {
        assert_eq!(of_wit, None, "nothing");
    }
}

impl<T: AbiType> Payload for T {
    fn sample() -> T {
        <T as AbiType>::sample()
    }

    fn compare(wit: &Wit, of_wit: Option<&Type>) {
        wit.compare::<T>(of_wit.expect("there is a type"));
    }
}

/// The package in `wit/`, with the packages that it depends on.
struct Wit {
    resolve: Resolve,
    layout: SizeAlign,
}

impl Wit {
    fn read() -> Wit {
        let mut resolve = Resolve::default();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
        resolve.push_dir(folder).expect("wit/ is sound");
        let mut layout = SizeAlign::default();
        layout.fill(&resolve).expect("every type has a layout");
        Wit { resolve, layout }
    }

    fn interface(&self, package: &str, name: &str) -> &Interface {
        let mut packages = self.resolve.packages.iter();
        let is_named =
            |name: &wit_parser::PackageName| format!("{}:{}", name.namespace, name.name) == package;
        let (_, package) = packages
            .find(|(_, package)| is_named(&package.name))
            .expect("the package is in wit/");
        &self.resolve.interfaces[package.interfaces[name]]
    }

    fn functions(&self) -> impl Iterator<Item = &Function> {
        let memory = self.interface("edge:session-memory", "memory");
        memory.functions.values()
    }

    /// Compares a type.
    fn compare<T: AbiType>(&self, of_wit: &Type) {
        let of_wit = self.without_aliases(*of_wit);
        let name = core::any::type_name::<T>();
        let size = self.layout.size(&of_wit).size_wasm32();
        let align = self.layout.align(&of_wit).align_wasm32();
        T::compare(self, &of_wit);
        assert_eq!((size_of::<T>(), align_of::<T>()), (size, align), "{name}");
    }

    /// Compares the fields of a record, which are names and offsets. Returns their types
    /// in `wit/`.
    fn compare_fields(&self, of_wit: &Type, name: &str, fields: &[(&str, usize)]) -> Vec<Type> {
        let TypeDefKind::Record(record) = self.kind(of_wit, Some(name)) else {
            panic!("{name} is a record");
        };
        let types: Vec<Type> = record.fields.iter().map(|field| field.ty).collect();
        let offsets = self.layout.field_offsets(&types);
        let names = record
            .fields
            .iter()
            .map(|field| field.name.replace('-', "_"));
        let of_wit: Vec<(String, usize)> = names
            .zip(offsets.iter().map(|(offset, _)| offset.size_wasm32()))
            .collect();
        let fields: Vec<(String, usize)> = fields
            .iter()
            .map(|(field, offset)| ((*field).to_owned(), *offset))
            .collect();
        assert_eq!(fields, of_wit, "fields of {name}, and their offsets");
        types
    }

    /// Compares the cases of a variant, an option or a result: which has which tag, and
    /// where its payload lies.
    fn compare_cases(&self, what: &str, of_wit: &[(&str, Option<Type>)], cases: &[AbiCase]) {
        let types = of_wit.iter().map(|(_, payload)| payload.as_ref());
        let offset = self.layout.payload_offset(Int::U8, types);
        let of_wit: Vec<AbiCase> = of_wit
            .iter()
            .zip(0..)
            .map(|((name, payload), tag)| AbiCase {
                name: (*name).to_owned(),
                tag,
                payload: payload.map(|_| offset.size_wasm32()),
            })
            .collect();
        assert_eq!(cases, of_wit, "cases of {what}");
    }

    /// What kind of type it is, whose name is this.
    fn kind(&self, of_wit: &Type, name: Option<&str>) -> &TypeDefKind {
        let Type::Id(id) = of_wit else {
            panic!("{of_wit:?} is a type with a definition");
        };
        let definition = &self.resolve.types[*id];
        assert_eq!(definition.name.as_deref(), name, "name of a type");
        &definition.kind
    }

    /// The type that an alias, such as that of `use`, stands for.
    fn without_aliases(&self, mut of_wit: Type) -> Type {
        while let Type::Id(id) = of_wit
            && let TypeDefKind::Type(aliased) = self.resolve.types[id].kind
        {
            of_wit = aliased;
        }
        of_wit
    }
}

/// A case of a variant.
#[derive(Debug, PartialEq)]
struct AbiCase {
    name: String,
    tag: u8,
    /// The offset of the payload, if there is one.
    payload: Option<usize>,
}

/// The name that a Rust case or type has in WIT.
fn kebab_case(name: &str) -> String {
    let mut kebab = String::new();
    for character in name.chars() {
        if character.is_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.extend(character.to_lowercase());
    }
    kebab
}

/// The offset of a part of a value.
fn offset_in<T, P>(value: &T, part: &P) -> usize {
    from_ref(part).addr() - from_ref(value).addr()
}

/// The tag of a `repr(C, u8)` enum.
macro_rules! tag {
    ($value:expr) => {
        // SAFETY: the enum is `repr(C, u8)`, so it begins with its tag, which is
        // initialised as part of the value.
        unsafe { from_ref($value).cast::<u8>().read() }
    };
}

/// Implements [`AbiType`] for a type of WIT that has a name of its own.
macro_rules! primitive {
    ($($type:ty => $of_wit:pat, $sample:expr;)*) => {$(
        impl AbiType for $type {
            fn sample() -> $type {
                $sample
            }

            fn compare(_: &Wit, of_wit: &Type) {
                assert!(matches!(of_wit, $of_wit), "{of_wit:?} is {}", stringify!($type));
            }
        }
    )*};
}

/// Implements [`AbiType`] for a record by the list of its fields.
macro_rules! record {
    ($record:ident, $name:literal, { $($field:ident),* $(,)? }) => {
        impl AbiType for $record {
            fn sample() -> $record {
                $record { $($field: AbiType::sample()),* }
            }

            fn compare(wit: &Wit, of_wit: &Type) {
                /// Compares the type of a field.
                fn compare_field<T: AbiType>(_: fn(&$record) -> &T, wit: &Wit, of_wit: &Type) {
                    wit.compare::<T>(of_wit);
                }

                let fields = [$((stringify!($field), offset_of!($record, $field))),*];
                let types = wit.compare_fields(of_wit, $name, &fields);
                let mut types = types.iter();
                $(compare_field(|record| &record.$field, wit, types.next().unwrap());)*
            }
        }
    };
}

/// Implements [`AbiType`] for a variant by the list of its cases.
macro_rules! variant {
    ($variant:ident, $name:literal, { $($case:ident $(($payload:ty))?),* $(,)? }) => {
        impl AbiType for $variant {
            fn sample() -> $variant {
                let samples = [$($variant::$case $((<$payload as AbiType>::sample()))?),*];
                samples.into_iter().next().unwrap()
            }

            fn compare(wit: &Wit, of_wit: &Type) {
                let samples = [$($variant::$case $((<$payload as AbiType>::sample()))?),*];
                let cases = samples.each_ref().map(|sample| AbiCase {
                    name: match sample {
                        $($variant::$case { .. } => kebab_case(stringify!($case)),)*
                    },
                    tag: tag!(sample),
                    payload: match sample {
                        $(variant!(@pattern payload $variant $case $($payload)?) => {
                            variant!(@offset sample payload $($payload)?)
                        })*
                    },
                });
                let TypeDefKind::Variant(variant) = wit.kind(of_wit, Some($name)) else {
                    panic!("{} is a variant", $name);
                };
                let named = |case: &Case| (case.name.clone(), case.ty);
                let named: Vec<_> = variant.cases.iter().map(named).collect();
                let of_wit: Vec<_> = named.iter().map(|(name, ty)| (name.as_str(), *ty)).collect();
                wit.compare_cases($name, &of_wit, &cases);
                let mut types = variant.cases.iter().map(|case| case.ty);
                $(
                    let of_wit = types.next().unwrap();
                    $(wit.compare::<$payload>(&of_wit.unwrap());)?
                    let _ = of_wit;
                )*
            }
        }
    };
    (@pattern $payload:ident $variant:ident $case:ident $type:ty) => {
        $variant::$case($payload)
    };
    (@pattern $payload:ident $variant:ident $case:ident) => {
        $variant::$case
    };
    (@offset $sample:ident $payload:ident $type:ty) => {
        Some(offset_in($sample, $payload))
    };
    (@offset $sample:ident $payload:ident) => {
        None
    };
}

/// Implements [`AbiType`] for an enum by the list of its cases.
macro_rules! enumeration {
    ($enum:ident, $name:literal, { $($case:ident),* $(,)? }) => {
        impl AbiType for $enum {
            fn sample() -> $enum {
                [$($enum::$case),*][0]
            }

            fn compare(wit: &Wit, of_wit: &Type) {
                let cases = [$((kebab_case(stringify!($case)), $enum::$case as usize)),*];
                let TypeDefKind::Enum(of_wit) = wit.kind(of_wit, Some($name)) else {
                    panic!("{} is an enum", $name);
                };
                let names = of_wit.cases.iter().map(|case| case.name.clone());
                let of_wit: Vec<_> = names.zip(0..).collect();
                assert_eq!(cases.to_vec(), of_wit, "cases of {}", $name);
            }
        }
    };
}

impl<T: AbiType> AbiType for AbiList<T> {
    fn sample() -> AbiList<T> {
        AbiList::new(0, 0)
    }

    fn compare(wit: &Wit, of_wit: &Type) {
        // The ABI: a list is its address, and its length behind it.
        assert_eq!(offset_of!(AbiList<T>, address), 0);
        assert_eq!(offset_of!(AbiList<T>, length), 4);
        let TypeDefKind::List(item) = wit.kind(of_wit, None) else {
            panic!("{of_wit:?} is a list");
        };
        wit.compare::<T>(item);
    }
}

impl<T: AbiType> AbiType for AbiOption<T> {
    fn sample() -> AbiOption<T> {
        AbiOption::None
    }

    fn compare(wit: &Wit, of_wit: &Type) {
        let samples = [AbiOption::None, AbiOption::Some(<T as AbiType>::sample())];
        let cases = samples.each_ref().map(|sample| match sample {
            AbiOption::None => AbiCase {
                name: "none".to_owned(),
                tag: tag!(sample),
                payload: None,
            },
            AbiOption::Some(value) => AbiCase {
                name: "some".to_owned(),
                tag: tag!(sample),
                payload: Some(offset_in(sample, value)),
            },
        });
        let TypeDefKind::Option(value) = wit.kind(of_wit, None) else {
            panic!("{of_wit:?} is an option");
        };
        wit.compare_cases("option", &[("none", None), ("some", Some(*value))], &cases);
        wit.compare::<T>(value);
    }
}

impl<T: Payload, E: Payload> AbiType for AbiResult<T, E> {
    fn sample() -> AbiResult<T, E> {
        AbiResult::Ok(T::sample())
    }

    fn compare(wit: &Wit, of_wit: &Type) {
        let TypeDefKind::Result(result) = wit.kind(of_wit, None) else {
            panic!("{of_wit:?} is a result");
        };
        let samples = [AbiResult::Ok(T::sample()), AbiResult::Err(E::sample())];
        let cases = samples.each_ref().map(|sample| match sample {
            AbiResult::Ok(value) => AbiCase {
                name: "ok".to_owned(),
                tag: tag!(sample),
                payload: result.ok.map(|_| offset_in(sample, value)),
            },
            AbiResult::Err(error) => AbiCase {
                name: "err".to_owned(),
                tag: tag!(sample),
                payload: result.err.map(|_| offset_in(sample, error)),
            },
        });
        wit.compare_cases("result", &[("ok", result.ok), ("err", result.err)], &cases);
        T::compare(wit, result.ok.as_ref());
        E::compare(wit, result.err.as_ref());
    }
}

impl AbiType for OwnedHandle {
    fn sample() -> OwnedHandle {
        OwnedHandle(0)
    }

    fn compare(wit: &Wit, of_wit: &Type) {
        let kind = wit.kind(of_wit, None);
        assert!(matches!(kind, TypeDefKind::Handle(Handle::Own(_))));
    }
}

primitive! {
    bool => Type::Bool, false;
    u8 => Type::U8, 0;
    u16 => Type::U16, 0;
    u32 => Type::U32, 0;
    AbiString => Type::String, AbiString(AbiList::new(0, 0));
}

enumeration!(Role, "role", { User, Assistant });
enumeration!(Provider, "provider", { Redis, InMemory });
enumeration!(TtlPolicy, "ttl-policy", { Sliding, Fixed, None });
enumeration!(Delivery, "delivery", { ExactlyOnce, AtMostOnce });
enumeration!(Connect, "connect", { AtOpen, AtFirstOperation, WithFirstOperation });

record!(MessageRecord, "message", { role, content, timestamp, metadata, id });
record!(NewMessageRecord, "new-message", { role, content, metadata });
record!(HistoryRecord, "history", { messages, total, skipped, ttl_seconds });
record!(OperationRecord, "operation", { session_id, action });
record!(ServerErrorRecord, "server-error", { code, message });
record!(OptionsRecord, "options", {
    provider,
    host,
    port,
    username,
    password,
    db,
    session_ttl,
    ttl_policy,
    delivery,
    key_prefix,
    connect_timeout,
    connect,
    operation_timeout,
    response_timeout,
    max_idle,
    max_messages,
    max_message_bytes,
    max_reply_bytes,
});

variant!(ActionVariant, "action", {
    Add(NewMessageRecord),
    AddAll(AbiList<NewMessageRecord>),
    Get(AbiOption<u32>),
    History(AbiOption<u32>),
    Clear,
    Exists,
    Count,
});
variant!(OutcomeVariant, "outcome", {
    Length(u32),
    Messages(AbiList<MessageRecord>),
    History(HistoryRecord),
    Cleared,
    Exists(bool),
});
variant!(ErrorVariant, "error", {
    InvalidArgument(AbiString),
    Unavailable(AbiString),
    Timeout(AbiString),
    OutcomeUnknown(AbiString),
    AccessDenied(AbiString),
    WrongType(AbiString),
    LimitExceeded(AbiString),
    Protocol(AbiString),
    Server(ServerErrorRecord),
    Other(AbiString),
});
variant!(StreamErrorVariant, "stream-error", {
    LastOperationFailed(OwnedHandle),
    Closed,
});

/// Compares the parameters of a function, without the client, and its result.
macro_rules! compare_function {
    ($wit:expr, $function:expr, ($($parameter:ty),*) -> $result:ty) => {{
        let function: &Function = $function;
        let client = usize::from(function.name.starts_with("[method]"));
        let types = function.params.iter().skip(client);
        let types: Vec<Type> = types.map(|parameter| parameter.ty).collect();
        let compare: &[fn(&Wit, Option<&Type>)] = &[$(<$parameter as Payload>::compare),*];
        assert_eq!(compare.len(), types.len(), "parameters of {}", function.name);
        for (compare, of_wit) in compare.iter().zip(&types) {
            compare($wit, Some(of_wit));
        }
        <$result as Payload>::compare($wit, function.result.as_ref());
    }};
}

#[test]
fn the_exported_functions_have_the_types_of_wit() {
    let wit = &Wit::read();
    for function in wit.functions() {
        let name = function.name.rsplit('.').next();
        match name.unwrap_or_default() {
            "open" => compare_function!(wit, function, (OptionsRecord) -> OpenResult),
            "add" => compare_function!(
                wit,
                function,
                (AbiString, Role, AbiString, AbiOption<AbiString>) -> AddResult
            ),
            "add-all" => compare_function!(
                wit,
                function,
                (AbiString, AbiList<NewMessageRecord>) -> AddResult
            ),
            "get" => compare_function!(wit, function, (AbiString, AbiOption<u32>) -> GetResult),
            "history" => {
                compare_function!(wit, function, (AbiString, AbiOption<u32>) -> HistoryResult);
            }
            "clear" => compare_function!(wit, function, (AbiString) -> ClearResult),
            "exists" => compare_function!(wit, function, (AbiString) -> ExistsResult),
            "count" => compare_function!(wit, function, (AbiString) -> CountResult),
            "pipeline" => compare_function!(
                wit,
                function,
                (AbiList<OperationRecord>) -> PipelineResult
            ),
            name => panic!("{name} is not exported"),
        }
    }
}

#[test]
fn the_import_that_is_called_by_hand_has_the_types_of_wit() {
    let wit = &Wit::read();
    let streams = wit.interface("wasi:io", "streams");
    let read = &streams.functions["[method]input-stream.read"];
    // The binding passes the number of bytes as a parameter, not in memory.
    assert_eq!(read.params[1].ty, Type::U64);
    <ReadResult as Payload>::compare(wit, read.result.as_ref());
}
