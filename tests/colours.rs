//! Checks that output is coloured at a terminal, or if requested.

mod common;

use common::altdiffusion;
use test_support::TestResult;

const COLOUR: &str = "\u{1b}[";

/// The program's output on both streams, with these variables set.
fn printed(arguments: &[&str], variables: &[(&str, &str)]) -> TestResult<String> {
    let directory = tempfile::tempdir()?;
    let output = altdiffusion(directory.path()).args(arguments).envs(variables.iter().copied()).output()?;
    Ok(String::from_utf8([output.stdout, output.stderr].concat())?)
}

#[test]
fn the_variables_that_all_programs_know_decide() -> TestResult {
    let cases: [&[&str]; 5] = [
        &["generate", "-h"],
        &["generate", "--stps", "3"],
        &["inspect", "missing"],
        &["classify", "missing.png", "--label", "a"],
        &["generate", "a cat", "--steps", "1", "--image", "missing.png"],
    ];
    for arguments in cases {
        for (variables, is_coloured) in [
            (&[][..], false),
            (&[("CLICOLOR_FORCE", "1")], true),
            (&[("CLICOLOR_FORCE", "1"), ("CLICOLOR", "0")], true),
            (&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false),
            (&[("CLICOLOR", "1")], false),
        ] {
            let printed = printed(arguments, variables)?;
            assert_eq!(printed.contains(COLOUR), is_coloured, "{arguments:?} {variables:?}: {printed:?}");
        }
    }
    Ok(())
}

#[test]
fn the_beginning_of_a_line_says_in_colour_how_bad_it_is() -> TestResult {
    let forced = ("CLICOLOR_FORCE", "1");
    let error = printed(&["inspect", "missing"], &[forced])?;
    assert!(error.starts_with("\u{1b}[1m\u{1b}[31merror\u{1b}[0m: "), "{error:?}");
    let chinese = printed(&["generate", "--stps", "3"], &[forced, ("LC_ALL", "zh_CN.UTF-8")])?;
    assert!(chinese.starts_with("\u{1b}[1m\u{1b}[31m错误\u{1b}[0m：没有选项"), "{chinese:?}");
    // Untrusted text cannot add colours.
    let hostile = printed(&["inspect", "\u{1b}[31mred"], &[forced])?;
    assert!(!hostile.replace("\u{1b}[31merror", "").contains("\u{1b}[31m"), "{hostile:?}");
    Ok(())
}
