//! Downloads the files of a model that are needed to use it, and no others.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::checkpoint::{ShardIndex, find};
use crate::error::{Error, Result};
use crate::in_parallel::in_parallel;
use crate::relative_path::{check_relative, folder_of, in_folder};
use crate::source::ModelSource;
use crate::source::hub::HubRepository;
use crate::source::hub::decimal_bytes::decimal_bytes;

/// The folders with a model's weights and their configurations: a pipeline's parts, and those of dual encoders.
const PARTS: [&str; 7] = ["text_encoder", "image_encoder", "unet", "vae", "upscaler", "safety_checker", ""];
/// The folders that every pipeline loads.
const PARTS_OF_PIPELINES: [&str; 3] = ["text_encoder", "unet", "vae"];
const CONFIG: &str = "config.json";
/// Files without weights, by folder.
const SMALL_FILES: [(&str, &[&str]); 4] = [
    ("", &["preprocessor_config.json", "processor_config.json", "open_clip_config.json"]),
    ("scheduler", &["scheduler_config.json"]),
    ("feature_extractor", &["preprocessor_config.json", "processor_config.json"]),
    ("image_encoder", &["preprocessor_config.json", "processor_config.json"]),
];
/// The folders of tokenizers, and their files.
const TOKENIZER_FOLDERS: [&str; 3] = ["", "tokenizer", "text_encoder"];
const TOKENIZER_FILES: [&str; 8] = [
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];
/// The configuration that marks a pipeline, whose weights are in folders; any at its root are copies.
const PIPELINE: &str = "unet/config.json";
/// The files of adapters; the first that exists counts.
const ADAPTER_FILES: [&str; 6] = [
    "pytorch_lora_weights.safetensors",
    "pytorch_lora_weights.bin",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "learned_embeds.safetensors",
    "learned_embeds.bin",
];
const ADAPTER_CONFIG: &str = "adapter_config.json";

/// Files to download, and to query, at the same time.
const DOWNLOADS_AT_A_TIME: usize = 4;
const QUESTIONS_AT_A_TIME: usize = 8;

/// The result of a download.
#[derive(Debug)]
pub struct Downloaded {
    /// The commit of all files.
    pub commit: String,
    /// The files by their paths in the model, with their local paths.
    pub files: Vec<(String, PathBuf)>,
    /// The size of all files, in bytes.
    pub size: u64,
    /// Bytes that were not in the cache before.
    pub downloaded: u64,
}

impl ModelSource {
    /// Downloads what is needed of a hub repository, several files at a time: configurations, tokenizers, and the
    /// weights in one format and [one variant](Self::with_variant). Free space is checked first.
    ///
    /// # Errors
    /// If the model is not on the hub, the repository holds no model, or the download fails.
    pub fn download(&self) -> Result<Downloaded> {
        let Some(repository) = self.repository() else {
            return Err(Error::Input(format!(
                "{self}: expected a repository on the hub, which can be downloaded"
            )));
        };
        // The first query finds the commit and, on the hub itself, the list of files.
        let has_config = repository.has(CONFIG)?;
        let mut files = self.files_to_read(repository, &|_| true)?;
        self.check_parts()?;
        if files.is_empty() {
            files.extend(self.only_adapter()?);
        }
        if files.is_empty() {
            return Err(match has_config {
                true => find::no_weights(self, ""),
                false => repository
                    .missing("config.json, unet/config.json, or another that says what is in the model"),
            });
        }
        let downloaded = fetch_all(repository, &files)?;
        let (mut size, mut paths) = (0, Vec::new());
        for file in files {
            let path = repository.cached(&file)?.ok_or_else(|| repository.missing(&file))?;
            size += path.metadata().map_err(Error::io(path.display().to_string()))?.len();
            paths.push((file, path));
        }
        Ok(Downloaded {
            commit: repository.commit().unwrap_or_default().to_owned(),
            files: paths,
            size,
            downloaded,
        })
    }

    /// Checks that no part of a pipeline is a configuration without weights, which loading would miss later, perhaps
    /// where there is no network.
    fn check_parts(&self) -> Result<()> {
        if !self.has(PIPELINE)? {
            return Ok(());
        }
        for part in PARTS_OF_PIPELINES {
            if self.has(&in_folder(part, CONFIG))? && find::weights_file(self, part)?.is_none() {
                return Err(find::no_weights(self, part));
            }
        }
        Ok(())
    }

    /// The adapter in a repository that names it as it likes: the only safetensors file, as for diffusers.
    fn only_adapter(&self) -> Result<Option<String>> {
        let files = self.files()?.unwrap_or_default();
        let mut found = files.into_iter().filter(|file| file.ends_with(".safetensors"));
        let file = found.next();
        Ok(file.filter(|_| found.next().is_none()))
    }

