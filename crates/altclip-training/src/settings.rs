//! Reads a run's settings from a TOML file, with changes from the command line.

use crate::error::{Error, Result};
use crate::setting_limits::too_large;
use model_files::read_input;
use serde::de::DeserializeOwned;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use toml::{Table, Value};

/// The largest file read, in bytes.
const MOST_BYTES: u64 = 16 << 20;

/// A changed setting, such as `vae.optimizer.steps=100`: its path in the file, and its value in TOML. A value that is
/// not TOML is a string, so that strings need no quotes.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingChange {
    path: Vec<String>,
    value: Value,
}

impl FromStr for SettingChange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let expected =
            || Error::Setting(format!("`{text}`: expected KEY=VALUE, such as optimizer.steps=100"));
        let (key, value) = text.split_once('=').ok_or_else(expected)?;
        let path: Vec<String> = key.trim().split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            return Err(expected());
        }
        Ok(Self { path, value: parse_value(value.trim()) })
    }
}

impl fmt::Display for SettingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.path.join("."), self.value)
    }
}

fn parse_value(text: &str) -> Value {
    let line = format!("value = {text}");
    let parsed = line.parse::<Table>().ok().filter(|table| table.len() == 1);
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Reads the settings in the file at `path`, and applies `changes`.
///
/// # Errors
/// If the file cannot be read; also like [`parse`].
pub fn load<T: DeserializeOwned>(path: &Path, changes: &[SettingChange]) -> Result<T> {
    let bytes = read_input(path, MOST_BYTES).map_err(Error::io(path))?;
    let text = String::from_utf8(bytes).map_err(|_| Error::format(path, "expected text in UTF-8"))?;
    parse(&text, path, changes)
}

/// Parses settings in TOML, and applies `changes`; `path` is used in errors.
///
/// # Errors
/// If the text is not TOML, or a setting is missing, has another type, is too large, or is unknown; then the error suggests the
/// most similar one.
pub fn parse<T: DeserializeOwned>(text: &str, path: &Path, changes: &[SettingChange]) -> Result<T> {
    let mut table: Table = text.parse().map_err(|e: toml::de::Error| Error::format(path, e.message()))?;
    for change in changes {
        set(&mut table, &change.path, change)?;
    }
    let too_large = too_large(&table);
    let settings = serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let place = error.path().to_string();
        let problem = error.inner().message().trim().to_owned();
        let problem = with_nearest(&problem).unwrap_or(problem);
        // A wrong change is the command line's fault, not the file's.
        let culprit = changes.iter().find(|change| {
            let key = change.path.join(".");
            place == key || problem.contains(&format!("`{}`", change.path.last().map_or("", String::as_str)))
        });
        match culprit {
            Some(change) => Error::Setting(format!("--set {change}: {problem}")),
            None if place == "." => Error::format(path, problem),
            None => Error::format(path, format!("{place}: {problem}")),
        }
    })?;
    match too_large {
        None => Ok(settings),
        Some((place, problem)) => Err(match changes.iter().find(|change| change.path == place) {
            Some(change) => Error::Setting(format!("--set {change}: {problem}")),
            None => Error::format(path, format!("{}: {problem}", place.join("."))),
        }),
    }
}

/// Sets a value; the tables on its path must exist.
fn set(table: &mut Table, path: &[String], change: &SettingChange) -> Result<()> {
    let (Some((last, tables)), mut inner) = (path.split_last(), table) else { return Ok(()) };
    for (depth, name) in tables.iter().enumerate() {
        let names: Vec<String> = inner.keys().cloned().collect();
        inner = match inner.get_mut(name) {
            Some(Value::Table(table)) => table,
            Some(_) => {
                let found = path.get(..=depth).unwrap_or_default().join(".");
                return Err(Error::Setting(format!(
                    "--set {change}: expected a table at {found}, found a value"
                )));
            }
            None => {
                let nearest = nearest(name, names.iter().map(String::as_str));
                let hint = nearest.map_or(String::new(), |near| format!(", the nearest is `{near}`"));
                return Err(Error::Setting(format!("--set {change}: there is no table `{name}`{hint}")));
            }
        };
    }
    inner.insert(last.clone(), change.value.clone());
    Ok(())
}

/// Replaces serde's list of all known fields by the most similar one.
fn with_nearest(problem: &str) -> Option<String> {
    let rest = problem.strip_prefix("unknown field `")?;
    let (unknown, known) = rest.split_once('`')?;
    let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    let nearest = nearest(unknown, known.iter().copied())?;
    Some(format!("unknown setting `{unknown}`, the nearest is `{nearest}`"))
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.min_by_key(|known| strsim::damerau_levenshtein(name, known))
}

/// The default of counts that must not be 0.
pub(crate) fn one() -> usize {
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        name: String,
        #[serde(default)]
        languages: Vec<String>,
        inner: Inner,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        steps: usize,
        rate: f64,
    }

    const FILE: &str = "name = 'a'\n[inner]\nsteps = 3\nrate = 0.5\n";

    fn read(text: &str, changes: &[&str]) -> Result<Outer> {
        let changes = changes.iter().map(|change| change.parse()).collect::<Result<Vec<SettingChange>>>()?;
        parse(text, Path::new("run.toml"), &changes)
    }

    fn error(text: &str, changes: &[&str]) -> String {
        read(text, changes).map_or_else(|error| error.to_string(), |settings| format!("{settings:?}"))
    }

    #[test]
    fn changes_have_the_types_of_toml() -> Result<()> {
        let changes = ["inner.steps=7", "inner.rate=1e-3", "name=b c", "languages=[\"en\", \"zh\"]"];
        let settings = read(FILE, &changes)?;
        assert_eq!((settings.inner.steps, settings.inner.rate, settings.name.as_str()), (7, 1e-3, "b c"));
        assert_eq!(settings.languages, ["en", "zh"]);
        // An integer is a valid number, and a quoted one is a string.
        assert_eq!(read(FILE, &["inner.rate=1"])?.inner.rate, 1.);
        assert_eq!(read(FILE, &["name='7'"])?.name, "7");
        Ok(())
    }

    #[test]
    fn what_is_wrong_is_named() {
        let file = FILE.replace("rate", "rte");
        assert_eq!(error(&file, &[]), "run.toml: inner.rte: unknown setting `rte`, the nearest is `rate`");
        assert_eq!(
            error(FILE, &["inner.stps=1"]),
            "--set inner.stps=1: unknown setting `stps`, the nearest is `steps`"
        );
        assert_eq!(
            error(FILE, &["innr.steps=1"]),
            "--set innr.steps=1: there is no table `innr`, the nearest is `inner`"
        );
        assert_eq!(error(FILE, &["name.x=1"]), "--set name.x=1: expected a table at name, found a value");
        let typed = error(FILE, &["inner.steps=many"]);
        assert!(typed.starts_with("--set inner.steps=\"many\": invalid type: string"), "{typed}");
        let missing = error("name = 'a'\n[inner]\nsteps = 3\n", &[]);
        assert_eq!(missing, "run.toml: inner: missing field `rate`");
        assert!(error(FILE, &["steps"]).contains("expected KEY=VALUE"));
        assert!(error("name =", &[]).starts_with("run.toml: "));
    }
}
