//! Describes errors of a connection in one line.

use std::error::Error as StdError;

use model_files::ErrorKind;
use postgres::error::DbError;

/// Describes an error and its causes, and classifies it. What the server says stands for itself.
pub(super) fn describe(error: &(dyn StdError + 'static)) -> (String, ErrorKind) {
    let mut causes: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(answer) = cause.downcast_ref::<DbError>() {
            return (of_server(answer.message(), answer.detail()), kind_of(answer.code().code()));
        }
        let text = one_line(&cause.to_string());
        if !causes.last().is_some_and(|last| last.ends_with(&text)) {
            causes.push(text);
        }
        next = cause.source();
    }
    (causes.join(": "), ErrorKind::Network)
}

fn of_server(message: &str, detail: Option<&str>) -> String {
    match detail {
        Some(detail) => one_line(&format!("{message}; {detail}")),
        None => one_line(message),
    }
}

/// By the class of the server's code: a wrong password, user or database is the caller's, and so are rights.
fn kind_of(code: &str) -> ErrorKind {
    match code.get(..2) {
        Some("28" | "3D" | "42") => ErrorKind::Input,
        Some("08" | "57") => ErrorKind::Network,
        _ => ErrorKind::Other,
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn causes_are_joined_once() {
        let error = io::Error::other("error communicating\n with the server");
        assert_eq!(describe(&error), ("error communicating with the server".to_owned(), ErrorKind::Network));
    }

    #[test]
    fn what_the_server_says_is_one_line() {
        let said = of_server("extension \"vector\" is not available", Some("Could not open\nit."));
        assert_eq!(said, "extension \"vector\" is not available; Could not open it.");
        for (code, kind) in [
            ("28P01", ErrorKind::Input),
            ("3D000", ErrorKind::Input),
            ("57P01", ErrorKind::Network),
            ("53100", ErrorKind::Other),
            ("é", ErrorKind::Other),
        ] {
            assert_eq!(kind_of(code), kind, "{code}");
        }
    }
}
