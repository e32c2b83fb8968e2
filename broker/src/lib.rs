//! The broker: alone holds KDC access, issues keytabs and tickets as leases, and replaces
//! the keys that a dead node held.
//!
//! ```text
//!  api ──> use cases (issue, session::{sync, watch}, keys::walker, tickets)
//!              │                    │
//!              ▼                    ▼
//!   pure decisions               seams: kdc, store, pods, audit
//!   entitlement, lease,          (adapters: kdc::mit, store::sled, pods::file, kubernetes)
//!   session, keys, ledger
//! ```
//!
//! - [`entitlement`] decides what a pod may have: one pure function.
//! - [`ledger`] is the working set: leases, sessions, principals. It decides what a commit
//!   holds; it does no I/O and reads no clock.
//! - [`keys`] walks a principal from one key to the next without losing a holder.
//! - [`kdc`] is the way to the realm: every request passes [`kdc::gate`].
//! - [`krb5`] speaks Kerberos; `kerberos_asn1` stays inside its `messages` module.
//! - [`store`] keeps what must survive, sealed; one committer makes a round of records and
//!   audit lines durable at once.
//! - [`api`] turns requests into use cases and failures into codes.
//!
//! Only [`run`], with `start`, names concrete adapters: start reading there, then at [`issue`].

pub mod admission;
pub mod api;
pub mod audit;
pub mod clock;
pub mod config;
pub mod entitlement;
pub mod hygiene;
pub mod issue;
pub mod kdc;
pub mod keys;
pub mod krb5;
pub mod kubernetes;
pub mod lease;
pub mod ledger;
pub mod material;
pub mod notices;
pub mod pods;
pub mod revocation;
pub mod session;
mod start;
pub mod store;
pub mod tickets;
pub mod tokens;
pub mod yaml;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use start::StartError;

use crate::{
    audit::{Actor, AuditLog, Event, Record, file::FileAudit},
    clock::{Clock, Entropy, SystemClock, SystemEntropy},
    config::Config,
    entitlement::policy::Policy,
    issue::Issuer,
    kdc::{Kdc, KeyAdmin, client::RealmClient, gate::Gate, mit::MitAdmin},
    keys::{
        drift::Comparer,
        upkeep::Upkeep,
        walk::WalkRules,
        walker::{Parts, Walker},
    },
    ledger::book::Book,
    material::Pusher,
    revocation::Revoker,
    session::{
        aftermath::Aftermath,
        clock_probe::ClockProbe,
        hub::Hub,
        pace::{self, NodePace},
        sync::Syncing,
        watch::Watch,
    },
    store::{
        LeaseStore,
        committer::{Committer, Pace},
        seal::{MasterKey, Sealer},
        sled::SledStore,
    },
    tickets::{
        AccountKeyring, AccountKeytabs, TicketTimes, Tickets, refresh::Refresher,
        watch::AccountWatch,
    },
};

