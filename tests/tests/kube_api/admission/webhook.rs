//! The running `krb-broker admission`, and the configurations that have an API server call it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use krb_tests::world::programs::program;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

pub type Failed = Box<dyn std::error::Error>;

/// The role account of the stories; `tsbar` is one that it is a member of.
const ENTITLEMENTS: &str = "\
entity_type: unix_role_account
unix_login: tsfoo
unix_uid: 1234
unix_gid: 1111
member_of: [tsbar]
namespaces: [tsfoo]
services: [HTTP, nfs]
---
entity_type: unix_role_account
unix_login: tsbar
unix_uid: 1235
unix_gid: 1112
namespaces: [tsbar]
services: [ftp]
";

/// One replica. Dropping it kills it.
pub struct Webhook {
    child: Child,
    pub address: SocketAddr,
    pub dir: PathBuf,
}

impl Webhook {
    /// Starts one that has this `[tls]` section, and waits until it listens.
    pub fn start(dir: &Path, tls: &str) -> Result<Self, Failed> {
        let address = free_port()?;
        let entitlements = dir.join("entitlements");
        fs::create_dir_all(&entitlements)?;
        fs::write(entitlements.join("all.yaml"), ENTITLEMENTS)?;
        let config = dir.join("admission.toml");
        let entitlements = entitlements.display();
        let end = dir.join("path-end");
        let end = end.exists().then(|| format!("path_end = \"{}\"\n", end.display()));
        let end = end.unwrap_or_default();
        let text = format!(
            "listen = \"{address}\"\nrealm = \"EXAMPLE.COM\"\n{end}[entitlements]\n\
             dir = \"{entitlements}\"\nreload_every = \"200ms\"\n{tls}"
        );
        fs::write(&config, text)?;
        let log = fs::File::create(dir.join("log"))?;
        let child = Command::new(program("krb-broker")?)
            .args(["admission", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut webhook = Self { child, address, dir: dir.to_owned() };
        until("the webhook to listen", || Ok(TcpStream::connect(address).is_ok()))
            .map_err(|error| format!("{error}: {}", webhook.log()))?;
        if let Some(status) = webhook.child.try_wait()? {
            return Err(format!("the webhook ended: {status}: {}", webhook.log()).into());
        }
        Ok(webhook)
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// `https://localhost:port/path`.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.address.port())
    }

    /// The HTTP status of a request, and the body.
    pub fn ask(&self, path: &str, more: &[&str]) -> Result<(u16, String), Failed> {
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--write-out",
            "\n%{http_code}",
        ]);
        command.args(more).arg(self.url(path));
        let output = command.output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().into());
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').ok_or("no status")?;
        Ok((status.parse()?, body.to_owned()))
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both configurations, for namespaces that are opted in; `ca` is PEM in base64, or none.
pub fn configurations(mutate: &str, validate: &str, ca: Option<&str>) -> String {
    let bundle = ca.map(|ca| format!(", caBundle: {ca}")).unwrap_or_default();
    let one = |kind: &str, url: &str, more: &str| {
        format!(
            "apiVersion: admissionregistration.k8s.io/v1
kind: {kind}
metadata: {{name: krb-broker}}
webhooks:
- name: pods.krb-broker.test
  clientConfig: {{url: '{url}'{bundle}}}
  rules:
  - {{apiGroups: [''], apiVersions: [v1], resources: [pods, pods/ephemeralcontainers], operations: [CREATE, UPDATE]}}
  namespaceSelector: {{matchLabels: {{krb-broker/enabled: 'true'}}}}
  failurePolicy: Fail
  matchPolicy: Equivalent
  sideEffects: None
  admissionReviewVersions: [v1, v1beta1]
  timeoutSeconds: 5
{more}"
        )
    };
    let mutating =
        one("MutatingWebhookConfiguration", mutate, "  reinvocationPolicy: IfNeeded\n---\n");
    mutating + &one("ValidatingWebhookConfiguration", validate, "")
}

/// A CA and a certificate of it for `localhost`, in `dir`; the CA's PEM in base64.
pub fn certificate(dir: &Path) -> Result<String, Failed> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "webhook CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &issuer)?;
    let (file, key_file) = (dir.join("tls.crt"), dir.join("tls.key"));
    fs::write(&file, certificate.pem())?;
    fs::write(&key_file, key.serialize_pem())?;
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o640))?;
    fs::write(dir.join("ca.crt"), issuer.pem())?;
    let encoded = Command::new("base64").arg("--wrap=0").arg(dir.join("ca.crt")).output()?;
    Ok(String::from_utf8(encoded.stdout)?)
}

/// `[tls]` with the files of [`certificate`].
pub fn files(dir: &Path, more: &str) -> String {
    let dir = dir.display();
    format!("[tls]\ncertificate = \"{dir}/tls.crt\"\nkey = \"{dir}/tls.key\"\n{more}")
}

/// Waits until it is so.
pub fn until(what: &str, is_so: impl Fn() -> Result<bool, Failed>) -> Result<(), Failed> {
    let started = now();
    while !is_so()? {
        if now().duration_since(started) > Duration::from_secs(120) {
            return Err(format!("waited in vain for {what}").into());
        }
        pause(Duration::from_millis(100));
    }
    Ok(())
}

pub fn pause(span: Duration) {
    #[expect(clippy::disallowed_methods, reason = "another process is waited for: a poll")]
    std::thread::sleep(span);
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a test's patience is real time")]
    Instant::now()
}

fn free_port() -> Result<SocketAddr, Failed> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
