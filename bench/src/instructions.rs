//! Instructions of an operation, counted by Valgrind: the same on every machine of a kind
//! and whatever else it does, unlike times. `cargo xtask bench --against` compiles this
//! file too.
//!
//! They are those of the driver's process outside of the kernel, all threads. Two processes
//! run the operation, one more often than the other; the difference is free of what a
//! process takes to start.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The operations of the driver that are counted. With each, how often one process runs it
/// so that nothing is new to it any more, and how much more often the other one does. Many
/// callers are left out: how their calls go together is chance.
pub const OPERATIONS: [(&str, u32, u32); 9] = [
    ("add", 100, 400),
    ("add-at-most-once", 100, 400),
    ("get-10", 100, 200),
    ("get-1000", 5, 10),
    ("get-10000", 2, 3),
    ("history-10", 100, 200),
    ("turn", 100, 200),
    ("exists", 100, 400),
    ("fresh", 20, 80),
];

/// What Valgrind is to be installed from.
pub const INSTALL_HINT: &str = "install valgrind: the package has that name everywhere";

/// Whether there is a Valgrind on PATH.
pub fn can_count() -> bool {
    Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Instructions of one operation, run by a driver against the server at this port. None if
/// the driver does not know the operation.
///
/// # Errors
///
/// A line that says what went wrong.
pub fn count(
    driver: &Path,
    port: u16,
    (operation, few, more): (&str, u32, u32),
) -> Result<Option<f64>, String> {
    // What goes wrong on a busy machine, such as a timeout and a retry, only adds.
    let least = |times| -> Result<Option<f64>, String> {
        let totals = [(); 2].map(|()| total(driver, port, operation, times));
        let [one, other] = totals;
        Ok(one?.zip(other?).map(|(one, other)| one.min(other)))
    };
    match (least(few)?, least(few + more)?) {
        (Some(few_take), Some(many_take)) => Ok(Some((many_take - few_take) / f64::from(more))),
        _ => Ok(None),
    }
}

/// Instructions of a whole process that runs an operation so often.
fn total(driver: &Path, port: u16, operation: &str, times: u32) -> Result<Option<f64>, String> {
    let failed = |error: String| format!("valgrind of {operation}: {error}");
    let mut process = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(driver)
        .arg(port.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    // It ends when its standard input does.
    if let Some(mut orders) = process.stdin.take() {
        writeln!(orders, "{operation} {times}").map_err(|error| failed(error.to_string()))?;
    }
    let output = process
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    if output.stdout.trim_ascii() == b"unknown" {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    match collected(&said) {
        Some(instructions) if output.status.success() => Ok(Some(instructions)),
        _ => Err(failed(said.into_owned())),
    }
}

/// The total among what Callgrind says at its end.
fn collected(said: &str) -> Option<f64> {
    let (_, total) = said.split_once("Collected : ")?;
    total.lines().next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found() {
        let said = "==7== Events    : Ir\n==7== Collected : 184414619\n==7== \n";
        assert_eq!(collected(said), Some(184_414_619.0));
        assert_eq!(collected("==7== \n"), None);
    }
}