/// Builds the broker and runs it until `stop`. Only this function knows which KDC, which
/// store and which source of pods are in use; every task is started and stopped here.
///
/// # Errors
/// When it can't start, when the realm is not as it must be, or when nothing can be
/// recorded any more.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let started_at = clock.now().wall;
    start::private_directory(&config.run_dir)?;

    let master = MasterKey::from_file(start::master_key_file(&config.store))?;
    let sealer = Sealer::new(&master, entropy.clone());
    let (mark_file, known) = start::second_place(&config.store, &master)?;
    let store_config = start::sled_config(&config.store, known);
    let sled = SledStore::open(store_config, &master, clock.clone(), entropy.clone())?;
    let store: Arc<dyn LeaseStore> = Arc::new(sled);
    let loaded = store.load()?;
    let log = FileAudit::open(config.audit.clone(), &master, loaded.audit_head, started_at)?;
    let audit: Arc<dyn AuditLog> = Arc::new(log);
    let ledger = start::ledger(&config, &loaded, &sealer, clock.now())?;
    let pace = Pace { snapshot_every: config.store.snapshot_every, ..Pace::default() };
    let (committer, committing) =
        Committer::start_with_mark(store.clone(), audit.clone(), clock.clone(), pace, mark_file)
            .map_err(StartError::Thread)?;
    let book = Book::new(ledger, committer.clone(), sealer, clock.clone());
    start::record_start(&book, &loaded).await?;

    let policy = Policy::load(config.entitlements.clone(), config.rules.clone(), clock.clone())
        .map_err(StartError::Entitlements)?;
    let policy = Arc::new(policy);

    let cluster = start::cluster(&config).await?;
    let gate = Arc::new(Gate::new(config.gate.kdc, config.gate.kadmin));
    let admin = MitAdmin::start(start::mit_settings(&config), gate.clone(), clock.clone())?;
    let client = start::realm_client(&config, gate.clone(), clock.clone(), entropy.clone())?;
    let kdc: Arc<RealmClient> = Arc::new(client);
    let tickets = Arc::new(Tickets::new(
        kdc.clone(),
        Arc::new(AccountKeyring::new(AccountKeytabs::new(&config.realm.accounts), book.clone())),
        TicketTimes { life: config.realm.ticket_life, retry_after: Duration::from_secs(10) },
        clock.clone(),
        entropy.clone(),
    ));

    let tasks = TaskTracker::new();
    let stopping = stop.child_token();
    let tick = start::tick(&config.times);
    let sources = start::sources(&config, cluster.as_ref(), &book, &clock, &tasks, &stopping)?;
    let start::Sources { pods, witnesses } = sources;
    let hub = Arc::new(Hub::default());
    let realm = config.realm.name.clone();
    let pusher = Pusher::new(book.clone(), hub.clone(), tickets.clone(), realm.clone());
    let realm_checked = Arc::new(AtomicBool::new(false));
    let parts = Parts {
        book: book.clone(),
        admin: Arc::new(admin.clone()),
        kdc: kdc.clone(),
        pusher: pusher.clone(),
        entropy: entropy.clone(),
        enctypes: config.realm.enctypes.clone(),
        rules: WalkRules { times: config.realm.walk, schedule: config.keys.schedule.clone() },
        realm_checked: realm_checked.clone(),
    };
    let walker = Walker::new(parts, tasks.clone(), stopping.clone());
    let issuer = Arc::new(Issuer {
        book: book.clone(),
        pods: pods.clone(),
        policy: policy.clone(),
        walker: walker.clone(),
        tickets: tickets.clone(),
        entropy: entropy.clone(),
        default_realm: realm.clone(),
        service_max_life: config.realm.service_max_life,
        ticket_life: config.realm.ticket_life,
        within: config.issue_within,
        pace: NodePace::new(pace::ISSUES),
    });
    let syncing = Syncing {
        book: book.clone(),
        hub: hub.clone(),
        pusher: pusher.clone(),
        walker: walker.clone(),
        times: config.times,
        attaches: Arc::new(NodePace::new(pace::ATTACHES)),
        acknowledgements: Arc::new(NodePace::new(pace::ACKNOWLEDGEMENTS)),
    };

    let notices = start::notices(cluster.as_ref(), &clock, &tasks, &stopping);
    let aftermath = Aftermath {
        book: book.clone(),
        hub: hub.clone(),
        walker: walker.clone(),
        tickets: tickets.clone(),
        notices: notices.clone(),
    };
    tasks.spawn(
        Watch {
            book: book.clone(),
            aftermath: aftermath.clone(),
            pusher: pusher.clone(),
            pods: pods.clone(),
            witnesses: witnesses.clone(),
            kdc: kdc.clone(),
            rules: config.session_rules,
            every: tick,
            sweep_every: tick * 10,
            keep_ended: config.keep_ended,
            clock_skew: config.realm.walk.clock_skew,
        }
        .run(stopping.clone()),
    );
    tasks.spawn(ClockProbe { book: book.clone(), kdc: kdc.clone() }.run(stopping.clone()));
    let revoker = Revoker {
        book: book.clone(),
        pusher: pusher.clone(),
        tickets: tickets.clone(),
        walker: walker.clone(),
        notices: notices.clone(),
    };
    let comparer = Comparer {
        book: book.clone(),
        admin: Arc::new(admin.clone()),
        kdc: kdc.clone(),
        walker: walker.clone(),
    };
    let upkeep = Upkeep {
        book: book.clone(),
        walker: walker.clone(),
        idle: config.keys.idle,
        every: tick * 10,
    };
    tasks.spawn(upkeep.run(stopping.clone()));
    tasks.spawn(comparer.clone().run(config.keys.compare_within, stopping.clone()));
    tasks.spawn(book.feed().clone().run(stopping.clone()));
    let key_admin: Arc<dyn KeyAdmin> = Arc::new(admin.clone());
    let refresher =
        Refresher { tickets, admin: key_admin.clone(), book: book.clone(), pusher, every: tick };
    tasks.spawn(refresher.run(stopping.clone()));
    let accounts = AccountWatch {
        admin: key_admin,
        policy: policy.clone(),
        book: book.clone(),
        every: config.realm.look_at_accounts_every,
    };
    tasks.spawn(accounts.run(stopping.clone()));
    let (every, token) = (config.entitlements_every, stopping.clone());
    tasks.spawn(policy.clone().keep_fresh(book.clone(), every, token));
    tasks.spawn(start::write_merged_denials(book.clone(), stopping.clone()));
    tasks.spawn(start::cut_streams(hub.clone(), stopping.clone()));
    walker.kick_all();

    let tokens = start::node_tokens(&config, cluster.as_ref(), &clock);
    let skew = config.realm.walk.clock_skew;
    let health = {
        let (kdc, admin) = (kdc, admin.clone());
        Arc::new(move || kdc.health().into_iter().chain([admin.health()]).collect())
    };
    let services = api::Services {
        node: api::node::NodeApi {
            issuer: issuer.clone(),
            syncing,
            tokens: tokens.clone(),
            notices,
            witnesses: witnesses.clone(),
            profile: start::profile(&config),
            tasks: tasks.clone(),
            stop: stopping.clone(),
        },
        lease: api::lease::LeaseApi {
            book: book.clone(),
            revoker,
            issuer: issuer.clone(),
            run: start::name_of_this_run(&*entropy),
            tasks: tasks.clone(),
            stop: stopping.clone(),
            times: config.times,
            clock_skew: skew,
        },
        principal: api::principal::PrincipalApi {
            book: book.clone(),
            walker: walker.clone(),
            comparer,
            admin: Arc::new(admin.clone()),
            policy: policy.clone(),
            service_max_life: config.realm.service_max_life,
            ticket_life: config.realm.ticket_life,
            kadm_policy: config.realm.policy.clone(),
        },
        node_admin: api::node_admin::NodeAdminApi { aftermath, witnesses, times: config.times },
        namespace: api::namespace::NamespaceApi { book: book.clone(), pods },
        status: api::status::StatusApi {
            book: book.clone(),
            store,
            audit,
            audit_file: config.audit.path,
            gate,
            health,
            policy,
            walker,
            realm,
            started_at,
        },
    };
    let acceptor = api::tls::Acceptor::new(&config.certificate, &config.key, &config.roles)
        .map_err(api::ServeError::from)?;
    let authorize = api::authorize::Authorize::new(book.clone(), tokens);
    let serving = api::serve(config.listen, acceptor, services, authorize, stopping.clone());
    let checking =
        start::check_realm(admin, config.realm.allow_wide_rights, realm_checked, stopping.clone());
    let outcome = start::until_stopped(serving, checking, &committer, &stop).await;

    stopping.cancel(); // whatever ended takes the tasks along
    tasks.close();
    tasks.wait().await;
    let _ = book.audit_later(Record::new(Event::BrokerStopped, Actor::Broker)).await;
    committer.close();
    let _ = tokio::task::spawn_blocking(move || committing.join()).await;
    outcome
}
