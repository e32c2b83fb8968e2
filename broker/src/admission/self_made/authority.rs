//! The webhook's own CAs: what the replicas share, and what follows from the time.
//!
//! Decides; asks nobody. There is one CA, and for the last third of its life a newer one
//! beside it. Both are believed as long as they live, so that no replica is doubted while the
//! others go over to the newer.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use krb_proto::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::admission::serving::Material;

/// How far before its making a certificate begins: clocks differ.
const BACKDATED: Duration = Duration::from_secs(300);

/// What a CA's name begins with; the second of its making follows.
const NAME: &str = "krb-broker admission ";

/// A CA that the replicas share.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Authority {
    /// The second of its making, since 1970: its name.
    made: u64,
    certificate: String,
    key: Secret,
    not_after: SystemTime,
}

/// All that there are, oldest first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Authorities(Vec<Authority>);

/// Why a certificate can't be made, or read.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// It can't be made.
    #[error("making a certificate")]
    Making(#[from] rcgen::Error),
    /// What is stored is none.
    #[error("{name} is not a CA and its key")]
    Stored {
        /// The entry.
        name: String,
    },
}

impl Authority {
    /// A new one, with a key of its own.
    ///
    /// # Errors
    /// When the key or the certificate can't be made.
    pub fn new(now: SystemTime, life: Duration) -> Result<Self, AuthorityError> {
        let made = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut params = params(made);
        let not_after = UNIX_EPOCH + Duration::from_secs(made) + life;
        params.not_before = (now - BACKDATED).into();
        params.not_after = not_after.into();
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = Secret::new(issuer.key().serialize_pem().into_bytes());
        Ok(Self { made, certificate: issuer.pem(), key, not_after })
    }

    fn read(made: u64, certificate: Vec<u8>, key: Secret) -> Option<Self> {
        let certificate = String::from_utf8(certificate).ok()?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
        let not_after = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
        let not_after = UNIX_EPOCH.checked_add(Duration::from_secs(not_after))?;
        let pair = KeyPair::from_pem(std::str::from_utf8(key.expose()).ok()?).ok()?;
        let is_its = parsed.public_key().subject_public_key.data == pair.public_key_raw();
        is_its.then_some(Self { made, certificate, key, not_after })
    }

    /// What tells it from others.
    pub fn id(&self) -> u64 {
        self.made
    }

    /// A certificate for these names, as long as the CA's own, with a key that nobody else has.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn serve(&self, names: &[String], now: SystemTime) -> Result<Material, AuthorityError> {
        let stored = || AuthorityError::Stored { name: self.made.to_string() };
        let key = std::str::from_utf8(self.key.expose()).map_err(|_| stored())?;
        let issuer = Issuer::new(params(self.made), KeyPair::from_pem(key)?);
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, "krb-broker admission");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - BACKDATED).into();
        params.not_after = self.not_after.into();
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Material {
            chain: vec![certificate.der().clone()],
            key: Secret::new(key.serialize_der()),
            believable: true,
        })
    }
}

/// A certificate that nobody believes, so that probes are answered before there is another.
///
/// # Errors
/// When it can't be made.
pub fn throwaway() -> Result<Material, AuthorityError> {
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(vec!["krb-broker-admission.invalid".to_owned()])?;
    let certificate = params.self_signed(&key)?;
    Ok(Material {
        chain: vec![certificate.der().clone()],
        key: Secret::new(key.serialize_der()),
        believable: false,
    })
}

impl Authorities {
    /// Reads what is stored: `<made>.crt` and `<made>.key`, PEM. Other entries are passed over.
    ///
    /// # Errors
    /// When an entry can't be read, or its other half is missing: nothing is taken for absent.
    pub fn read(stored: &BTreeMap<String, Vec<u8>>) -> Result<Self, AuthorityError> {
        let mut all = Vec::new();
        for (name, certificate) in stored {
            let Some(made) = name.strip_suffix(".crt").and_then(|made| made.parse().ok()) else {
                continue;
            };
            let key = stored.get(&format!("{made}.key")).cloned().map(Secret::new);
            let read = key.and_then(|key| Authority::read(made, certificate.clone(), key));
            all.push(read.ok_or_else(|| AuthorityError::Stored { name: name.clone() })?);
        }
        all.sort_by_key(|authority| authority.made);
        Ok(Self(all))
    }

    /// What is to be stored.
    pub fn entries(&self) -> BTreeMap<String, Vec<u8>> {
        let halves = self.0.iter().flat_map(|authority| {
            [
                (format!("{}.crt", authority.made), authority.certificate.clone().into_bytes()),
                (format!("{}.key", authority.made), authority.key.expose().to_vec()),
            ]
        });
        halves.collect()
    }

    /// Whether a new one must be made: there is none, or the newest is in its last third.
    pub fn wants_new(&self, now: SystemTime, life: Duration) -> bool {
        self.0.last().is_none_or(|newest| newest.not_after <= now + life / 3)
    }

    /// With a new one, and without those whose time is over.
    #[must_use]
    pub fn with(mut self, new: Authority, now: SystemTime) -> Self {
        self.0.retain(|authority| authority.not_after > now && authority.made < new.made);
        self.0.push(new);
        self
    }

    /// What the API server is to believe: all that live, as PEM.
    pub fn bundle(&self, now: SystemTime) -> String {
        self.living(now).map(|authority| authority.certificate.as_str()).collect()
    }

    /// The CA to serve by: the newest of those that `settled` says the API server has believed
    /// for long enough; where there is none of them, the oldest.
    pub fn signer(&self, now: SystemTime, settled: impl Fn(u64) -> bool) -> Option<&Authority> {
        let newest = self.living(now).rfind(|authority| settled(authority.made));
        newest.or_else(|| self.living(now).next())
    }

    /// Those that live, oldest first.
    pub fn living(&self, now: SystemTime) -> impl DoubleEndedIterator<Item = &Authority> {
        self.0.iter().filter(move |authority| authority.not_after > now)
    }
}

/// The parameters of a CA that matter to what it signs, too.
fn params(made: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("{NAME}{made}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}
