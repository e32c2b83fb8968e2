//! The broker's own Kerberos against MIT's: exchanges with a real KDC, files read by real tools.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use async_trait::async_trait;
use krb_broker::{
    clock::{Clock, Now, SystemClock, SystemEntropy},
    krb5::{
        ccache::{self, Credential},
        exchange::{
            AsAnswer, AsAsk, Asks, ClockOffset, Env, ExchangeError, Learnt, TgsAnswer, TgsAsk,
            TicketOptions, as_exchange, flags, tgs_exchange,
        },
        key::Keyset,
        keytab,
        transport::{self, Limits, TransportError},
    },
};
use krb_proto::{Kvno, Principal};
use krb_tests::realm::{Options, Realm};

const HOUR: Duration = Duration::from_secs(3_600);
const SERVICE: &str = "HTTP/web.example.com";

/// One KDC, with no gate in front: these tests are few.
struct OneKdc {
    address: SocketAddr,
    limits: Limits,
}

#[async_trait]
impl Asks for OneKdc {
    async fn ask(&self, request: &[u8]) -> Result<Vec<u8>, TransportError> {
        transport::ask(self.address, request, &self.limits).await
    }
}

/// A clock that is wrong by so many seconds.
struct WrongClock(i64);

impl Clock for WrongClock {
    fn now(&self) -> Now {
        let now = SystemClock.now();
        let span = Duration::from_secs(self.0.unsigned_abs());
        let wall = if self.0 < 0 { now.wall - span } else { now.wall + span };
        Now { wall, ..now }
    }
}

/// A realm with a service, and an account with its keytab.
struct World {
    realm: Realm,
    keytab: PathBuf,
    clock: WrongClock,
    limits: Limits,
    options: TicketOptions,
}

impl World {
    fn start() -> Self {
        let enctypes = ["aes256-cts-hmac-sha1-96", "aes128-cts-hmac-sha1-96"];
        Self::with_enctypes(&enctypes)
    }

    fn with_enctypes(enctypes: &[&str]) -> Self {
        let enctypes = enctypes.iter().map(|&enctype| enctype.to_owned()).collect();
        let realm = Realm::with_options(Options { enctypes, ..Options::default() }).unwrap();
        let keytab = realm.add_role_account("tsfoo").unwrap();
        realm.kadmin_local(&["addprinc", "-randkey", SERVICE]).unwrap();
        let limits = Limits { udp_waits: vec![Duration::from_secs(2); 2], ..Limits::default() };
        Self { realm, keytab, clock: WrongClock(0), limits, options: TicketOptions::default() }
    }

    fn principal(&self, name: &str) -> Principal {
        format!("{name}@{}", self.realm.name()).parse().unwrap()
    }

    fn kdc(&self) -> OneKdc {
        OneKdc { address: self.realm.kdc_addr(), limits: self.limits.clone() }
    }

    fn env(&self) -> Env<'_> {
        let clock_skew = Duration::from_secs(300);
        Env { clock: &self.clock, entropy: &SystemEntropy, clock_skew }
    }

    /// All keys of the account's keytab, as the administrator's tool wrote it.
    fn keysets(&self) -> Vec<Keyset> {
        let keytab = keytab::read(&fs::read(&self.keytab).unwrap()).unwrap();
        assert_eq!(keytab.skipped, []);
        keytab::keysets(&keytab.entries, &self.principal("tsfoo"))
    }

    async fn tgt_with(
        &self,
        client: &str,
        keysets: &[Keyset],
        learnt: Option<Learnt>,
    ) -> Result<AsAnswer, ExchangeError> {
        let client = self.principal(client);
        let server = Principal::krbtgt(client.realm());
        let (life, options) = (HOUR, self.options);
        let ask = AsAsk { client: &client, server: &server, keysets, learnt, life, options };
        as_exchange(&self.kdc(), &ask, &self.env()).await
    }

    async fn tgt(&self) -> AsAnswer {
        self.tgt_with("tsfoo", &self.keysets(), None).await.unwrap()
    }

    async fn ticket(&self, tgt: &Credential, server: &str) -> Result<TgsAnswer, ExchangeError> {
        let server = self.principal(server);
        let ask = TgsAsk { tgt, server: &server, life: HOUR, options: TicketOptions::default() };
        tgs_exchange(&self.kdc(), &ask, &self.env()).await
    }

    /// Writes a credential cache for real tools; `KRB5CCNAME` of it.
    fn ccache(&self, credentials: &[&Credential]) -> PathBuf {
        let path = self.realm.dir().join("own-ccache");
        let file = ccache::write(&self.principal("tsfoo"), credentials);
        fs::write(&path, file.expose()).unwrap();
        path
    }

    fn run(&self, tool: &str, ccache: &PathBuf, args: &[&str]) -> String {
        let tool = self.realm.tool(tool).unwrap().env("KRB5CCNAME", ccache);
        tool.args(args).run().unwrap()
    }
}

