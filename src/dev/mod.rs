//! `intentd dev`: the embedded stack. A supervisor that starts a private Postgres, a private SoftHSM2 token, local anvil chains
//! and the very same `intentd serve` that production runs, configured through the environment as production is.
//!
//! Invariant: nothing here is on a path that `serve` takes. The supervisor talks to its daemon as anybody would: by HTTP.

mod chains;
mod demo;
mod envfile;
mod error;
mod journal;
pub mod postgres;
pub mod process;
mod serve;
mod simulator;
mod stack;
mod state;
mod store;
mod token;
pub mod user;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use error::DevError;
pub use stack::DevStack;

use crate::hsm::softhsm;

/// `intentd dev`
#[derive(Clone, Debug, clap::Args)]
pub struct DevOptions {
    /// Folder for everything the stack keeps. It survives a restart.
    #[arg(long, value_name = "DIR", default_value = ".intentd")]
    pub state: PathBuf,
    /// Remove what the folder holds (database, keys, chains) and start anew.
    #[arg(long)]
    pub reset: bool,
    /// Address of the API. Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// A chain to play locally under its own name and id, beside `anvil` (31337). May be given more than once.
    #[arg(long, value_name = "NAME", default_value = "base")]
    pub local: Vec<String>,
    /// The anvil binary. Without it: .tools/ (where anvil/run puts it), then PATH.
    #[arg(long, value_name = "FILE", env = "INTENTD_ANVIL_BIN")]
    pub anvil_bin: Option<PathBuf>,
}

/// Starts the whole stack and returns once its daemon is healthy and the demo data is there.
///
/// Call it from a thread that lives as long as the stack: the children are told to die with it. The process must have been
/// started with SOFTHSM2_CONF naming the state folder's token; [`run`] sees to that.
///
/// # Errors
/// [`DevError`], one sentence that names the part and what to do. What was started is stopped again.
pub async fn start(options: DevOptions) -> Result<DevStack, DevError> {
    let mut stack = DevStack::new(&options)?;
    match stack.bring_up(&options).await {
        Ok(()) => Ok(stack),
        Err(error) => {
            stack.stop().await;
            Err(error)
        }
    }
}

/// Starts the stack, says how to use it, and serves until a signal (SIGINT, SIGTERM, SIGHUP) or the death of a part.
///
/// Begins by replacing the process by itself (exec, same PID) with SOFTHSM2_CONF set, which SoftHSM reads when it is loaded.
///
/// # Errors
/// As [`start`], and [`DevError::Died`] with the end of its log when a part dies by itself.
pub async fn run(options: DevOptions) -> Result<(), DevError> {
    let conf = token::conf_path(&options.state).map_err(DevError::file("find", &options.state))?;
    softhsm::enter(&conf).map_err(|error| DevError::start("intentd dev", error))?;
    let mut signals = process::stop_signals()?;
    eprintln!("starting the dev stack in {}", options.state.display());
    let mut stack = DevStack::new(&options)?;
    let up = tokio::select! {
        up = stack.bring_up(&options) => up,
        () = signals.wait() => Err(DevError::Interrupted),
    };
    let end = match up {
        Ok(()) => {
            stack.introduce();
            tokio::select! {
                died = stack.first_death() => Err(died),
                () = signals.wait() => Ok(()),
            }
        }
        Err(error) => Err(error),
    };
    eprintln!("stopping: the daemon first, then the chains, then Postgres");
    stack.stop().await;
    end
}
