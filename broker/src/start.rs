//! What must hold before the broker serves, and how its parts come up.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::ServeError,
    audit::{Actor, AuditError, Event, Record},
    clock::{Clock, Entropy, Now},
    config::{Config, PodsConfig, StoreConfig},
    entitlement::problems::Problems,
    kdc::{
        KdcError,
        client::{ClientSettings, RealmClient},
        gate::Gate,
        mit::{MitAdmin, MitSettings, SettingsError, StartupCheck, Timeouts},
    },
    krb5::{exchange::TicketOptions, transport::Limits},
    kubernetes::{
        self, asking::Asking, client::ConnectError, events::Events, probe, source::KubePods,
        tokens::ReviewedTokens, view::View, watching::Watching, witness::KubeNodes,
    },
    ledger::{
        Ledger,
        book::Book,
        record::{self, Unreadable},
    },
    notices::{NoNotices, Notices},
    pods::{PodSource, file::FilePods, nodes::FileNodes},
    session::{
        Times,
        hub::Hub,
        witness::{NoWitnesses, Witnesses},
    },
    store::{
        Loaded, Mark, StoreError,
        committer::{CommitError, Committer},
        mark_file::MarkFile,
        seal::{MasterKey, MasterKeyFile, Sealer, Volume},
        sled::SledConfig,
    },
    tickets::{AccountKeyError, read_keys},
    tokens::{NodeTokens, reviews::Reviews},
};

