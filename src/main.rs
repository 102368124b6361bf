//! The command line's entry. Everything else is in the library, where the tests reach it.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use intentd::cli::{Cli, Command};
use intentd::config::Config;
use intentd::telemetry::traces;

fn main() -> ExitCode {
    // One TLS provider for the whole process: two of them panic at first use.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("intentd: another TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("intentd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if matches!(cli.command, Command::Openapi) {
        std::io::stdout().write_all(intentd::http::api::document::text().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::load(cli.config.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let traces = traces::start(&config, runtime.handle())?;
    for name in Config::unknown_variables() {
        tracing::warn!("the environment variable {name} means nothing to this version");
    }
    let result = runtime.block_on(async move {
        match cli.command {
            Command::Audit(command) => return intentd::admin::audit(command, &config).await,
            Command::Serve => intentd::serve::serve(config).await,
            Command::Simulator => {
                let chains = intentd::serve::load_chains(&config.chains)?;
                intentd::simulate::server::http::serve(&config, chains).await
            }
            Command::Dev(options) => Ok(intentd::dev::run(options).await?),
            Command::Admin(command) => intentd::admin::run(command, config).await,
            // Printed above, without a configuration.
            Command::Openapi => Ok(()),
        }?;
        Ok(ExitCode::SUCCESS)
    });
    traces.finish();
    result
}
