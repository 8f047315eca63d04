//! Finds the file of an adapter: by its path, or in a directory or a repository on the hub.

use std::path::Path;

use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

use crate::{Error, Result};

/// How the names of files end that hold weights.
const SAFETENSORS: &str = "safetensors";
const PICKLES: [&str; 4] = ["bin", "pt", "pth", "ckpt"];

/// Parts of the names of files that training leaves beside adapters, which diffusers does not take for one either.
const NO_ADAPTERS: [&str; 3] = ["scheduler", "optimizer", "checkpoint"];

/// The most files that an error lists.
const MOST_LISTED: usize = 10;

/// The file of an adapter.
pub(super) struct Found {
    pub file: Checkpoint,
    /// Where files beside it are.
    pub beside: Option<ModelSource>,
    /// What to call what is in it: its own name without the ending, or that of its directory or repository if its own is a
    /// usual one.
    pub stem: String,
}

/// The adapter called `name`: a file; or a directory or a repository on the hub, in which it has one of the names `usual`, in
/// this order, or is the only one; or a file of a repository, `org/name/file.safetensors`.
///
/// # Errors
/// When there is none, or several, or it is damaged; `what` is what it should have been.
pub(super) fn open(name: &str, usual: &[&str], what: &str) -> Result<Found> {
    let path = Path::new(name);
    if path.is_file() {
        let folder =
            path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
        let beside = folder.map(ModelSource::directory);
        return Ok(Found { file: Checkpoint::from_file(path)?, beside, stem: stem(name) });
    }
    let is_file_name = ending(name).is_some();
    if is_file_name && !path.exists() {
        let Some((repository, relative)) = in_repository(name) else {
            return Err(Error::content(name, format!("no such file, expected {what}")));
        };
        let source = ModelSource::open(repository)?;
        let file = Checkpoint::from_source(&source, relative)?;
        return Ok(Found { file, beside: Some(source), stem: stem(relative) });
    }
    let source = ModelSource::open(name)?;
    let relative = choose(name, &source, usual, what)?;
    let file = Checkpoint::from_source(&source, &relative)?;
    let stem = stem(if usual.contains(&relative.as_str()) { name } else { &relative });
    Ok(Found { file, beside: Some(source), stem })
}

fn stem(name: &str) -> String {
    Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name).to_owned()
}

/// The file that is meant by a whole directory or repository, as diffusers guesses it: of safetensors one of a usual name, or
/// else the only one, and then of pickles.
fn choose(name: &str, source: &ModelSource, usual: &[&str], what: &str) -> Result<String> {
    let named = |file: &str| format!("{}/{file}", name.trim_end_matches('/'));
    for is_safe in [true, false] {
        let usual: Vec<String> = usual
            .iter()
            .filter(|file| is_safetensors(file) == is_safe)
            .map(|file| (*file).to_owned())
            .collect();
        if let Some(file) = source.first_of(&usual)? {
            return Ok(file);
        }
        let files = source.files()?.unwrap_or_default();
        let is_one = |file: &&String| {
            ending(file).is_some()
                && is_safetensors(file) == is_safe
                && !NO_ADAPTERS.iter().any(|part| file.contains(part))
        };
        let files: Vec<&String> = files.iter().filter(is_one).collect();
        match files.as_slice() {
            [] => {}
            [file] => return Ok((*file).clone()),
            [first, ..] => {
                let listed: Vec<&str> = files.iter().take(MOST_LISTED).map(|file| file.as_str()).collect();
                let more = files.len().saturating_sub(listed.len());
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let (listed, example) = (listed.join(", "), named(first));
                let problem = format!(
                    "expected one file, found {listed}{more}: name the one that is meant, such as {example}"
                );
                return Err(Error::content(name, problem));
            }
        }
    }
    let problem = format!(
        "expected {what} in a file such as {}, found none; one of another name can be named, as {}",
        usual.join(" or "),
        named("FILE.safetensors")
    );
    Err(Error::content(name, problem))
}

fn is_safetensors(file: &str) -> bool {
    ending(file) == Some(SAFETENSORS)
}

/// How a file's name ends, if it is one that holds weights.
fn ending(file: &str) -> Option<&str> {
    let ending = Path::new(file).extension()?.to_str()?;
    (ending == SAFETENSORS || PICKLES.contains(&ending)).then_some(ending)
}

/// `org/name/path` as a repository on the hub and a file in it, if there is no directory of that name here.
fn in_repository(name: &str) -> Option<(&str, &str)> {
    let (organization, rest) = name.split_once('/')?;
    let (repository, relative) = rest.split_once('/')?;
    let is_hub =
        !organization.is_empty() && !organization.starts_with('.') && !Path::new(organization).exists();
    let length = organization.len() + 1 + repository.len();
    Some((name.get(..length)?, relative)).filter(|_| is_hub && !relative.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_repositories_are_told_from_paths() {
        for (name, expected) in [
            ("org/name/ink.safetensors", Some(("org/name", "ink.safetensors"))),
            ("org/name@v2/a/ink.safetensors", Some(("org/name@v2", "a/ink.safetensors"))),
            ("loras/ink.safetensors", None),
            ("/home/me/ink.safetensors", None),
            ("./a/b/ink.safetensors", None),
            ("src/adapters/ink.safetensors", None),
            ("org/name/", None),
        ] {
            assert_eq!(in_repository(name), expected, "{name}");
        }
    }
}
