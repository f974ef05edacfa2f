//! The one way components are built: the one that is the product, and the one that
//! tests the host.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target of the component.
pub const TARGET: &str = "wasm32-wasip2";

/// The package that holds the component.
pub const PACKAGE: &str = "session-memory";

/// The package of the component that misbehaves for the tests of the host.
pub const GUEST: &str = "session-memory-test-guest";

/// The name of the file that [`for_build_script`] leaves for a package.
fn file_name(package: &str) -> String {
    package.replace('-', "_") + ".wasm"
}

/// Builds a component for the package whose build script calls this. Leaves it in
/// `OUT_DIR`, under the name of its package with underscores and `.wasm`.
///
/// `sources` is the folder of the component's sources, relative to the checkout. The
/// package of the build script lies directly below the checkout. Cargo runs the script
/// again when anything changes that the component is built from.
///
/// # Errors
///
/// One line that says what failed, for the person who builds.
pub fn for_build_script(package: &str, sources: &str) -> Result<(), String> {
    let folder = |name| match env::var_os(name) {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => Err(format!("{name} is not set, as it is for build scripts")),
    };
    for input in [
        sources,
        "component/build",
        "wit",
        "Cargo.lock",
        "Cargo.toml",
        "rust-toolchain.toml",
    ] {
        println!("cargo:rerun-if-changed=../{input}");
    }
    let caller = folder("CARGO_MANIFEST_DIR")?;
    let checkout = caller
        .parent()
        .ok_or("the package has no folder above it")?;
    let out = folder("OUT_DIR")?;
    // `<target>/<profile>/build/...`
    let target_dir = out
        .ancestors()
        .find(|folder| folder.ends_with("build"))
        .and_then(|build| build.ancestors().nth(2))
        .ok_or_else(|| format!("OUT_DIR is in no target folder: {}", out.display()))?;
    let component = build(package, checkout, target_dir)?;
    let file = out.join(file_name(package));
    fs::write(&file, component).map_err(|error| format!("{}: {error}", file.display()))
}

/// Builds the component of a package in the given checkout and returns its bytes.
///
/// `target_dir` is the target folder of the checkout. All components are built in a folder
/// of their own below it, whoever asks for them: the second one who asks finds them there.
///
/// The bytes depend on the sources and the toolchain, and not on the folders that
/// they are in: panic messages would hold the path of the registry otherwise.
///
/// # Errors
///
/// One line that says what to do, when cargo fails.
pub fn build(package: &str, checkout: &Path, target_dir: &Path) -> Result<Vec<u8>, String> {
    // The cargo that runs a build script holds the lock of its own folder.
    let target_dir = target_dir.join("component-build");
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
        .arg(&target_dir)
        .env("CARGO_BUILD_BUILD_DIR", &target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(checkout))
        .status()
        .map_err(|error| format!("cargo cannot be run: {error}"))?;
    if !status.success() {
        return Err(format!(
            "{package} was not built; `cargo xtask build` installs what it needs, \
             or `rustup target add {TARGET}`"
        ));
    }
    let built = target_dir
        .join(TARGET)
        .join(PROFILE)
        .join(file_name(package));
    match fs::read(&built) {
        Ok(component) => Ok(without_names(&component)),
        Err(error) => Err(format!("{}: {error}", built.display())),
    }
}

/// A component without the section that names its parts for debuggers, which the
/// linker writes and the compiler's `strip` does not reach.
fn without_names(component: &[u8]) -> Vec<u8> {
    // A section is a byte that says of what kind it is, its length in LEB128, and its
    // contents; those of a custom one (0) begin with the length of its name, and it.
    const CUSTOM: u8 = 0;
    const NAME: &[u8] = b"\x0ecomponent-name";
    let (header, mut rest) = component.split_at(component.len().min(8));
    let mut kept = header.to_vec();
    while let Some((&kind, after)) = rest.split_first() {
        let digits = after.iter().take_while(|byte| **byte >= 0x80).count() + 1;
        let length = after
            .iter()
            .take(digits)
            .rev()
            .fold(0_usize, |length, byte| {
                length << 7 | usize::from(byte & 0x7f)
            });
        let end = rest.len().min(1 + digits + length);
        let (section, next) = rest.split_at(end);
        if kind != CUSTOM || !section[section.len().min(1 + digits)..].starts_with(NAME) {
            kept.extend_from_slice(section);
        }
        rest = next;
    }
    kept
}

/// In the workspace's Cargo.toml.
const PROFILE: &str = "component";

/// Compiler flags. Nothing loads a component at another address, so addresses are
/// constants; the stack is a quarter of the usual megabyte, since nothing recurses
/// deeper than serde_json's 128 levels; memory begins with as much as operations on
/// short sessions take, since growing takes long; the sources have paths that are the
/// same everywhere. Functions are inlined and loops unrolled less than usual, which takes
/// a tenth off the size and next to nothing off the speed; these are options of LLVM, not
/// of the compiler, known to the one in `rust-toolchain.toml`.
fn flags(checkout: &Path) -> OsString {
    let mut flags = OsString::from(
        "-Crelocation-model=static\u{1f}-Clink-arg=-zstack-size=262144\u{1f}\
         -Clink-arg=--initial-memory=524288\u{1f}-Cllvm-args=-inline-threshold=95 -unroll-runtime=0",
    );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_left_out_and_nothing_else_is() {
        const HEADER: &[u8] = b"\0asm\x0d\0\x01\0";
        let names = b"\0\x92\x00\x0ecomponent-name\x01\x02\x03";
        let other = b"\0\x08\x04kindabc";
        let module = [&b"\x01\x80\x02"[..], &[0; 256]].concat();
        let component = [HEADER, &module, names, other].concat();
        let expected = [HEADER, &module, &other[..]].concat();
        assert_eq!(without_names(&component), expected);
        assert_eq!(without_names(&expected), expected);
        assert_eq!(without_names(b"\0a"), b"\0a");
    }
}
