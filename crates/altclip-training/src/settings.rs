//! Reads the settings of a run: one TOML file with every value, and changes to it from the command line.

use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use toml::{Table, Value};

/// One changed setting, written `vae.optimizer.steps=100`: its path in the file, and its value as TOML writes it. A
/// value that is no TOML is a text, so that texts need no quotes.
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

/// Reads the settings in the file at `path`, with `changes` made to them.
///
/// # Errors
/// If the file cannot be read, and as [`parse`].
pub fn load<T: DeserializeOwned>(path: &Path, changes: &[SettingChange]) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    parse(&text, path, changes)
}

/// Reads settings from the text of a TOML file, with `changes` made to them; `path` is for the errors.
///
/// # Errors
/// If the text is no TOML, a setting is missing, has another type, or is unknown: then the error names the nearest
/// that there is.
pub fn parse<T: DeserializeOwned>(text: &str, path: &Path, changes: &[SettingChange]) -> Result<T> {
    let mut table: Table = text.parse().map_err(|e: toml::de::Error| Error::format(path, e.message()))?;
    for change in changes {
        set(&mut table, &change.path, change)?;
    }
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let place = error.path().to_string();
        let problem = error.inner().message().trim().to_owned();
        let problem = with_nearest(&problem).unwrap_or(problem);
        // A wrong change is the fault of the command line, and not of the file.
        let culprit = changes.iter().find(|change| {
            let key = change.path.join(".");
            place == key || problem.contains(&format!("`{}`", change.path.last().map_or("", String::as_str)))
        });
        match culprit {
            Some(change) => Error::Setting(format!("--set {change}: {problem}")),
            None if place == "." => Error::format(path, problem),
            None => Error::format(path, format!("{place}: {problem}")),
        }
    })
}

/// Puts a value at its place; the tables around it must be there.
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

/// Serde's list of all known fields becomes the one that was probably meant.
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

/// What counts are by default that must not be 0.
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
        // A whole number is a number, and a quoted one is a text.
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
