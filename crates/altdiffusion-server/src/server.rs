//! Starts and runs a server.

use std::future::Future;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::api;
use crate::connections::serve;
use crate::error::{Error, Result};
use crate::models::Models;
use crate::options::ServerOptions;
use crate::state::{Shared, State};

/// Threads that speak HTTP; the models have their own.
const HTTP_THREADS: usize = 2;

/// A server that listens.
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    state: Shared,
}

impl Server {
    /// Listens, and starts the models' threads.
    ///
    /// # Errors
    /// If the address is taken or would let other machines in without a key, or an index cannot be opened.
    pub fn bind(models: Models, options: ServerOptions) -> Result<Self> {
        options.check()?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(HTTP_THREADS)
            .thread_name("http")
            .enable_all()
            .build()?;
        let address = options.address;
        let failed = |source| Error::Bind { address, source };
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let state = State::start(&models, options)?;
        Ok(Self { runtime, listener, address, state })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `end`; then refuses new work, and returns when running requests are finished.
    ///
    /// # Errors
    /// None at present: what fails for one connection does not end the others.
    pub fn run(self, end: impl Future<Output = ()>) -> Result<()> {
        let Self { runtime, listener, state, .. } = self;
        let limits = state.options.limits.clone();
        let router = api::router(&state);
        runtime.block_on(serve(listener, router, &limits, end, || state.end()));
        // Work of clients that did not leave in time must not hold up the end.
        runtime.shutdown_background();
        Ok(())
    }
}

/// The description of the interface in OpenAPI's format, as `/openapi.json` serves it.
pub fn openapi() -> String {
    api::openapi()
}
