//! The certificates of the broker and of its operator, each from a CA of its own. Those of the
//! nodes are the cluster's.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

/// The name that the broker's certificate carries.
pub const BROKER_NAME: &str = "krb-broker.example.com";

/// Files of one certificate: the CA that signed it, itself, its key.
#[derive(Clone, Debug)]
pub struct Files {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A server's certificate for [`BROKER_NAME`].
pub fn broker(dir: &Path) -> Result<Files, Box<dyn Error>> {
    make(dir, "broker", vec![BROKER_NAME.to_owned()], ExtendedKeyUsagePurpose::ServerAuth)
}

/// A client's certificate for an operator.
pub fn operator(dir: &Path) -> Result<Files, Box<dyn Error>> {
    make(dir, "operator", Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
}

fn make(
    dir: &Path,
    name: &str,
    dns_names: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
) -> Result<Files, Box<dyn Error>> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, format!("{name}-ca"));
    let ca_pem = ca.self_signed(&ca_key)?.pem();

    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(dns_names)?;
    leaf.distinguished_name.push(DnType::CommonName, name);
    leaf.extended_key_usages = vec![usage];
    let pem = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?.pem();

    let file = |suffix: &str| dir.join(format!("{name}{suffix}"));
    let files = Files { ca: file("-ca.pem"), certificate: file(".pem"), key: file(".key") };
    fs::write(&files.ca, ca_pem)?;
    fs::write(&files.certificate, pem)?;
    crate::servers::write_private(&files.key, key.serialize_pem().as_bytes())?;
    Ok(files)
}
