//! Tests completion scripts in their shells.
#![cfg(unix)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{run, succeeded};
use test_support::TestResult;

/// Sources the script in bash, and completes the last word like the tab key.
const BASH: &str = r#"
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_altdiffusion altdiffusion "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

/// Presses the tab key twice in zsh at a pseudo-terminal, because zsh only completes at terminals.
const ZSH: &str = r#"
zmodload zsh/zpty
script=$1
shift
zpty shell 'TERM=dumb zsh -f -i'
zpty -w shell "autoload -U compinit; compinit -D -u; source ${(q)script}; compdef _altdiffusion altdiffusion; echo rea''dy"
zpty -r shell output '*ready*'
zpty -n -w shell "$*"$'\t\t'
sleep 1
output=
while zpty -r -t shell chunk; do output+=$chunk; done
print -r -- "$output"
"#;

/// Completes these words with fish.
const FISH: &str = r#"
source $argv[1]
complete --do-complete "$argv[2..]"
"#;

/// The completions of the last word, if this shell is installed.
fn completed(folder: &Path, shell: &str, words: &[&str]) -> TestResult<Option<String>> {
    let script = folder.join("script");
    std::fs::write(&script, succeeded(&run(folder, &["completions", shell])?))?;
    let mut command = Command::new(shell);
    match shell {
        "bash" => command.args(["--norc", "--noprofile", "-c", BASH, "bash"]).arg(&script),
        "zsh" => command.args(["-f", "-c", ZSH, "zsh"]).arg(&script),
        _ => command.args(["--no-config", "-c", FISH]).arg(&script),
    };
    match command.args(words).current_dir(folder).output() {
        Ok(output) => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[test]
fn shells_complete_subcommands_options_and_values() -> TestResult {
    let folder = tempfile::tempdir()?;
    let cases: [(&[&str], &[&str]); 5] = [
        (&["altdiffusion", "gen"], &["generate"]),
        (&["altdiffusion", "generate", "--guidance-s"], &["--guidance-scale"]),
        (&["altdiffusion", "generate", "--scheduler", "dpm"], &["dpm++-2m", "dpm++-2m-sde", "dpm++-s"]),
        (&["altdiffusion", "generate", "--device", "c"], &["cpu", "cuda"]),
        (&["altdiffusion", "convert", "--dtype", "q8"], &["q8_0"]),
    ];
    for shell in ["bash", "zsh", "fish"] {
        for (words, expected) in cases {
            match completed(folder.path(), shell, words)? {
                Some(offered) => {
                    let missing: Vec<_> = expected.iter().filter(|word| !offered.contains(*word)).collect();
                    assert!(missing.is_empty(), "{shell}: {words:?}: {missing:?} not in {offered:?}");
                }
                None => {
                    eprintln!("SKIPPED: completions in {shell}, which is not installed");
                    break;
                }
            }
        }
    }
    Ok(())
}
