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
        let images = Self {
            tools: tools()?,
            broker: Self::of_broker("krb-broker"),
            agent: Self::of_agent("krb-node-agent", &programs::driver()),
        };
        for image in [&images.tools, &images.broker, &images.agent] {
            cluster.load(image)?;
        }
        Ok(images)
    }

    /// The broker, in an image of this name.
    pub fn of_broker(name: &str) -> Image {
        ours(name, "krb-broker").file(Path::new(KADMIN_LIBRARY), KADMIN_LIBRARY)
    }

    /// The agent with a driver, in an image of this name.
    pub fn of_agent(name: &str, driver: &Path) -> Image {
        ours(name, "krb-node-agent").file(driver, "/usr/lib/krb-broker/krb-flexvolume")
    }
}

/// An image that runs one of our programs.
fn ours(name: &str, program: &str) -> Image {
    let path = format!("/usr/bin/{program}");
    Image::new(name).file(&programs::stripped(program), &path).entry(&path)
}

fn tools() -> Result<Image, Box<dyn Error>> {
    let tools = ["klist", "kinit", "kvno", "kdestroy", "gss-client", "gss-server"];
    tools.iter().try_fold(Image::new("krb-tools"), |image, tool| {
        Ok(image.file(&packages::bin(tool)?, &format!("/usr/bin/{tool}")))
    })
}
