//! Translates the command's help.

use clap::{Arg, ArgAction, Command};

use super::catalogue;
use super::catalogue::Catalogue;

/// The command with help in the locale's language.
pub fn localized(command: Command) -> Command {
    match catalogue() {
        Some(catalogue) => in_language(command, catalogue),
        None => command,
    }
}

fn in_language(mut command: Command, catalogue: &Catalogue) -> Command {
    // Clap adds --help, --version and the subcommand `help` when building.
    command.build();
    translate(command, catalogue)
}

fn translate(command: Command, catalogue: &Catalogue) -> Command {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let options = catalogue.heading("Options");
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().replace("[OPTIONS]", &format!("[{options}]"));
    let usage = usage.replace("<COMMAND>", &format!("<{}>", catalogue.heading("Commands")));
    let template = format!(
        "{{before-help}}{{about-with-newline}}\n{}：{{usage}}\n\n{{all-args}}{{after-help}}",
        catalogue.heading("Usage")
    );
    let mut command = command
        .override_usage(usage)
        .help_template(template)
        .subcommand_help_heading(catalogue.heading("Commands").to_owned())
        .mut_args(|argument| argument_in_language(argument, catalogue));
    if let Some((first, rest)) = catalogue.help(&about) {
        command = command.about(first.to_owned()).long_about(joined(first, rest));
    }
    if let Some(after) = command.get_after_long_help().map(ToString::to_string) {
        command = command.after_long_help(examples_in_language(&after, catalogue));
    }
    if let Some(after) = command.get_after_help().map(ToString::to_string) {
        command = command.after_help(catalogue.message(&after));
    }
    command.mut_subcommands(|subcommand| translate(subcommand, catalogue))
}

/// Translates the text between examples; commands stay as they are.
fn examples_in_language(english: &str, catalogue: &Catalogue) -> String {
    let lines = english.lines().map(|line| {
        let text = line.trim_start();
        format!("{}{}", &line[..line.len() - text.len()], catalogue.message(text))
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn argument_in_language(argument: Arg, catalogue: &Catalogue) -> Arg {
    let default = match argument.get_help_heading() {
        Some(heading) => heading.to_owned(),
        None if argument.is_positional() => "Arguments".to_owned(),
        None => "Options".to_owned(),
    };
    let english = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let mut argument = argument.help_heading(catalogue.heading(&default).to_owned());
    let Some((first, rest)) = catalogue.help(&english) else { return argument };
    // Clap would write "[default: …]" in English.
    let takes_value =
        !matches!(argument.get_action(), ArgAction::SetTrue | ArgAction::Help | ArgAction::Version);
    let defaults: Vec<_> =
        argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let mut first = first.to_owned();
    if takes_value && !defaults.is_empty() && !argument.is_hide_default_value_set() {
        first.push_str(&format!("[默认：{}]", defaults.join(" ")));
        argument = argument.hide_default_value(true);
    }
    let values: Vec<_> =
        argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if takes_value && !values.is_empty() && !argument.is_hide_possible_values_set() {
        first.push_str(&format!("[可取：{}]", values.join("、")));
        argument = argument.hide_possible_values(true);
    }
    if let Some(variable) = argument.get_env() {
        first.push_str(&format!("[环境变量：{}]", variable.to_string_lossy()));
        argument = argument.hide_env(true);
    }
    let long = joined(&first, rest);
    argument.help(first).long_help(long)
}

fn joined(first: &str, rest: &str) -> String {
    if rest.is_empty() { first.to_owned() } else { format!("{first}\n\n{rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Collects the texts of a command and everything below it.
    fn texts(command: &Command, found: &mut Vec<String>) {
        found.extend(command.get_about().map(ToString::to_string));
        let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
        found.extend(shown.filter_map(Arg::get_help).map(ToString::to_string));
        command.get_subcommands().for_each(|subcommand| texts(subcommand, found));
    }

    #[test]
    fn every_option_and_subcommand_is_translated() {
        let mut command = crate::full_command();
        command.build();
        let mut english = Vec::new();
        texts(&command, &mut english);
        let catalogue = Catalogue::chinese();
        let missing: Vec<_> = english.iter().filter(|text| catalogue.help(text).is_none()).collect();
        assert!(missing.is_empty(), "{missing:#?}");
        assert!(english.len() > 100);
    }

    /// What a text says after its first sentence must not be lost.
    #[test]
    fn long_help_is_translated_where_there_is_some() {
        fn untranslated(command: &Command, catalogue: &Catalogue, found: &mut Vec<String>) {
            let is_short = |first: &str, long: Option<String>| {
                long.is_some_and(|long| long != first)
                    && catalogue.help(first).is_some_and(|(_, rest)| rest.is_empty())
            };
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            if is_short(&about, command.get_long_about().map(ToString::to_string)) {
                found.push(about);
            }
            // Clap's own --help says no more in its long form.
            let shown = |argument: &&Arg| !argument.is_hide_set() && argument.get_id() != "help";
            for argument in command.get_arguments().filter(shown) {
                let first = argument.get_help().map(ToString::to_string).unwrap_or_default();
                if is_short(&first, argument.get_long_help().map(ToString::to_string)) {
                    found.push(first);
                }
            }
            command.get_subcommands().for_each(|subcommand| untranslated(subcommand, catalogue, found));
        }

        let mut command = crate::full_command();
        command.build();
        let mut found = Vec::new();
        untranslated(&command, &Catalogue::chinese(), &mut found);
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn headings_are_translated() {
        let catalogue = Catalogue::chinese();
        let mut command = crate::full_command();
        command.build();
        for subcommand in command.get_subcommands() {
            for heading in subcommand.get_arguments().filter_map(Arg::get_help_heading) {
                let is_name = matches!(heading, "ControlNet" | "IP-Adapter");
                assert!(is_name || catalogue.heading(heading) != heading, "{heading}");
            }
        }
    }
}
