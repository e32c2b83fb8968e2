//! What the validating webhook refuses: what the broker would deny for certain, and changes
//! that would have no effect.
//!
//! Pure. It sees the request and the entitlements. A pod that neither asks nor has a volume of
//! ours is let pass untouched, and so is every change of a pod that touches nothing of ours:
//! finalizers, labels and status of a running pod do not hang on what its account has today.

use std::collections::{BTreeMap, BTreeSet};

use krb_proto::reason::Reason;
use serde_json::Value;

use super::{
    ask::{ask_of, option_annotations},
    mutate::namespace,
    review::{Request, Subject},
};
use crate::{
    entitlement::{
        Denial, Login,
        account::RoleAccount,
        ask::{Ask, options_of},
        decide::{account_of, one_user, says_who_it_is},
        foresee::foresee,
        groups::{Groups, may_be_in},
        load::Entitlements,
        rules::Rules,
    },
    pods::{
        CredentialVolume,
        spec::{self, Template},
    },
};

/// Whether it may be.
///
/// # Errors
/// Everything that is certain to be denied, and what would have no effect.
pub fn validate(
    request: &Request,
    entitlements: &Entitlements,
    rules: &Rules,
) -> Result<(), Vec<Denial>> {
    match request.subject {
        Subject::NewPod => new_pod(request, entitlements, rules),
        Subject::Pod => changed_pod(request, rules),
        Subject::EphemeralOfPod => ephemeral_of_pod(request, entitlements, rules),
        Subject::EphemeralAlone => ephemeral_alone(request, entitlements),
        Subject::Other => Ok(()),
    }
}

fn new_pod(
    request: &Request,
    entitlements: &Entitlements,
    rules: &Rules,
) -> Result<(), Vec<Denial>> {
    let pod = &request.object;
    let template = template(pod)?;
    let asked = ask_of(pod, rules).map_err(one)?;
    let volume = match (our_volume(&template, rules).map_err(one)?, &asked) {
        (Some(volume), _) => volume,
        (None, Some(_)) => return Err(vec![no_volume(rules)]),
        (None, None) => return Ok(()),
    };
    if let Some(why) = template.not_eligible {
        let message = format!("this pod can't have credentials: {why}");
        return Err(vec![Denial::new(Reason::PodNotEligible, message)]);
    }
    let ask = Ask::from_options(&volume.options).map_err(one)?;
    let account = foresee(entitlements, rules, &namespace(request)?, &template, &ask)?;
    says_who_it_is_too(pod, account, rules).map_err(one)?;
    match asked {
        Some(asked) if !same(&asked, &ask) => Err(vec![differs(rules)]),
        _ => Ok(()),
    }
}

/// The false name in an annotation is refused beside a volume that asks by itself, too.
fn says_who_it_is_too(pod: &Value, account: &RoleAccount, rules: &Rules) -> Result<(), Denial> {
    let annotations = option_annotations(pod, rules)?;
    let options = options_of(&rules.annotation_prefix, texts(&annotations))?;
    let Some(name) = options.get("runasusername") else { return Ok(()) };
    let said: Login = name.trim().parse().map_err(|why| {
        let shown = krb_proto::text::shown(name);
        Denial::malformed(format!("runasusername: {shown:?} {why}"))
    })?;
    says_who_it_is(Some(&said), account)
}

/// The one volume of ours.
fn our_volume<'a>(
    template: &'a Template,
    rules: &Rules,
) -> Result<Option<&'a CredentialVolume>, Denial> {
    let mut ours = template.volumes.iter().filter(|volume| volume.driver == rules.driver);
    match (ours.next(), ours.next()) {
        (volume, None) => Ok(volume),
        (_, Some(second)) => Err(Denial::new(
            Reason::InvalidArgument,
            format!("the pod has more than one volume of {}: {} is one", rules.driver, second.name),
        )),
    }
}

/// A change of a pod that is there: its spec gives the authority, and stays as it is.
fn changed_pod(request: &Request, rules: &Rules) -> Result<(), Vec<Denial>> {
    let (new, old) = (&request.object, &request.old);
    let asks_changed = option_annotations(new, rules) != option_annotations(old, rules);
    let (new, old) = (template(new)?, template(old)?);
    let became_ineligible = new.not_eligible.filter(|_| new.not_eligible != old.not_eligible);
    if !asks_changed && became_ineligible.is_none() {
        return Ok(());
    }
    let volume = our_volume(&new, rules).map_err(one)?;
    if let (Some(why), Some(_)) = (became_ineligible, volume) {
        let message = format!("a pod that has credentials can't become one that can't: {why}");
        return Err(vec![Denial::new(Reason::PodNotEligible, message)]);
    }
    if !asks_changed {
        return Ok(());
    }
    let asked = ask_of(&request.object, rules).map_err(one)?;
    let Some(volume) = volume else {
        return if asked.is_none() { Ok(()) } else { Err(vec![too_late(rules)]) };
    };
    let ask = Ask::from_options(&volume.options).map_err(one)?;
    let equal = asked
        .is_some_and(|asked| same(&asked, &ask) && asked.run_as_user_name == ask.run_as_user_name);
    if equal { Ok(()) } else { Err(vec![too_late(rules)]) }
}

