//! Injection: a pod, or what makes pods, with the volume that its annotations ask for.
//!
//! Pure. An object that asks for nothing comes back as it was; one that asks comes back
//! with the volume, its mounts, the environment and `ts/runasusername`, all else untouched,
//! and unchanged when it is injected again.

use krb_proto::{Namespace, reason::Reason, text::shown};
use serde_json::{Value, json};

use super::{ask::ask_of, volume};
use crate::{
    entitlement::{Denial, ask::Ask, foresee::foresee, load::Entitlements, rules::Rules},
    pods::spec,
};

/// Injects into an object. `namespace` is where it will be, unless it says so itself.
///
/// # Errors
/// Everything that is certain to be denied, or that stands in the way.
pub fn inject(
    mut object: Value,
    namespace: Option<&Namespace>,
    entitlements: &Entitlements,
    rules: &Rules,
) -> Result<Value, Vec<Denial>> {
    let is_list = object["kind"] == "List";
    if let (true, Some(items)) = (is_list, object.get_mut("items").and_then(Value::as_array_mut)) {
        let mut denials = Vec::new();
        for item in items {
            let injected = inject_one(item, namespace, entitlements, rules);
            denials.extend(injected.err().into_iter().flatten());
        }
        return if denials.is_empty() { Ok(object) } else { Err(denials) };
    }
    inject_one(&mut object, namespace, entitlements, rules)?;
    Ok(object)
}

fn inject_one(
    object: &mut Value,
    namespace: Option<&Namespace>,
    entitlements: &Entitlements,
    rules: &Rules,
) -> Result<(), Vec<Denial>> {
    let said = object["metadata"]["namespace"].as_str().map(str::to_owned);
    let Some(path) = template_path(object) else { return Ok(()) };
    let Some(pod) = object.pointer_mut(path) else { return Ok(()) };
    let one = |denial: Denial| vec![denial];
    let Some(ask) = ask_of(pod, rules).map_err(one)? else { return Ok(()) };
    let namespace = namespace_of(said.as_deref(), namespace).map_err(one)?;
    inject_pod(pod, ask, &namespace, entitlements, rules)
}

/// Injects what it asks for into a pod, or a template of pods, of this namespace.
pub(super) fn inject_pod(
    pod: &mut Value,
    ask: Ask,
    namespace: &Namespace,
    entitlements: &Entitlements,
    rules: &Rules,
) -> Result<(), Vec<Denial>> {
    let template = spec::template(pod).map_err(|why| vec![invalid(why)])?;
    if let Some(why) = template.not_eligible {
        let message = format!("this pod can't have credentials: {why}");
        return Err(vec![Denial::new(Reason::PodNotEligible, message)]);
    }
    let account = foresee(entitlements, rules, namespace, &template, &ask)?;
    let ask = Ask { run_as_user_name: Some(account.login.clone()), ..ask };
    volume::put(&mut pod["spec"], &ask, account, rules)?;
    pod["metadata"]["annotations"][rules.annotation("runasusername")] =
        json!(account.login.as_str());
    Ok(())
}

/// Where the pod or its template is in an object that makes pods.
fn template_path(object: &Value) -> Option<&'static str> {
    let group = object["apiVersion"].as_str()?.split_once('/').map_or("", |(group, _)| group);
    match (group, object["kind"].as_str()?) {
        ("", "Pod") => Some(""),
        ("apps" | "extensions", "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet")
        | ("batch", "Job")
        | ("", "ReplicationController") => Some("/spec/template"),
        ("batch", "CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// The namespace that the object says it is in, or that it will be put into.
fn namespace_of(said: Option<&str>, given: Option<&Namespace>) -> Result<Namespace, Denial> {
    match (said, given) {
        (None | Some(""), Some(given)) => Ok(given.clone()),
        (None | Some(""), None) => {
            Err(invalid("it names no namespace: give one with --namespace".to_owned()))
        }
        (Some(said), Some(given)) if said != given.as_str() => {
            Err(invalid(format!("it is in the namespace {}, not in {given}", shown(said))))
        }
        (Some(said), _) => {
            said.parse().map_err(|why| invalid(format!("its namespace {:?} {why}", shown(said))))
        }
    }
}

pub(super) fn invalid(message: String) -> Denial {
    Denial::new(Reason::InvalidArgument, message)
}
