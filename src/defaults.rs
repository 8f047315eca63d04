//! Reads defaults for options from a configuration file, with the long names as keys.
//!
//! ```toml
//! device = "cuda"        # for every subcommand that has --device
//!
//! [generate]
//! steps = 30             # for this one
//! ```

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction, Command};
use etcetera::BaseStrategy;
use toml::{Table, Value};

/// The environment variable for the file.
const FILE_VARIABLE: &str = "ALTDIFFUSION_CONFIG";
/// Options that cannot have defaults.
const NO_DEFAULTS: [&str; 2] = ["help", "version"];

/// The command with the configuration file's defaults, which its help names.
///
/// # Errors
/// If the file cannot be read, or has an unknown option or an invalid value.
pub fn with_defaults(command: Command, examples: &str) -> Result<Command> {
    let Some((path, is_asked_for)) = place() else { return Ok(command.after_long_help(examples.to_owned())) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_asked_for => None,
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let state = if text.is_some() { "" } else { " (there is none)" };
    let shown = path.display();
    let version = env!("CARGO_PKG_VERSION");
    let help = format!(
        "{examples}\n\nSet defaults for options in the configuration file {shown}{state}, or in the one that \
         {FILE_VARIABLE} names:\n  device = \"cuda\"\n\n  [generate]\n  steps = 30"
    );
    let command =
        command.after_long_help(help).long_version(format!("{version}\nconfiguration file: {shown}{state}"));
    match text {
        Some(text) => apply(command, &text).with_context(|| shown.to_string()),
        None => Ok(command),
    }
}

/// The command with its own defaults only, ignoring environment variables too.
pub fn without_defaults(command: Command) -> Command {
    command.mut_subcommands(|subcommand| subcommand.mut_args(|option| option.env(None::<&'static str>)))
}

/// The path of the file, and whether the user chose it.
fn place() -> Option<(PathBuf, bool)> {
    match std::env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => Some((path.into(), true)),
        None => {
            let folder = etcetera::choose_base_strategy().ok()?.config_dir();
            Some((folder.join("altdiffusion").join("config.toml"), false))
        }
    }
}

fn apply(command: Command, text: &str) -> Result<Command> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let line =
            error.span().map_or(1, |span| 1 + text.get(..span.start).unwrap_or(text).matches('\n').count());
        anyhow::anyhow!("line {line}: {}", error.message())
    })?;
    apply_table(command, &table, "")
}

/// Applies `table` to the subcommand `name` and those below it.
fn apply_table(mut command: Command, table: &Table, name: &str) -> Result<Command> {
    // Settings for a subcommand take precedence over those for all.
    for (key, value) in table.iter().filter(|(_, value)| !value.is_table()) {
        let shown = if name.is_empty() { key.clone() } else { format!("{key} in [{name}]") };
        let mut count = 0;
        command = set(command, key, value, &mut count).context(shown.clone())?;
        if count == 0 {
            bail!("{shown}: there is no option --{key}{}", hint(key, &option_names(&command)));
        }
    }
    for (key, value) in table {
        let Value::Table(inner) = value else { continue };
        let full = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        if command.find_subcommand(key).is_none() {
            let known =
                command.get_subcommands().map(|known| known.get_name().to_owned()).collect::<Vec<_>>();
            bail!("[{full}]: there is no subcommand {key}{}", hint(key, &known));
        }
        let mut result = Ok(());
        command = command.mut_subcommand(key, |subcommand| {
            apply_table(subcommand.clone(), inner, &full).unwrap_or_else(|error| {
                result = Err(error);
                subcommand
            })
        });
        result?;
    }
    Ok(command)
}

/// Sets the default of the option `key` in the command and all below it, counting them.
fn set(mut command: Command, key: &str, value: &Value, count: &mut usize) -> Result<Command> {
    let option = command.get_arguments().find(|option| option.get_long() == Some(key));
    if let Some(option) = option.filter(|_| !NO_DEFAULTS.contains(&key)) {
        let values = values(option, value)?;
        let id = option.get_id().clone();
        command = command.mut_arg(id, |option| option.required(false).default_values(values));
        *count += 1;
    }
    let names: Vec<_> = command.get_subcommands().map(|known| known.get_name().to_owned()).collect();
    for name in names {
        let mut result = Ok(());
        command = command.mut_subcommand(name, |subcommand| {
            set(subcommand.clone(), key, value, count).unwrap_or_else(|error| {
                result = Err(error);
                subcommand
            })
        });
        result?;
    }
    Ok(command)
}

