//! Suggests the option for an argument without one, to subcommands that take only options.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Subcommands that take only options, and what they expect.
const EXPECTED: [(&str, &str); 2] = [
    ("embed", "write --image before an image or a directory, and --text before a text"),
    ("similarity", "write --image before each image, and --text before each text"),
];

/// Adds the option that is missing to the error of an argument without one.
pub fn suggest(error: &mut clap::Error, arguments: &[OsString]) {
    let is_bare = |argument: &ContextValue| !argument.to_string().starts_with('-');
    if error.kind() != ErrorKind::UnknownArgument || !error.get(ContextKind::InvalidArg).is_some_and(is_bare)
    {
        return;
    }
    let mut names = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    let subcommand = names.find(|name| !name.starts_with('-'));
    if let Some((_, tip)) = EXPECTED.into_iter().find(|(name, _)| Some(*name) == subcommand) {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
}
