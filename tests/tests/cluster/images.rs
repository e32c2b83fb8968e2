//! The images of the cluster's containers: our programs, and the tools of tenants.

use std::error::Error;

use krb_tests::{
    cluster::{Cluster, Image},
    realm::packages,
};

use crate::programs;

/// Where an image has the agent.
const AGENT: &str = "/usr/bin/krb-node-agent";

/// All images, loaded into the nodes.
#[derive(Clone, Debug)]
pub struct Images {
    /// Clients of Kerberos, as Debian has them.
    pub tools: Image,
    /// The agent.
    pub agent: Image,
}

impl Images {
    /// Makes and loads them, as far as they changed.
    pub fn load(cluster: &Cluster) -> Result<Self, Box<dyn Error>> {
        let images = Self {
            tools: tools()?,
            agent: Image::new("krb-node-agent")
                .file(&programs::stripped("krb-node-agent"), AGENT)
                .entry(AGENT),
        };
        for image in [&images.tools, &images.agent] {
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
