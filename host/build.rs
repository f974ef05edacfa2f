//! Builds the component that the library embeds.

use std::path::Path;
use std::{env, fs};

use session_memory_component_build::PACKAGE;

fn main() -> Result<(), String> {
    let folder = |name| env::var(name).map_err(|error| format!("{name}: {error}"));
    let checkout = folder("CARGO_MANIFEST_DIR")?;
    let checkout = Path::new(&checkout)
        .parent()
        .ok_or("the host has no folder above it")?;
    let out = folder("OUT_DIR")?;
    let out = Path::new(&out);
    for input in [
        "Cargo.lock",
        "Cargo.toml",
        "component",
        "rust-toolchain.toml",
        "wit",
    ] {
        println!("cargo:rerun-if-changed={}", checkout.join(input).display());
    }
    let component = session_memory_component_build::build(PACKAGE, checkout, &out.join("target"))?;
    fs::copy(&component, out.join("session_memory.wasm"))
        .map_err(|error| format!("{}: {error}", component.display()))?;
    Ok(())
}
