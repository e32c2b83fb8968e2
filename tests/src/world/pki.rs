//! Certificates: a CA for the broker, and one for each role.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use super::{WorldError, make_dir};

/// The name in the broker's certificate.
pub const BROKER: &str = "krb-broker.test";

/// Each has a CA of its own.
const ROLES: [&str; 5] = ["broker", "node", "operator", "viewer", "stranger"];

/// The CAs and what they signed, as PEM files.
pub struct Pki {
    dir: PathBuf,
    roles: Vec<(&'static str, CertifiedIssuer<'static, KeyPair>)>,
}

/// What a certificate says.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// `O`, if any.
    pub organisation: Option<&'a str>,
    /// `CN`.
    pub common_name: &'a str,
    /// Whether it has the extended key usage clientAuth.
    pub for_clients: bool,
    /// Whether its time is over.
    pub expired: bool,
}

impl<'a> Subject<'a> {
    /// A client that has nothing wrong.
    pub fn client(common_name: &'a str) -> Self {
        Self { organisation: None, common_name, for_clients: true, expired: false }
    }

    /// A node's agent.
    pub fn node(common_name: &'a str) -> Self {
        Self { organisation: Some("system:nodes"), ..Self::client(common_name) }
    }
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Files {
    /// PEM.
    pub certificate: PathBuf,
    /// PEM, 0600.
    pub key: PathBuf,
}

fn failed(error: impl std::fmt::Display) -> WorldError {
    WorldError::new("making a certificate", error)
}

impl Pki {
    /// CAs for the broker, nodes, operators and viewers; certificates of the broker, of one
    /// operator and of one viewer.
    pub fn new(dir: &Path) -> Result<Self, WorldError> {
        let dir = dir.join("pki");
        make_dir(&dir)?;
        let mut pki = Self { dir, roles: Vec::new() };
        for role in ROLES {
            let key = KeyPair::generate().map_err(failed)?;
            write_key(&pki.ca_key(role), &key)?;
            let issuer = ca(role, key).map_err(failed)?;
            fs::write(pki.ca(role), issuer.pem())?;
            pki.roles.push((role, issuer));
        }
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(vec![BROKER.to_owned()]).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, BROKER);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        pki.write("broker", "broker", params, &key)?;
        pki.issue("operator", "operator", &Subject::client("olga"))?;
        pki.issue("viewer", "viewer", &Subject::client("victor"))?;
        Ok(pki)
    }

    /// What [`Pki::new`] made below `dir`, with which CAs can go on signing.
    pub fn again(dir: &Path) -> Result<Self, WorldError> {
        let mut pki = Self { dir: dir.join("pki"), roles: Vec::new() };
        for role in ROLES {
            let key = fs::read_to_string(pki.ca_key(role))?;
            let key = KeyPair::from_pem(&key).map_err(failed)?;
            pki.roles.push((role, ca(role, key).map_err(failed)?));
        }
        Ok(pki)
    }

    fn ca_key(&self, role: &str) -> PathBuf {
        self.dir.join(format!("{role}-ca.key"))
    }

    /// PEM of a role's CA.
    pub fn ca(&self, role: &str) -> PathBuf {
        self.dir.join(format!("{role}-ca.crt"))
    }

    /// Puts a CA that others keep in the place of a role's own.
    ///
    /// # Errors
    /// When its PEM file can't be copied.
    pub fn trust(&self, role: &str, pem: &Path) -> Result<(), WorldError> {
        fs::copy(pem, self.ca(role)).map(drop).map_err(failed)
    }

    /// The files of a certificate that was issued under this name.
    pub fn files(&self, name: &str) -> Files {
        Files {
            certificate: self.dir.join(format!("{name}.crt")),
            key: self.dir.join(format!("{name}.key")),
        }
    }

    /// Has the CA of `role` sign a certificate, and keeps it under `name`.
    pub fn issue(
        &self,
        role: &str,
        name: &str,
        subject: &Subject<'_>,
    ) -> Result<Files, WorldError> {
        self.issue_for(role, name, subject, &KeyPair::generate().map_err(failed)?)
    }

    /// The same for the key of the certificate that was issued under the name `other`.
    pub fn issue_with_key_of(
        &self,
        other: &str,
        role: &str,
        name: &str,
        subject: &Subject<'_>,
    ) -> Result<Files, WorldError> {
        let key = KeyPair::from_pem(&fs::read_to_string(self.files(other).key)?).map_err(failed)?;
        self.issue_for(role, name, subject, &key)
    }

    fn issue_for(
        &self,
        role: &str,
        name: &str,
        subject: &Subject<'_>,
        key: &KeyPair,
    ) -> Result<Files, WorldError> {
        let mut params = CertificateParams::default();
        if let Some(organisation) = subject.organisation {
            params.distinguished_name.push(DnType::OrganizationName, organisation);
        }
        params.distinguished_name.push(DnType::CommonName, subject.common_name);
        if subject.for_clients {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
        if subject.expired {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        }
        self.write(role, name, params, key)
    }

    /// Has the CA of `role` sign whatever `params` say, and keeps it under `name`.
    pub fn sign(
        &self,
        role: &str,
        name: &str,
        params: CertificateParams,
    ) -> Result<Files, WorldError> {
        self.write(role, name, params, &KeyPair::generate().map_err(failed)?)
    }

    fn write(
        &self,
        role: &str,
        name: &str,
        params: CertificateParams,
        key: &KeyPair,
    ) -> Result<Files, WorldError> {
        let (_, issuer) =
            self.roles.iter().find(|(known, _)| *known == role).ok_or_else(|| failed("no CA"))?;
        let certificate = params.signed_by(key, issuer).map_err(failed)?;
        let files = self.files(name);
        fs::write(&files.certificate, certificate.pem())?;
        write_key(&files.key, key)?;
        Ok(files)
    }
}

fn write_key(file: &Path, key: &KeyPair) -> Result<(), WorldError> {
    fs::write(file, key.serialize_pem())?;
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o600))?)
}

fn ca(role: &str, key: KeyPair) -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("{role} CA"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, key)
}
