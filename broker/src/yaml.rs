//! YAML from outside: read under a budget, with the spellings that Kubernetes accepts.
//!
//! Documents become [`Value`]s, so that what is not understood can be kept. A key given
//! twice, an alias bomb or a document that is too deep is an error. `yes` and `on` are
//! texts, not booleans: kubectl quotes them, and a value must not change by being read.

use serde_json::Value;

/// The documents of a text, without the empty ones.
///
/// # Errors
/// When the text is no YAML or goes over the budget.
pub fn documents(text: &str) -> Result<Vec<Value>, InvalidYaml> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 100_000,
            max_events: 8_000_000,
            max_nodes: 4_000_000,
            max_depth: 64,
            max_aliases: 1_000,
            max_anchors: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
        },
        strict_booleans: true,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| InvalidYaml { detail: one_line(&error.to_string()) })
}

/// The documents as one text, divided by `---`; strings that YAML 1.1 would take for
/// something else are quoted.
///
/// # Errors
/// When a value can't be written; none that [`documents`] gave is such.
pub fn text(documents: &[Value]) -> Result<String, InvalidYaml> {
    serde_saphyr::to_string_multiple(documents)
        .map_err(|error| InvalidYaml { detail: one_line(&error.to_string()) })
}

fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().filter(|c| !c.is_control()).take(300).collect()
}

/// The text is no YAML that is read here.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is no YAML: {detail}")]
pub struct InvalidYaml {
    /// What the parser said, in one line.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn object() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[ -~]{0,12}",
            "[0-9._eEox+:~-]{1,6}",
            "yes|no|on|off|y|n|null|True|<<|=|0x1f|0o17|1e3|- a|#|a: b|a #b|%|\\?|&a|\\*a|!x",
            "(a\n| \n|b ){1,4}",
            "\\PC{0,8}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(4, 30, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(text.clone(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        prop::collection::hash_map("[a-z]{1,3}", value, 1..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn every_object_is_read_as_it_was_written(first in object(), second in object()) {
            let written = text(&[first.clone(), second.clone()]).unwrap();
            prop_assert_eq!(documents(&written), Ok(vec![first, second]), "{}", written);
        }

        #[test]
        fn no_text_panics_the_reader(text in "[-a: \\n&*!|>\\[\\]{},#\"'%?x0]{0,60}") {
            let _ = documents(&text);
        }
    }

    #[test]
    fn documents_are_read_as_kubernetes_means_them() {
        let read = documents("---\na: yes\nmode: 0644\nb: \"01\"\n---\n---\n- 1\n").unwrap();
        assert_eq!(read, [json!({"a": "yes", "mode": 420, "b": "01"}), json!([1])]);
    }

    #[test]
    fn what_was_read_is_written_with_its_types() {
        let value = json!({"a": "yes", "b": "0123", "c": "true", "d": true, "e": "12:30", "f": "1_0",
            "long": "x ".repeat(100), "lines": "a\nb\n", "g": {}, "h": [], "n": null, "t": "~"});
        let text = text(&[value.clone(), json!({"x": 1})]).unwrap();
        assert_eq!(documents(&text).unwrap(), [value, json!({"x": 1})], "{text}");
    }

    #[test]
    fn a_key_given_twice_and_an_alias_bomb_are_refused() {
        assert!(documents("a: 1\na: 2\n").is_err());
        let mut bomb = "a0: &a0 [x, x]\n".to_owned();
        for i in 1..30 {
            bomb.push_str(&format!("a{i}: &a{i} [*a{}, *a{}]\n", i - 1, i - 1));
        }
        assert!(documents(&bomb).is_err());
        let error = documents("a: [1\nb: 2").unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
    }
}
