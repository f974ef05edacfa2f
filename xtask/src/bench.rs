//! The benchmark: what it needs beside what is built for everyone, and its run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use session_memory_test_support::Server;

use crate::{Result, cargo, checkout, command, release_dir, run, setup, shown, step, target_dir};

/// Runs it. A quick run shows that it works, with what is built for everything else,
/// and leaves what it writes below the target folder.
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
        // Compiled components; those of the person who runs this stay as they are.
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

/// Builds what is measured as it would be shipped; returns where it is.
fn shipped() -> Result<PathBuf> {
    const PROFILE: &str = "shipped";
    step("building what is measured; the first time this takes some ten minutes");
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

/// Builds the program that takes part for fred; none if its crates are not here and
/// cannot be fetched.
fn fred(folder: &Path) -> Result<Option<PathBuf>> {
    let manifest = checkout().join("bench/fred/Cargo.toml");
    let cargo = |verb: &str| {
        let mut cargo = command("cargo");
        cargo
            .args([verb, "--locked", "--manifest-path"])
            .arg(&manifest);
        cargo
    };
    step("building the program for fred; the first time this takes a minute");
    if run(&mut cargo("fetch")).is_err() {
        step("its crates cannot be fetched: the benchmark is without fred");
        return Ok(None);
    }
    let target_dir = folder.join("fred");
    run(cargo("build")
        .args(["--release", "--target-dir"])
        .arg(&target_dir))?;
    Ok(Some(target_dir.join("release/session-memory-bench-fred")))
}

/// The Python of a virtual environment with its clients; none, with a message, if
/// there is no Python or they cannot be installed. A quick run takes what is there.
fn python(folder: &Path, quick: bool) -> Option<PathBuf> {
    let requirements = checkout().join("bench/python/requirements.txt");
    let python = folder.join("bin/python");
    // A copy of the requirements says that they were installed.
    let installed = folder.join("requirements.txt");
    let wanted = fs::read(&requirements).ok()?;
    if fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Some(python);
    }
    if quick {
        step("no Python is set up for the benchmark, which a run without --quick does");
        return None;
    }
    step("installing Python's clients");
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
                "the benchmark is without Python's clients: {error}"
            ));
            None
        }
    }
}
