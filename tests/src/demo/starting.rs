//! The first steps: a realm, the broker and its nodes, and two pods that get their volumes.

use std::{fs, process::Command};

use super::{
    screen::Screen,
    stage::{DOOMED, HOST, SURVIVOR, Stage, expect, now, succeeded},
};
use crate::world::{TSFOO, WorldError, pods::Pod, programs::program};

/// Starts all parts, and shows the realm.
pub fn realm(screen: &mut Screen) -> Result<Stage, WorldError> {
    screen.step(
        "A throw-away Kerberos realm",
        "MIT's own krb5kdc and kadmind, in a private directory in memory: nothing in /etc, no KDC installed.",
    )?;
    let stage = Stage::build()?;
    let realm_dir = stage.world.realm.dir();
    screen.command(&format!("stat -c '%A %U %n' {}", realm_dir.display()))?;
    let mut listing = Command::new("stat");
    let listing = listing.args(["-c", "%A %U %n"]).arg(realm_dir).output()?;
    screen.output(succeeded("stat", &listing)?)?;
    principals(screen, &stage)?;
    screen
        .seen("an administrator has made a role account, tsfoo, and the broker's own principal.")?;
    Ok(stage)
}

fn principals(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.command("kadmin.local listprincs | grep -v -e kadmin -e krbtgt -e K/M")?;
    let all = stage.world.realm.kadmin_local(&["listprincs"]);
    let all = all.map_err(|e| WorldError::new("kadmin.local", e))?;
    let ours = all
        .lines()
        .filter(|name| !["kadmin", "krbtgt", "K/M"].iter().any(|part| name.contains(part)));
    screen.output(ours.collect::<Vec<_>>().join("\n"))
}

/// Shows what the broker may do, and what the account may have.
pub fn broker(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "One broker, two nodes",
        "Only the broker may talk to the KDC, and change no more there than one such line for each service says.",
    )?;
    screen.command("grep HTTP kadm5.acl")?;
    let acl = fs::read_to_string(find_acl(stage))?;
    screen
        .output(acl.lines().filter(|line| line.contains("HTTP")).collect::<Vec<_>>().join("\n"))?;
    screen.note("The cluster's operator has written down what the account may have:")?;
    let file = stage.world.dir().join("entitlements/tsfoo.yaml");
    screen.command("cat entitlements/tsfoo.yaml")?;
    screen.output(fs::read_to_string(file)?)?;
    screen.seen("node-a and node-b each run an agent: a certificate says which node it is; no Kerberos trust.")
}

fn find_acl(stage: &Stage) -> std::path::PathBuf {
    let dir = stage.world.realm.dir();
    let inside = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut places = inside.map(|entry| entry.path().join("kadm5.acl"));
    places.find(|place| place.exists()).unwrap_or_else(|| dir.join("kadm5.acl"))
}

/// Shows an owner's manifest and what injection adds.
pub fn manifest(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "What the application's owner writes",
        "Two annotations: a keytab for HTTP on the pod's host names, and a ticket of the account it runs as.",
    )?;
    let pod = Pod::new("web-0", TSFOO.login, TSFOO.uid, DOOMED).annotated(&ANNOTATIONS);
    let pod = pod.changed(|object| {
        for (part, field) in [("metadata", "uid"), ("spec", "nodeName")] {
            if let Some(part) = object[part].as_object_mut() {
                part.remove(field);
            }
        }
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
    });
    let written = stage.dir().join("web-0.yaml");
    let text = krb_broker::yaml::text(std::slice::from_ref(&pod.object));
    let text = text.map_err(|e| WorldError::new("writing a manifest", e))?;
    fs::write(&written, &text)?;
    screen.command("cat web-0.yaml")?;
    screen.output(&text)?;

    screen.note("`inject`, or the same as an admission webhook, adds the volume, its mounts, the environment:")?;
    screen.command(
        "krb-broker inject --entitlements entitlements web-0.yaml | diff web-0.yaml - | grep '>'",
    )?;
    let mut inject = Command::new(program("krb-broker")?);
    inject.arg("inject").arg("--entitlements").arg(stage.world.dir().join("entitlements"));
    let inject = inject.args(["--realm", stage.world.realm.name()]).arg(&written).output()?;
    let injected = stage.dir().join("web-0.injected.yaml");
    fs::write(&injected, succeeded("krb-broker inject", &inject)?)?;
    let diff = Command::new("diff").arg(&written).arg(&injected).output()?;
    screen.output(excerpt(&String::from_utf8_lossy(&diff.stdout)))?;
    screen.seen("what is asked for is in the volume's options now: they can't be changed, as annotations can.")
}

/// What both pods ask for.
const ANNOTATIONS: [(&str, &str); 2] = [("ts/services", "HTTP"), ("ts/prestashtkt", "true")];

/// The added lines of a diff, without most of the mounts and variables, which are alike.
fn excerpt(diff: &str) -> String {
    let added: Vec<&str> = diff.lines().filter(|line| line.starts_with('>')).collect();
    let (mut shown, mut left_out) = (Vec::new(), 0);
    for line in added {
        let kept = [
            "runas",
            "volume",
            "mountPath",
            "env:",
            "KRB5",
            "flex",
            "driver",
            "options",
            "services",
            "prestash",
        ];
        if kept.iter().any(|word| line.contains(word)) {
            shown.push(line.to_owned());
        } else {
            left_out += 1;
        }
    }
    shown.push(format!("({left_out} more lines: the parts of the volume, the variables' values)"));
    shown.join("\n")
}

/// Makes both pods known, bound to their nodes.
pub fn pods(screen: &mut Screen, stage: &mut Stage) -> Result<(), WorldError> {
    screen.step(
        "One Service, two pods",
        "web-0 runs on node-a, web-1 on node-b; the Service gives both one host name, so both share its key.",
    )?;
    stage.world.pods.service(TSFOO.login, "web")?;
    for (node, name) in [(DOOMED, "web-0"), (SURVIVOR, "web-1")] {
        let pod = stage.world.pod(name, node)?;
        stage.add(node, pod);
    }
    let service = stage.world.pods.dir().join("service-tsfoo-web.yaml");
    screen.command("grep -A9 ^spec service-tsfoo-web.yaml")?;
    let text = fs::read_to_string(service)?;
    let spec: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("spec")).collect();
    screen.output(spec.join("\n"))?;
    screen.seen(&format!("their host name is {HOST}"))
}

/// Has the driver mount both volumes.
pub fn mount(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "Kubelet mounts the volumes",
        "It calls the driver, that asks the node's agent, that asks the broker, which looks the pod up itself.",
    )?;
    for node in [DOOMED, SURVIVOR] {
        let pod = stage.pod(node);
        screen.shorten(pod.uid.clone(), if node == DOOMED { "$UID0" } else { "$UID1" });
        let place = format!("pods/{}/volumes/krb-broker~credentials/{}", pod.uid, Pod::VOLUME);
        screen.command_in(node, &format!("credentials mount {place} '{{...}}'"))?;
        let before = now();
        let answer = stage.node(node).mount(pod)?;
        let took = now().since(before).as_millis();
        screen.output(&answer.text)?;
        expect(answer.is_success(), "the driver to mount the volume")?;
        screen
            .seen(&format!("{} may start: it has what it asked for, after {took} ms", pod.name))?;
    }
    screen.note("($UID0 and $UID1 stand for the pods' uids.)")?;
    principals(screen, stage)?;
    screen.seen("the service has a principal now; the broker made its key, and wrote down both leases before it left.")
}