#[tokio::test]
async fn tickets_of_every_enctype_are_understood_by_mits_tools() {
    for enctype in [
        "aes256-cts-hmac-sha384-192",
        "aes256-cts-hmac-sha1-96",
        "aes128-cts-hmac-sha256-128",
        "aes128-cts-hmac-sha1-96",
    ] {
        let world = World::with_enctypes(&[enctype]);
        let tgt = world.tgt().await;
        assert_eq!(tgt.learnt.enctype.name(), enctype);
        assert_eq!(tgt.learnt.kvno, Kvno(2));
        assert_eq!(tgt.credential.flags & flags::FORWARDABLE, 0);
        let ticket = world.ticket(&tgt.credential, SERVICE).await.unwrap();

        let ccache = world.ccache(&[&tgt.credential, &ticket.credential]);
        let listed = world.run("klist", &ccache, &["-e", "-f"]);
        assert!(listed.contains("Default principal: tsfoo@TEST.EXAMPLE.COM"), "{listed}");
        assert!(listed.contains(SERVICE) && listed.contains(enctype), "{listed}");
        let before = world.realm.kdc_requests();
        let kvno = world.run("kvno", &ccache, &[SERVICE]);
        assert!(kvno.contains("kvno = 1"), "{kvno}");
        assert_eq!(world.realm.kdc_requests(), before, "the ticket was in the cache");
        world.run("kvno", &ccache, &["-u", "krbtgt/TEST.EXAMPLE.COM"]);
    }
}

#[tokio::test]
async fn the_first_ticket_takes_two_requests_and_the_next_one() {
    let world = World::start();
    let first = world.tgt().await;
    let asked = world.realm.kdc_requests();
    assert_eq!((asked.as_requests, asked.preauth_needed, asked.as_issued), (2, 1, 1));
    world.tgt_with("tsfoo", &world.keysets(), Some(first.learnt)).await.unwrap();
    let asked = world.realm.kdc_requests();
    assert_eq!((asked.as_requests, asked.preauth_needed, asked.as_issued), (3, 1, 2));
}

#[tokio::test]
async fn an_account_that_needs_no_preauthentication_gets_it_all_the_same() {
    let world = World::start();
    world.realm.kadmin_local(&["modprinc", "-requires_preauth", "tsfoo"]).unwrap();
    let tgt = world.tgt().await;
    assert_ne!(tgt.credential.flags & flags::PRE_AUTHENT, 0);
}

#[tokio::test]
async fn a_key_changed_at_the_kdc_is_rejected_until_its_keytab_is_read_again() {
    let world = World::start();
    let old = world.keysets();
    let learnt = world.tgt().await.learnt;
    world.realm.ktadd("tsfoo", &world.keytab).unwrap();
    let error = world.tgt_with("tsfoo", &old, Some(learnt)).await.unwrap_err();
    let ExchangeError::KeyRejected { tried, .. } = error else { panic!("{error}") };
    assert_eq!(tried, [Kvno(2)]);

    let both = world.keysets();
    assert_eq!(both.len(), 2);
    let answer = world.tgt_with("tsfoo", &both, Some(learnt)).await.unwrap();
    assert_eq!(answer.learnt.kvno, Kvno(3), "the other keyset was tried");
}

#[tokio::test]
async fn the_kvno_that_a_kdc_uses_for_a_service_is_seen_without_its_key() {
    let world = World::start();
    let tgt = world.tgt().await.credential;
    let observed = async |world: &World| world.ticket(&tgt, SERVICE).await.unwrap().ticket_key.kvno;
    assert_eq!(observed(&world).await, Some(Kvno(1)));
    world.realm.kadmin_local(&["cpw", "-randkey", SERVICE]).unwrap();
    assert_eq!(observed(&world).await, Some(Kvno(2)));
}

#[tokio::test]
async fn a_broker_with_a_wrong_clock_gets_its_ticket_and_learns_how_wrong() {
    for off in [-4_000, 4_000] {
        let world = World { clock: WrongClock(off), ..World::start() };
        let tgt = world.tgt().await;
        let ClockOffset(offset) = tgt.offset;
        assert!((offset + off).abs() <= 2, "{offset}");
        world.ticket(&tgt.credential, SERVICE).await.unwrap();
    }
}

