//! The `krb-node-agent` command.

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use krb_node_agent::{
    config::{Config, Given},
    hygiene, install, run,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// The agent of one node: fetches what the node's pods may have, and writes it into their
/// volumes.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    /// The configuration, agent.toml.
    #[arg(long, required = true)]
    config: Option<PathBuf>,
    /// This node's name, whatever the file says.
    #[arg(long)]
    node: Option<String>,
    /// The broker, https://host:port, whatever the file says.
    #[arg(long)]
    broker: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Put the driver into kubelet's plug-in directory, whole at any moment, and end.
    InstallDriver {
        /// The driver's program.
        #[arg(long)]
        from: PathBuf,
        /// Kubelet's directory of volume plug-ins.
        #[arg(long)]
        to: PathBuf,
        /// The driver's directory in it, vendor~driver.
        #[arg(long, default_value = "krb-broker~credentials")]
        driver: String,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(level).with_writer(std::io::stderr).init();
    let given = Given { node: arguments.node, broker: arguments.broker };
    let outcome = match (arguments.command, arguments.config) {
        (Some(Command::InstallDriver { from, to, driver }), _) => {
            install_driver(&from, &to, &driver)
        }
        (None, Some(config)) => start(&config, given),
        (None, None) => Err("no configuration is named".into()), // the parser requires one
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let causes = std::iter::successors(error.source(), |cause| (*cause).source());
            let causes: Vec<String> = causes.map(ToString::to_string).collect();
            tracing::error!(%error, causes = causes.join(": "), "the agent ends");
            ExitCode::FAILURE
        }
    }
}

fn install_driver(from: &Path, to: &Path, driver: &str) -> Result<(), Box<dyn Error>> {
    let outcome = install::install(from, to, driver)?;
    tracing::info!(driver, to = %to.display(), ?outcome, "the driver is in its place");
    Ok(())
}

fn start(config: &Path, given: Given) -> Result<(), Box<dyn Error>> {
    hygiene::apply()?;
    let config = Config::read_with(config, given)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let signalled = stop.clone();
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            signalled.cancel();
        });
        Ok(run(config, stop).await?)
    })
}
