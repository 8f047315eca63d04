//! Finds the file of an adapter, or of an autoencoder: by its path, or in a directory or a repository on the hub.

use std::path::Path;

use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

use crate::{Error, Result};

/// The file name endings of weight files.
const SAFETENSORS: &str = "safetensors";
const PICKLES: [&str; 4] = ["bin", "pt", "pth", "ckpt"];

/// Parts of the names of files that training leaves beside adapters. diffusers skips them too.
const NO_ADAPTERS: [&str; 3] = ["scheduler", "optimizer", "checkpoint"];

/// The most files that an error lists.
const MOST_LISTED: usize = 10;

/// The file that was found.
pub(crate) struct Found {
    pub file: Checkpoint,
    /// Where to look for files beside it.
    pub beside: Option<ModelSource>,
    /// What to call its content: the file name without its ending, or the name of its directory or repository if the
    /// file name is a generic one.
    pub stem: String,
}

/// Opens the weights called `name`: a file, a directory or hub repository (where it has one of the names in `usual`,
/// tried in order, or is the only file), or a file in a repository, `org/name/file.safetensors`.
///
/// # Errors
/// If there is none, or several, or it is damaged; `what` says what was expected.
pub(crate) fn open(name: &str, usual: &[&str], what: &str) -> Result<Found> {
    let path = Path::new(name);
    if path.is_file() {
        let folder =
            path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
        let beside = folder.map(ModelSource::directory);
        return Ok(Found { file: Checkpoint::from_file(path)?, beside, stem: stem(name) });
    }
    if is_file_name(name) {
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

/// Whether a name is that of a file, here or in a repository, rather than of a directory or a repository.
pub(crate) fn is_file_name(name: &str) -> bool {
    let path = Path::new(name);
    path.is_file() || (ending(name).is_some() && !path.exists())
}

fn stem(name: &str) -> String {
    Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name).to_owned()
}

/// Picks the file of a directory or repository as diffusers does: a safetensors file with a usual name, or else the
/// only one; failing that, a pickle by the same rules.
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

/// The ending of a weight file's name.
fn ending(file: &str) -> Option<&str> {
    let ending = Path::new(file).extension()?.to_str()?;
    (ending == SAFETENSORS || PICKLES.contains(&ending)).then_some(ending)
}

/// Splits `org/name/path` into a hub repository and a file in it, unless a directory of that name exists here.
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
