//! `altdiffusion download`: downloads models from the hub in advance.

use anyhow::Result;
use clap::Args;
use indicatif::DecimalBytes;
use model_files::source::ModelSource;
use serde::Serialize;

use crate::model::open_source;
use crate::standard_streams::{print_json, print_line};

/// Download models from the Hugging Face hub.
///
/// Downloads what this program reads of them and nothing else, to the cache that all Hugging Face libraries share.
/// An interrupted download resumes. Afterwards the models work offline. `altdiffusion models` lists and removes
/// them.
#[derive(Debug, Args)]
pub struct Download {
    /// Repositories, such as BAAI/AltDiffusion-m9, or NAME@REVISION.
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<String>,

    /// Revision of all of them: a branch, a tag, or a commit.
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,

    /// Weights variant, as in diffusers: fp16 downloads model.fp16.safetensors and the like.
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,

    /// Print JSON: a list of objects with model, commit, size, downloaded and files.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct DownloadReport {
    model: String,
    commit: String,
    /// The size of all files, in bytes.
    size: u64,
    /// Bytes that were not in the cache before.
    downloaded: u64,
    files: Vec<FileReport>,
}

#[derive(Serialize)]
struct FileReport {
    name: String,
    path: String,
}

impl Download {
    pub fn run(self) -> Result<()> {
        // Invalid names are reported before anything is downloaded.
        let open = |name: &String| open_source(name, self.revision.as_deref(), self.variant.as_deref());
        let sources = self.models.iter().map(open).collect::<Result<Vec<ModelSource>>>()?;
        let mut reports = Vec::new();
        for source in sources {
            let downloaded = source.download()?;
            if !self.json {
                let commit = downloaded.commit.get(..12).unwrap_or(&downloaded.commit);
                let (files, size) = (downloaded.files.len(), DecimalBytes(downloaded.size));
                let new = match downloaded.downloaded {
                    0 => "all of it in the cache before".to_owned(),
                    bytes => format!("{} downloaded", DecimalBytes(bytes)),
                };
                print_line(format!("{source}: {files} files, {size}, {new}, commit {commit}"))?;
            }
            let file = |(name, path): (String, std::path::PathBuf)| FileReport {
                name,
                path: path.display().to_string(),
            };
            reports.push(DownloadReport {
                model: source.to_string(),
                commit: downloaded.commit,
                size: downloaded.size,
                downloaded: downloaded.downloaded,
                files: downloaded.files.into_iter().map(file).collect(),
            });
        }
        if self.json { print_json(&reports) } else { Ok(()) }
    }
}
