//! What lies outside the cluster: a realm of real daemons, and the certificates.
//!
//! Both are kept in the cluster's directory: on a cluster that is kept they are the same in the
//! next run.

use std::{error::Error, path::PathBuf};

use krb_tests::{
    cluster::{Cluster, server_net},
    realm::{self, Realm},
    world::{pki::Pki, write_account},
};

use crate::tenant::TENANTS;

/// The realm, the certificates, and what an administrator hands over.
pub struct Outside {
    /// The realm; its tools show what the KDC has.
    pub realm: Realm,
    /// The certificates; those of the nodes are the cluster's.
    pub pki: Pki,
    /// Has `entitlements/*.yaml` and `accounts/*.keytab`.
    pub dir: PathBuf,
}

impl Outside {
    /// Starts the realm at [`server_net::ADDRESS`], where this process must live, too.
    pub fn prepare(cluster: &Cluster) -> Result<Self, Box<dyn Error>> {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let options = realm::Options {
            address: Some(server_net::ADDRESS.into()),
            services: words(&[
                "HTTP", "nfs", "tsfoo", "tsbar", "tsmany", "tsraw", "tslab", "tsnew",
            ]),
            ..Default::default()
        };
        let dir = cluster.dir().join("outside");
        let is_new = !dir.join("complete").exists();
        let realm = Realm::kept(options, &cluster.dir().join("realm"))?;
        if !is_new {
            return Ok(Self { realm, pki: Pki::again(&dir)?, dir });
        }
        let _ = std::fs::remove_dir_all(&dir);
        for part in ["accounts", "entitlements"] {
            std::fs::create_dir_all(dir.join(part))?;
        }
        for tenant in &TENANTS {
            write_account(&dir, &realm, tenant)?;
        }
        let pki = Pki::new(&dir)?;
        pki.trust("node", &cluster.ca())?;
        std::fs::write(dir.join("complete"), "")?;
        Ok(Self { realm, pki, dir })
    }
}
