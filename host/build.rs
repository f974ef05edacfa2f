//! Builds the component that the library embeds.

use session_memory_component_build::{PACKAGE, for_build_script};

fn main() -> Result<(), String> {
    for_build_script(PACKAGE, "component")
}
