//! Translates help, progress, warnings and errors into Chinese, if the locale is Chinese.
//!
//! All messages are English, those of the libraries too, and are translated where they leave the program. A message
//! without a translation stays as it is. Machine-readable output, such as JSON and files, is never translated.

mod catalogue;
mod help;
mod usage_error;

use std::borrow::Cow;
use std::sync::OnceLock;

use catalogue::Catalogue;

pub use help::localized;
pub use usage_error::explain;

/// POSIX's variables for the language of messages; the first that is not empty counts.
const VARIABLES: [&str; 3] = ["LC_ALL", "LC_MESSAGES", "LANG"];

/// The translations, if the locale asks for them.
fn catalogue() -> Option<&'static Catalogue> {
    static CATALOGUE: OnceLock<Option<Catalogue>> = OnceLock::new();
    CATALOGUE.get_or_init(|| is_chinese(|name| std::env::var(name).ok()).then(Catalogue::chinese)).as_ref()
}

fn is_chinese(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = VARIABLES.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
    locale.is_some_and(|locale| locale.to_ascii_lowercase().starts_with("zh"))
}

/// The language of messages, by its code.
pub fn code() -> &'static str {
    if catalogue().is_some() { "zh" } else { "en" }
}

/// Translates a line for people.
pub fn translated(line: &str) -> Cow<'_, str> {
    match catalogue() {
        Some(catalogue) => Cow::Owned(catalogue.message(line)),
        None => Cow::Borrowed(line),
    }
}

/// Translates the heading of a column.
pub fn translated_heading(heading: &str) -> String {
    catalogue().map_or(heading, |catalogue| catalogue.heading(heading)).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_that_says_something_counts() {
        let is_chinese = |variables: &[(&str, &str)]| {
            is_chinese(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(is_chinese(&[("LANG", "zh_CN.UTF-8")]));
        assert!(is_chinese(&[("LC_ALL", ""), ("LC_MESSAGES", "zh_TW"), ("LANG", "C")]));
        assert!(!is_chinese(&[("LC_ALL", "C"), ("LANG", "zh_CN.UTF-8")]));
        assert!(!is_chinese(&[]));
    }
}
