//! `krb-broker audit verify`: the walk over files, told to a person.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use super::{FileReport, Walk};
use crate::{
    audit::{
        chain::{ChainKey, Head},
        files,
    },
    config::Config,
    entitlement::problems::Problems,
    store::{
        StoreError, directory,
        mark_file::MarkFile,
        seal::{MasterKey, MasterKeyError, MasterKeyFile, Volume},
    },
};

/// The most breaks of one file that are told one by one.
const TOLD: usize = 20;

/// What `krb-broker audit` does.
#[derive(clap::Args, Debug)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(clap::Subcommand, Debug)]
enum AuditCommand {
    /// Check that no line of the audit log was changed, lost or put in another place.
    Verify(VerifyArgs),
}

/// What is verified against what.
#[derive(clap::Args, Debug)]
struct VerifyArgs {
    /// A place that the chain must come by, SEQ:MAC, as `GetStatus` shows it; may be repeated.
    #[arg(long, value_name = "SEQ:MAC")]
    head: Vec<Head>,
    /// The master key that the log was written under.
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    master_key: Option<PathBuf>,
    /// The broker's configuration, which names the master key, the log's files, the store and
    /// the mark file; the chain must come by what these know.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The log's files, oldest first.
    #[arg(value_name = "FILES", required_unless_present = "config")]
    files: Vec<PathBuf>,
}

/// What was found, in words, and whether the chain holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verified {
    /// One block of lines for each file, and the outcome.
    pub text: String,
    /// Whether nothing is broken.
    pub holds: bool,
}

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] Problems),
    /// The master key can't be read.
    #[error("the master key")]
    MasterKey(#[from] MasterKeyError),
    /// A mark can't be read.
    #[error("what the store knows")]
    Store(#[from] StoreError),
    /// A file of the log can't be read.
    #[error("reading {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Runs `krb-broker audit`.
///
/// # Errors
/// When nothing can be verified. A chain that does not hold is no error but an outcome.
pub fn run_audit(args: &AuditArgs) -> Result<Verified, VerifyError> {
    let AuditCommand::Verify(args) = &args.command;
    let config = args.config.as_deref().map(Config::load).transpose()?;
    let master = master_key(args, config.as_ref())?;
    let mut walk = Walk::new(ChainKey::new(&master));
    for head in &args.head {
        walk.expect(*head, "which --head names");
    }
    if let Some(config) = &config {
        // read before the files, which may be growing
        let known = directory::known(&config.store.dir, &master)?;
        walk.expect(known.audit_head, "which the store knows");
        let mark = config.store.mark_file.as_deref().map(|path| MarkFile::new(path, &master));
        if let Some(mark) = mark.map(|file| file.read()).transpose()?.flatten() {
            walk.expect(mark.audit_head, "which the mark file names");
        }
    }
    verify(walk, &files_of(args, config.as_ref())?)
}

fn master_key(args: &VerifyArgs, config: Option<&Config>) -> Result<MasterKey, MasterKeyError> {
    let named = args.master_key.as_deref().or(config.map(|config| &*config.store.master_key));
    let path = named.unwrap_or(Path::new("")); // clap sees that one is given
    // where it lies is the broker's concern, not the auditor's
    MasterKey::from_file(MasterKeyFile { path, store: Path::new(""), volume: Volume::MayBeShared })
}

fn files_of(args: &VerifyArgs, config: Option<&Config>) -> Result<Vec<PathBuf>, VerifyError> {
    if !args.files.is_empty() {
        return Ok(args.files.clone());
    }
    let Some(config) = config else { return Ok(Vec::new()) };
    let log = &config.audit.path;
    let rotated = files::rotated(log);
    let rotated = rotated.map_err(|source| VerifyError::Io { path: log.clone(), source })?;
    let mut files: Vec<PathBuf> = rotated.into_iter().map(|file| file.path).collect();
    // there is none yet between a rotation and the next line
    if log.exists() || files.is_empty() {
        files.push(log.clone());
    }
    Ok(files)
}

/// Walks the files and tells what was found.
fn verify(mut walk: Walk, files: &[PathBuf]) -> Result<Verified, VerifyError> {
    let (mut text, mut breaks, mut lines) = (String::new(), 0, 0);
    for path in files {
        let io = |source| VerifyError::Io { path: path.clone(), source };
        let file = File::open(path).map_err(io)?;
        let report = walk.file(&path.display().to_string(), BufReader::new(file)).map_err(io)?;
        breaks += report.breaks.len();
        lines += report.lines;
        tell(&mut text, &report);
    }
    let head = walk.at();
    let at_the_end = walk.finish();
    breaks += at_the_end.len();
    for broken in &at_the_end {
        let _ = writeln!(text, "  BROKEN: {broken}");
    }
    let head = head.map_or_else(|| "no line".to_owned(), |head| head.to_string());
    let outcome = match breaks {
        0 => format!("the chain holds: {lines} lines, up to {head}"),
        n => format!("THE CHAIN IS BROKEN in {n} places: {lines} lines, up to {head}"),
    };
    let _ = writeln!(text, "{outcome}"); // a String takes all that is written
    Ok(Verified { text, holds: breaks == 0 })
}

fn tell(text: &mut String, report: &FileReport) {
    let range = match (report.first, report.last) {
        (Some(first), Some(last)) => format!("seq {first} to {last}"),
        _ => "empty".to_owned(),
    };
    let _ = writeln!(text, "{}: {} lines, {range}", report.name, report.lines);
    for note in &report.notes {
        let _ = writeln!(text, "  note: {note}");
    }
    for broken in report.breaks.iter().take(TOLD) {
        let _ = writeln!(text, "  BROKEN: {broken}");
    }
    if let Some(more) = report.breaks.len().checked_sub(TOLD).filter(|more| *more > 0) {
        let _ = writeln!(text, "  BROKEN: and in {more} more places");
    }
}
