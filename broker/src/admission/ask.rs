//! The ask in a pod's annotations.

use std::collections::BTreeMap;

use krb_proto::text::shown;
use serde_json::Value;

use crate::entitlement::{
    Denial,
    ask::{Ask, options_of},
    rules::Rules,
};

/// What the annotations ask for; nothing when they ask for nothing.
///
/// # Errors
/// What can't be read of them.
pub(super) fn ask_of(pod: &Value, rules: &Rules) -> Result<Option<Ask>, Denial> {
    let annotations = option_annotations(pod, rules)?;
    let texts = annotations.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let options = options_of(&rules.annotation_prefix, texts)?;
    let asks = |(key, value): (&String, &String)| key != "runasusername" && value.trim() != "false";
    if !options.iter().any(asks) {
        return Ok(None);
    }
    Ask::from_options(&options).map(Some)
}

/// The annotations that are ours, under their whole names.
///
/// # Errors
/// When one of them is not a text.
pub(super) fn option_annotations(
    pod: &Value,
    rules: &Rules,
) -> Result<BTreeMap<String, String>, Denial> {
    let mut texts = BTreeMap::new();
    let ours = rules.annotation("");
    let annotations = pod["metadata"]["annotations"].as_object();
    for (key, value) in annotations.into_iter().flatten().filter(|(key, _)| key.starts_with(&ours))
    {
        let text = value.as_str().ok_or_else(|| {
            Denial::malformed(format!("the annotation {} is not a text: quote it", shown(key)))
        })?;
        texts.insert(key.clone(), text.to_owned());
    }
    Ok(texts)
}
