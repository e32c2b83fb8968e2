//! A broker with so many open connections that kadm5's library can't wait for a new one: on its
//! own, since it uses up what a whole process shares.

use std::fs::File;

use krb_broker::kdc::{
    KeyAdmin as _,
    contract::{SERVICE, keys},
};
use krb_tests::{
    adapters::{mit_admin, wide_gate},
    realm::Realm,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[tokio::test]
async fn kadmin_is_reached_and_found_again_with_thousands_of_descriptors_open() {
    let all = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: all, maximum: all }).unwrap();
    let mut realm = Realm::start().unwrap();
    let admin = mit_admin(&realm, &wide_gate()).unwrap();
    let agents: Vec<File> = (0..2_000).map(|_| File::open("/dev/null").unwrap()).collect();

    let service = "HTTP/web.example.com@TEST.EXAMPLE.COM".parse().unwrap();
    admin.create(&service, &SERVICE).await.unwrap();
    for kvno in 2..5 {
        realm.stop_kadmind();
        realm.start_kadmind().unwrap();
        admin.activate(&service, &keys(kvno), &SERVICE).await.unwrap();
    }
    drop(agents);
}
