//! Each part is replaced by another version under running pods, in one order and in the other.

use std::{error::Error, fs, time::Duration};

use krb_tests::cluster::{Cluster, Image, NODES, wait};

use crate::{
    calm::Calm,
    field::Field,
    images::Images,
    install::{NAMESPACE, rolled_out},
    pod::Pod,
    story::{Needs, Story, Told, World, attempt, story},
    tenant::{TSFOO, host},
    workload::Kind,
};

/// Told in this order.
pub const STORIES: &[Story] = &[story!(every_part_is_replaced_in_any_order_and_no_pod_notices)
    .needing(Needs::Machines)
    .long()];

/// How long a try may last that was under way when its part was replaced.
const TRIES: Duration = Duration::from_secs(5);

/// One version of all programs.
struct Version<'a> {
    broker: &'a Image,
    agent: &'a Image,
}

impl Version<'_> {
    fn broker(&self, cluster: &Cluster) -> Told {
        roll(cluster, "deployment/krb-broker", &["broker"], self.broker)
    }

    fn admission(&self, cluster: &Cluster) -> Told {
        roll(cluster, "deployment/krb-broker-admission", &["admission"], self.broker)
    }

    /// The agent, and the driver that it brings.
    fn agent(&self, cluster: &Cluster) -> Told {
        roll(cluster, "daemonset/krb-node-agent", &["install-driver", "agent"], self.agent)
    }
}

/// Has a part run this image, and waits until nothing runs another one.
fn roll(cluster: &Cluster, part: &str, containers: &[&str], image: &Image) -> Told {
    let reference = image.reference();
    let set: Vec<_> = containers.iter().map(|name| format!("{name}={reference}")).collect();
    let mut command = vec!["-n", NAMESPACE, "set", "image", part];
    command.extend(set.iter().map(String::as_str));
    cluster.kubectl().run(&command)?;
    rolled_out(cluster, part)
}

fn every_part_is_replaced_in_any_order_and_no_pod_notices(world: &World<'_>) -> Told {
    let (cluster, field) = (world.cluster, world.field()?);
    let next = field.images.next(cluster)?;
    let (old, new) = (version(&field.images), version(&next));
    let calm = Calm::of(field, trying(field)?)?;
    let drivers = drivers(cluster)?;

    let told = attempt(|| {
        let step = |rolled: Told| rolled.and_then(|()| calm.holds());
        step(new.agent(cluster))?;
        assert_ne!(self::drivers(cluster)?, drivers, "the new agent brought no new driver");
        field.web("between", "n2")?.end()?; // a new agent and driver, an old broker and webhook
        step(new.broker(cluster))?;
        step(new.admission(cluster))?;
        field.web("new", "n1")?.end()
    });
    // and back, the other way round: an operator may have to
    let back = attempt(|| {
        old.admission(cluster)?;
        old.broker(cluster)?;
        told?;
        calm.holds()?;
        field.web("between", "n1")?.end()?; // an old broker and webhook, a new agent and driver
        Ok(())
    });
    old.agent(cluster)?;
    back?;
    assert_eq!(self::drivers(cluster)?, drivers, "the old driver is back");
    wait::pause(TRIES);
    calm.holds()?;
    calm.pods.iter().try_for_each(never_failed)?;
    calm.ends()
}

fn version(images: &Images) -> Version<'_> {
    Version { broker: &images.broker, agent: &images.agent }
}

/// A pod on each node that tries each second whether its ticket and its keytab are good.
fn trying<'a>(field: &'a Field<'a>) -> Result<Vec<Pod<'a>>, Box<dyn Error>> {
    let script = format!(
        "while sleep 1; do klist -s && kvno -k ${{KRB5_KTNAME#FILE:}} HTTP/{} || echo FAILED; done",
        host(&TSFOO)
    );
    let mut pods = Vec::new();
    for node in NODES {
        let pod = field.workload(Kind::Pod, &TSFOO, "trying").services("HTTP").ticket();
        pods.extend(field.start(&pod.script(&script).on(node))?);
    }
    Ok(pods)
}

/// Whether every try of [`trying`] went well.
fn never_failed(pod: &Pod<'_>) -> Told {
    let said = pod.logs()?;
    let good = said.lines().filter(|line| line.contains("keytab entry valid")).count();
    assert!(good > 10, "{} hardly tried:\n{said}", pod.name);
    assert!(!said.contains("FAILED"), "{} noticed:\n{said}", pod.name);
    Ok(())
}

/// The sums of the drivers that the nodes have.
fn drivers(cluster: &Cluster) -> Result<Vec<String>, Box<dyn Error>> {
    let sum = "sha256sum /usr/libexec/kubernetes/kubelet-plugins/volume/exec/*krb*/*";
    NODES.into_iter().map(|node| Ok(cluster.node(node).exec(sum)?)).collect()
}

impl Images {
    /// Images with other names and contents, as of another version: the programs do the same.
    fn next(&self, cluster: &Cluster) -> Result<Self, Box<dyn Error>> {
        let dir = cluster.dir().join("next");
        fs::create_dir_all(&dir)?;
        let driver = dir.join("krb-flexvolume");
        if !driver.exists() {
            // what follows the program in its file is not run
            let program = fs::read(crate::programs::driver())?;
            fs::write(&driver, [&program[..], b"the next version\n"].concat())?;
            fs::set_permissions(&driver, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        }
        let next = Self {
            tools: self.tools.clone(),
            broker: Self::of_broker("krb-next-broker"),
            agent: Self::of_agent("krb-next-agent", &driver),
        };
        cluster.load(&next.broker)?;
        cluster.load(&next.agent)?;
        Ok(next)
    }
}
