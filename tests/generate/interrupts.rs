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
        let (code, printed) =
            interrupted(directory.path(), "exec \"$@\"", signal, &["--width", size, "--steps", "900"])?;
        assert_eq!(code, Some(130), "{printed}");
        assert!(printed.starts_with("error: cancelled ") && !printed.contains('\n'), "{printed}");
        assert_eq!(fs::read_dir(directory.path())?.count(), 0);
    }
    Ok(())
}

/// Signals that the parent ignores stay ignored, as with `nohup`.
#[test]
fn a_signal_that_is_ignored_is_no_interrupt() -> TestResult {
    let directory = tempfile::tempdir()?;
    let (code, printed) = interrupted(
        directory.path(),
        "trap '' HUP; exec \"$@\"",
        "-HUP",
        &["--width", "64", "--steps", "9"],
    )?;
    assert_eq!((code, printed.as_str()), (Some(0), ""));
    assert!(directory.path().join("out.png").exists());
    Ok(())
}

/// Of a result that waits for the reader of a pipe. What a killed process left, the next one that writes there removes.
#[test]
fn temporary_files_do_not_outlive_the_process() -> TestResult {
    use std::process::{Command, Stdio};

    let directory = tempfile::tempdir()?;
    let temporary = directory.path().join("temporary");
    fs::create_dir(&temporary)?;
    assert!(Command::new("mkfifo").arg(directory.path().join("pipe")).status()?.success());
    let files = || -> std::io::Result<usize> { Ok(fs::read_dir(&temporary)?.count()) };
    let encode = |output: &str| {
        let mut command = altdiffusion(directory.path());
        command.args(["encode", "a cat", "--output", output]).env("TMPDIR", &temporary);
        command
    };
    for (signal, expected) in [("-TERM", 0), ("-HUP", 0), ("-INT", 0), ("-KILL", 1)] {
        let mut child = obeying_signals(encode("pipe").stderr(Stdio::null())).spawn()?;
        while files()? == 0 && child.try_wait()?.is_none() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Command::new("kill").args([signal, &child.id().to_string()]).status()?;
        assert_eq!(child.wait()?.code(), (expected == 0).then_some(130), "{signal}");
        assert_eq!(files()?, expected, "{signal}");
    }
    assert!(encode("/dev/null").status()?.success());
    assert_eq!(files()?, 0);
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
    let mut printed = None;
    for line in stderr.lines() {
        let line = line?;
        match &mut printed {
            Some(printed) if !line.contains(" DEBUG ") && !line.contains(" INFO ") => {
                *printed += line.as_str()
            }
            // The options are logged when the work starts.
            None if line.contains("GenerateOptions") => {
                Command::new("kill").args([signal, &child.id().to_string()]).status()?;
                printed = Some(String::new());
            }
            _ => {}
        }
    }
    Ok((child.wait()?.code(), printed.ok_or("it never began")?))
}
