//! `cargo xtask`: set-up, build, demo, test, soak test and benchmark of Session Memory.

mod against;
// Modules with a path are compiled from the benchmark's sources, because xtask does not
// depend on it.
#[path = "../../bench/src/awake.rs"]
mod awake;
mod bench;
mod demo;
#[path = "../../bench/src/instructions.rs"]
mod instructions;
#[path = "../../bench/src/pinned.rs"]
mod pinned;
mod reproducible;
mod setup;
#[path = "../../bench/src/stats.rs"]
mod stats;

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use session_memory_component_build::{GUEST, PACKAGE, TARGET};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

const USAGE: &str = "\
usage: cargo xtask <command>

  build  set up, then build the component and the command
  demo   set up, build, then play a conversation through the component
  test   set up, then check format and lints, run all tests, build the docs
  soak SECONDS
         set up, then load a server with ten faults a second for this long; the tests
         do it for five seconds
  bench  set up, build, then compare with other Redis clients, which takes some
         twelve minutes; --quick takes a minute and only shows that it works
  bench --against REV [ROWS]
         set up, build this version and another one, then alternate between them for at
         most eight minutes; with ROWS only the rows whose names begin with it";

/// The error is one line for the person who ran the command.
type Result<T = ()> = std::result::Result<T, String>;

