//! One AS exchange in the broker's client, beside `kinit -kt` as a process. Both get a ticket
//! for the same account from the same KDC, which counts what it is asked.

use std::time::Duration;

use krb_broker::kdc::Kdc as _;

use super::{
    Budget, Failure, Report,
    process::Call,
    stopwatch::{Spans, Stopwatch},
};
use crate::{
    adapters::{account_keys, realm_client, wide_gate},
    realm::Realm,
};

/// Tickets of each.
const RUNS: usize = 200;
/// Runs before those that count; the first of ours learns which key the account has.
const WARM_UP: usize = 5;
/// The life that is asked for.
const LIFE: Duration = Duration::from_secs(3_600);
/// The account.
const LOGIN: &str = "tsfoo";

/// Asks for tickets in turn.
pub async fn measure() -> Result<Report, Failure> {
    let realm = Realm::start()?;
    let keytab = realm.add_role_account(LOGIN)?;
    let client = format!("{LOGIN}@{}", realm.name()).parse()?;
    let account = account_keys(client, &keytab);
    let kdc = realm_client(&realm, &wide_gate());
    let kinit = kinit(&realm)?;
    let (mut ours, mut rivals) = (Spans::default(), Spans::default());
    let (mut our_requests, mut rivals_requests) = (0, 0);
    for run in 0..RUNS + WARM_UP {
        let before = realm.kdc_requests().total();
        let watch = Stopwatch::start();
        kdc.tgt(&account, LIFE).await?;
        let our = watch.elapsed();
        let between = realm.kdc_requests().total();
        let rival = kinit.timed()?;
        if run >= WARM_UP {
            ours.push(our);
            rivals.push(rival);
            our_requests += between - before;
            rivals_requests += realm.kdc_requests().total() - between;
        }
    }
    let each = |requests: u64| requests as f64 / RUNS as f64;
    let lines = vec![
        format!("AS exchange in process: {ours}, {:.2} requests each", each(our_requests)),
        format!("kinit -kt: {rivals}, {:.2} requests each", each(rivals_requests)),
        format!("kinit takes {:.1} times as long", rivals.p50() / ours.p50()),
    ];
    let budget = Budget {
        name: "as-exchange-requests",
        met: our_requests <= RUNS as u64,
        figure: format!("{:.2} a ticket, p50 {:.2} ms", each(our_requests), ours.p50()),
        budget: "1 a ticket".to_owned(),
        rival: format!("{:.2} a ticket, p50 {:.2} ms", each(rivals_requests), rivals.p50()),
    };
    Ok(Report { lines, budgets: vec![budget] })
}

/// `kinit -kt` for the account, whose keytab the realm has made.
pub fn kinit(realm: &Realm) -> Result<Call, Failure> {
    let (keytab, ccache) = (realm.dir().join(format!("{LOGIN}.keytab")), realm.dir().join("cc"));
    let arguments = [
        "-k".into(),
        "-t".into(),
        keytab.into_os_string(),
        "-c".into(),
        ccache.into_os_string(),
        LOGIN.into(),
    ];
    Ok(Call::of(&realm.tool("kinit")?.args(arguments).into_command(), ""))
}
