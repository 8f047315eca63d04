//! Defines how a server is reached and what it offers.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::limits::Limits;

/// How a server is reached, and what it does with models.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// The address to listen on; port 0 takes a free one.
    pub address: SocketAddr,
    /// The key that requests must carry, as `Authorization: Bearer KEY` or as the password of basic authentication.
    pub api_key: Option<String>,
    /// Whether other machines may connect without a key.
    pub insecure: bool,
    /// Names beside addresses and `localhost` under which browsers may reach a server without a key. Without this
    /// check, a web page could reach it through a name of its own that points here.
    pub host_names: Vec<String>,
    /// Origins whose pages may use the server, such as `https://chat.example`; `*` for all. None by default.
    pub allowed_origins: Vec<String>,
    /// Frees a model after it was idle for this long; `None` keeps it.
    pub keep_loaded: Option<Duration>,
    /// Whether models are loaded at the start instead of at their first use.
    pub preload: bool,
    /// Whether prompts appear in the log.
    pub log_prompts: bool,
    /// A folder of LoRAs that requests can name by file, without its ending.
    pub lora_folder: Option<PathBuf>,
    /// A folder of textual inversions, each of which is a word in prompts, by file, without its ending.
    pub word_folder: Option<PathBuf>,
    /// A folder of ControlNets that requests can name.
    pub controlnet_folder: Option<PathBuf>,
    /// Indexes to search, written by `altdiffusion embed`, with their names.
    pub indexes: Vec<(String, PathBuf)>,
    /// How much the server takes on.
    pub limits: Limits,
}

/// Port 7860 of this machine only, without a key.
impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, Self::PORT)),
            api_key: None,
            insecure: false,
            host_names: Vec::new(),
            allowed_origins: Vec::new(),
            keep_loaded: Some(Self::KEEP_LOADED),
            preload: false,
            log_prompts: false,
            lora_folder: None,
            word_folder: None,
            controlnet_folder: None,
            indexes: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl ServerOptions {
    /// The default port, that of stable-diffusion-webui.
    pub const PORT: u16 = 7860;
    /// How long an idle model stays loaded by default.
    pub const KEEP_LOADED: Duration = Duration::from_secs(15 * 60);

    pub(crate) fn check(&self) -> Result<()> {
        if !self.address.ip().is_loopback() && self.api_key.is_none() && !self.insecure {
            let problem = format!(
                "{}: other machines could use this server without a key; expected an API key, an address of this \
                 machine only such as 127.0.0.1, or --insecure",
                self.address
            );
            return Err(Error::Options(problem));
        }
        match &self.api_key {
            Some(key) if key.is_empty() => {
                Err(Error::Options("API key: expected one, found none".to_owned()))
            }
            _ => Ok(()),
        }
    }
}
