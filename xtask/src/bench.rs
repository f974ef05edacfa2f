//! `cargo xtask bench`: builds the programs that only the benchmark needs, then runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use session_memory_test_support::Server;

use crate::{Result, cargo, checkout, command, release_dir, run, setup, shown, step, target_dir};

/// Runs the benchmark. A quick run only checks that it works. It uses the programs of the
/// usual build, and writes its report below the target folder.
pub fn measure(quick: bool) -> Result {
    setup::redis()?;
    setup::valgrind();
    let programs = match quick {
        true => release_dir()?,
        false => shipped()?,
    };
    let folder = target_dir()?.join("bench");
    let fred = fred(&folder)?;
    let python = python(&folder.join("venv"), quick);
    step("starting a private Redis");
    let server = Server::start(&[]).map_err(|error| error.to_string())?;
    let output = match quick {
        true => folder.clone(),
        false => checkout().join("bench"),
    };
    let mut bench = command(programs.join("session-memory-bench"));
    bench
        .arg("run")
        .arg(server.address().to_string())
        .arg("--output")
        .arg(&output)
        .arg("--cli")
        .arg(programs.join("session-memory"))
        .arg("--driver")
        .arg(programs.join("session-memory-bench-driver"))
        // The cache for compiled components. The user's own cache stays as it is.
        .env("XDG_CACHE_HOME", folder.join("cache"));
    if quick {
        bench.arg("--quick");
    }
    if let Some(fred) = fred {
        bench.arg("--fred").arg(fred);
    }
    if let Some(python) = python {
        bench.arg("--python").arg(python);
    }
    step("measuring");
    run(&mut bench)?;
    step(&format!("wrote {}", shown(&output.join("report.md"))));
    Ok(())
}

/// Builds the measured programs as they would be shipped. Returns their folder.
fn shipped() -> Result<PathBuf> {
    const PROFILE: &str = "shipped";
    step("building the measured programs; the first time this takes some ten minutes");
    cargo(&[
        "build",
        "--profile",
        PROFILE,
        "--package",
        "session-memory-cli",
        "--package",
        "session-memory-bench",
        "--package",
        "session-memory-bench-driver",
        "--bins",
    ])?;
    Ok(target_dir()?.join(PROFILE))
}

/// Builds the program of bench/fred. Returns `None` if its crates are missing and cannot be
/// fetched.
fn fred(folder: &Path) -> Result<Option<PathBuf>> {
    let manifest = checkout().join("bench/fred/Cargo.toml");
    let cargo = |verb: &str| {
        let mut cargo = command("cargo");
        cargo
            .args([verb, "--locked", "--manifest-path"])
            .arg(&manifest);
        cargo
    };
    step("building the program of fred; the first time this takes a minute");
    if run(&mut cargo("fetch")).is_err() {
        step("the benchmark runs without fred: its crates cannot be fetched");
        return Ok(None);
    }
    let target_dir = folder.join("fred");
    run(cargo("build")
        .args(["--release", "--target-dir"])
        .arg(&target_dir))?;
    Ok(Some(target_dir.join("release/session-memory-bench-fred")))
}

/// Returns the Python of a virtual environment with the Python clients. Prints a message and
/// returns `None` if they cannot be installed. A quick run installs nothing.
fn python(folder: &Path, quick: bool) -> Option<PathBuf> {
    let requirements = checkout().join("bench/python/requirements.txt");
    let python = folder.join("bin/python");
    // A copy of the requirements marks them as installed.
    let installed = folder.join("requirements.txt");
    let wanted = fs::read(&requirements).ok()?;
    if fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Some(python);
    }
    if quick {
        step("the benchmark runs without the Python clients: a run without --quick installs them");
        return None;
    }
    step("installing the Python clients");
    let install = || -> Result {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--requirement"])
            .arg(&requirements)
            .stdin(Stdio::null()))?;
        fs::write(&installed, &wanted).map_err(|error| error.to_string())
    };
    match install() {
        Ok(()) => Some(python),
        Err(error) => {
            step(&format!(
                "the benchmark runs without the Python clients: {error}"
            ));
            None
        }
    }
}
