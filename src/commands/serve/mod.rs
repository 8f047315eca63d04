//! `altdiffusion serve`: serves images and embeddings over HTTP.

mod limits;
mod models;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use altdiffusion_server::{Server, ServerOptions};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use self::limits::ServeLimits;
use self::models::ServedModels;
use crate::interrupt::Interrupt;
use crate::progress::warn;
use crate::standard_streams::{print_json, print_line};

/// How often to look whether the program should end.
const PAUSE: Duration = Duration::from_millis(50);

/// Serve images and embeddings over HTTP, with a page to draw on.
///
/// Without options it serves the model inside this program at http://127.0.0.1:7860, to this machine only. It speaks
/// OpenAI's interface (/v1/images/generations, /v1/images/edits, /v1/embeddings), stable-diffusion-webui's
/// (/sdapi/v1/txt2img and what its clients call), and immich's for CLIP (/predict). /openapi.json describes all paths,
/// /health and /metrics are for those who run it. Ctrl-C or SIGTERM finishes what runs; a second one ends it at once.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Serve {
    /// Address to listen on; 0.0.0.0 for all, which needs an API key.
    // The last one counts, so that containers, whose first options are fixed, can be given another.
    #[arg(
        long,
        alias = "listen",
        value_name = "ADDRESS",
        default_value = "127.0.0.1",
        overrides_with = "host"
    )]
    host: IpAddr,

    /// Port to listen on; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = ServerOptions::PORT)]
    port: u16,

    #[command(flatten)]
    models: ServedModels,

    /// Search this index, written by `altdiffusion embed` or `altdiffusion index add`: FILE, or NAME=FILE.
    ///
    /// Repeat the option for more. The images that it lists can then be seen by everyone who may use the server.
    #[arg(long, value_name = "FILE")]
    index: Vec<String>,

    /// Key that requests must carry, as `Authorization: Bearer KEY` or as the password of basic authentication.
    ///
    /// Better given by the variable, since other users of the machine can see a program's options.
    #[arg(
        long,
        value_name = "KEY",
        env = "ALTDIFFUSION_API_KEY",
        hide_env_values = true,
        hide_short_help = true
    )]
    api_key: Option<String>,

    /// Let other machines in without an API key.
    #[arg(long, hide_short_help = true)]
    insecure: bool,

    /// Name under which browsers may reach this server, beside localhost and addresses.
    ///
    /// Only needed without an API key. Repeat the option for more.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    host_name: Vec<String>,

    /// Let pages of this origin use the server, such as https://chat.example; * for all.
    ///
    /// Repeat the option for more. By default only the server's own page may.
    // Its address is for the command's help; it is no link.
    #[allow(rustdoc::bare_urls)]
    #[arg(long, alias = "cors-origin", value_name = "ORIGIN", hide_short_help = true)]
    cors: Vec<String>,

    #[command(flatten)]
    limits: ServeLimits,

    /// Form of the log: text or json.
    #[arg(long, value_name = "FORM", value_enum, default_value_t = LogForm::Text, hide_possible_values = true, hide_short_help = true)]
    pub log_format: LogForm,

    /// Log prompts, which are otherwise left out.
    #[arg(long, hide_short_help = true)]
    log_prompts: bool,

    /// Print the description of the interface in OpenAPI's format, and end.
    #[arg(long, hide_short_help = true)]
    openapi: bool,

    /// Print the address as JSON.
    #[arg(long, hide_short_help = true)]
    json: bool,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    Text,
    Json,
}

const EXAMPLES: &str = "\
Examples:
  altdiffusion serve

  altdiffusion serve --model BAAI/AltDiffusion-m9 --embedder BAAI/AltCLIP-m9 --dtype bf16 --index photos.safetensors

  curl http://127.0.0.1:7860/v1/images/generations --json '{\"prompt\": \"一只猫\"}'

  ALTDIFFUSION_API_KEY=secret altdiffusion serve --host 0.0.0.0 --loras ~/loras";

impl Serve {
    pub fn run(self) -> Result<()> {
        if self.openapi {
            return crate::standard_streams::print(&format!("{}\n", altdiffusion_server::openapi()));
        }
        let interrupt = Interrupt::watch_for("running requests are answered");
        let options = self.options()?;
        if self.insecure && options.api_key.is_none() && !self.host.is_loopback() {
            warn("every machine that reaches this address can use the server: nothing asks for a key");
        }
        let server = Server::bind(self.models.all()?, options)?;
        let address = format!("http://{}", server.address());
        if self.json {
            print_json(&serde_json::json!({ "address": address }))?;
        } else {
            print_line(format!("Serving at {address}"))?;
        }
        let pressed = async move {
            while !interrupt.is_pressed() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        Ok(server.run(pressed)?)
    }

    fn options(&self) -> Result<ServerOptions> {
        let mut options = ServerOptions::default();
        options.address = SocketAddr::new(self.host, self.port);
        // An empty variable counts as unset.
        options.api_key = self.api_key.clone().filter(|key| !key.is_empty());
        options.insecure = self.insecure;
        options.host_names = self.host_name.clone();
        options.allowed_origins = self.cors.clone();
        options.log_prompts = self.log_prompts;
        options.indexes = self.index.iter().map(|given| named_index(given)).collect::<Result<_>>()?;
        self.models.set(&mut options)?;
        self.limits.set(&mut options.limits)?;
        Ok(options)
    }
}

/// Reads FILE or NAME=FILE; the name of a file is its own, without the ending.
fn named_index(given: &str) -> Result<(String, PathBuf)> {
    let (name, path) = match given.split_once('=') {
        Some((name, path)) if !std::path::Path::new(given).exists() => (name.to_owned(), PathBuf::from(path)),
        _ => {
            let path = PathBuf::from(given);
            (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path)
        }
    };
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
    ensure!(
        !name.is_empty() && name.chars().all(is_plain),
        "--index {given}: expected a name of letters, digits, -, _ and ."
    );
    path.metadata().with_context(|| format!("--index {}", path.display()))?;
    Ok((name, path))
}
