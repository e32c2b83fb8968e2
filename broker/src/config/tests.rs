use super::*;

/// The example of `docs/configuration.md`.
fn example() -> String {
    example_after("## The broker")
}

/// The first example of `docs/configuration.md` after a heading.
fn example_after(heading: &str) -> String {
    let docs = include_str!("../../../docs/configuration.md");
    let (_, section) = docs.split_once(heading).expect("the document has the section");
    let (_, rest) = section.split_once("```toml\n").expect("the section has an example");
    rest.split_once("```").expect("the example ends").0.to_owned()
}

#[test]
fn the_documented_example_of_the_webhook_is_a_configuration_in_both_its_forms() {
    use admission::{AdmissionConfig, CertificateSource};
    let text = example_after("## The webhook");
    let config = AdmissionConfig::read("admission.toml", &text).unwrap();
    let files =
        |config: &AdmissionConfig| matches!(config.certificate, CertificateSource::Files { .. });
    assert!(files(&config) && config.client_ca.is_none());

    let given =
        text.replace("certificate = ", "# certificate = ").replace("\nkey = ", "\n# key = ");
    let uncommented = |key: &str| format!("\n{key}");
    let keys = [
        "[tls.self_made]",
        "namespace",
        "secret",
        "names",
        "mutating",
        "validating",
        "life",
        "every",
    ];
    let made =
        keys.iter().fold(given, |text, key| text.replace(&format!("\n# {key}"), &uncommented(key)));
    let config = AdmissionConfig::read("admission.toml", &made).unwrap();
    let CertificateSource::SelfMade(made) = config.certificate else { panic!("it is self-made") };
    assert_eq!((made.secret.as_str(), made.every.as_secs()), ("krb-broker-admission-ca", 30));

    let both = text
        .replace(
            "[entitlements]",
            "[tls.self_made]\nnamespace = 'A'\nnames = []\n\
        mutating = 'x'\nvalidating = 'x'\n[entitlements]",
        )
        .replace("EXAMPLE.COM", "NO REALM");
    let problems = AdmissionConfig::read("admission.toml", &both).unwrap_err().to_string();
    for part in ["admission.toml: realm: ", "admission.toml: tls: needs either"] {
        assert!(problems.contains(part), "{part} in {problems}");
    }
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
