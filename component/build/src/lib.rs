//! Builds the components of this workspace: Session Memory, and the guest that tests the
//! host. Build scripts and xtask both use it, so that each component is built in one way
//! and one place.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target of the component.
pub const TARGET: &str = "wasm32-wasip2";

/// The package that holds the component.
pub const PACKAGE: &str = "session-memory";

/// The package of the component that misbehaves for the host's tests.
pub const GUEST: &str = "session-memory-test-guest";

/// The file name of a package's component.
fn file_name(package: &str) -> String {
    package.replace('-', "_") + ".wasm"
}

/// Builds a component for the package whose build script calls this. Leaves it in
/// `OUT_DIR`, named after its package, with underscores and `.wasm`.
///
/// `sources` is the folder of the component's sources, relative to the checkout. The
/// calling package must lie directly below the checkout. Cargo runs the script again when
/// anything changes that the component is built from.
///
/// # Errors
///
/// Returns one line for the person who builds.
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

/// Builds the component of a package in a checkout and returns its bytes.
///
/// `target_dir` is the target folder of the checkout. All components are built in one
/// folder below it, so that a later caller finds a component up to date.
///
/// The bytes depend on the sources and the toolchain, but not on their folders: the paths
/// in panic messages are remapped.
///
/// # Errors
///
/// Returns one line that says what to do, when cargo fails.
pub fn build(package: &str, checkout: &Path, target_dir: &Path) -> Result<Vec<u8>, String> {
    // A separate folder, because the cargo that runs a build script holds the lock of its
    // own.
    let target_dir = target_dir.join("component-build");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // An outer cargo or clippy sets these for its own target.
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
        .args(["build", "--locked", "--package", package, "--lib"])
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

/// Removes the section that names a component's parts for debuggers. The linker writes
/// it, and the compiler's `strip` does not remove it.
fn without_names(component: &[u8]) -> Vec<u8> {
    // A section is a byte for its kind, its length in LEB128, and its contents. The
    // contents of a custom section (0) begin with the length of its name, and the name.
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

/// The profile in the workspace's Cargo.toml.
const PROFILE: &str = "component";

/// Compiler flags:
///
/// - Addresses are constants, because nothing loads a component at another address.
/// - The stack is a quarter of the usual megabyte, because nothing recurses deeper than
///   serde_json's 128 levels.
/// - Memory begins with what operations on short sessions need, because growing is slow.
/// - Source paths are the same everywhere.
/// - Inlining and unrolling are reduced. That saves a tenth of the size and costs next to
///   no speed. These are options of LLVM, known to the compiler in `rust-toolchain.toml`.
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
    // The compiler uses the last one that matches.
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
