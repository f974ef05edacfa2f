//! The generated bindings of the imports. The exports are in `abi`.

#![allow(unsafe_code, reason = "generated code")]
#![allow(missing_docs, reason = "wit/ documents the contract")]

wit_bindgen::generate!({
    world: "provider",
    path: "../wit",
    generate_all,
});
