use std::{convert::Infallible, time::Duration};

use super::*;
use crate::{
    audit::memory::MemoryAudit,
    clock::{Clock, Entropy, SeededEntropy, TestClock},
    ledger::Ledger,
    store::{
        committer::{Committer, Pace},
        memory::MemoryStore,
        seal::{MasterKey, Sealer},
    },
    tokens::{FakeTokens, Proved},
};

const ISSUE: &str = "/krb.broker.v1.NodeService/Issue";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const LIST: &str = "/krb.broker.v1.LeaseService/ListLeases";
const TOKEN: &str = "good.good.good";

struct World {
    authorize: Authorize,
    tokens: Arc<FakeTokens>,
    clock: Arc<TestClock>,
    audit: MemoryAudit,
}

fn world() -> World {
    let (clock, audit) = (Arc::new(TestClock::default()), MemoryAudit::default());
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
    let store = Arc::new(MemoryStore::default());
    let (committer, _thread) =
        Committer::start(store, Arc::new(audit.clone()), clock.clone(), Pace::default()).unwrap();
    let sealer = Sealer::new(&MasterKey::random(&*entropy), entropy);
    let book = Book::new(Ledger::new("test".into()), committer, sealer, clock.clone());
    let tokens = Arc::new(FakeTokens::default());
    let (node, pod) = ("node-a".parse().unwrap(), "agent".parse().unwrap());
    let expires = clock.now().wall + Duration::from_secs(600);
    tokens.know(TOKEN, Proved { node, node_uid: "n-1".to_owned(), pod, expires });
    World { authorize: Authorize::new(book, Some(tokens.clone())), tokens, clock, audit }
}

impl World {
    /// A call without a certificate: the gRPC code, and which caller the service saw.
    async fn call(&self, path: &str, token: Option<&str>) -> (Code, Option<Caller>) {
        self.call_of(Caller::unproven(), path, token).await
    }

    async fn call_of(
        &self,
        caller: Caller,
        path: &str,
        token: Option<&str>,
    ) -> (Code, Option<Caller>) {
        let service = tower::service_fn(|request: Request<Body>| async move {
            assert!(request.headers().get("authorization").is_none(), "the token goes no further");
            let mut response = Response::new(Body::default());
            response.extensions_mut().extend(request.extensions().clone());
            Ok::<_, Infallible>(response)
        });
        let mut request = Request::post(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut request = request.body(Body::default()).unwrap();
        request.extensions_mut().insert(Peer { caller, proof: None });
        let response = self.authorize.layer(service).call(request).await.unwrap();
        let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |s| s.code());
        (code, response.extensions().get::<Caller>().cloned())
    }
}

#[tokio::test]
async fn a_call_with_a_good_token_comes_from_its_node() {
    let world = world();
    for path in [ISSUE, HEALTH] {
        let (code, caller) = world.call(path, Some(TOKEN)).await;
        let caller = caller.expect("the service is reached");
        assert_eq!(code, Code::Ok);
        assert_eq!(caller.node().map(krb_proto::NodeName::as_str), Some("node-a"));
        assert_eq!(caller.node_uid.as_deref(), Some("n-1"));
        assert!(caller.key.is_some(), "a ban can tell it");
    }
}

#[tokio::test]
async fn without_a_certificate_only_nodes_methods_are_reached_and_only_with_a_token() {
    let world = world();
    let refused = (Code::Unauthenticated, None);
    assert_eq!(world.call(ISSUE, None).await, refused);
    assert_eq!(world.call(HEALTH, None).await, refused);
    assert_eq!(world.call(ISSUE, Some("bad.bad.bad")).await, refused);
    let asked = world.tokens.asked();
    assert_eq!(world.call(LIST, Some(TOKEN)).await, refused);
    assert_eq!(world.tokens.asked(), asked, "of no other method is a token reviewed");
    let log = world.audit.text();
    assert!(log.contains("call.denied") && log.contains("not known"), "{log}");
    assert!(!log.contains(TOKEN) && !log.contains("bad.bad"), "no token is in the log");
}

#[tokio::test]
async fn a_token_adds_nothing_to_a_certificate() {
    let world = world();
    let operator = Caller {
        identity: Identity::Operator("alice".to_owned()),
        not_after: world.clock.now().wall + Duration::from_secs(60),
        ..Caller::unproven()
    };
    let (code, caller) = world.call_of(operator.clone(), LIST, Some(TOKEN)).await;
    assert_eq!((code, caller.as_ref()), (Code::Ok, Some(&operator)));
    let (code, _) = world.call_of(operator, ISSUE, Some(TOKEN)).await;
    assert_eq!(code, Code::PermissionDenied);
    assert_eq!(world.tokens.asked(), 0);
}

#[tokio::test]
async fn an_outage_of_the_api_server_is_told_as_one_and_a_tokens_end_as_such() {
    let world = world();
    world.tokens.set_down(true);
    assert_eq!(world.call(ISSUE, Some(TOKEN)).await, (Code::Unavailable, None));
    world.tokens.set_down(false);
    world.clock.advance(Duration::from_secs(601));
    assert_eq!(world.call(ISSUE, Some(TOKEN)).await, (Code::Unauthenticated, None));
}
