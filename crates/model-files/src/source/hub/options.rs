//! Defines the options of the hub: where it is, how to reach it, and where to cache its files.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::proxy::{Proxies, without_credentials};

/// Receives messages for the user.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// How to reach the hub, and where to cache its files.
#[derive(Clone)]
pub struct HubOptions {
    /// The server, such as `https://huggingface.co`. May include a path, as for mirrors, and a user with password.
    pub endpoint: String,
    /// The cache directory, in the layout that all Hugging Face libraries share.
    pub cache: PathBuf,
    /// The access token for private and gated repositories. It is only sent to the endpoint's scheme, host and port.
    pub token: Option<String>,
    /// Only use cached files.
    pub offline: bool,
    /// Show progress bars on standard error, if that is a terminal.
    pub progress: bool,
    /// Link a commit's files to the cache's blobs instead of copying them.
    pub symlinks: bool,
    /// The timeout for metadata.
    pub metadata_timeout: Duration,
    /// How long a download may stall.
    pub download_timeout: Duration,
    /// How many times in a row a failed request is repeated. A download that makes progress starts counting again.
    pub retries: u32,
    /// The pause before repeating a request, if the server does not ask for one. It doubles each time.
    pub pause: Duration,
    /// The proxies.
    pub proxies: Proxies,
    /// Files and directories of PEM certificates that replace the system's.
    pub authorities: Vec<PathBuf>,
    /// Receives what the user should know: that a download starts, or that the cache is used instead.
    pub notice: Notice,
}

impl HubOptions {
    /// A server and a cache directory, without token or proxy, and with the system's certificates.
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
            // If standard error is closed, the message is lost.
            notice: Arc::new(|line| {
                drop(std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{line}\n")))
            }),
        }
    }
}

/// Tokens, and passwords in URLs, must not appear in logs.
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
