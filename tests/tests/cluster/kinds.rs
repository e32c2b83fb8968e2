//! Each kind of workload: files at the field's paths, of the right owner, good for the C library.

use std::time::Duration;

use krb_tests::cluster::wait;
use serde_json::Value;

use crate::{
    field::Field,
    pod::Pod,
    story::{Needs, Story, Told, World, story},
    tenant::{TSFOO, host},
    workload::{Kind, Workload},
};

/// Told in this order.
pub const STORIES: &[Story] = &[
    story!(a_bare_pod_authenticates_with_what_its_annotations_asked_for),
    story!(every_container_of_a_deployment_finds_its_files),
    story!(every_container_of_a_stateful_set_finds_its_files),
    story!(a_job_authenticates_and_ends_and_its_lease_ends_with_it),
    story!(a_volume_is_mounted_without_suid_devices_or_programs).needing(Needs::Machines),
    story!(a_pod_with_credentials_starts_about_as_fast_as_one_with_an_empty_directory),
];

/// How long a Job may take.
const JOB: Duration = Duration::from_secs(120);
/// How long the broker may take to hear that a pod is gone.
const RELEASE: Duration = Duration::from_secs(60);
/// Starts that are measured, with and without credentials.
const STARTS: usize = 7;

/// What each container, also one that starts before all others, must find: the four directories,
/// the files of its uid, a keytab and a ticket that libkrb5 reads, and the variables that name
/// them. Prints nothing unless something is wrong.
const FINDS_ITS_FILES: &str = "set -e
for file in tickets keytabs; do
  seen=$(stat -c '%u:%g:%a' /var/spool/$file/tsfoo)
  case $file:$seen in tickets:1234:*:600|keytabs:1234:*:400) ;; *) echo \"$file is $seen\"; exit 1;; esac
done
test \"$(stat -c %u:%a /var/run/krb-broker/rcache)\" = 1234:700
test -s /var/run/krb-broker/conf/krb5.conf && test -s /var/run/krb-broker/conf/lease.json
test \"$KRB5_CONFIG\" = /var/run/krb-broker/conf/krb5.conf
klist -s
klist -k | grep -q HTTP/web.tsfoo.svc.cluster.local@";

/// A workload of every stories' tenant with an init container and two others, all of which look.
fn workload(field: &Field<'_>, kind: Kind, name: &str) -> Workload {
    field
        .workload(kind, &TSFOO, name)
        .services("HTTP")
        .ticket()
        .init("first", FINDS_ITS_FILES)
        .beside("second", &format!("{FINDS_ITS_FILES}\nexec sleep 100000"))
}

/// All that is promised to a running pod.
fn is_served(pod: &Pod<'_>) -> Told {
    for container in ["main", "second"] {
        pod.run_in(container, FINDS_ITS_FILES)?;
        pod.authenticates_to(container, pod)?;
    }
    let lease = pod.lease()?;
    assert_eq!(lease["state"], "LEASE_STATE_ACTIVE");
    assert_eq!(lease["node"]["name"], pod.node);
    assert_eq!(lease["account"], "tsfoo");
    Ok(())
}

fn a_bare_pod_authenticates_with_what_its_annotations_asked_for(world: &World<'_>) -> Told {
    let field = world.field()?;
    let started = field.start(&workload(field, Kind::Pod, "bare").on("n2"))?;
    let pod = started.first().ok_or("no pod")?;
    let ticket = pod.run("klist")?;
    assert!(ticket.contains("Default principal: tsfoo@TEST.EXAMPLE.COM"), "{ticket}");
    // the KDC takes the ticket, the keytab opens what the KDC made, and two programs agree on it
    let kvno = pod.run(&format!("kvno -k ${{KRB5_KTNAME#FILE:}} HTTP/{}", host(&TSFOO)))?;
    assert!(kvno.contains("keytab entry valid"), "{kvno}");
    is_served(pod)?;
    pod.end()
}

fn every_container_of_a_deployment_finds_its_files(world: &World<'_>) -> Told {
    of_kind(world, Kind::Deployment)
}

fn every_container_of_a_stateful_set_finds_its_files(world: &World<'_>) -> Told {
    of_kind(world, Kind::StatefulSet)
}

