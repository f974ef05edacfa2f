//! Installs what a machine needs in addition to rustup's cargo and a C compiler.

use std::path::Path;
use std::process::{Command, Stdio};

use session_memory_component_build::TARGET;
use session_memory_test_support::{INSTALL_HINT, program};

use crate::{Result, command, instructions, run, step};

/// Installs the component's target if it is missing.
pub fn target() -> Result {
    let output = command("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|error| format!("rustc: {error}"))?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && Path::new(&folder).is_dir() {
        return Ok(());
    }
    step(&format!("installing the Rust target {TARGET}"));
    run(command("rustup").args(["target", "add", TARGET]))
        .map_err(|error| format!("{error}; install the target with `rustup target add {TARGET}`"))
}

/// Installs rustfmt and clippy if they are missing.
pub fn checkers() -> Result {
    for (command, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !has_cargo(command) {
            step(&format!("installing {component}"));
            run(crate::command("rustup").args(["component", "add", component]))?;
        }
    }
    Ok(())
}

/// Installs a Redis server if the machine has none.
pub fn redis() -> Result {
    if program().is_some() {
        return Ok(());
    }
    apt_get("redis-server").map_err(|error| format!("{error}; {}", INSTALL_HINT))?;
    match program() {
        Some(_) => Ok(()),
        None => Err(INSTALL_HINT.to_owned()),
    }
}

/// Installs Valgrind if it is missing. Without it, no instructions are counted.
pub fn valgrind() {
    if !instructions::can_count()
        && let Err(error) = apt_get("valgrind")
    {
        let hint = instructions::INSTALL_HINT;
        step(&format!("no instructions are counted: {error}; {hint}"));
    }
}

/// Installs a Debian package.
fn apt_get(package: &str) -> Result {
    let Some(prefix) = privileged().filter(|_| is_there("apt-get")) else {
        return Err(format!(
            "{package} is missing, and cannot be installed here"
        ));
    };
    step(&format!("installing {package} with apt-get"));
    let apt_get = |arguments: &[&str]| {
        let words = [
            prefix,
            &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"],
            arguments,
        ];
        let words = words.concat();
        run(command(words[0]).args(&words[1..]).stdin(Stdio::null()))
    };
    // Updates the package index first. If only the update fails, the installation may still
    // work.
    let _ = apt_get(&["update"]);
    apt_get(&["install", "--yes", "--no-install-recommends", package])
}

/// Whether cargo has this subcommand.
pub fn has_cargo(command: &str) -> bool {
    succeeds("cargo", &[command, "--version"])
}

/// The prefix of a command that must run as root. `None` if there is no way.
fn privileged() -> Option<&'static [&'static str]> {
    let output = Command::new("id").arg("-u").output().ok()?;
    if output.stdout.trim_ascii() == b"0" {
        return Some(&[]);
    }
    succeeds("sudo", &["-n", "true"]).then_some(&["sudo", "-n"])
}

fn is_there(program: &str) -> bool {
    succeeds(program, &["--version"])
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
