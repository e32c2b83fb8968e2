//! A kadmind that hangs. On its own, since the library opens one connection at a time in a whole
//! process: a test beside this one would wait with it.

use std::time::Duration;

use krb_broker::{
    clock::SystemClock,
    kdc::{
        KeyAdmin as _,
        contract::{SERVICE, keys},
        mit::{MitAdmin, MitSettings, Timeouts},
    },
};
use krb_tests::{
    adapters::{mit_settings, wide_gate},
    realm::Realm,
};

#[tokio::test]
async fn a_hung_kadmind_holds_no_caller_and_what_was_given_up_in_the_queue_never_happens() {
    let realm = Realm::start().unwrap();
    let timeouts = Timeouts { gate: Duration::from_secs(5), answer: Duration::from_secs(1) };
    let settings = MitSettings { threads: 1, timeouts, ..mit_settings(&realm) };
    let admin = MitAdmin::start(settings, wide_gate(), std::sync::Arc::new(SystemClock)).unwrap();
    let service = "HTTP/web.example.com@TEST.EXAMPLE.COM".parse().unwrap();
    let nobody = "HTTP/nobody.example.com@TEST.EXAMPLE.COM".parse().unwrap();
    admin.create(&service, &SERVICE).await.unwrap();

    realm.pause_kadmind();
    let both = async {
        // the first has the only thread, the second waits behind it
        tokio::join!(biased; admin.inspect(&service), admin.create(&nobody, &SERVICE))
    };
    let (first, queued) = tokio::time::timeout(Duration::from_secs(3), both).await.unwrap();
    for error in [first.unwrap_err(), queued.unwrap_err()] {
        assert!(error.is_transient(), "{error:?}");
        assert!(error.to_string().contains("no answer within 1s"), "{error}");
    }
    assert!(!admin.health().reachable);

    realm.resume_kadmind();
    admin.activate(&service, &keys(2), &SERVICE).await.unwrap();
    assert!(admin.health().reachable);
    assert_eq!(admin.inspect(&nobody).await.unwrap(), None, "given up, so never done");
}
