//! The broker's adapters, pointed at a throw-away realm.

use std::{num::NonZeroU32, path::Path, sync::Arc, time::Duration};

use krb_broker::{
    clock::{SystemClock, SystemEntropy},
    kdc::{
        AccountKeys,
        client::{ClientSettings, RealmClient},
        gate::{Caps, Gate},
        mit::{MitAdmin, MitSettings, SettingsError, Timeouts},
    },
    krb5::{exchange::TicketOptions, keytab, transport::Limits},
};
use krb_proto::Principal;

use crate::realm::{POLICY, Realm};

/// Caps of so many requests a second, so many in flight; 0 counts as 1.
pub fn caps(per_second: u32, in_flight: u32) -> Caps {
    let positive = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    Caps { per_second: positive(per_second), in_flight: positive(in_flight) }
}

/// A gate that is wide enough not to slow a test down.
pub fn wide_gate() -> Arc<Gate> {
    Arc::new(Gate::new(caps(1_000, 16), caps(1_000, 4)))
}

/// How the broker reaches the realm's kadmind, with a short time-out.
///
/// # Panics
/// Never: a realm's names are well-formed.
pub fn mit_settings(realm: &Realm) -> MitSettings {
    MitSettings {
        realm: realm.name().parse().expect("a realm's name"),
        kdcs: realm.kdc_addrs().iter().map(ToString::to_string).collect(),
        kadmin: realm.kadmin_addr().to_string(),
        admin_principal: realm.admin_principal().parse().expect("a principal"),
        admin_keytab: realm.admin_keytab(),
        library: None,
        threads: 2,
        policy: POLICY.to_owned(),
        allowed_reserved: Vec::new(),
        run_dir: realm.dir().to_owned(),
        timeouts: Timeouts { gate: Duration::from_secs(5), answer: Duration::from_secs(5) },
    }
}

/// The adapter to the realm's kadmind.
///
/// # Errors
/// When libkadm5clnt can't be used.
pub fn mit_admin(realm: &Realm, gate: &Arc<Gate>) -> Result<MitAdmin, SettingsError> {
    MitAdmin::start(mit_settings(realm), gate.clone(), Arc::new(SystemClock))
}

/// The keys that a keytab file has of `client`; none when it can't be read.
pub fn account_keys(client: Principal, file: &Path) -> AccountKeys {
    let bytes = std::fs::read(file).unwrap_or_default();
    let entries = keytab::read(&bytes).unwrap_or_default().entries;
    AccountKeys { keysets: keytab::keysets(&entries, &client), client }
}

/// How the broker reaches the realm's KDCs, with short time-outs.
///
/// # Panics
/// Never: a realm's names are well-formed.
pub fn client_settings(realm: &Realm) -> ClientSettings {
    let observer = realm.admin_principal().parse().expect("a principal");
    ClientSettings {
        realm: realm.name().parse().expect("a realm's name"),
        kdcs: realm.kdc_addrs().iter().map(ToString::to_string).collect(),
        observer: account_keys(observer, &realm.admin_keytab()),
        options: TicketOptions::default(),
        limits: Limits { udp_waits: vec![Duration::from_millis(500); 2], ..Limits::default() },
        clock_skew: Duration::from_secs(300),
        gate_wait: Duration::from_secs(5),
    }
}

/// The client of the realm's KDCs.
pub fn realm_client(realm: &Realm, gate: &Arc<Gate>) -> RealmClient {
    let entropy = Arc::new(SystemEntropy);
    RealmClient::new(client_settings(realm), gate.clone(), Arc::new(SystemClock), entropy)
}
