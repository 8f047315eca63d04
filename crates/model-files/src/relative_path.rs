//! Checks and joins paths in a model, which are relative and use `/`.

use std::path::{Component, Path};

use crate::error::{Error, Result};

/// Rejects paths that lead out of the model: some come from its `index.json`, which is untrusted.
pub(crate) fn check_relative(relative: &str) -> Result<()> {
    let path = Path::new(relative);
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    if relative.is_empty() || !inside || relative.contains(['\\', ':']) || relative.contains(char::is_control)
    {
        return Err(Error::Input(format!("expected a path inside the model, found {relative:?}")));
    }
    Ok(())
}

/// The path of `file` in `folder`; "" is the model's root.
pub fn in_folder(folder: &str, file: &str) -> String {
    if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") }
}

/// The folder of the file `relative`, "" for the model's root.
pub(crate) fn folder_of(relative: &str) -> &str {
    relative.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_the_model() {
        for good in ["config.json", "unet/config.json", "a/b/..c"] {
            assert!(check_relative(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../secret",
            "unet/../../secret",
            "./config.json",
            "a\\..\\b",
            "c:/x",
            "a\0b",
            "a\u{1b}[2J",
        ] {
            assert!(check_relative(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn folders_and_files_go_together() {
        for path in ["config.json", "unet/config.json", "a/b/c"] {
            let file = path.rsplit('/').next().unwrap_or_default();
            assert_eq!(in_folder(folder_of(path), file), path);
        }
    }
}
