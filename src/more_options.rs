//! Ends each short help with the number of options that only the long help shows.

use clap::Command;

/// The command, whose short helps, and those of subcommands, count the options they leave out.
pub fn counted(command: Command) -> Command {
    let hidden =
        command.get_arguments().filter(|option| option.is_hide_short_help_set() && !option.is_hide_set());
    let hint = match hidden.count() {
        0 => None,
        1 => Some("See --help for 1 more option.".to_owned()),
        hidden => Some(format!("See --help for {hidden} more options.")),
    };
    let command = command.mut_subcommands(counted);
    let Some(hint) = hint else { return command };
    // Without its own ending, the long help would get the short one's.
    match command.get_after_long_help().is_some() {
        true => command.after_help(hint),
        false => command.after_help(hint).after_long_help(""),
    }
}
