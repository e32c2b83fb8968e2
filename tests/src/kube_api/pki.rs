//! The CA of an API server, what it signs, and kubeconfigs.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

use crate::cluster::ClusterError;

/// A client certificate and its key.
#[derive(Clone, Debug)]
pub struct Credential {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM, 0600.
    pub key: PathBuf,
}

/// One CA for servers and clients, and the key that signs service account tokens.
pub(super) struct Pki {
    dir: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").field("dir", &self.dir).finish_non_exhaustive()
    }
}

fn failed(error: impl std::fmt::Display) -> ClusterError {
    ClusterError::new("making the API server's certificates", error)
}

impl Pki {
    /// The CA, the certificate of the API server at `address`, the key of tokens.
    pub(super) fn new(dir: &Path, address: IpAddr) -> Result<Self, ClusterError> {
        let dir = dir.join("pki");
        fs::create_dir(&dir).map_err(failed)?;
        let pki = Self { dir, issuer: ca().map_err(failed)? };
        fs::write(pki.ca(), pki.issuer.pem()).map_err(failed)?;
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
        let mut params = CertificateParams::new(names.map(str::to_owned)).map_err(failed)?;
        let addresses = [address, IpAddr::V4(Ipv4Addr::LOCALHOST), SERVICE_ADDRESS];
        params.subject_alt_names.extend(addresses.map(SanType::IpAddress));
        params.distinguished_name = subject("kube-apiserver", None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        pki.sign("apiserver", params)?;
        let key = KeyPair::generate().map_err(failed)?;
        pki.write_key(&pki.token_key(), &key)?;
        fs::write(pki.token_public_key(), key.public_key_pem()).map_err(failed)?;
        Ok(pki)
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    pub(super) fn token_key(&self) -> PathBuf {
        self.dir.join("tokens.key")
    }

    pub(super) fn token_public_key(&self) -> PathBuf {
        self.dir.join("tokens.pub")
    }

    pub(super) fn files(&self, name: &str) -> Credential {
        Credential {
            certificate: self.dir.join(format!("{name}.crt")),
            key: self.dir.join(format!("{name}.key")),
        }
    }

    /// Signs a client certificate and keeps it under `name`.
    pub(super) fn issue(
        &self,
        name: &str,
        user: &str,
        group: Option<&str>,
    ) -> Result<Credential, ClusterError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(user, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(name, params)
    }

    pub(super) fn kubeconfig_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.kubeconfig"))
    }

    /// A kubeconfig with the certificate that was issued under `name`.
    pub(super) fn kubeconfig(&self, name: &str, url: &str) -> Result<PathBuf, ClusterError> {
        let files = self.files(name);
        let (certificate, key) = (files.certificate.display(), files.key.display());
        let user = format!("{{client-certificate: '{certificate}', client-key: '{key}'}}");
        self.write_kubeconfig(name, &user, url)
    }

    /// A kubeconfig with a bearer token.
    pub(super) fn kubeconfig_with_token(
        &self,
        name: &str,
        token: &str,
        url: &str,
    ) -> Result<PathBuf, ClusterError> {
        self.write_kubeconfig(name, &format!("{{token: '{token}'}}"), url)
    }

    fn write_kubeconfig(&self, name: &str, user: &str, url: &str) -> Result<PathBuf, ClusterError> {
        let ca = self.ca();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: '{url}', certificate-authority: '{}'}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             users: [{{name: u, user: {user}}}]\n",
            ca.display()
        );
        let path = self.kubeconfig_path(name);
        fs::write(&path, text).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(path)
    }

    fn sign(&self, name: &str, params: CertificateParams) -> Result<Credential, ClusterError> {
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let files = self.files(name);
        fs::write(&files.certificate, certificate.pem()).map_err(failed)?;
        self.write_key(&files.key, &key)?;
        Ok(files)
    }

    fn write_key(&self, path: &Path, key: &KeyPair) -> Result<(), ClusterError> {
        fs::write(path, key.serialize_pem()).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)
    }
}

/// The first address of the Services' range, which the API server gives itself.
const SERVICE_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 97, 0, 1));
/// That range.
pub(super) const SERVICE_RANGE: &str = "10.97.0.0/24";

/// `CN` and `O`, which the API server reads as user and group.
fn subject(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, user);
    name
}

fn ca() -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject("kube-api CA", None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}
