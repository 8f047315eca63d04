//! Holds the settings of the hub: where it is, how to get there, and where its files are kept.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::proxy::{Proxies, without_credentials};

/// Where lines for the person at the terminal go.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// How to reach the hub, and where to keep what it delivers.
#[derive(Clone)]
pub struct HubOptions {
    /// The server, such as `https://huggingface.co`. May hold a path, as mirrors have it, and a user with password.
    pub endpoint: String,
    /// The directory of downloaded files, in the layout that all Hugging Face libraries share.
    pub cache: PathBuf,
    /// The access token for private and gated repositories. It is sent to the endpoint's scheme, host and port alone.
    pub token: Option<String>,
    /// Use only what was downloaded before.
    pub offline: bool,
    /// Show bars of downloads on standard error, where that is a terminal.
    pub progress: bool,
    /// Link the files of a commit to the cache's blobs. Without, they are copies.
    pub symlinks: bool,
    /// How long the server may take to answer what it knows about a file.
    pub metadata_timeout: Duration,
    /// How long the server may send nothing while it sends a file.
    pub download_timeout: Duration,
    /// How many times in a row a failed request is repeated. A download that gets further counts anew.
    pub retries: u32,
    /// The pause before a request is repeated, where the server asks for none. Each further one is twice as long.
    pub pause: Duration,
    /// The proxies to go through.
    pub proxies: Proxies,
    /// Files and directories of PEM certificates to trust in place of the system's.
    pub authorities: Vec<PathBuf>,
    /// Where to tell what a person should know: that a download begins, that the cache had to do.
    pub notice: Notice,
}

impl HubOptions {
    /// A server and a directory for its files; with no token, no proxy, and the system's certificates.
    pub fn new(endpoint: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: endpoint.into(),
            cache: cache.into(),
            token: None,
            offline: false,
            progress: true,
            symlinks: true,
            metadata_timeout: Duration::from_secs(10),
            download_timeout: Duration::from_secs(10),
            retries: 5,
            pause: Duration::from_millis(300),
            proxies: Proxies::default(),
            authorities: Vec::new(),
            // Where standard error is closed there is nobody to tell.
            notice: Arc::new(|line| {
                drop(std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{line}\n")))
            }),
        }
    }
}

/// The token, and passwords in URLs, are secrets and stay out of logs.
impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &without_credentials(&self.endpoint))
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("progress", &self.progress)
            .field("symlinks", &self.symlinks)
            .field("metadata_timeout", &self.metadata_timeout)
            .field("download_timeout", &self.download_timeout)
            .field("retries", &self.retries)
            .field("pause", &self.pause)
            .field("proxies", &self.proxies)
            .field("authorities", &self.authorities)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_out_of_debug_output() {
        let options = HubOptions {
            token: Some("hf_secret".into()),
            proxies: Proxies { https: Some("http://me:secret@proxy:3128".into()), ..Proxies::default() },
            ..HubOptions::new("https://me:secret@hub.example", "cache")
        };
        let shown = format!("{options:?}");
        assert!(
            !shown.contains("secret") && shown.contains("hub.example") && shown.contains("proxy:3128"),
            "{shown}"
        );
    }
}