/// Converts a value to option arguments, if possible.
///
/// # Errors
/// If it cannot be converted.
pub fn values(option: &Arg, value: &Value) -> Result<Vec<String>> {
    let is_switch = matches!(option.get_action(), ArgAction::SetTrue | ArgAction::SetFalse);
    let takes_many = matches!(option.get_action(), ArgAction::Append)
        || option.get_num_args().is_some_and(|count| count.max_values() > 1)
        || option.get_value_delimiter().is_some();
    let values = match value {
        Value::Boolean(value) if is_switch => return Ok(vec![value.to_string()]),
        _ if is_switch => bail!("expected true or false, found {value}"),
        Value::Array(values) if takes_many => values.iter().map(typed).collect::<Result<Vec<_>>>()?,
        value => vec![typed(value)?],
    };
    // The option on its own, without its relations to others.
    let alone = Arg::new("value")
        .long(option.get_long().unwrap_or_default().to_owned())
        .allow_hyphen_values(true)
        .action(ArgAction::Append)
        .value_parser(option.get_value_parser().clone());
    let typed = values.iter().flat_map(|value| match option.get_value_delimiter() {
        Some(delimiter) => value.split(delimiter).map(str::to_owned).collect(),
        None => vec![value.clone()],
    });
    let words = typed.map(|value| format!("--{}={value}", option.get_long().unwrap_or_default()));
    if let Err(error) = Command::new("").no_binary_name(true).arg(alone).try_get_matches_from(words) {
        let text = error.to_string();
        bail!("{}", text.lines().next().unwrap_or_default().trim_start_matches("error: "));
    }
    Ok(values)
}

fn typed(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        value => bail!("expected a text or a number, found {value}"),
    }
}

/// The long names of all options of a command and those below it.
pub fn option_names(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(Arg::get_long).map(str::to_owned);
    own.chain(command.get_subcommands().flat_map(option_names)).collect()
}

/// Suggests the most similar of `known`.
pub fn hint(found: &str, known: &[String]) -> String {
    let nearest = known.iter().map(|name| (strsim::damerau_levenshtein(found, name), name)).min();
    match nearest.filter(|(distance, _)| *distance <= 2) {
        Some((_, name)) => format!(", did you mean {name}?"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let steps =
            || Arg::new("steps").long("steps").value_parser(clap::value_parser!(u32)).default_value("20");
        let generate = Command::new("generate")
            .arg(steps())
            .arg(Arg::new("lora").long("lora").action(ArgAction::Append))
            .arg(Arg::new("html").long("html").action(ArgAction::SetTrue))
            .arg(Arg::new("output").long("output").required(true).env("TEST_OF_DEFAULTS_OUTPUT"));
        let train = Command::new("train").subcommand(Command::new("lora").arg(steps()));
        Command::new("altdiffusion").subcommand(generate).subcommand(train)
    }

    fn steps(text: &str, words: &[&str], path: &[&str]) -> u32 {
        let mut matches = apply(command(), text).unwrap().try_get_matches_from(words).unwrap();
        for name in path {
            matches = matches.subcommand_matches(name).unwrap().clone();
        }
        *matches.get_one("steps").unwrap()
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let lora = ["altdiffusion", "train", "lora"];
        let generate = ["altdiffusion", "generate", "--output", "x"];
        assert_eq!(steps("", &lora, &lora[1..]), 20);
        assert_eq!(steps("steps = 30", &lora, &lora[1..]), 30);
        assert_eq!(steps("steps = 30", &generate, &["generate"]), 30);
        let both = "steps = 30\n[train.lora]\nsteps = 40";
        assert_eq!(steps(both, &lora, &lora[1..]), 40);
        assert_eq!(steps(both, &generate, &["generate"]), 30);
        assert_eq!(steps(both, &["altdiffusion", "train", "lora", "--steps", "5"], &lora[1..]), 5);
    }

    #[test]
    fn all_kinds_of_options_have_defaults() {
        let text = "[generate]\nlora = [\"a\", \"b\"]\nhtml = true\noutput = \"x.png\"";
        let matches = apply(command(), text).unwrap().get_matches_from(["altdiffusion", "generate"]);
        let matches = matches.subcommand_matches("generate").unwrap();
        assert_eq!(matches.get_many::<String>("lora").unwrap().collect::<Vec<_>>(), ["a", "b"]);
        assert!(matches.get_flag("html"));
        assert_eq!(matches.get_one::<String>("output").unwrap(), "x.png");
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, problem) in [
            ("stepz = 1", "stepz: there is no option --stepz, did you mean steps?"),
            ("[generat]\nsteps = 1", "[generat]: there is no subcommand generat, did you mean generate?"),
            ("[generate]\nsteps = \"many\"", "steps in [generate]: invalid value 'many'"),
            ("[generate]\nsteps = -1", "steps in [generate]: invalid value '-1'"),
            ("steps = [1, 2]", "steps: expected a text or a number"),
            ("[train.lora]\nlora = \"a\"", "lora in [train.lora]: there is no option --lora"),
            ("[generate]\nhtml = 1", "html in [generate]: expected true or false, found 1"),
            ("help = true", "help: there is no option --help"),
            ("a = 1\nsteps = ", "line 2"),
        ] {
            let line = format!("{:#}", apply(command(), text).err().unwrap());
            assert!(line.contains(problem), "{text}: {line}");
        }
    }
}