/// Why the broker does not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process can't be made safe to hold keys.
    #[error("making the process safe to hold keys")]
    Hygiene(#[from] crate::hygiene::Unsafe),
    /// A directory can't be made.
    #[error("the directory {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The master key can't be read.
    #[error("the master key")]
    MasterKey(#[from] crate::store::seal::MasterKeyError),
    /// The store can't be opened or read.
    #[error("the store")]
    Store(#[from] StoreError),
    /// A record of the store can't be read.
    #[error("the store")]
    Record(#[from] Unreadable),
    /// The audit log can't be opened.
    #[error("the audit log")]
    Audit(#[from] AuditError),
    /// Nothing can be made durable.
    #[error("recording the start")]
    Commit(#[from] CommitError),
    /// The system gives no thread.
    #[error("starting a thread")]
    Thread(#[source] std::io::Error),
    /// The entitlements are wrong.
    #[error("the entitlements can't be used:\n{0}")]
    Entitlements(Problems),
    /// The way to the realm can't be set up.
    #[error("the realm")]
    Realm(#[from] SettingsError),
    /// The admin keytab can't be used.
    #[error("the admin keytab")]
    AdminKeytab(#[from] AccountKeyError),
    /// What was found at the KDC forbids to run.
    #[error("{0}")]
    Refused(String),
    /// The cluster's API server can't be reached by what is configured.
    #[error("the cluster")]
    Cluster(#[from] ConnectError),
    /// The API can't be served.
    #[error("the API")]
    Serve(#[from] ServeError),
    /// The committer failed while the broker ran.
    #[error("the broker stopped because nothing could be recorded: {0}")]
    CommitterFailed(String),
}

/// The ledger of what the store holds, and whether it comes from a store that lost commits.
pub(crate) fn ledger(
    config: &Config,
    loaded: &Loaded,
    sealer: &Sealer,
    now: Now,
) -> Result<Ledger, StartError> {
    let mut ledger = record::read(config.cluster.clone(), &loaded.records, sealer, now)?;
    ledger.set_brake(config.session_rules.brake, now);
    Ok(ledger)
}

/// Records the start, and enters recovery where the store lost commits: every generation
/// has passed then, and no key is replaced until an operator says so.
pub(crate) async fn record_start(book: &Book, loaded: &Loaded) -> Result<(), CommitError> {
    book.commit_essential(|ledger, lines, now| {
        let records = loaded.records.len();
        let line = Record::new(Event::BrokerStarted, Actor::Broker);
        lines.push(line.detail(&format!("{records} records, sequence {}", loaded.sequence)));
        if let Some(recovery) = &loaded.recovery {
            let lost = recovery.high_water.saturating_sub(recovery.sequence);
            let why = format!("{}; {lost} commits are missing", recovery.why);
            tracing::error!(why, "RECOVERY: the store came up with less than was committed");
            ledger.set_recovery(Some(why.clone()));
            lines.push(Record::new(Event::RecoveryStarted, Actor::Broker).detail(&why));
            for loss in ledger.fence_all(now.wall) {
                let change = crate::ledger::sessions::Change::Lost(loss);
                crate::session::watch::record(ledger, lines, &change);
            }
        }
    })
    .await
}

/// The pauses between two tries of a check while kadmin is away.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Sees that the policy protects the keys and that the broker's rights are narrow. While
/// kadmin is away that is tried again: keys that are held are issued meanwhile, and no new
/// one is set before `checked` says so.
///
/// # Errors
/// When the realm is not as it must be. The broker does not go on then.
pub(crate) async fn check_realm(
    admin: MitAdmin,
    allow_wide_rights: bool,
    checked: Arc<AtomicBool>,
    stop: CancellationToken,
) -> Result<(), StartError> {
    let mut pause = TRY_AGAIN.0;
    loop {
        match checks(&admin).await {
            Ok(found) => {
                verdict(found, allow_wide_rights)?;
                checked.store(true, Ordering::SeqCst);
                return Ok(());
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(error = crate::audit::chain(&error), "kadmin can't be checked yet");
            }
            Err(error) => {
                return Err(StartError::Refused(format!(
                    "the broker can't check its rights at kadmin: {}",
                    crate::audit::chain(&error)
                )));
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(());
        }
        pause = (pause * 2).min(TRY_AGAIN.1);
    }
}

async fn checks(admin: &MitAdmin) -> Result<[StartupCheck; 2], KdcError> {
    Ok([admin.check_policy().await?, admin.check_rights().await?])
}

fn verdict(found: [StartupCheck; 2], allow_wide_rights: bool) -> Result<(), StartError> {
    for check in found {
        match &check {
            StartupCheck::Passed => {}
            StartupCheck::TooWide { .. } if allow_wide_rights => {
                tracing::warn!(%check, "the broker's rights are too wide, and that is allowed");
            }
            _ => return Err(StartError::Refused(check.to_string())),
        }
    }
    tracing::info!("kadmin has the policy, and the broker's rights are narrow");
    Ok(())
}

/// krb5.conf for pods: from the configuration only, naming every KDC.
pub(crate) fn profile(config: &Config) -> Arc<[u8]> {
    let realm = &config.realm.name;
    // What a pod tolerates beyond a ticket's end is part of what `exposed_until` promises.
    let clock_skew = config.realm.walk.clock_skew.as_secs().max(1);
    let kdcs: String = config.realm.kdcs.iter().map(|kdc| format!("    kdc = {kdc}\n")).collect();
    let text = format!(
        "[libdefaults]\n  default_realm = {realm}\n  dns_canonicalize_hostname = false\n  \
         rdns = false\n  dns_lookup_kdc = false\n  dns_lookup_realm = false\n  \
         clockskew = {clock_skew}\n\n[realms]\n  {realm} = {{\n{kdcs}  }}\n"
    );
    text.into_bytes().into()
}

/// Makes a directory of the broker's own, or sees that an existing one is closed to others.
pub(crate) fn private_directory(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let failed = |source| StartError::Directory { path: path.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed)
}

/// How often the watch ticks: often enough to notice each span of a session in time.
pub(crate) fn tick(times: &Times) -> Duration {
    let shortest = times.heartbeat.min(times.silent_after).min(times.lost_after);
    (shortest / 4).clamp(Duration::from_millis(20), Duration::from_secs(1))
}

pub(crate) fn master_key_file(store: &StoreConfig) -> MasterKeyFile<'_> {
    let volume = if store.allow_same_volume { Volume::MayBeShared } else { Volume::Apart };
    MasterKeyFile { path: &store.master_key, store: &store.dir, volume }
}

pub(crate) fn sled_config(store: &StoreConfig, known: Mark) -> SledConfig {
    SledConfig { directory: store.dir.clone(), cache_bytes: store.cache_bytes, known }
}

/// The second place, and what it knows of the store and the audit log.
pub(crate) fn second_place(
    store: &StoreConfig,
    master: &MasterKey,
) -> Result<(Option<MarkFile>, Mark), StoreError> {
    let file = store.mark_file.as_deref().map(|path| MarkFile::new(path, master));
    let known = file.as_ref().map(MarkFile::read).transpose()?.flatten();
    Ok((file, known.unwrap_or_default()))
}

pub(crate) fn mit_settings(config: &Config) -> MitSettings {
    let realm = &config.realm;
    MitSettings {
        realm: realm.name.clone(),
        kdcs: realm.kdcs.clone(),
        kadmin: realm.kadmin.clone(),
        admin_principal: realm.admin_principal.clone(),
        admin_keytab: realm.admin_keytab.clone(),
        library: realm.library.clone(),
        threads: realm.kadmin_threads,
        policy: realm.policy.clone(),
        allowed_reserved: realm.allowed_reserved.clone(),
        run_dir: config.run_dir.clone(),
        timeouts: Timeouts::default(),
    }
}

/// The client of the KDCs; the broker's own principal is the one that sees kvnos.
pub(crate) fn realm_client(
    config: &Config,
    gate: Arc<Gate>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<RealmClient, StartError> {
    let realm = &config.realm;
    let observer = read_keys(&realm.admin_keytab, realm.admin_principal.clone())?;
    let settings = ClientSettings {
        realm: realm.name.clone(),
        kdcs: realm.kdcs.clone(),
        observer,
        options: TicketOptions::default(),
        limits: Limits::default(),
        clock_skew: realm.walk.clock_skew,
        gate_wait: GATE_WAIT,
    };
    Ok(RealmClient::new(settings, gate, clock, entropy))
}

/// The client of the cluster's API server, where there is one. Nothing is asked yet.
pub(crate) async fn cluster(config: &Config) -> Result<Option<kube::Client>, StartError> {
    match &config.kubernetes {
        Some(settings) => Ok(Some(kubernetes::client::connect(settings).await?)),
        None => Ok(None),
    }
}

/// Who says which node a token proves, where nodes have tokens.
pub(crate) fn node_tokens(
    config: &Config,
    cluster: Option<&kube::Client>,
    clock: &Arc<dyn Clock>,
) -> Option<Arc<dyn NodeTokens>> {
    let (settings, client) = (config.node_tokens.as_ref()?, cluster?);
    let asked = ReviewedTokens::new(client.clone(), settings.agents.clone(), clock.clone());
    Some(Arc::new(Reviews::new(Arc::new(asked), clock.clone(), settings.cache)))
}

/// Who tells the owners of pods: the cluster's Events, where there is a cluster.
pub(crate) fn notices(
    cluster: Option<&kube::Client>,
    clock: &Arc<dyn Clock>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Arc<dyn Notices> {
    let Some(client) = cluster else { return Arc::new(NoNotices) };
    let events = Arc::new(Events::new(client.clone(), clock.clone()));
    tasks.spawn(events.clone().run(stop.clone()));
    events
}

/// What tells this run of the broker from every other.
pub(crate) fn name_of_this_run(entropy: &dyn Entropy) -> Arc<str> {
    let mut bits = [0; 8];
    entropy.fill(&mut bits);
    format!("{:016x}", u64::from_le_bytes(bits)).into()
}

/// What is known of the cluster.
pub(crate) struct Sources {
    /// Its pods.
    pub pods: Arc<dyn PodSource>,
    /// Who says whether a silent node works.
    pub witnesses: Arc<dyn Witnesses>,
}

/// The cluster as the configuration says: from directories, or from its API server. That need not
/// answer now.
pub(crate) fn sources(
    config: &Config,
    client: Option<&kube::Client>,
    book: &Book,
    clock: &Arc<dyn Clock>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Sources, StartError> {
    let (cluster, gone_after) = (config.cluster.clone(), config.pods_gone_after);
    let (dir, nodes) = match &config.pods {
        PodsConfig::File { dir, nodes } => (dir, nodes),
        PodsConfig::Kubernetes => {
            let none = || StartError::Refused("the pods' cluster is not configured".to_owned());
            let client = client.ok_or_else(none)?;
            let view = Arc::new(View::new(cluster.clone(), config.rules.driver.clone()));
            for kind in view.kinds() {
                let watching = Watching::new(client.clone(), clock.clone(), kind);
                tasks.spawn(watching.run(stop.clone()));
            }
            tasks.spawn(probe::keep_probing(client.clone(), book.clone(), stop.clone()));
            let asking = Arc::new(Asking::new(client.clone(), clock.clone()));
            let nodes = KubeNodes::new(view.clone(), asking.clone(), clock.clone());
            tasks.spawn(nodes.clone().keep_fresh(stop.clone()));
            let pods = KubePods::new(cluster, view, asking, clock.clone(), gone_after);
            return Ok(Sources { pods: Arc::new(pods), witnesses: Arc::new(nodes) });
        }
    };
    let pods = Arc::new(FilePods::with_gone_after(dir, cluster, clock.clone(), gone_after));
    let Some(directory) = nodes else {
        return Ok(Sources { pods, witnesses: Arc::new(NoWitnesses) });
    };
    let nodes = FileNodes::new(directory, clock.clone());
    tasks.spawn(nodes.clone().keep_fresh(tick(&config.times), stop.clone()));
    Ok(Sources { pods, witnesses: Arc::new(nodes) })
}

/// How long a request may wait at the gate to the KDC.
const GATE_WAIT: Duration = Duration::from_secs(20);

/// How often denials are looked through for those whose minute has ended.
const DENIALS_EVERY: Duration = Duration::from_secs(1);

/// Writes what was merged of denials, until `stop`, and then the rest.
pub(crate) async fn write_merged_denials(book: Book, stop: CancellationToken) {
    loop {
        let stopped = stop.run_until_cancelled(tokio::time::sleep(DENIALS_EVERY)).await.is_none();
        if book.audit_merged_denials(stopped).await.is_err() || stopped {
            return; // the broker is about to stop
        }
    }
}

/// Ends the nodes' streams when the broker stops: they are calls, and would keep it.
pub(crate) async fn cut_streams(hub: Arc<Hub>, stop: CancellationToken) {
    stop.cancelled().await;
    hub.cut_all();
}

/// Waits for the first end: the server's, a refusal at the KDC, a store that fails, or `stop`
/// (which ends the server).
pub(crate) async fn until_stopped(
    serving: impl Future<Output = Result<(), ServeError>>,
    checking: impl Future<Output = Result<(), StartError>>,
    committer: &Committer,
    stop: &CancellationToken,
) -> Result<(), StartError> {
    let checked = async {
        match checking.await {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    };
    let failed = committer.failed();
    tokio::select! {
        served = serving => Ok(served?),
        refused = checked => Err(refused),
        () = failed.cancelled() => {
            let why = committer.why().map(|why| why.to_string()).unwrap_or_default();
            Err(StartError::CommitterFailed(why))
        }
        () = async {
            stop.cancelled().await;
            tokio::time::sleep(LET_CALLS_END).await; // calls under way may end until then
        } => Ok(()),
    }
}

/// How long calls that are under way may take to end once the broker is told to stop.
const LET_CALLS_END: Duration = Duration::from_secs(5);
