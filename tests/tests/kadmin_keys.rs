//! What keys that the broker set are good for, in the hands of MIT's own tools.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use krb_broker::{
    clock::SystemEntropy,
    kdc::{
        Attributes, KeyAdmin as _,
        contract::SERVICE,
        mit::{MitAdmin, StartupCheck},
    },
    krb5::{
        key::{Enctype, Keyset},
        keytab::{self, KeytabEntry},
    },
};
use krb_proto::{Kvno, Principal};
use krb_tests::{
    adapters::{mit_admin, wide_gate},
    realm::{Realm, RealmError},
};

const WEB: &str = "HTTP/web.example.com@TEST.EXAMPLE.COM";

/// Makes `WEB` with keys of all enctypes; the keytab that a pod would get.
async fn web(realm: &Realm, admin: &MitAdmin, kvno: u32, attributes: &Attributes) -> PathBuf {
    let service: Principal = WEB.parse().expect("a principal");
    let keyset = Keyset::random(Kvno(kvno), &Enctype::ALL, &SystemEntropy, SystemTime::UNIX_EPOCH);
    admin.create(&service, attributes).await.expect("create");
    admin.activate(&service, &keyset, attributes).await.expect("activate");
    let path = realm.dir().join(format!("web{kvno}.keytab"));
    let file = keytab::write(&KeytabEntry::of_keyset(&service, &keyset)).expect("a keytab");
    std::fs::write(&path, file.expose()).expect("written");
    path
}

fn kinit(realm: &Realm, keytab: &Path, who: &str, ccache: &Path) -> Result<String, RealmError> {
    let kinit = realm.tool("kinit")?.args(["-k", "-t"]).args([keytab]).args([who]);
    kinit.env("KRB5CCNAME", ccache).run()
}

#[tokio::test]
async fn a_clients_ticket_decrypts_with_the_keytab_of_its_kvno_and_with_no_older_one() {
    let realm = Realm::start().unwrap();
    let admin = mit_admin(&realm, &wide_gate()).unwrap();
    let tsfoo = realm.add_role_account("tsfoo").unwrap();
    let ccache = realm.dir().join("cc");
    let older = web(&realm, &admin, 2, &SERVICE).await;
    let newer = web(&realm, &admin, 3, &SERVICE).await;
    kinit(&realm, &tsfoo, "tsfoo", &ccache).unwrap();
    // `kvno -k` decrypts the ticket with the keytab
    let kvno = |keytab: &Path| {
        let kvno = realm.tool("kvno").unwrap().args(["-k"]).args([keytab]).args([WEB]);
        kvno.env("KRB5CCNAME", &ccache).run()
    };
    let said = kvno(&newer).unwrap();
    assert!(said.contains("kvno = 3, keytab entry valid"), "{said}");
    assert!(kvno(&older).is_err());
}

#[tokio::test]
async fn the_keytab_of_a_service_makes_no_client() {
    let realm = Realm::start().unwrap();
    let admin = mit_admin(&realm, &wide_gate()).unwrap();
    let keytab = web(&realm, &admin, 2, &SERVICE).await;
    let refused = kinit(&realm, &keytab, WEB, &realm.dir().join("cc")).unwrap_err().to_string();
    assert!(refused.contains("expired"), "{refused}");
}

#[tokio::test]
async fn whoever_holds_a_keytab_can_not_change_its_key() {
    let realm = Realm::start().unwrap();
    let admin = mit_admin(&realm, &wide_gate()).unwrap();
    let client = Attributes::service(Duration::from_secs(3_600), true);
    let keytab = web(&realm, &admin, 2, &client).await;
    kinit(&realm, &keytab, WEB, &realm.dir().join("cc")).unwrap();
    let kadmin = realm.tool("kadmin").unwrap().args(["-k", "-t"]).args([&keytab]);
    let _ = kadmin.args(["-p", WEB, "-q", &format!("cpw -randkey {WEB}")]).run();
    assert!(realm.kadmin_requests().contains_key("kadm5_randkey_principal"), "it was tried");
    let state = admin.inspect(&WEB.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(state.kvno, Some(Kvno(2)));
    assert_eq!(admin.check_policy().await.unwrap(), StartupCheck::Passed);
}