/// Two pods, each served, each a client of the other.
fn of_kind(world: &World<'_>, kind: Kind) -> Told {
    let field = world.field()?;
    let workload = workload(field, kind, "pair").replicas(2);
    let pods = field.start(&workload)?;
    let [one, other] = &pods[..] else { return Err(format!("{} pods", pods.len()).into()) };
    is_served(one)?;
    is_served(other)?;
    one.authenticates_to("main", other)?;
    other.authenticates_to("second", one)?;
    field.delete(&workload)?;
    for pod in &pods {
        pod.wait_lease("LEASE_STATE_RELEASED", RELEASE)?;
        pod.node().wait_unmounted(&pod.volumes())?;
    }
    Ok(())
}

fn a_job_authenticates_and_ends_and_its_lease_ends_with_it(world: &World<'_>) -> Told {
    let field = world.field()?;
    let script = format!(
        "{FINDS_ITS_FILES}
gss-server -port 4444 -once -logfile /tmp/gss.log HTTP@{host} >/tmp/gss.out 2>&1 & sleep 1
gss-client -port 4444 127.0.0.1 HTTP@{host} 'hello, world'
grep -q tsfoo@TEST.EXAMPLE.COM /tmp/gss.log /tmp/gss.out",
        host = host(&TSFOO)
    );
    let job = field.workload(Kind::Job, &TSFOO, "once").services("HTTP").ticket();
    let job = job.init("first", FINDS_ITS_FILES).script(&script);
    field.apply(&job)?;
    let pod = field.pod_of(&job)?;
    let phase = wait::until("the job to end", JOB, || {
        let object = world.cluster.kubectl().get(job.namespace(), "pod", &pod.name)?;
        let phase = object.and_then(|pod| pod["status"]["phase"].as_str().map(str::to_owned));
        Ok(phase.filter(|phase| phase == "Succeeded" || phase == "Failed"))
    })?;
    let logs = ["-n", job.namespace(), "logs", &pod.name, "--all-containers"];
    assert_eq!(phase, "Succeeded", "{}", world.cluster.kubectl().run(&logs)?);
    // its pod stays in the API; its volume and its lease do not
    pod.wait_lease("LEASE_STATE_RELEASED", RELEASE)?;
    field.delete(&job)
}

fn a_volume_is_mounted_without_suid_devices_or_programs(world: &World<'_>) -> Told {
    let pod = world.field()?.web("closed", "n1")?;
    let mounts = pod.node().mounts(&pod.volumes())?;
    let options = &mounts.first().ok_or("no volume is mounted")?.options;
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(options.split(',').any(|has| has == option), "{options}");
    }
    pod.end()
}

/// Reports; asserts nothing about time, which on a shared machine is its neighbours', too.
fn a_pod_with_credentials_starts_about_as_fast_as_one_with_an_empty_directory(
    world: &World<'_>,
) -> Told {
    let field = world.field()?;
    // the account's ticket and the service's key are there already: what a pod costs, not an account
    field.web("warm", "n1")?.end()?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let pod = || field.workload(Kind::Pod, &TSFOO, "start").on("n1");
        with.push(time_to_start(field, &pod().services("HTTP").ticket())?);
        without.push(time_to_start(field, &pod().empty_dir())?);
    }
    let (with, without) = (median(&mut with), median(&mut without));
    println!(
        "cluster-test: apply to started, median of {STARTS}: {:.2} s with credentials, {:.2} s with an \
         emptyDir, {:+.2} s",
        with.as_secs_f64(),
        without.as_secs_f64(),
        with.as_secs_f64() - without.as_secs_f64()
    );
    Ok(())
}

/// From `kubectl apply` to the first line of the container, both by the machine's clock since boot.
fn time_to_start(
    field: &Field<'_>,
    workload: &Workload,
) -> Result<Duration, Box<dyn std::error::Error>> {
    let workload = workload.clone().script("cat /proc/uptime; exec sleep 100000");
    let applied = wait::since_boot();
    let pods = field.start(&workload)?;
    let pod = pods.first().ok_or("no pod")?;
    let logs = ["-n", workload.namespace(), "logs", &pod.name, "-c", "main"];
    let printed = field.cluster.kubectl().run(&logs)?;
    let started: f64 = printed.split(' ').next().unwrap_or_default().parse()?;
    let object: Value = pod.object()?;
    if object["spec"]["volumes"].to_string().contains("flexVolume") {
        pod.end()?
    } else {
        field.delete(&workload)?
    }
    Ok(Duration::from_secs_f64(started).saturating_sub(applied))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
