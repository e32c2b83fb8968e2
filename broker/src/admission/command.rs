//! `krb-broker inject` and `krb-broker acl`: what they are told, and what they print.
//!
//! Both read entitlements and nothing else of the broker: no key, no store, no KDC.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use krb_proto::{Namespace, Principal, Realm};

use super::inject::inject;
use crate::{
    entitlement::{
        Denial, acl,
        load::Entitlements,
        problems::Problems,
        rules::{ClusterDomain, DRIVER, Rules},
        service::ServiceName,
    },
    yaml,
};

/// The longest input, in bytes.
const MAX_INPUT: u64 = 16 * 1024 * 1024;

/// The realm where none is given: an ask that names one is then refused.
const NO_REALM: &str = "NOT-GIVEN";

/// Puts the volume that annotations ask for into pods and what makes pods.
#[derive(Clone, Debug, clap::Args)]
pub struct InjectArgs {
    /// Directory of entitlement files.
    #[arg(long, value_name = "DIR")]
    pub entitlements: PathBuf,
    /// Namespace of objects that name none.
    #[arg(long, short = 'n', value_name = "NAMESPACE")]
    pub namespace: Option<Namespace>,
    /// Realm of the principals; needed where an ask names one.
    #[arg(long, value_name = "REALM")]
    pub realm: Option<Realm>,
    /// DNS domain of the cluster.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: ClusterDomain,
    /// Driver of the volume, vendor/name.
    #[arg(long, value_name = "DRIVER", default_value = DRIVER)]
    pub driver: String,
    /// What the annotations start with.
    #[arg(long, value_name = "PREFIX", default_value = "ts")]
    pub annotation_prefix: String,
    /// A service that every account may have on its user-prefixed host names; may be repeated.
    #[arg(long, value_name = "SERVICE")]
    pub realm_wide_service: Vec<ServiceName>,
    /// YAML file of objects, `-` for the standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Prints the lines of kadm5.acl that the entitlements need.
#[derive(Clone, Debug, clap::Args)]
pub struct AclArgs {
    /// Directory of entitlement files.
    #[arg(long, value_name = "DIR")]
    pub entitlements: PathBuf,
    /// Realm of the principals.
    #[arg(long, value_name = "REALM")]
    pub realm: Realm,
    /// The broker's own principal; `krb-broker/admin` of the realm unless given.
    #[arg(long, value_name = "PRINCIPAL")]
    pub admin: Option<Principal>,
    /// A service that every account may have on its user-prefixed host names; may be repeated.
    #[arg(long, value_name = "SERVICE")]
    pub realm_wide_service: Vec<ServiceName>,
}

/// Why a command printed nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The entitlements are wrong.
    #[error("the entitlements can't be used:\n{0}")]
    Entitlements(#[from] Problems),
    /// The objects can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        /// The file, `-` for the standard input.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The objects are no YAML.
    #[error("{}", .0)]
    Yaml(#[from] yaml::InvalidYaml),
    /// Objects are refused, each line one denial of one object.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
}

/// The objects of the file with their volumes, as one YAML text; all of them or none.
///
/// # Errors
/// As the type says; nothing is printed then.
pub fn run_inject(args: &InjectArgs) -> Result<String, CommandError> {
    let entitlements = Entitlements::load(&args.entitlements)?;
    let read = read_input(&args.file);
    let text = read.map_err(|source| CommandError::Read { path: args.file.clone(), source })?;
    inject_text(&text, args, &entitlements)
}

fn inject_text(
    text: &str,
    args: &InjectArgs,
    entitlements: &Entitlements,
) -> Result<String, CommandError> {
    let rules = args.rules();
    let mut injected = Vec::new();
    let mut refused = Vec::new();
    for object in yaml::documents(text)? {
        let name = name_of(&object);
        match inject(object, args.namespace.as_ref(), entitlements, &rules) {
            Ok(object) => injected.push(object),
            Err(denials) => refused.extend(denials.iter().map(|denial| line(&name, denial))),
        }
    }
    if refused.is_empty() {
        Ok(yaml::text(&injected)?)
    } else {
        Err(CommandError::Refused(refused))
    }
}

/// The lines of kadm5.acl, with comments.
///
/// # Errors
/// When the entitlements are wrong.
pub fn run_acl(args: &AclArgs) -> Result<String, CommandError> {
    let entitlements = Entitlements::load(&args.entitlements)?;
    // The lines name no host, so the cluster's domain does not matter.
    let mut rules = Rules::new(args.realm.clone(), ClusterDomain::default());
    rules.realm_wide_services = args.realm_wide_service.iter().cloned().collect();
    let default = || Principal::new(&["krb-broker", "admin"], &args.realm).ok();
    match args.admin.clone().or_else(default) {
        Some(admin) => Ok(acl::text(&entitlements, &rules, &admin)),
        None => Err(CommandError::Refused(vec!["give --admin".to_owned()])),
    }
}

impl InjectArgs {
    fn rules(&self) -> Rules {
        let no_realm = || NO_REALM.parse().expect("it is a realm's name");
        let realm = self.realm.clone().unwrap_or_else(no_realm);
        Rules {
            driver: self.driver.clone(),
            annotation_prefix: self.annotation_prefix.clone(),
            realm_wide_services: self.realm_wide_service.iter().cloned().collect(),
            ..Rules::new(realm, self.cluster_domain.clone())
        }
    }
}

fn read_input(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let length = if path == Path::new("-") {
        io::stdin().lock().take(MAX_INPUT + 1).read_to_string(&mut text)?
    } else {
        File::open(path)?.take(MAX_INPUT + 1).read_to_string(&mut text)?
    };
    if length as u64 > MAX_INPUT {
        return Err(io::Error::other(format!("is longer than {MAX_INPUT} bytes")));
    }
    Ok(text)
}

fn name_of(object: &serde_json::Value) -> String {
    let text = |value: &serde_json::Value| krb_proto::text::shown(value.as_str().unwrap_or("?"));
    let metadata = &object["metadata"];
    let name =
        if metadata["name"].is_null() { &metadata["generateName"] } else { &metadata["name"] };
    format!("{}/{}", text(&object["kind"]), text(name))
}

fn line(name: &str, denial: &Denial) -> String {
    format!("{name}: {} ({})", denial.message, denial.reason)
}
