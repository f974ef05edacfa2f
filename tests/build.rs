//! Builds the component that misbehaves on command, see `guest`.

use session_memory_component_build::{GUEST, for_build_script};

fn main() -> Result<(), String> {
    for_build_script(GUEST, "tests/guest")
}
