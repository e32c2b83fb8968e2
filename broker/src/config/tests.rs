use super::*;

/// The example of `docs/configuration.md`.
fn example() -> String {
    let docs = include_str!("../../../docs/configuration.md");
    let (_, rest) = docs.split_once("```toml\n").expect("the document has an example");
    rest.split_once("```").expect("the example ends").0.to_owned()
}

#[test]
fn the_documented_example_is_a_configuration() {
    let config = Config::read("broker.toml", &example()).unwrap();
    assert_eq!(config.realm.name.as_str(), "EXAMPLE.COM");
    assert_eq!(config.times, Times::default());
    assert_eq!(config.realm.walk, WalkTimes::default());
}

#[test]
fn every_problem_is_reported_at_once() {
    let text = example()
        .replace("heartbeat = \"10s\"", "heartbeat = \"30s\"")
        .replace("EXAMPLE.COM", "EXAMPLE COM")
        .replace("127.0.0.1:8443", "nowhere")
        .replace("unclaimed_after = \"10m\"", "unclaimed_after = \"soon\"");
    let problems = Config::read("broker.toml", &text).unwrap_err();
    let lines = problems.lines().join("\n");
    for part in ["listen", "sessions.heartbeat", "sessions.unclaimed_after", "realm.name"] {
        assert!(lines.contains(&format!("broker.toml: {part}: ")), "{part} in {lines}");
    }
}

#[test]
fn an_unknown_key_is_an_error_that_names_it() {
    let text = example().replace("cluster = ", "clutser = ");
    let problems = Config::read("broker.toml", &text).unwrap_err();
    assert!(problems.to_string().contains("clutser"), "{problems}");
}

/// The example with its pods from the API server.
fn with_a_cluster() -> String {
    let (before, rest) = example_split();
    format!("{before}[pods]\nsource = \"kubernetes\"\n\n[kubernetes]\n\n{rest}")
}

/// What comes before the section of pods in the example, and the store and what follows.
fn example_split() -> (String, String) {
    let text = example();
    let (before, rest) = text.split_once("[pods]").expect("a section of pods");
    let at = rest.find("[store]").expect("a section of the store");
    (before.to_owned(), rest[at..].to_owned())
}

#[test]
fn pods_come_from_a_directory_or_from_the_cluster_and_never_from_both() {
    let read = |text: &str| Config::read("broker.toml", text);
    assert!(matches!(read(&example()).unwrap().pods, PodsConfig::File { nodes: None, .. }));
    let config = read(&with_a_cluster()).unwrap();
    assert_eq!(config.pods, PodsConfig::Kubernetes);
    assert!(config.kubernetes.is_some());

    let both = with_a_cluster().replace("kubernetes\"\n", "kubernetes\"\ndir = \"/pods\"\n");
    assert!(read(&both).unwrap_err().to_string().contains("pods.dir: is not read"));
    let nowhere = with_a_cluster().replace("[kubernetes]\n", "");
    assert!(read(&nowhere).unwrap_err().to_string().contains("kubernetes: is missing"));
    let neither = with_a_cluster().replace("source = \"kubernetes\"", "source = \"file\"");
    assert!(read(&neither).unwrap_err().to_string().contains("pods.dir: is missing"));
}
