//! Writes rows to a table of a PostgreSQL database with pgvector.

// Its numbers come from files and networks: none may be cut.
#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]

mod copy;
mod problem;
mod session;
mod table_name;
mod tls;

use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use model_files::ErrorKind;
use postgres::config::{Host, SslMode};
use postgres::{Client, Config, NoTls};

pub(crate) use self::copy::{CopyRows, TableRow, VectorType};
pub(crate) use self::session::{Mark, Session};

use self::problem::describe;
use self::table_name::TableName;
use self::tls::Tls;
use crate::error::{Error, Result};

/// How URLs of databases begin.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];
const DEFAULT_PORT: u16 = 5432;
/// The name of the table if no other is given.
const DEFAULT_NAME: &str = "embeddings";
/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// After this long without an answer, a connection counts as lost.
const SILENCE: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// A table of a PostgreSQL database with pgvector, for the vectors of a [`Job`](crate::Job).
///
/// It has the columns `key`, `kind`, `text`, `vector` and `model`, and is made if it is missing, with the table
/// `…_progress` beside it, which says how far unfinished jobs are. The key of an image is its path, that of a text
/// its list's name and its number, such as `captions.txt:7`, or the value of a column; `kind` is `text` or `image`. A
/// row whose key and kind are there already is replaced.
#[derive(Clone)]
pub struct PostgresTable {
    config: Config,
    table: TableName,
    /// For people: without the password.
    shown: String,
}

impl PostgresTable {
    /// Whether this is the URL of such a database, and not a path.
    pub fn is_url(text: &str) -> bool {
        SCHEMES.iter().any(|scheme| text.starts_with(scheme))
    }

    /// The table `embeddings` of the database with this URL, such as `postgres://user@localhost/photos`.
    ///
    /// The connection is encrypted if the server supports it, and its certificate is checked; on this machine it is
    /// not, unless the URL has `sslmode`.
    ///
    /// # Errors
    /// [`Error::Input`] if the URL is invalid.
    pub fn new(url: &str) -> Result<Self> {
        let problem = |problem: String| {
            Error::Input(format!("expected a URL such as postgres://user@localhost/photos: {problem}"))
        };
        // What follows would become part of the host's name, which errors show.
        if url.matches('@').count() > 1 {
            return Err(problem("an @ in a user name or a password is written %40".to_owned()));
        }
        if !Self::is_url(url) {
            return Err(problem("it begins in another way".to_owned()));
        }
        let mut config = url.parse::<Config>().map_err(|error| problem(describe(&error).0))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host("localhost");
        }
        if is_local(&config) && !url.contains("sslmode=") {
            config.ssl_mode(SslMode::Disable);
        }
        set_patience(&mut config);
        if config.get_application_name().is_none() {
            config.application_name("altdiffusion");
        }
        Self::named(config, DEFAULT_NAME)
    }

    /// Another table of the database, `NAME` or `SCHEMA.NAME`.
    ///
    /// # Errors
    /// [`Error::Input`] if the name is invalid.
    pub fn table(self, name: &str) -> Result<Self> {
        Self::named(self.config, name)
    }

    fn named(config: Config, name: &str) -> Result<Self> {
        let table = TableName::parse(name).map_err(Error::Input)?;
        let shown = format!("table {name} of {} at {}", database_of(&config), host_of(&config));
        Ok(Self { config, table, shown })
    }

    /// Sets the password, if the URL has none.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        if self.config.get_password().is_none() {
            self.config.password(password);
        }
        self
    }

    /// Its name for people, without the password: `table embeddings of photos at localhost`.
    pub fn name(&self) -> &str {
        &self.shown
    }

    /// Checks that the database can be reached.
    ///
    /// # Errors
    /// [`Error::Table`] if it cannot.
    pub fn check(&self) -> Result<()> {
        self.connect().map(drop)
    }

    fn connect(&self) -> Result<Client> {
        let connected = match self.config.get_ssl_mode() {
            SslMode::Disable => self.config.connect(NoTls),
            _ => self.config.connect(Tls::new().map_err(|problem| self.problem(problem, ErrorKind::File))?),
        };
        connected.map_err(|error| self.failure(&error))
    }

    /// What is wrong with the table.
    fn problem(&self, problem: String, kind: ErrorKind) -> Error {
        Error::Table { table: self.shown.clone(), problem, kind }
    }

    /// An error of the connection or the server.
    fn failure(&self, error: &(dyn StdError + 'static)) -> Error {
        let (problem, kind) = describe(error);
        self.problem(problem, kind)
    }
}

/// Without the password.
impl fmt::Debug for PostgresTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresTable({})", self.shown)
    }
}

/// Whether the server is on this machine.
fn is_local(config: &Config) -> bool {
    let is_loopback =
        |name: &str| name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let hosts = config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => is_loopback(name),
        #[cfg(unix)]
        Host::Unix(_) => true,
    });
    hosts && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

