//! Parses the options for training in several processes.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use altclip_training::parallel::{Alone, Communicator, Rendezvous, Secret, join};
use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::Args;

use crate::device::DeviceChoice;
use crate::option_values::count;
use crate::progress::warn;

/// How long ranks wait for one another at the start: a cluster's nodes do not start simultaneously.
const PATIENCE: Duration = Duration::from_secs(600);

/// The variables of `torchrun` and PyTorch's other launchers give the default address.
const MASTER_ADDR: &str = "MASTER_ADDR";
const MASTER_PORT: &str = "MASTER_PORT";
/// The variable with the secret itself.
const SECRET: &str = "ALTDIFFUSION_SECRET";
/// "True" if `torchrun`'s own server uses that port.
const PORT_IS_TAKEN: &str = "TORCHELASTIC_USE_AGENT_STORE";

/// Several processes that train a model together.
#[derive(Debug, Args)]
pub struct Ranks {
    /// Number of processes that train together, such as one per GPU. Start each with the same command but its own
    /// --rank.
    ///
    /// Each takes as many batches per step as the configuration says. All must see the same files.
    #[arg(long, value_name = "N", env = "WORLD_SIZE", default_value_t = 1, value_parser = count)]
    ranks: usize,
    /// Number of this process, from 0. Rank 0 writes all files.
    #[arg(long, value_name = "N", env = "RANK")]
    rank: Option<usize>,
    /// Number of this process on its own machine, which is the number of its GPU. By default --rank.
    #[arg(long, value_name = "N", env = "LOCAL_RANK")]
    local_rank: Option<usize>,
    /// Address where rank 0 listens. By default MASTER_ADDR and MASTER_PORT.
    ///
    /// If other machines reach it, the processes need a secret: see --secret-file.
    #[arg(long, value_name = "HOST:PORT")]
    rendezvous: Option<String>,
    /// File with a secret that all processes share, by which they recognize each other.
    ///
    /// At least 16 bytes, such as those of `openssl rand -hex 32`. By default the variable ALTDIFFUSION_SECRET holds
    /// the secret itself. Messages are then signed, but not encrypted.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    secret_file: Option<PathBuf>,
    /// Meet without a secret at an address that other machines reach: whoever connects first is a rank.
    #[arg(long)]
    insecure: bool,
}

impl Ranks {
    /// The device of this process.
    pub fn device(&self, choice: DeviceChoice) -> DeviceChoice {
        match self.local_rank.or(self.rank) {
            Some(number) if self.ranks > 1 => choice.of_process(number),
            _ => choice,
        }
    }

    /// Meets the other processes.
    ///
    /// # Errors
    /// If an option is missing, or the others do not come.
    pub fn join(&self, device: &Device) -> Result<Box<dyn Communicator>> {
        let ranks = self.ranks;
        if ranks == 1 && self.rank.is_none_or(|rank| rank == 0) {
            return Ok(Box::new(Alone));
        }
        let rank = self.rank.with_context(|| format!("--ranks {ranks}: expected --rank as well"))?;
        if rank >= ranks {
            bail!("--rank {rank}: expected a number below --ranks, which is {ranks}");
        }
        let address = match &self.rendezvous {
            Some(address) => address.clone(),
            None => address_of_launcher(|name| env::var(name).ok()).with_context(|| {
                format!(
                    "--ranks {ranks}: expected --rendezvous HOST:PORT, or {MASTER_ADDR} and {MASTER_PORT}"
                )
            })?,
        };
        let (secret, insecure) = (self.secret()?, self.insecure);
        if secret.is_none() && insecure {
            warn("--insecure: whoever reaches the address can join the run and change the model");
        }
        Ok(join(&Rendezvous { rank, ranks, address, patience: PATIENCE, secret, insecure }, device)?)
    }

    fn secret(&self) -> Result<Option<Secret>> {
        if let Some(path) = &self.secret_file {
            return Ok(Some(Secret::from_file(path).context("--secret-file")?));
        }
        match env::var_os(SECRET).filter(|_| !self.insecure) {
            Some(secret) => Ok(Some(Secret::new(secret.as_encoded_bytes(), SECRET)?)),
            None => Ok(None),
        }
    }
}

/// `HOST:PORT` from the variables of PyTorch's launchers; `None` if they are missing or invalid.
fn address_of_launcher(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let (host, port) = (variable(MASTER_ADDR)?, variable(MASTER_PORT)?);
    let port: u16 = port.parse().ok()?;
    let is_taken = variable(PORT_IS_TAKEN).is_some_and(|value| value == "True");
    let port = port.checked_add(u16::from(is_taken))?;
    // An IPv6 address.
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
    Some(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_say_where_to_meet() {
        let address = |host: &str, port: &str, taken: &str| {
            address_of_launcher(|name| match name {
                MASTER_ADDR => Some(host.to_owned()),
                MASTER_PORT => Some(port.to_owned()).filter(|port| !port.is_empty()),
                PORT_IS_TAKEN => Some(taken.to_owned()),
                _ => None,
            })
        };
        assert_eq!(address("node0", "29500", "").as_deref(), Some("node0:29500"));
        assert_eq!(address("::1", "29500", "False").as_deref(), Some("[::1]:29500"));
        // torchrun's own server is there.
        assert_eq!(address("127.0.0.1", "29500", "True").as_deref(), Some("127.0.0.1:29501"));
        for port in ["", "x", "65536"] {
            assert_eq!(address("node0", port, "False"), None);
        }
        assert_eq!(address("node0", "65535", "True"), None);
    }
}
