//! Speaks Chinese to people whose locale is Chinese: help, progress, warnings and errors.
//!
//! Everything is written in English, by the libraries too, and translated where it leaves the program. A text that has no
//! translation stays as it is. What programs read, such as JSON and files, is never translated.

mod catalogue;
mod help;
mod usage_error;

use std::borrow::Cow;
use std::sync::OnceLock;

use catalogue::Catalogue;

pub use help::localized;
pub use usage_error::explain;

/// The variables that POSIX reads the language of messages from; the first that is not empty counts.
const VARIABLES: [&str; 3] = ["LC_ALL", "LC_MESSAGES", "LANG"];

/// The translations, where the locale asks for them.
fn catalogue() -> Option<&'static Catalogue> {
    static CATALOGUE: OnceLock<Option<Catalogue>> = OnceLock::new();
    CATALOGUE.get_or_init(|| is_chinese(|name| std::env::var(name).ok()).then(Catalogue::chinese)).as_ref()
}

fn is_chinese(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = VARIABLES.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
    locale.is_some_and(|locale| locale.to_ascii_lowercase().starts_with("zh"))
}

/// A line for people in their language.
pub fn translated(line: &str) -> Cow<'_, str> {
    match catalogue() {
        Some(catalogue) => Cow::Owned(catalogue.message(line)),
        None => Cow::Borrowed(line),
    }
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
