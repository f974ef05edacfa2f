//! Counts the instructions of an operation with Valgrind. Unlike times, they are
//! the same on every machine of a kind, whatever else it does. `cargo xtask bench --against`
//! compiles this file too.
//!
//! Counted are the instructions of all threads of the driver's process, outside the kernel.
//! Two processes run the operation a different number of times. The difference does not
//! include the start of a process.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The operations of the driver that are counted. The first number is how often the first
/// process runs the operation, to be warm. The second number is how many more times the
/// second process runs it. Operations of many callers are omitted: chance decides which of
/// their calls are sent together.
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

/// Tells a person how to install Valgrind.
pub const INSTALL_HINT: &str = "install the package valgrind";

/// Whether Valgrind is on PATH.
pub fn can_count() -> bool {
    Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Returns the instructions of one operation, run by a driver against the server at this
/// port. `None` if the driver does not know the operation.
///
/// # Errors
///
/// Fails when Valgrind or the driver fails.
pub fn count(
    driver: &Path,
    port: u16,
    (operation, few, more): (&str, u32, u32),
) -> Result<Option<f64>, String> {
    // The smaller of two counts: a timeout or a retry on a busy machine only adds to it.
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

/// Returns the instructions of a whole process that runs an operation `times` times.
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
    // The driver ends when its standard input does.
    if let Some(mut requests) = process.stdin.take() {
        writeln!(requests, "{operation} {times}").map_err(|error| failed(error.to_string()))?;
    }
    let output = process
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    if output.stdout.trim_ascii() == b"unknown" {
        return Ok(None);
    }
    let printed = String::from_utf8_lossy(&output.stderr);
    match collected(&printed) {
        Some(instructions) if output.status.success() => Ok(Some(instructions)),
        _ => Err(failed(printed.into_owned())),
    }
}

/// Returns the total that Callgrind prints at its end.
fn collected(printed: &str) -> Option<f64> {
    let (_, total) = printed.split_once("Collected : ")?;
    total.lines().next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found() {
        let printed = "==7== Events    : Ir\n==7== Collected : 184414619\n==7== \n";
        assert_eq!(collected(printed), Some(184_414_619.0));
        assert_eq!(collected("==7== \n"), None);
    }
}
