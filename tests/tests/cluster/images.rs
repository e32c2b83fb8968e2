//! The images of the cluster's containers: our programs, and the tools of tenants.

use std::{error::Error, path::Path};

use krb_tests::{
    cluster::{Cluster, Image},
    realm::packages,
};

use crate::programs;

/// What the broker opens as it runs, with the libraries that it needs; as Debian has it.
const KADMIN_LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libkadm5clnt_mit.so.12";

/// All images, loaded into the nodes.
#[derive(Clone, Debug)]
pub struct Images {
    /// Clients of Kerberos, as Debian has them.
    pub tools: Image,
    /// The broker, which is the webhook, too.
    pub broker: Image,
    /// The agent, with the driver that it installs.
    pub agent: Image,
}

impl Images {
    /// Makes and loads them, as far as they changed.
    pub fn load(cluster: &Cluster) -> Result<Self, Box<dyn Error>> {
        let ours = |name: &str| {
            let program = format!("/usr/bin/{name}");
            Image::new(name).file(&programs::stripped(name), &program).entry(&program)
        };
        let images = Self {
            tools: tools()?,
            broker: ours("krb-broker").file(Path::new(KADMIN_LIBRARY), KADMIN_LIBRARY),
            agent: ours("krb-node-agent")
                .file(&programs::driver(), "/usr/lib/krb-broker/krb-flexvolume"),
        };
        for image in [&images.tools, &images.broker, &images.agent] {
            cluster.load(image)?;
        }
        Ok(images)
    }
}

fn tools() -> Result<Image, Box<dyn Error>> {
    let tools = ["klist", "kinit", "kvno", "kdestroy", "gss-client", "gss-server"];
    tools.iter().try_fold(Image::new("krb-tools"), |image, tool| {
        Ok(image.file(&packages::bin(tool)?, &format!("/usr/bin/{tool}")))
    })
}
