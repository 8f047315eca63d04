//! `altdiffusion models`: lists and removes cached models, and lists what a model draws.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use altclip_encoder::dual_encoder::Family;
use anyhow::{Context, Result, bail};
use clap::Args;
use emoji_model::KnownConcepts;
use indicatif::DecimalBytes;
use model_files::source::{CachedModel, CachedModels, HubOptions, ModelSource};
use serde::Serialize;
use serde_json::Value;

use crate::standard_streams::{is_for_people, print_json, print_line, print_table, printable};
use crate::{language, shipped};

/// Shown for unknown values.
const UNKNOWN: &str = "-";
/// Digits of a commit at a terminal.
const SHORT_COMMIT: usize = 12;

/// List or remove downloaded models.
///
/// Prints a line per commit of each repository in the cache that all Hugging Face libraries share: name, revision,
/// size, family, and when it was downloaded. When piped, columns are separated by tabs, the revision is the whole
/// commit, the size is in bytes, and there is no header.
#[derive(Debug, Args)]
pub struct Models {
    /// Remove a model from the cache: org/name, or one commit of it with org/name@REVISION. Asks first.
    #[arg(long, value_name = "NAME", conflicts_with = "json")]
    remove: Vec<String>,

    /// Remove without asking.
    #[arg(long, requires = "remove")]
    yes: bool,

    /// List what the model inside this program draws, or one in a directory that says so.
    ///
    /// A line has an emoji and its name.
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, conflicts_with = "remove")]
    concepts: Option<Option<PathBuf>>,

    /// Language of the concepts' names, such as ja. By default that of messages.
    #[arg(long, value_name = "CODE", requires = "concepts")]
    language: Option<String>,

    /// Print JSON: a list of objects with name, commit, revisions, size, family, date and path, or with emoji and
    /// name.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct ListedModel {
    name: String,
    commit: String,
    revisions: Vec<String>,
    /// Bytes.
    size: u64,
    family: Option<String>,
    /// When the last file was downloaded (RFC 3339).
    date: Option<String>,
    path: String,
}

#[derive(Serialize)]
struct ListedConcept<'a> {
    emoji: &'a str,
    name: &'a str,
}

impl From<CachedModel> for ListedModel {
    fn from(model: CachedModel) -> Self {
        Self {
            family: family(&model.path),
            date: model.modified.map(date),
            path: model.path.display().to_string(),
            name: model.name,
            commit: model.commit,
            revisions: model.revisions,
            size: model.size,
        }
    }
}

impl Models {
    pub fn run(self) -> Result<()> {
        if let Some(directory) = &self.concepts {
            return self.list_concepts(directory.as_deref());
        }
        let cache = HubOptions::from_env().cache;
        let models = CachedModels::new(&cache);
        if !self.remove.is_empty() {
            return self.remove_from(&models);
        }
        let entries: Vec<ListedModel> = models.list()?.into_iter().map(ListedModel::from).collect();
        if self.json {
            return print_json(&entries);
        }
        if entries.is_empty() && is_for_people() {
            return print_line(format!("no models in {}", cache.display()));
        }
        let row = if is_for_people() { short_row } else { exact_row };
        let header = ["name", "revision", "size", "family", "date"];
        print_table(&header, &entries.iter().map(row).collect::<Vec<_>>(), 2..3)
    }

    /// Lists what a model draws, by default the built-in one.
    fn list_concepts(&self, directory: Option<&Path>) -> Result<()> {
        let source = directory.map_or_else(shipped::source, ModelSource::directory);
        let known = KnownConcepts::read(&source)?;
        let known = known.with_context(|| format!("--concepts: {source} does not say what it draws"))?;
        let language = match &self.language {
            Some(code) => code.as_str(),
            None => language::code(),
        };
        let Some(named) = known.named(language) else {
            let languages: Vec<&str> = known.languages().collect();
            bail!("--language {language}: expected one of {}", languages.join(", "));
        };
        let concepts: Vec<_> = named.map(|(emoji, name)| ListedConcept { emoji, name }).collect();
        if self.json {
            return print_json(&concepts);
        }
        let row = |concept: &ListedConcept| vec![concept.emoji.to_owned(), concept.name.to_owned()];
        print_table(&["emoji", "name"], &concepts.iter().map(row).collect::<Vec<_>>(), 2..)
    }

    fn remove_from(&self, models: &CachedModels) -> Result<()> {
        for name in &self.remove {
            if !self.yes && !confirmed(name)? {
                bail!("--remove {name}: nothing was removed");
            }
            let free = models.remove(name)?;
            print_line(format!("{name}: removed, {} free", DecimalBytes(free)))?;
        }
        Ok(())
    }
}

/// Asks at the terminal. Without one, the answer must be given as an option.
fn confirmed(name: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("--remove {name}: no terminal to confirm on, add --yes to remove without asking");
    }
    let mut stderr = io::stderr();
    write!(stderr, "Remove {} from the cache? [y/N] ", printable(name)).and_then(|()| stderr.flush())?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// For programs: full commits, and bytes.
fn exact_row(entry: &ListedModel) -> Vec<String> {
    let family = entry.family.clone().unwrap_or_else(|| UNKNOWN.to_owned());
    let date = entry.date.clone().unwrap_or_else(|| UNKNOWN.to_owned());
    vec![entry.name.clone(), entry.commit.clone(), entry.size.to_string(), family, date]
}

/// For people, in the same order.
fn short_row(entry: &ListedModel) -> Vec<String> {
    let commit = entry.commit.get(..SHORT_COMMIT).unwrap_or(&entry.commit);
    let revision = match entry.revisions.join(", ") {
        names if names.is_empty() => commit.to_owned(),
        names => format!("{names} ({commit})"),
    };
    let date = entry.date.as_deref().and_then(|date| date.get(..10)).unwrap_or(UNKNOWN);
    vec![
        entry.name.clone(),
        revision,
        DecimalBytes(entry.size).to_string(),
        entry.family.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
        date.to_owned(),
    ]
}

fn date(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The family of a model, as far as its cached configurations show.
fn family(path: &Path) -> Option<String> {
    let field = |file: &str, field: &str| {
        let json: Value = serde_json::from_slice(&std::fs::read(path.join(file)).ok()?).ok()?;
        json.get(field)?.as_str().map(str::to_owned)
    };
    let pipeline = field("model_index.json", "_class_name")
        .or_else(|| path.join("unet/config.json").is_file().then(|| "diffusion pipeline".to_owned()));
    let encoder = || Family::of(&ModelSource::directory(path)).ok().map(|family| family.to_string());
    let adapter = || path.join("adapter_config.json").is_file().then(|| "LoRA".to_owned());
    pipeline
        .or_else(encoder)
        .or_else(|| field("config.json", "_class_name"))
        .or_else(|| field("config.json", "model_type"))
        .or_else(adapter)
}
