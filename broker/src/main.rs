//! The `krb-broker` command.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use krb_broker::{
    admission::{
        self,
        command::{AclArgs, InjectArgs, run_acl, run_inject},
    },
    audit::{
        self,
        verify::command::{AuditArgs, run_audit},
    },
    clock,
    config::{Config, admission::AdmissionConfig},
    entitlement::load::Entitlements,
    hygiene,
    kdc::mit::PROFILE,
    run,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Issues Kerberos keytabs and tickets to pods, as leases.
#[derive(Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the broker.
    Serve(ConfigArgs),
    /// Check the configuration and the entitlements, and say all that is wrong with them.
    Check(ConfigArgs),
    /// Run the webhook that injects and refuses as pods are applied. It has no key.
    Admission(AdmissionArgs),
    /// Turn annotated manifests into ones with the volume, its mounts and environment.
    Inject(InjectArgs),
    /// Print the lines of kadm5.acl that the entitlements need.
    Acl(AclArgs),
    /// Check the audit log.
    Audit(AuditArgs),
    /// Write a new random master key to a file that does not exist yet.
    NewMasterKey {
        /// The file, which is made with mode 0600.
        file: PathBuf,
    },
}

#[derive(clap::Args)]
struct ConfigArgs {
    /// The broker's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/krb-broker/broker.toml")]
    config: PathBuf,
}

#[derive(clap::Args)]
struct AdmissionArgs {
    /// The webhook's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/krb-broker/admission.toml")]
    config: PathBuf,
    /// Check the configuration and the entitlements, say all that is wrong with them, and end.
    #[arg(long)]
    check: bool,
}

/// What a command says on its standard output, or why it failed.
type Said = Result<String, Box<dyn std::error::Error>>;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "these are the command's words")]
fn main() -> ExitCode {
    let said = match Args::parse().command {
        Command::Serve(args) => serve(&args),
        Command::Check(args) => check(&args),
        Command::Admission(args) => admission(&args),
        Command::Inject(args) => run_inject(&args).map_err(Into::into),
        Command::Acl(args) => run_acl(&args).map_err(Into::into),
        Command::Audit(args) => match run_audit(&args) {
            Ok(verified) => {
                print!("{}", verified.text);
                return if verified.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            }
            Err(error) => Err(error.into()),
        },
        Command::NewMasterKey { file } => new_master_key(&file),
    };
    match said {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("krb-broker: {}", audit::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &ConfigArgs) -> Said {
    log_to_stderr();
    let config = Config::load(&args.config)?;
    with_own_profile(&config)?;
    hygiene::apply(config.allow_swap)?;
    until_signalled(|stop| run(config, stop))
}

fn admission(args: &AdmissionArgs) -> Said {
    let config = AdmissionConfig::load(&args.config)?;
    if args.check {
        let accounts = Entitlements::load(&config.entitlements)?.accounts().len();
        return Ok(format!("{} is good: {accounts} role accounts\n", args.config.display()));
    }
    log_to_stderr();
    until_signalled(|stop| admission::run::run(config, stop))
}

fn log_to_stderr() {
    tracing_subscriber::fmt()
        .json()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing::Level::INFO.into())
                .from_env_lossy(),
        )
        .init();
}

/// Runs `what` until it ends or a signal asks it to.
fn until_signalled<F, E>(what: impl FnOnce(CancellationToken) -> F) -> Said
where
    F: Future<Output = Result<(), E>>,
    E: std::error::Error + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signals(&stop)?;
        Ok::<_, Box<dyn std::error::Error>>(what(stop).await?)
    })?;
    Ok(String::new())
}

/// Starts this program once more with `KRB5_CONFIG` naming the profile that the broker writes
/// for kadmin: the GSS-API library below libkadm5clnt reads a default profile of its own, and
/// must not depend on what the machine has in /etc.
fn with_own_profile(config: &Config) -> std::io::Result<()> {
    use std::os::unix::process::CommandExt;
    let profile = config.run_dir.join(PROFILE);
    if std::env::var_os("KRB5_CONFIG").is_some_and(|set| set == profile.as_os_str()) {
        return Ok(());
    }
    let mut again = std::process::Command::new(std::env::current_exe()?);
    again.args(std::env::args_os().skip(1)).env("KRB5_CONFIG", profile);
    Err(again.exec()) // it returns only when it fails
}

/// SIGTERM and SIGINT end the broker in good order.
fn stop_on_signals(stop: &CancellationToken) -> std::io::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut signals, stop) = (signal(kind)?, stop.clone());
        tokio::spawn(async move {
            signals.recv().await;
            stop.cancel();
        });
    }
    Ok(())
}

fn check(args: &ConfigArgs) -> Said {
    let config = Config::load(&args.config)?;
    let entitlements = Entitlements::load(&config.entitlements)?;
    let accounts = entitlements.accounts().len();
    Ok(format!("{} is good: {accounts} role accounts\n", args.config.display()))
}

fn new_master_key(file: &std::path::Path) -> Said {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut options = std::fs::OpenOptions::new();
    let mut made = options.write(true).create_new(true).mode(0o600).open(file)?;
    let key = krb_broker::store::seal::new_master_key(&clock::SystemEntropy);
    made.write_all(key.expose())?;
    made.sync_all()?;
    Ok(format!("{} holds a new master key; keep a copy where the store is not\n", file.display()))
}
