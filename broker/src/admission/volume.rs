//! The volume, its mounts and the environment, put into the spec of a pod.
//!
//! What is there already and is ours is brought up to date; what is there and is not ours
//! is kept where it can be, and refused where it stands in the way.

use krb_proto::{driver::DIRECTORIES, reason::Reason, text::shown};
use serde_json::{Map, Value, json};

use crate::entitlement::{Denial, account::RoleAccount, ask::Ask, rules::Rules};

/// The name of the volume.
pub const NAME: &str = "krb-credentials";

/// Where the directories of the volume are mounted, in the order of [`DIRECTORIES`].
const PATHS: [(&str, bool); 4] = [
    ("/var/spool/tickets", false),
    ("/var/spool/keytabs", true),
    ("/var/run/krb-broker/conf", true),
    ("/var/run/krb-broker/rcache", false),
];

/// Puts all of it into `spec`.
///
/// # Errors
/// What stands in the way, or is no pod's spec.
pub fn put(
    spec: &mut Value,
    ask: &Ask,
    account: &RoleAccount,
    rules: &Rules,
) -> Result<(), Vec<Denial>> {
    let mut denials = Vec::new();
    let volume = json!({
        "name": NAME,
        "flexVolume": {"driver": rules.driver, "options": ask.to_options()},
    });
    denials.extend(put_volume(spec, volume, rules).err());
    for field in ["initContainers", "containers"] {
        let containers = spec.get_mut(field).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            denials.extend(put_mounts(container).err());
            denials.extend(put_environment(container, account).err());
        }
    }
    if denials.is_empty() { Ok(()) } else { Err(denials) }
}

fn put_volume(spec: &mut Value, volume: Value, rules: &Rules) -> Result<(), Denial> {
    let volumes = list(spec, "volumes")?;
    let Some(there) = volumes.iter_mut().find(|there| there["name"] == NAME) else {
        volumes.push(volume);
        return Ok(());
    };
    if there["flexVolume"]["driver"] != *rules.driver {
        return Err(in_the_way(format!("the pod has another volume {NAME}: rename it")));
    }
    *there = volume;
    Ok(())
}

fn put_mounts(container: &mut Value) -> Result<(), Denial> {
    let name = shown(container["name"].as_str().unwrap_or_default());
    let mounts = list(container, "volumeMounts")?;
    for (directory, (path, read_only)) in DIRECTORIES.iter().zip(PATHS) {
        let mut mount = json!({"name": NAME, "mountPath": path, "subPath": directory});
        if read_only {
            mount["readOnly"] = json!(true);
        }
        let same_path = |there: &&mut Value| {
            there["mountPath"].as_str().is_some_and(|there| there.trim_end_matches('/') == path)
        };
        match mounts.iter_mut().find(same_path) {
            None => mounts.push(mount),
            Some(there) if there["name"] == NAME => *there = mount,
            Some(_) => {
                let message = format!("container {name} mounts something else at {path}");
                return Err(in_the_way(message));
            }
        }
    }
    Ok(())
}

fn put_environment(container: &mut Value, account: &RoleAccount) -> Result<(), Denial> {
    let user = &account.login;
    let mut wanted = vec![
        ("KRB5CCNAME", format!("FILE:/var/spool/tickets/{user}")),
        ("KRB5_KTNAME", format!("FILE:/var/spool/keytabs/{user}")),
        ("KRB5_CONFIG", "/var/run/krb-broker/conf/krb5.conf".to_owned()),
        ("KRB5RCACHEDIR", "/var/run/krb-broker/rcache".to_owned()),
    ];
    if account.client {
        wanted.push(("KRB5_CLIENT_KTNAME", format!("FILE:/var/spool/keytabs/{user}")));
    }
    let environment = list(container, "env")?;
    for (name, value) in wanted {
        if !environment.iter().any(|there| there["name"] == name) {
            environment.push(json!({"name": name, "value": value}));
        }
    }
    Ok(())
}

/// The list at `field`, made where there is none.
fn list<'a>(value: &'a mut Value, field: &str) -> Result<&'a mut Vec<Value>, Denial> {
    let not = |what: &str| in_the_way(format!("{field} is not {what}"));
    let map: &mut Map<String, Value> = value.as_object_mut().ok_or_else(|| not("in a mapping"))?;
    let there = map.entry(field).or_insert_with(|| json!([]));
    if there.is_null() {
        *there = json!([]);
    }
    there.as_array_mut().ok_or_else(|| not("a list"))
}

fn in_the_way(message: String) -> Denial {
    Denial::new(Reason::InvalidArgument, message)
}
