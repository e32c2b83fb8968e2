use std::fs;

use clap::{Args, Command, FromArgMatches};

use super::{INJECTED, POD};
use crate::{
    admission::command::{AclArgs, CommandError, InjectArgs, run_acl, run_inject},
    entitlement::tests::{TSBAR, TSFOO},
};

fn args<T: Args + FromArgMatches>(words: &[&str]) -> T {
    let command = T::augment_args(Command::new("x").no_binary_name(true));
    T::from_arg_matches(&command.get_matches_from(words)).unwrap()
}

/// A directory with entitlements in `entitlements` and these objects in `objects.yaml`.
fn directory(objects: &str) -> (tempfile::TempDir, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let entitlements = directory.path().join("entitlements");
    fs::create_dir(&entitlements).unwrap();
    fs::write(entitlements.join("foo.yaml"), format!("{TSFOO}client: true\n")).unwrap();
    fs::write(entitlements.join("bar.yaml"), TSBAR).unwrap();
    let file = directory.path().join("objects.yaml");
    fs::write(&file, objects).unwrap();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (entitlements, file) = (text(&entitlements), text(&file));
    (directory, entitlements, file)
}

#[test]
fn inject_prints_every_object_of_the_file_with_its_volume() {
    let (_directory, entitlements, file) = directory(&format!("{POD}---\nkind: Secret\n"));
    let printed = run_inject(&args(&["--entitlements", &entitlements, &file])).unwrap();
    assert_eq!(printed, format!("{INJECTED}---\nkind: Secret\n"));
}

#[test]
fn inject_prints_nothing_when_one_object_is_refused_and_names_every_reason() {
    let refused = POD.replace("HTTP, nfs", "ftp,host").replace("web-0", "bad");
    let (_directory, entitlements, file) = directory(&format!("{POD}---\n{refused}"));
    let args: InjectArgs = args(&["--entitlements", &entitlements, &file]);
    let CommandError::Refused(lines) = run_inject(&args).unwrap_err() else { panic!() };
    assert_eq!(
        lines,
        [
            "Pod/bad: tsfoo may not have the service ftp (SERVICE_NOT_ENTITLED)",
            "Pod/bad: the service host is reserved (SERVICE_RESERVED)",
        ]
    );
    fs::write(&file, "a: [").unwrap();
    assert!(matches!(run_inject(&args), Err(CommandError::Yaml(_))));
    fs::remove_file(&file).unwrap();
    assert!(matches!(run_inject(&args), Err(CommandError::Read { .. })));
}

#[test]
fn acl_prints_the_lines_of_the_realm() {
    let (_directory, entitlements, _) = directory("");
    let words =
        ["--entitlements", &entitlements, "--realm", "R.COM", "--realm-wide-service", "postgres"];
    let text = run_acl(&args::<AclArgs>(&words)).unwrap();
    assert!(text.contains("krb-broker/admin@R.COM admsi postgres/*@R.COM -maxlife 4h"), "{text}");
}
