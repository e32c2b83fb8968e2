//! What the mutating webhook changes in a pod that asks: the least patch that makes it what
//! `krb-broker inject` would print.
//!
//! Pure. A pod that asks for nothing gets an empty patch, and so does one that has all of it
//! already: the webhook may be called again for what it made itself.

use json_patch::{Patch, diff};
use krb_proto::Namespace;

use super::{
    ask::ask_of,
    inject::{inject_pod, invalid},
    review::{Request, Subject},
};
use crate::entitlement::{Denial, load::Entitlements, rules::Rules};

/// The changes that make the object what it must be.
///
/// # Errors
/// Everything that is certain to be denied, or that stands in the way.
pub fn mutate(
    request: &Request,
    entitlements: &Entitlements,
    rules: &Rules,
) -> Result<Patch, Vec<Denial>> {
    if request.subject != Subject::NewPod {
        return Ok(Patch::default());
    }
    let mut pod = request.object.clone();
    let ask = ask_of(&pod, rules).map_err(|denial| vec![denial])?;
    let Some(ask) = ask else { return Ok(Patch::default()) };
    let namespace = namespace(request)?;
    inject_pod(&mut pod, ask, &namespace, entitlements, rules)?;
    Ok(diff(&request.object, &pod))
}

/// The namespace that the object is in or will be put into.
pub(super) fn namespace(request: &Request) -> Result<Namespace, Vec<Denial>> {
    let shown = krb_proto::text::shown(&request.namespace);
    let parsed = request.namespace.parse();
    parsed.map_err(|why| vec![invalid(format!("the namespace {shown:?} {why}"))])
}