fn main() -> ExitCode {
    // Ctrl-C ends child processes. xtask then cleans up and exits.
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&INTERRUPTED)) {
            eprintln!("xtask: {error}");
            return ExitCode::FAILURE;
        }
    }
    let mut arguments = env::args().skip(1);
    let command = arguments.next();
    let argument = arguments.next();
    let result = match (command.as_deref(), argument.as_deref(), arguments.next()) {
        (Some("build"), None, None) => build(),
        (Some("demo"), None, None) => build().and_then(|()| demo::run(&cli()?)),
        (Some("test"), None, None) => test(),
        (Some("soak"), seconds, None) => match soak_time(seconds) {
            Ok(seconds) => soak(seconds),
            Err(error) => {
                eprintln!("xtask: {error}\n\n{USAGE}");
                return ExitCode::from(2);
            }
        },
        (Some("bench"), None, None) => setup::target().and_then(|()| bench::measure(false)),
        (Some("bench"), Some("--quick"), None) => build().and_then(|()| bench::measure(true)),
        (Some("bench"), Some("--against"), Some(revision)) => {
            let only = arguments.next().unwrap_or_default();
            setup::target().and_then(|()| against::compare(&revision, &only))
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupted() => {
            eprintln!("xtask: interrupted");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds the component and the command, and leaves them in the target folder.
fn build() -> Result {
    setup::target()?;
    step("building the component");
    let built = session_memory_component_build::build(PACKAGE, &checkout(), &target_dir()?)?;
    let component = component_file()?;
    let folder = component.parent().map_or(Ok(()), fs::create_dir_all);
    folder
        .and_then(|()| fs::write(&component, built))
        .map_err(|error| format!("{}: {error}", component.display()))?;
    step("building the host; the first time this takes some minutes");
    cargo(&["build", "--release", "--workspace"])?;
    for built in [&component, &cli()?] {
        let size = fs::metadata(built).map_err(|error| format!("{}: {error}", built.display()))?;
        step(&format!(
            "built {} ({} KiB)",
            shown(built),
            size.len().div_ceil(1024)
        ));
    }
    Ok(())
}

fn test() -> Result {
    setup::target()?;
    setup::checkers()?;
    setup::redis()?;
    step("checking the format");
    cargo(&["fmt", "--all", "--check"])?;
    step("checking for lints; the first time this takes some minutes");
    cargo(&[
        "clippy",
        "--release",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])?;
    step("checking the component and the tests' guest for lints");
    let component = [
        "--package",
        PACKAGE,
        "--package",
        GUEST,
        "--lib",
        "--target",
        TARGET,
    ];
    cargo(
        &[
            &["clippy", "--release"],
            &component[..],
            &["--", "-D", "warnings"],
        ]
        .concat(),
    )?;
    if setup::has_cargo("deny") {
        step("checking the dependencies, but for advisories, which need a network");
        cargo(&["deny", "check", "bans", "licenses", "sources"])?;
    }
    step("running the tests; the first time this takes some minutes to build");
    cargo(&["test", "--release", "--workspace"])?;
    build()?;
    reproducible::check()?;
    bench::measure(true)?;
    step("building the docs");
    env_cargo(
        &["doc", "--release", "--workspace", "--no-deps"],
        "RUSTDOCFLAGS",
        "-D warnings",
    )?;
    step("all checks and tests have passed");
    Ok(())
}

/// Parses the number of seconds to soak.
fn soak_time(argument: Option<&str>) -> Result<NonZero<u32>> {
    let allowed = "allowed is a whole number of seconds, at least 1";
    let seconds = argument.ok_or_else(|| format!("soak: SECONDS is missing, {allowed}"))?;
    seconds
        .parse()
        .map_err(|_| format!("soak: SECONDS is {seconds:?}, {allowed}"))
}

fn soak(seconds: NonZero<u32>) -> Result {
    setup::target()?;
    setup::redis()?;
    step(&format!(
        "soaking for {seconds} s; the first time this takes some minutes to build"
    ));
    // The whole workspace, so that the build of the tests is reused.
    env_cargo(
        &[
            "test",
            "--release",
            "--workspace",
            "--test",
            "it",
            "soak::",
            "--",
            "--nocapture",
        ],
        "SOAK_SECONDS",
        &seconds.to_string(),
    )
}

/// Prints the next step.
fn step(what: &str) {
    eprintln!("==> {what}");
}

fn cargo(arguments: &[&str]) -> Result {
    run(command("cargo").args(arguments))
}

fn env_cargo(arguments: &[&str], variable: &str, value: &str) -> Result {
    run(command("cargo").args(arguments).env(variable, value))
}

fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(checkout());
    command
}

/// Runs a program to its end and shows its output.
fn run(command: &mut Command) -> Result {
    let program = command.get_program().to_string_lossy().into_owned();
    let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let shown = format!("{program} {}", arguments.join(" "));
    let status = command
        .status()
        .map_err(|error| format!("{program}: {error}"))?;
    if interrupted() || !status.success() {
        return Err(format!("`{shown}` failed"));
    }
    Ok(())
}

fn checkout() -> PathBuf {
    // xtask runs on the machine that built it.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
        .to_owned()
}

/// The folder of this program: `<target>/release`.
fn release_dir() -> Result<PathBuf> {
    let program = env::current_exe().map_err(|error| format!("own path: {error}"))?;
    let folder = program.parent().ok_or("own path has no folder")?;
    Ok(folder.to_owned())
}

fn target_dir() -> Result<PathBuf> {
    let release_dir = release_dir()?;
    Ok(release_dir
        .parent()
        .ok_or("own folder has no folder above")?
        .to_owned())
}

/// The file in which [`build`] leaves the component.
fn component_file() -> Result<PathBuf> {
    let folder = target_dir()?.join(TARGET).join("release");
    Ok(folder.join("session_memory.wasm"))
}

/// The file in which [`build`] leaves the command.
fn cli() -> Result<PathBuf> {
    Ok(release_dir()?.join("session-memory"))
}

/// A path relative to the checkout, if it lies there.
fn shown(path: &Path) -> String {
    path.strip_prefix(checkout())
        .unwrap_or(path)
        .display()
        .to_string()
}

fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_soak_is_a_number_of_seconds() {
        assert_eq!(soak_time(Some("60")), Ok(NonZero::new(60).unwrap()));
        for (argument, expected) in [
            (None, "SECONDS is missing, "),
            (Some(""), r#"SECONDS is "", "#),
            (Some("0"), r#"SECONDS is "0", "#),
            (Some("-1"), r#"SECONDS is "-1", "#),
            (Some("1m"), r#"SECONDS is "1m", "#),
        ] {
            let error = soak_time(argument).unwrap_err();
            let allowed = "allowed is a whole number of seconds, at least 1";
            assert_eq!(error, format!("soak: {expected}{allowed}"));
        }
    }
}
