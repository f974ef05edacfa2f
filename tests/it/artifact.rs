//! The component's imports, exports and size, and that it contains no path. `cargo xtask
//! test` checks that it has the same bytes from another folder.

use std::path::Path;

use session_memory_host::COMPONENT;
use wasmtime::Engine;
use wasmtime::component::Component;

#[test]
fn it_imports_what_it_uses_and_nothing_else() {
    let engine = Engine::default();
    let component = Component::new(&engine, COMPONENT).unwrap();
    let component = component.component_type();
    let mut imports: Vec<&str> = component.imports(&engine).map(|(name, _)| name).collect();
    imports.sort_unstable();
    assert_eq!(
        imports,
        [
            "wasi:cli/environment@0.2.6",
            "wasi:clocks/monotonic-clock@0.2.6",
            "wasi:clocks/wall-clock@0.2.6",
            "wasi:io/error@0.2.6",
            "wasi:io/poll@0.2.6",
            "wasi:io/streams@0.2.6",
            "wasi:random/random@0.2.6",
            "wasi:sockets/instance-network@0.2.6",
            "wasi:sockets/ip-name-lookup@0.2.6",
            "wasi:sockets/network@0.2.6",
            "wasi:sockets/tcp-create-socket@0.2.6",
            "wasi:sockets/tcp@0.2.6",
        ]
    );
    let exports: Vec<&str> = component.exports(&engine).map(|(name, _)| name).collect();
    assert_eq!(
        exports,
        [
            "edge:session-memory/types@0.1.0",
            "edge:session-memory/memory@0.1.0"
        ]
    );
}

#[test]
fn it_is_small() {
    assert!(COMPONENT.len() <= 200_000, "{} bytes", COMPONENT.len());
}

#[test]
fn it_names_no_folder_of_the_machine_that_built_it() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let home = std::env::home_dir().unwrap();
    for folder in [checkout, home.as_path()] {
        let folder = folder.to_str().unwrap().as_bytes();
        assert!(folder.len() > 3 && !COMPONENT.windows(folder.len()).any(|part| part == folder));
    }
}
