//! The one way components are built: the one that is the product, and the one that
//! tests the host.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target of the component.
pub const TARGET: &str = "wasm32-wasip2";

/// The package that holds the component.
pub const PACKAGE: &str = "session-memory";

/// The package of the component that misbehaves for the tests of the host.
pub const GUEST: &str = "session-memory-test-guest";

/// Builds the component of a package in the given checkout and answers where it
/// lies below `target_dir`.
///
/// The bytes depend on the sources and the toolchain, and not on the folders that
/// they are in: panic messages would hold the path of the registry otherwise.
///
/// # Errors
///
/// One line that says what to do, when cargo fails.
pub fn build(package: &str, checkout: &Path, target_dir: &Path) -> Result<PathBuf, String> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What an outer cargo or clippy set for its own target would change this build.
    for variable in [
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_TARGET",
    ] {
        command.env_remove(variable);
    }
    let status = command
        .current_dir(checkout)
        .args(["rustc", "--locked", "--package", package, "--lib"])
        // As a library for others as well, it would keep what only they could use,
        // all that formats panic messages included.
        .args(["--crate-type", "cdylib"])
        .args(["--profile", PROFILE, "--target", TARGET, "--target-dir"])
        .arg(target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(checkout))
        .status()
        .map_err(|error| format!("cargo cannot be run: {error}"))?;
    if !status.success() {
        return Err(format!(
            "{package} was not built; `cargo xtask build` installs what it needs, \
             or `rustup target add {TARGET}`"
        ));
    }
    Ok(target_dir
        .join(TARGET)
        .join(PROFILE)
        .join(package.replace('-', "_") + ".wasm"))
}

/// In the workspace's Cargo.toml.
const PROFILE: &str = "component";

/// Compiler flags. Nothing loads a component at another address, so addresses are
/// constants; and the sources have paths that are the same everywhere.
fn flags(checkout: &Path) -> OsString {
    let mut flags = OsString::from("-Crelocation-model=static");
    let mut remap = |from: &Path, to: &str| {
        flags.push("\u{1f}--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    };
    // Of several that match, the compiler takes the last.
    if let Some(home) = cargo_home() {
        remap(&home.join("registry").join("src"), "registry");
    }
    remap(checkout, ".");
    flags
}

fn cargo_home() -> Option<PathBuf> {
    let home = || Some(env::home_dir()?.join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)
}
