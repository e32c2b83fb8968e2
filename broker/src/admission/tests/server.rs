//! Stories of the bounds that a request meets before it is read.

use std::{fs, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::{Body, Bytes, to_bytes},
    http::{Request, StatusCode},
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use super::{POD, parsed};
use crate::{
    admission::{
        callers::Callers,
        server::{MAX_BODY, Proof, Webhook, router},
        serving::Certificates,
    },
    clock::{Boottime, SystemClock},
    entitlement::{
        policy::Policy,
        tests::{TSBAR, TSFOO, rules},
    },
};

/// A webhook with so many places, and whether it wants a certificate of its callers.
fn webhook(places: usize, proof_wanted: bool) -> (tempfile::TempDir, Router) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("foo.yaml"), TSFOO).unwrap();
    fs::write(directory.path().join("bar.yaml"), TSBAR).unwrap();
    let clock = Arc::new(SystemClock);
    let policy = Policy::load(directory.path().to_owned(), rules(), clock.clone()).unwrap();
    let webhook = Webhook {
        policy: Arc::new(policy),
        certificates: Arc::new(Certificates::new(None)),
        clock,
        callers: Callers::new(proof_wanted, None).unwrap(),
        places: Semaphore::new(places),
    };
    (directory, router(Arc::new(webhook)).layer(Extension(Proof(false))))
}

async fn post(router: &Router, path: &str, body: Body) -> (StatusCode, Bytes) {
    let request = Request::post(path).body(body).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    (status, to_bytes(response.into_body(), usize::MAX).await.unwrap())
}

fn review() -> Body {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"},
                    "namespace": "tsfoo", "operation": "CREATE", "object": parsed(POD)},
    });
    Body::from(review.to_string())
}

#[tokio::test]
async fn a_question_is_answered_and_what_is_none_is_not() {
    let (_directory, router) = webhook(1, false);
    let (status, body) = post(&router, "/mutate", review()).await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &answer["response"]["allowed"]), (StatusCode::OK, &json!(true)));
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let (_, body) = post(&router, "/validate", review()).await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(message.ends_with("(VOLUME_UNKNOWN)"), "nobody injected it: {message}");
    assert_eq!(post(&router, "/mutate", Body::from("{")).await.0, StatusCode::BAD_REQUEST);
    let long = Body::from(vec![b' '; MAX_BODY + 1]);
    assert_eq!(post(&router, "/mutate", long).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(post(&router, "/other", review()).await.0, StatusCode::NOT_FOUND);
    assert_eq!(post(&router, "/mutate", review()).await.0, StatusCode::OK, "places come back");
}

#[tokio::test]
async fn who_comes_too_many_or_shows_no_certificate_is_turned_away_unread() {
    let (_directory, full) = webhook(0, false);
    assert_eq!(post(&full, "/mutate", review()).await.0, StatusCode::TOO_MANY_REQUESTS);
    let (_directory, closed) = webhook(1, true);
    assert_eq!(post(&closed, "/validate", review()).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let (_directory, router) = webhook(1, false);
    let never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let answered = tokio::time::timeout(Duration::from_secs(6), post(&router, "/mutate", never));
    assert_eq!(answered.await.unwrap().0, StatusCode::REQUEST_TIMEOUT);
}

#[test]
fn only_who_knows_the_end_of_the_path_may_ask() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let callers = |text: &str| {
        fs::write(file.path(), text).unwrap();
        Callers::new(false, Some(file.path()))
    };
    let text = "0123456789-ABCDEFGHIJ_k";
    let knowing = callers(&format!("{text}\n")).unwrap();
    assert!(knowing.may_ask(false, Some(text)));
    for said in [None, Some(""), Some("0123456789-ABCDEFGHIJ_"), Some("x")] {
        assert!(!knowing.may_ask(true, said), "{said:?}");
    }
    for unfit in ["", "short", "0123456789 0123456789", "01234567890123456789/"] {
        assert!(callers(unfit).is_err(), "{unfit}");
    }
    let open = Callers::new(false, None).unwrap();
    assert!(open.may_ask(false, None) && !open.may_ask(false, Some(text)));
    let proved = Callers::new(true, None).unwrap();
    assert!(proved.may_ask(true, None) && !proved.may_ask(false, None));
}

#[test]
fn strangers_are_counted_and_not_logged_one_by_one() {
    let callers = Callers::new(true, None).unwrap();
    let at = |seconds| Boottime(Duration::from_secs(seconds));
    assert_eq!(callers.count_stranger(at(1)), Some(1));
    assert_eq!(callers.count_stranger(at(2)), None);
    assert_eq!(callers.count_stranger(at(10)), None);
    assert_eq!(callers.count_stranger(at(11)), Some(3));
}
