//! Checks that the component has the same bytes wherever it is built.

use std::fs;
use std::io;
use std::path::Path;

use session_memory_component_build::{PACKAGE, build};

use crate::{Result, checkout, cli, component_file, step};

/// Builds the component from a copy of the sources in another folder. Compares it with
/// the component that [`crate::build`] has left, and with the one embedded in the
/// command.
pub fn check() -> Result {
    step("building the component in another folder");
    let read = |file: &Path| fs::read(file).map_err(|error| format!("{}: {error}", file.display()));
    let component = read(&component_file()?)?;
    let other = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let folder = other.path().join("checkout");
    copy(&checkout(), &folder).map_err(|error| format!("copying the sources: {error}"))?;
    if build(PACKAGE, &folder, &folder.join("target"))? != component {
        return Err("the component is built from another folder: the bytes differ".to_owned());
    }
    let command = read(&cli()?)?;
    if !command
        .windows(component.len())
        .any(|part| part == component)
    {
        return Err("the command embeds a component whose bytes differ".to_owned());
    }
    Ok(())
}

/// Copies a folder, except for hidden files and cargo's target folders.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "target" || name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let (from, to) = (entry.path(), to.join(&name));
        if entry.file_type()?.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}
