//! Real replies, and which parser reads which.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use krb_broker::{
    clock::SeededEntropy,
    krb5::{
        key::{Enctype, Keyset},
        keytab::{self, KeytabEntry},
        messages::{self, Fault, Malformed},
    },
};
use krb_proto::{Kvno, Principal, Realm, Secret};

/// What a sample is a sample of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// AS-REP
    AsRep,
    /// TGS-REP
    TgsRep,
    /// KRB-ERROR
    KrbError,
    /// METHOD-DATA
    MethodData,
    /// ETYPE-INFO2
    EtypeInfo2,
    /// EncASRepPart or EncTGSRepPart, decrypted
    EncPart,
    /// A keytab
    Keytab,
}

/// One sample.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its file's name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Why there is nothing to start from.
#[derive(Debug)]
pub enum CorpusError {
    /// The directory or a file can't be read.
    Io(PathBuf, io::Error),
    /// No file is named `<kdc>-<message>.der`.
    Empty(PathBuf),
    /// A file is named after no message.
    Unknown(String),
}

impl std::fmt::Display for CorpusError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "reading {}: {error}", path.display()),
            Self::Empty(path) => write!(f, "{} has no samples", path.display()),
            Self::Unknown(name) => write!(f, "{name} is named after no message"),
        }
    }
}

impl std::error::Error for CorpusError {}

/// The broker's parser said no.
pub(super) struct Refused {
    /// It said so because it panicked.
    pub(super) panicked: bool,
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Self {
        Self { panicked: malformed.why == Fault::Panicked }
    }
}

impl Kind {
    fn of_name(name: &str) -> Option<Self> {
        let (_, message) = name.strip_suffix(".der")?.split_once('-')?;
        Some(match message {
            "as-rep" => Self::AsRep,
            "tgs-rep" => Self::TgsRep,
            "method-data" => Self::MethodData,
            "etype-info2" => Self::EtypeInfo2,
            "enc-as-rep-part" | "enc-tgs-rep-part" => Self::EncPart,
            error if error.starts_with("krb-error-") => Self::KrbError,
            _ => return None,
        })
    }

    /// Gives the bytes to the broker's parser.
    pub(super) fn read(self, bytes: &[u8]) -> Result<(), Refused> {
        match self {
            Self::AsRep => messages::parse_as_rep(bytes).map(drop)?,
            Self::TgsRep => messages::parse_tgs_rep(bytes).map(drop)?,
            Self::KrbError => messages::parse_krb_error(bytes).map(drop)?,
            Self::MethodData => messages::parse_method_data(bytes).map(drop)?,
            Self::EtypeInfo2 => messages::parse_etype_info2(bytes).map(drop)?,
            Self::EncPart => {
                messages::parse_enc_kdc_reply_part(&Secret::new(bytes.to_vec())).map(drop)?;
            }
            Self::Keytab => {
                keytab::read(bytes).map(drop).map_err(|_| Refused { panicked: false })?;
            }
        }
        Ok(())
    }
}

/// All samples of a directory in the order of their names, and a keytab made here.
pub(super) fn load(directory: &Path) -> Result<Vec<Sample>, CorpusError> {
    let failed = |error| CorpusError::Io(directory.to_owned(), error);
    let mut samples = vec![keytab_sample()];
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "der") {
            samples.push(load_one(&path)?);
        }
    }
    if samples.len() == 1 {
        return Err(CorpusError::Empty(directory.to_owned()));
    }
    samples.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(samples)
}

fn load_one(path: &Path) -> Result<Sample, CorpusError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let kind = Kind::of_name(&name).ok_or_else(|| CorpusError::Unknown(name.clone()))?;
    let bytes = fs::read(path).map_err(|error| CorpusError::Io(path.to_owned(), error))?;
    Ok(Sample { name, kind, bytes })
}

fn keytab_sample() -> Sample {
    let realm: Realm = "EXAMPLE.COM".parse().expect("it is a realm");
    let principal = Principal::new(&["HTTP", "web"], &realm).expect("it is a principal");
    let made_at = std::time::UNIX_EPOCH;
    let keyset = Keyset::random(Kvno(2), &Enctype::ALL, &SeededEntropy::new(1), made_at);
    let entries = KeytabEntry::of_keyset(&principal, &keyset);
    let bytes = keytab::write(&entries).expect("2 is a fit kvno").expose().to_vec();
    Sample { name: "made-keytab".to_owned(), kind: Kind::Keytab, bytes }
}
