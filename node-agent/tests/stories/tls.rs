//! The whole agent, from its file on: configuration, TLS with certificates made by openssl,
//! the socket, SIGTERM's token.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use krb_node_agent::{
    config::{Config, ConfigError},
    run,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;

fn openssl(dir: &Path, arguments: &str) {
    let done = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output();
    let done = done.expect("openssl");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

fn make_ca(dir: &Path) {
    openssl(dir, &format!("req -x509 {NEW_KEY} -keyout ca.key -out ca.pem -subj /CN=ca -days 30"));
}

/// `<name>.pem` and `<name>.key`, signed by the CA.
fn make_certificate(dir: &Path, name: &str, subject: &str, extensions: &str) {
    fs::write(dir.join("extensions"), extensions).unwrap();
    openssl(dir, &format!("req {NEW_KEY} -keyout {name}.key -out {name}.csr -subj {subject}"));
    openssl(
        dir,
        &format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
             -extfile extensions -out {name}.pem"
        ),
    );
    let key = dir.join(format!("{name}.key"));
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
}

/// TLS in front of the broker in memory. It notes the certificates that it sees.
struct Front {
    port: u16,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

async fn front(dir: &Path, broker: Broker) -> Front {
    let file = |name: &str| dir.join(name);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_file(file("broker.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(file("broker.key")).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (listener, seen) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::default());
    let front = Front { port: listener.local_addr().unwrap().port(), seen: Arc::clone(&seen) };
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, broker, seen) = (acceptor.clone(), broker.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let certificate = tls.get_ref().1.peer_certificates().unwrap()[0].to_vec();
                seen.lock().unwrap().push(certificate);
                let Ok(mut inside) = broker.connect() else { return };
                let _cut = tokio::io::copy_bidirectional(&mut tls, &mut inside).await;
            });
        }
    });
    front
}

struct Setup {
    dir: tempfile::TempDir,
    broker: Broker,
    front: Front,
}

impl Setup {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_ca(dir.path());
        let server = "subjectAltName=DNS:broker.test\nextendedKeyUsage=serverAuth";
        make_certificate(dir.path(), "broker", "/CN=broker", server);
        make_node_certificate(dir.path());
        fs::create_dir(dir.path().join("kubelet")).unwrap();
        let broker = Broker::new();
        let front = front(dir.path(), broker.clone()).await;
        Self { dir, broker, front }
    }

    fn write(&self, name: &str, more: &str) -> PathBuf {
        let (dir, port) = (self.dir.path().display(), self.front.port);
        let text = format!(
            "node = \"node-a\"\nbroker = \"https://127.0.0.1:{port}\"\nbroker_name = \"{name}\"\n\
             ca = \"{dir}/ca.pem\"\ncertificate = \"{dir}/node.pem\"\nkey = \"{dir}/node.key\"\n\
             kubelet_root = \"{dir}/kubelet\"\nrun_dir = \"{dir}/run\"\n{more}"
        );
        let path = self.dir.path().join("agent.toml");
        fs::write(&path, text).unwrap();
        path
    }
}

fn make_node_certificate(dir: &Path) {
    let subject = "/O=system:nodes/CN=system:node:node-a";
    make_certificate(dir, "node", subject, "extendedKeyUsage=clientAuth");
}

async fn until(what: &str, so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came to be that {what}");
}

#[tokio::test]
async fn the_agent_attaches_over_tls_and_takes_a_rotated_certificate() {
    let setup = Setup::new().await;
    let config = Config::read(&setup.write("broker.test", "")).unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(config, stop.clone()));
    until("it attaches", || setup.broker.state().hellos.len() == 1).await;
    assert_eq!(setup.broker.state().hellos[0].boot_id.len(), 36);

    make_node_certificate(setup.dir.path());
    setup.broker.go_away();
    setup.broker.come_back();
    until("it attaches anew", || setup.broker.state().hellos.len() == 2).await;
    let seen = setup.front.seen.lock().unwrap().clone();
    assert_ne!(seen.first(), seen.last(), "the file was read again");

    tokio::time::sleep(Duration::from_millis(500)).await; // Welcome is on its way
    stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(setup.broker.state().goodbyes.len(), 1);
    let run_dir = fs::metadata(setup.dir.path().join("run")).unwrap().permissions().mode();
    assert_eq!(run_dir & 0o777, 0o700);
}

#[tokio::test]
async fn a_server_with_another_name_is_not_the_broker() {
    let setup = Setup::new().await;
    let config = Config::read(&setup.write("other.test", "")).unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(config, stop.clone()));
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(setup.front.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn all_that_is_wrong_with_a_file_is_told_at_once() {
    let setup = Setup::new().await;
    let key = setup.dir.path().join("node.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let more = "driver_directory = \"krb\"\n[timeouts]\nfill = \"120s\"\ncall = \"0s\"\n";
    let error = Config::read(&setup.write("", more)).unwrap_err();
    let ConfigError::Check { problems, .. } = error else { panic!("{error}") };
    let fields: Vec<_> = problems.0.iter().map(|line| line.split(':').next().unwrap()).collect();
    let expected = ["broker_name", "driver_directory", "key", "timeouts.call", "timeouts.fill"];
    assert_eq!(fields, expected, "{problems}");
}

#[tokio::test]
async fn an_unknown_key_is_an_error() {
    let setup = Setup::new().await;
    let error = Config::read(&setup.write("broker.test", "kubelet_rot = \"/x\"\n")).unwrap_err();
    assert!(error.to_string().contains("kubelet_rot"), "{error}");
}