/// Limits the waiting for a network that is gone, except where the URL has limits of its own.
fn set_patience(config: &mut Config) {
    let default = Config::new();
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(SILENCE);
    }
    if config.get_keepalives_idle() == default.get_keepalives_idle() {
        config.keepalives_idle(SILENCE);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(PROBE_EVERY);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(PROBES);
    }
}

fn database_of(config: &Config) -> &str {
    config.get_dbname().or_else(|| config.get_user()).unwrap_or("the user's database")
}

fn host_of(config: &Config) -> String {
    let name = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => return path.display().to_string(),
        None => config.get_hostaddrs().first().map(IpAddr::to_string).unwrap_or_default(),
    };
    match config.get_ports().first() {
        Some(&port) if port != DEFAULT_PORT => format!("{name}:{port}"),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(url: &str) -> Result<PostgresTable> {
        PostgresTable::new(url)
    }

    #[test]
    fn tables_are_shown_without_secrets() -> Result<()> {
        for (url, expected) in [
            ("postgres://localhost/photos", "table embeddings of photos at localhost"),
            (
                "postgresql://ann:secret@db.example.com:5433/photos",
                "table embeddings of photos at db.example.com:5433",
            ),
            ("postgres://ann:secret@10.0.0.5", "table embeddings of ann at 10.0.0.5"),
            ("postgres:///photos?user=ann&password=secret", "table embeddings of photos at localhost"),
            ("postgres://u:s%2Fe%40cret@[::1]:5432/a%20b", "table embeddings of a b at ::1"),
        ] {
            let table = table(url)?;
            assert_eq!(table.name(), expected);
            let debug = format!("{table:?} {:?}", table.config);
            assert!(!debug.contains("secret") && !debug.contains("e@cret"), "{debug}");
        }
        #[cfg(unix)]
        assert_eq!(table("postgres://u:@/p?host=/run/pg")?.name(), "table embeddings of p at /run/pg");
        let other = table("postgres://localhost/photos")?.table("search.Photos")?;
        assert_eq!(other.name(), "table search.Photos of photos at localhost");
        assert!(other.table("").is_err());
        Ok(())
    }

    #[test]
    fn bad_urls_are_refused_without_their_password() {
        for (url, expected) in [
            ("postgres://ann:secret@part@db/photos", "written %40"),
            ("postgres://ann:secret/photos", "invalid value for option `port`"),
            ("postgres://db/photos?sslmode=secret", "invalid value for option `sslmode`"),
            ("postgres://db/photos?color=secret", "unknown option `color`"),
            ("mysql://ann:secret@db/photos", "begins in another way"),
        ] {
            let error = table(url).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(expected), "{url}: {error}");
            assert!(!error.contains("secret") && !error.contains("part"), "{url}: {error}");
        }
        assert!(!PostgresTable::is_url("vectors.parquet") && PostgresTable::is_url("postgresql://"));
    }

    #[test]
    fn a_url_decides_over_password_and_encryption() -> Result<()> {
        let password = |url: &str| -> Result<Option<Vec<u8>>> {
            Ok(table(url)?.password("other").config.get_password().map(<[u8]>::to_vec))
        };
        assert_eq!(password("postgres://u:own@db")?.as_deref(), Some(&b"own"[..]));
        assert_eq!(password("postgres://u@db")?.as_deref(), Some(&b"other"[..]));
        let mode = |url: &str| table(url).map(|table| table.config.get_ssl_mode());
        assert_eq!(mode("postgres://db.example.com/p")?, SslMode::Prefer);
        assert_eq!(mode("postgres://127.0.0.1/p")?, SslMode::Disable);
        assert_eq!(mode("postgres://localhost,db.example.com/p")?, SslMode::Prefer);
        assert_eq!(mode("postgres://localhost/p?sslmode=require")?, SslMode::Require);
        Ok(())
    }

    #[test]
    fn a_server_that_is_not_there_is_one_line() -> Result<()> {
        // A port that nobody listens on, because it was just free.
        let free = std::net::TcpListener::bind("127.0.0.1:0").map_err(Error::io("a port"))?;
        let port = free.local_addr().map_err(Error::io("a port"))?.port();
        drop(free);
        let found = table(&format!("postgres://ann:secret@127.0.0.1:{port}/photos"))?.check();
        let Err(error) = found else { return Err(Error::Input("nobody should listen".to_owned())) };
        assert_eq!(error.kind(), ErrorKind::Network);
        let error = error.to_string();
        let expected =
            format!("table embeddings of photos at 127.0.0.1:{port}: error connecting to server: ");
        assert!(
            error.starts_with(&expected) && !error.contains('\n') && !error.contains("secret"),
            "{error}"
        );
        Ok(())
    }
}