#[tokio::test]
async fn a_kdc_says_no_in_ways_that_can_be_told_apart() {
    let world = World::start();
    let tgt = world.tgt().await;
    let keysets = world.keysets();
    let error = world.tgt_with("nobody", &keysets, None).await.unwrap_err();
    assert!(matches!(error, ExchangeError::UnknownClient { .. }), "{error}");
    let error = world.ticket(&tgt.credential, "HTTP/none").await.unwrap_err();
    assert!(matches!(error, ExchangeError::UnknownServer { .. }), "{error}");
    world.realm.kadmin_local(&["modprinc", "-allow_tix", "tsfoo"]).unwrap();
    let error = world.tgt_with("tsfoo", &keysets, Some(tgt.learnt)).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Refused { code: 18, .. }), "{error}");
    world
        .realm
        .kadmin_local(&["modprinc", "+allow_tix", "-pwexpire", "yesterday", "tsfoo"])
        .unwrap();
    let error = world.tgt_with("tsfoo", &keysets, Some(tgt.learnt)).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Refused { code: 23, .. }), "{error}");
}

#[tokio::test]
async fn tcp_serves_as_well_as_udp_and_a_kdc_that_is_away_is_a_transport_error() {
    let mut world = World::start();
    let keysets = world.keysets();
    world.limits.udp_waits.clear();
    let tgt = world.tgt().await;
    world.ticket(&tgt.credential, SERVICE).await.unwrap();

    world.limits.udp_waits = vec![Duration::from_millis(100); 2];
    world.realm.pause_kdc();
    let error = world.tgt_with("tsfoo", &keysets, None).await.unwrap_err();
    world.realm.resume_kdc();
    let timed_out = |source: &_| matches!(source, TransportError::TimedOut { over: "UDP", .. });
    assert!(matches!(&error, ExchangeError::Transport { source, .. } if timed_out(source)));

    world.realm.stop_kdc();
    let error = world.tgt_with("tsfoo", &keysets, None).await.unwrap_err();
    assert!(error.is_transient() && matches!(error, ExchangeError::Transport { .. }), "{error}");
}

#[tokio::test]
async fn a_renewable_ticket_is_given_only_when_asked_for_and_kinit_renews_it() {
    let mut world = World::start();
    assert_eq!(world.tgt().await.credential.renew_till, None);
    world.options.renewable = Some(24 * HOUR);
    let tgt = world.tgt().await.credential;
    assert!(tgt.renew_till > Some(tgt.endtime));
    let ccache = world.ccache(&[&tgt]);
    world.run("kinit", &ccache, &["-R"]);
    assert!(world.run("klist", &ccache, &["-f"]).contains("renew until"));
}

#[test]
fn a_keytab_of_ours_has_the_very_bytes_of_mits() {
    let world = World::start();
    let theirs = fs::read(&world.keytab).unwrap();
    let entries = keytab::read(&theirs).unwrap().entries;
    assert_eq!(keytab::write(&entries).unwrap().expose(), theirs);
}

#[tokio::test]
async fn a_service_with_our_keytab_accepts_our_ticket() {
    let world = World::start();
    let own = world.realm.dir().join("own-keytab");
    let (theirs, path) = (world.realm.dir().join("mit-keytab"), own.display().to_string());
    world.realm.ktadd(SERVICE, &theirs).unwrap();
    world.realm.ktadd(SERVICE, &theirs).unwrap();
    let entries = keytab::read(&fs::read(&theirs).unwrap()).unwrap().entries;
    fs::write(&own, keytab::write(&entries).unwrap().expose()).unwrap();
    let cache = PathBuf::from("MEMORY:none");
    let listed = world.run("klist", &cache, &["-k", "-t", "-e", &path]);
    assert_eq!(listed.matches(SERVICE).count(), 4, "two enctypes of kvno 2 and 3: {listed}");

    let tgt = world.tgt().await.credential;
    let ticket = world.ticket(&tgt, SERVICE).await.unwrap().credential;
    let ccache = world.ccache(&[&tgt, &ticket]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let server = world.realm.tool("gss-server").unwrap().env("KRB5_KTNAME", &own);
    let server = server.env("KRB5RCACHEDIR", world.realm.dir());
    let server = server.args(["-port", &port, "-once", "HTTP@web.example.com"]);
    let mut server =
        server.into_command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = Err("never tried".to_owned());
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let client = world.realm.tool("gss-client").unwrap().env("KRB5CCNAME", &ccache);
        let client = client.args(["-port", &port, "127.0.0.1", "HTTP@web.example.com", "hello"]);
        said = client.run().map_err(|error| error.to_string());
        if said.is_ok() {
            break;
        }
    }
    let _ = server.kill();
    let server = String::from_utf8_lossy(&server.wait_with_output().unwrap().stderr).into_owned();
    let said = said.unwrap_or_else(|error| panic!("{error} {server}"));
    assert!(said.contains("Signature verified"), "{said}");
}
