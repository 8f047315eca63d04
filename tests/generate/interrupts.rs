//! Interrupts runs with signals.

use std::fs;
use std::path::Path;

use crate::common::{altdiffusion, obeying_signals};
use test_support::TestResult;

/// Ctrl-C and other signals leave nothing half done, even in the middle of a step.
#[test]
fn an_interrupt_leaves_nothing_behind() -> TestResult {
    for (signal, size) in [("-INT", "64"), ("-TERM", "256"), ("-HUP", "256")] {
        let directory = tempfile::tempdir()?;
        let (code, said) =
            interrupted(directory.path(), "exec \"$@\"", signal, &["--width", size, "--steps", "900"])?;
        assert_eq!(code, Some(130), "{said}");
        assert!(said.starts_with("error: cancelled ") && !said.contains('\n'), "{said}");
        assert_eq!(fs::read_dir(directory.path())?.count(), 0);
    }
    Ok(())
}

/// Signals that the parent ignores stay ignored, as with `nohup`.
#[test]
fn a_signal_that_is_ignored_is_no_interrupt() -> TestResult {
    let directory = tempfile::tempdir()?;
    let (code, said) = interrupted(
        directory.path(),
        "trap '' HUP; exec \"$@\"",
        "-HUP",
        &["--width", "64", "--steps", "9"],
    )?;
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(directory.path().join("out.png").exists());
    Ok(())
}

/// Runs the program in a shell, and sends it a signal once it has started. Returns its exit code and output.
fn interrupted(
    directory: &Path,
    shell: &str,
    signal: &str,
    arguments: &[&str],
) -> TestResult<(Option<i32>, String)> {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let program = altdiffusion(directory);
    let mut command = Command::new("sh");
    command.current_dir(directory).args(["-c", shell, "sh"]).arg(program.get_program());
    command.args(["generate", "a cat", "--scheduler", "ddim", "--verbose"]).args(arguments);
    command.env("RUST_LOG", "altdiffusion=debug");
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = obeying_signals(&mut command).spawn()?;
    let stderr = BufReader::new(child.stderr.take().ok_or("no standard error")?);
    let mut said = None;
    for line in stderr.lines() {
        let line = line?;
        match &mut said {
            Some(said) if !line.contains(" DEBUG ") && !line.contains(" INFO ") => *said += line.as_str(),
            // The options are logged when the work starts.
            None if line.contains("GenerateOptions") => {
                Command::new("kill").args([signal, &child.id().to_string()]).status()?;
                said = Some(String::new());
            }
            _ => {}
        }
    }
    Ok((child.wait()?.code(), said.ok_or("it never began")?))
}