fn ephemeral_of_pod(
    request: &Request,
    entitlements: &Entitlements,
    rules: &Rules,
) -> Result<(), Vec<Denial>> {
    let mut template = template(&request.object)?;
    if !template.volumes.iter().any(|volume| volume.driver == rules.driver) {
        return Ok(());
    }
    let new = names(&request.object["spec"]["ephemeralContainers"]);
    let old = names(&request.old["spec"]["ephemeralContainers"]);
    template.run_as_users.retain(|user| added(&new, &old, &user.container));
    template.run_as_groups.retain(|group| added(&new, &old, &group.container));
    run_as_the_account(request, entitlements, &template)
}

/// The pod is not seen: it is taken for one that has a volume of ours, where its namespace has
/// an account. What a container leaves unset is the pod's, which was judged with it, or its image's:
/// that is for the broker, which sees the pod when it decides.
fn ephemeral_alone(request: &Request, entitlements: &Entitlements) -> Result<(), Vec<Denial>> {
    let namespace = namespace(request)?;
    if entitlements.of_namespace(&namespace).is_none() {
        return Ok(());
    }
    let containers = &request.object["ephemeralContainers"];
    let (new, old) = (names(containers), names(&request.old["ephemeralContainers"]));
    let mut template = spec::containers(containers).map_err(|why| vec![unreadable(why)])?;
    let is_new = |container: &str| added(&new, &old, container);
    template.run_as_users.retain(|user| is_new(&user.container) && user.uid.is_some());
    template.run_as_groups.retain(|group| is_new(&group.container));
    if template.run_as_users.is_empty() {
        let account = entitlements.of_namespace(&namespace);
        let groups = template.groups();
        return account
            .map_or(Ok(()), |account| may_be_in(entitlements, account, groups))
            .map_err(one);
    }
    run_as_the_account(request, entitlements, &template)
}

/// The containers that are left in `template` run as the account of the namespace.
fn run_as_the_account(
    request: &Request,
    entitlements: &Entitlements,
    template: &Template,
) -> Result<(), Vec<Denial>> {
    if template.run_as_users.is_empty() {
        return Ok(()); // nothing was added
    }
    let uid = one_user(&template.run_as_users).map_err(one)?;
    let namespace = namespace(request)?;
    let account = account_of(entitlements, &namespace, uid).map_err(one)?;
    let groups = Groups { run_as: &template.run_as_groups, supplemental: &[], fs_group: None };
    may_be_in(entitlements, account, groups).map_err(one)
}

fn names(containers: &Value) -> BTreeSet<&str> {
    let containers = containers.as_array().into_iter().flatten();
    containers.filter_map(|container| container["name"].as_str()).collect()
}

fn added(new: &BTreeSet<&str>, old: &BTreeSet<&str>, container: &str) -> bool {
    new.contains(container) && !old.contains(container)
}

/// Whether both ask for the same, in whatever order. Who the pod says it is, is no ask.
fn same(one: &Ask, other: &Ask) -> bool {
    fn words(ask: &Ask) -> BTreeMap<String, BTreeSet<String>> {
        let options = ask.to_options().into_iter().filter(|(key, _)| key != "runasusername");
        options.map(|(key, value)| (key, value.split(',').map(str::to_owned).collect())).collect()
    }
    words(one) == words(other)
}

fn texts(annotations: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    annotations.iter().map(|(key, value)| (key.as_str(), value.as_str()))
}

fn template(pod: &Value) -> Result<Template, Vec<Denial>> {
    spec::template(pod).map_err(|why| vec![unreadable(why)])
}

fn unreadable(why: String) -> Denial {
    Denial::new(Reason::InvalidArgument, why)
}

fn no_volume(rules: &Rules) -> Denial {
    let (prefix, driver) = (&rules.annotation_prefix, &rules.driver);
    Denial::new(
        Reason::VolumeUnknown,
        format!("the {prefix}/ annotations ask, and the pod has no volume of {driver}"),
    )
}

fn differs(rules: &Rules) -> Denial {
    let prefix = &rules.annotation_prefix;
    Denial::new(
        Reason::AskChanged,
        format!("the {prefix}/ annotations and the volume's options ask for different things"),
    )
}

fn too_late(rules: &Rules) -> Denial {
    let prefix = &rules.annotation_prefix;
    Denial::new(
        Reason::AskChanged,
        format!(
            "the {prefix}/ annotations of a pod that is there have no effect: its volume asks \
             since it was made; make a new pod"
        ),
    )
}

fn one(denial: Denial) -> Vec<Denial> {
    vec![denial]
}
