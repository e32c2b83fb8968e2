//! Pods of all shapes: only what is ours changes, and only once.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::webhook::request;
use crate::{
    admission::{mutate::mutate, validate::validate},
    entitlement::tests::{entitlements, rules},
};

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-zA-Z/~.0-9]{1,6}", inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// An object with these fields where they were drawn, and others that mean nothing to us.
fn object(fields: Vec<(&'static str, Option<Value>)>, others: Vec<(String, Value)>) -> Value {
    let mut map: Map<String, Value> = Map::new();
    for (name, value) in others {
        map.insert(format!("x-{name}"), value);
    }
    for (name, value) in fields {
        if let Some(value) = value {
            map.insert(name.to_owned(), value);
        }
    }
    Value::Object(map)
}

fn others() -> impl Strategy<Value = Vec<(String, Value)>> {
    prop::collection::vec(("[a-z]{1,4}", anything()), 0..3)
}

fn container() -> impl Strategy<Value = Value> {
    let mount = ("[a-z]{1,4}", others())
        .prop_map(|(path, o)| object(vec![("mountPath", Some(json!(format!("/m/{path}"))))], o));
    let variable = ("(KRB5_CONFIG|KRB5CCNAME|PATH|A)", others())
        .prop_map(|(name, o)| object(vec![("name", Some(json!(name)))], o));
    let list = |item: BoxedStrategy<Value>| {
        prop::option::of(prop::collection::vec(item, 0..3).prop_map(Value::from))
    };
    (list(mount.boxed()), list(variable.boxed()), others())
        .prop_map(|(mounts, env, o)| object(vec![("volumeMounts", mounts), ("env", env)], o))
}

fn pod() -> impl Strategy<Value = Value> {
    let containers = || prop::collection::vec(container(), 1..3);
    let volume = others().prop_map(|o| object(vec![("name", Some(json!("data")))], o));
    let volumes = prop::option::of(prop::collection::vec(volume, 0..3).prop_map(Value::from));
    let asks = (
        prop::option::of(prop::sample::select(vec!["HTTP", "nfs, HTTP", "tsfoo"])),
        prop::option::of(prop::sample::select(vec!["true", "tsbar", "false"])),
        prop::option::of(Just("tsfoo")),
    );
    (containers(), prop::option::of(containers()), volumes, asks, others(), others(), others())
        .prop_map(|(containers, init, volumes, (services, tickets, name), a, b, c)| {
            let named = |list: Vec<Value>, kind: &str| {
                let list = list.into_iter().enumerate().map(|(index, mut container)| {
                    container["name"] = json!(format!("{kind}{index}"));
                    container
                });
                Value::from(list.collect::<Vec<_>>())
            };
            let spec = object(
                vec![
                    ("securityContext", Some(json!({"runAsUser": 1234}))),
                    ("containers", Some(named(containers, "c"))),
                    ("initContainers", init.map(|list| named(list, "i"))),
                    ("volumes", volumes),
                ],
                a,
            );
            let text = |text: Option<&str>| text.map(Value::from);
            let annotations = object(
                vec![
                    ("ts/services", text(services)),
                    ("ts/prestashtkt", text(tickets)),
                    ("ts/runasusername", text(name)),
                ],
                b.into_iter().map(|(key, _)| (key, json!("v"))).collect(),
            );
            let metadata = json!({"annotations": annotations});
            let kind = vec![
                ("kind", Some(json!("Pod"))),
                ("metadata", Some(metadata)),
                ("spec", Some(spec)),
            ];
            object(kind, c)
        })
}

/// Takes what is ours out of `pod` again, where `original` did not have it.
fn without_ours(pod: &mut Value, original: &Value) {
    if original["metadata"]["annotations"].get("ts/runasusername").is_none()
        && let Some(annotations) = pod["metadata"]["annotations"].as_object_mut()
    {
        annotations.shift_remove("ts/runasusername");
    }
    take(&mut pod["spec"], &original["spec"], "volumes", |v| v["name"] == "krb-credentials");
    for kind in ["containers", "initContainers"] {
        let containers = pod["spec"].get_mut(kind).and_then(Value::as_array_mut);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let original = &original["spec"][kind][index];
            take(container, original, "volumeMounts", |m| m["name"] == "krb-credentials");
            let had: Vec<Value> = original["env"].as_array().cloned().unwrap_or_default();
            take(container, original, "env", |v| !had.contains(v));
        }
    }
}

fn take(of: &mut Value, original: &Value, list: &str, ours: impl Fn(&Value) -> bool) {
    if let Some(items) = of.get_mut(list).and_then(Value::as_array_mut) {
        items.retain(|item| !ours(item));
        if items.is_empty() && original.get(list).is_none() {
            of.as_object_mut().unwrap().shift_remove(list);
        }
    }
}

proptest! {
    #[test]
    fn a_patch_changes_only_what_is_ours_and_a_second_one_nothing(pod in pod()) {
        let (entitlements, rules) = (entitlements("client: true\n"), rules());
        // tsbar lets tsfoo have its ticket, so that all of these asks are granted
        let asked = request("CREATE", &pod, &Value::Null);
        let patch = mutate(&asked, &entitlements, &rules).unwrap();
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &patch).unwrap();
        let again = request("CREATE", &patched, &Value::Null);
        prop_assert_eq!(mutate(&again, &entitlements, &rules).unwrap().0, []);
        prop_assert_eq!(validate(&again, &entitlements, &rules), Ok(()));
        let mut rest = patched.clone();
        without_ours(&mut rest, &pod);
        prop_assert_eq!(rest.to_string(), pod.to_string(), "the rest, byte for byte");
        let ours = json!(patch).to_string();
        prop_assert!(!ours.contains("\"remove\"") && !ours.contains("\"test\""), "{}", ours);
    }

    #[test]
    fn no_request_panics(object in anything(), old in anything(), kind in "(Pod|EphemeralContainers)", operation in "(CREATE|UPDATE|DEBUG)") {
        for (mut object, old) in [(object.clone(), old.clone()), (json!({"spec": object, "metadata": old}), json!({"spec": old}))] {
            if let Some(map) = object.as_object_mut() {
                map.insert("kind".to_owned(), json!(kind));
            }
            let asked = request(&operation, &object, &old);
            let _ = mutate(&asked, &entitlements(""), &rules());
            let _ = validate(&asked, &entitlements(""), &rules());
        }
    }
}