    /// Downloads in advance, several files at a time, what is needed of these folders ("" is the root), if this is a
    /// repository on a hub that lists its files. Other sources load files on demand.
    ///
    /// # Errors
    /// If a download fails.
    pub fn prefetch(&self, folders: &[&str]) -> Result<()> {
        let Some(repository) = self.repository() else { return Ok(()) };
        repository.has(CONFIG)?;
        if repository.is_listed() {
            let files = self.files_to_read(repository, &|folder| folders.contains(&folder))?;
            fetch_all(repository, &files)?;
        }
        Ok(())
    }

    /// The files needed, in those of the folders that are used.
    fn files_to_read(
        &self,
        repository: &HubRepository,
        is_read: &dyn Fn(&str) -> bool,
    ) -> Result<BTreeSet<String>> {
        let parts: Vec<&str> = PARTS.into_iter().filter(|part| is_read(part)).collect();
        let tokenizers = TOKENIZER_FOLDERS.iter().map(|folder| (*folder, &TOKENIZER_FILES[..]));
        let configs = parts.iter().map(|part| (*part, &[CONFIG][..]));
        let all = SMALL_FILES
            .iter()
            .copied()
            .chain(tokenizers)
            .chain(configs)
            .filter(|(folder, _)| is_read(folder));
        let small: Vec<String> =
            all.flat_map(|(folder, names)| names.iter().map(move |name| in_folder(folder, name))).collect();
        let weights = parts.iter().flat_map(|part| find::candidates(self, part));
        let adapters = ADAPTER_FILES.map(str::to_owned);
        let questions: Vec<String> = small.iter().cloned().chain(weights).chain(adapters.clone()).collect();
        ask_all(repository, &questions)?;

        let mut files = BTreeSet::new();
        let is_pipeline = self.has(PIPELINE)?;
        for part in parts {
            if self.has(&in_folder(part, CONFIG))? && !(is_pipeline && part.is_empty()) {
                files.extend(find::weights_file(self, part)?);
            }
        }
        let indexes: Vec<String> = files.iter().filter(|file| is_index(file)).cloned().collect();
        for index in indexes {
            let folder = folder_of(&index);
            let parsed = ShardIndex::parse(&self.read(&index)?)?;
            files.extend(parsed.shards().map(|shard| in_folder(folder, shard)));
        }
        if files.is_empty() {
            files.extend(self.first_of(&adapters)?);
            if files.iter().any(|file| file.starts_with("adapter_model")) && self.has(ADAPTER_CONFIG)? {
                files.insert(ADAPTER_CONFIG.to_owned());
            }
            return Ok(files);
        }
        for file in small {
            if self.has(&file)? {
                files.insert(file);
            }
        }
        Ok(files)
    }
}

/// Whether a file is an index of shards, such as `model.safetensors.index.json` or `….index.fp16.json`.
fn is_index(file: &str) -> bool {
    file.ends_with(".json")
}

/// Queries many files at a time; the answers are cached.
fn ask_all(repository: &HubRepository, files: &[String]) -> Result<()> {
    in_parallel(QUESTIONS_AT_A_TIME, files, |file| repository.has(file).map(drop))
}

/// Downloads all files that are not in the cache. Returns their size in bytes.
fn fetch_all(repository: &HubRepository, files: &BTreeSet<String>) -> Result<u64> {
    let mut missing = Vec::new();
    for file in files {
        check_relative(file)?;
        if repository.cached(file)?.is_none() {
            missing.push(file.clone());
        }
    }
    ask_all(repository, &missing)?;
    let mut versions = Vec::new();
    for file in &missing {
        versions.push(repository.version(file)?.ok_or_else(|| repository.missing(file))?);
    }
    // Largest first, so that none of them is left alone at the end.
    versions.sort_by_key(|version| std::cmp::Reverse(version.size));
    let total: u64 = versions.iter().filter_map(|version| version.size).sum();
    let to_come = versions.iter().filter_map(|version| repository.missing_bytes(version)).sum();
    repository.check_space(to_come)?;
    if !versions.is_empty() {
        let files =
            if versions.len() == 1 { "1 file".to_owned() } else { format!("{} files", versions.len()) };
        let line = format!("Downloading {repository}: {files}, {}", decimal_bytes(to_come));
        (repository.options().notice)(&line);
    }
    let bar = repository.bar(Some(total), "Downloading".to_owned());
    let result =
        in_parallel(DOWNLOADS_AT_A_TIME, &versions, |version| repository.download(version, &bar).map(drop));
    bar.finish_and_clear();
    result.map(|()| to_come)
}
