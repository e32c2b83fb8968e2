//! New service principals with keys: through the broker's adapter, and by MIT's `kadmin`, which
//! makes the same three changes at the same kadmind (create without a key, set a key, modify).

use std::time::Duration;

use krb_broker::{
    clock::SystemEntropy,
    kdc::{Attributes, KeyAdmin as _},
    krb5::key::{Enctype, Keyset},
};
use krb_proto::{Kvno, Principal};

use super::{Budget, Failure, Report, stopwatch::Stopwatch};
use crate::{
    adapters::{caps, mit_admin},
    realm::{Options, POLICY, Realm},
};

/// Rounds of each.
const ROUNDS: usize = 4;
/// Principals in a round.
const IN_A_ROUND: usize = 50;
/// What they are to be.
const SERVICE: Attributes = Attributes::service(Duration::from_secs(3_600), false);

/// Makes principals in turn.
pub async fn measure() -> Result<Report, Failure> {
    // kadmin makes keys by changepw, where the broker sets those that it has made
    let acl =
        Some(vec!["krb-broker/admin@TEST.EXAMPLE.COM admcsi HTTP/*@TEST.EXAMPLE.COM".to_owned()]);
    let realm = Realm::with_options(Options { acl, ..Options::default() })?;
    let gate =
        std::sync::Arc::new(krb_broker::kdc::gate::Gate::new(caps(100_000, 16), caps(100_000, 4)));
    let admin = mit_admin(&realm, &gate)?;
    let name = |text: String| text.parse::<Principal>();
    make(&admin, &name(format!("HTTP/first@{}", realm.name()))?).await?; // connects
    let (mut ours, mut rivals) = (Duration::ZERO, Duration::ZERO);
    for round in 0..ROUNDS {
        let watch = Stopwatch::start();
        for number in 0..IN_A_ROUND {
            make(&admin, &name(format!("HTTP/a{round}-{number}@{}", realm.name()))?).await?;
        }
        ours += watch.elapsed();
        rivals += by_kadmin(&realm, round)?;
    }
    let rate = |time: Duration| (ROUNDS * IN_A_ROUND) as f64 / time.as_secs_f64();
    let (our, rival) = (rate(ours), rate(rivals));
    let asked = realm.kadmin_requests();
    let lines = vec![
        format!("new principals with keys, one at a time: {our:.0}/s, kadmin {rival:.0}/s"),
        format!("what kadmind was asked by both: {asked:?}"),
    ];
    let budget = Budget {
        name: "new-principals",
        met: our >= 0.8 * rival,
        figure: format!("{our:.0}/s, {:.0} %", 100.0 * our / rival),
        budget: "80 %".to_owned(),
        rival: format!("kadmin {rival:.0}/s"),
    };
    Ok(Report { lines, budgets: vec![budget] })
}

async fn make(
    admin: &krb_broker::kdc::mit::MitAdmin,
    principal: &Principal,
) -> Result<(), Failure> {
    let enctypes = [Enctype::Aes256Sha1, Enctype::Aes128Sha1];
    let keys =
        Keyset::random(Kvno(2), &enctypes, &SystemEntropy, std::time::SystemTime::UNIX_EPOCH);
    admin.create(principal, &SERVICE).await?;
    admin.activate(principal, &keys, &SERVICE).await?;
    Ok(())
}

/// One `kadmin` for the whole round; how long its changes took, its start and login left out.
fn by_kadmin(realm: &Realm, round: usize) -> Result<Duration, Failure> {
    let run = |script: &str| -> Result<Duration, Failure> {
        let keytab = realm.admin_keytab().display().to_string();
        let admin = realm.admin_principal();
        let watch = Stopwatch::start();
        let tool = realm.tool("kadmin")?.args(["-k", "-t", &keytab, "-p", &admin]);
        tool.input(script).run()?;
        Ok(watch.elapsed())
    };
    let script: String = (0..IN_A_ROUND)
        .map(|number| {
            let name = format!("HTTP/k{round}-{number}");
            format!(
                "addprinc -nokey -policy {POLICY} -maxlife 1h -maxrenewlife 0s {name}\n\
                 cpw -randkey {name}\nmodprinc -pwexpire 2001-01-01 {name}\n"
            )
        })
        .collect();
    Ok(run(&script)?.saturating_sub(run("")?))
}
