//! What the driver takes for a call of kubelet's, and what it leaves alone.

use super::*;

#[test]
fn init_says_what_kubelet_need_not_do_and_touches_nothing() {
    story(|node| {
        let said = node.driver(&["init"]);
        assert_eq!(
            said.text,
            "{\"status\":\"Success\",\"capabilities\":{\"attach\":false,\"fsGroup\":false,\
             \"selinuxRelabel\":false,\"supportsMetrics\":false,\"requiresFSResize\":false}}\n"
        );
        assert_eq!(said.code, Some(0));
        assert!(!Path::new("/run/krb-broker").exists());
    });
}

#[test]
fn calls_that_kubelet_may_do_without_are_not_supported() {
    story(|node| {
        for call in [&["getvolumename", "{}"][..], &["mountdevice", "a", "b", "{}"], &["x"], &[]] {
            let said = node.driver(call);
            assert_eq!(
                (said.text.as_str(), said.code),
                ("{\"status\":\"Not supported\"}\n", Some(0))
            );
        }
    });
}

#[test]
fn a_call_that_is_not_kubelets_is_refused_before_anything_is_touched() {
    story(|node| {
        let agent = node.agent(willing);
        let before = node.mounts();
        let good = options(UID, "creds");
        let huge = format!("{{\"x\":\"{}\"}}", "x".repeat(100_000));
        let other_pod = TARGET.replace(UID, "another-uid");
        for (call, reason) in [
            (&["mount"][..], "(CALL_MALFORMED)"),
            (&["mount", TARGET], "(CALL_MALFORMED)"),
            (&["mount", TARGET, &good, "more"], "(CALL_MALFORMED)"),
            (&["unmount"], "(CALL_MALFORMED)"),
            (&["unmount", TARGET, "more"], "(CALL_MALFORMED)"),
            (&["mount", TARGET, ""], "(OPTIONS_MALFORMED)"),
            (&["mount", TARGET, "{\"kubernetes.io/pod.uid\":"], "(OPTIONS_MALFORMED)"),
            (&["mount", TARGET, "[]"], "(OPTIONS_MALFORMED)"),
            (&["mount", TARGET, &huge], "(OPTIONS_MALFORMED)"),
            (&["mount", TARGET, &options("forged", "creds")], "(TARGET_REFUSED)"),
            (&["mount", TARGET, &options(UID, "other")], "(TARGET_REFUSED)"),
            (&["mount", &other_pod, &good], "(TARGET_REFUSED)"),
            (&["mount", "/etc", &good], "(TARGET_REFUSED)"),
            (&["mount", &TARGET[1..], &good], "(TARGET_REFUSED)"),
            (&["mount", &format!("{TARGET}/"), &good], "(TARGET_REFUSED)"),
            (&["mount", &format!("{TARGET}/../creds"), &good], "(TARGET_REFUSED)"),
            (&["mount", &format!("/run/../{}", &TARGET[1..]), &good], "(TARGET_REFUSED)"),
            (&["unmount", "/"], "(TARGET_REFUSED)"),
            (&["unmount", "/run"], "(TARGET_REFUSED)"),
            (&["unmount", &format!("{TARGET}/..")], "(TARGET_REFUSED)"),
        ] {
            let said = node.driver(call);
            assert_eq!((said.status.as_str(), said.code), ("Failure", Some(0)), "{call:.60?}");
            assert!(said.message.ends_with(reason), "{call:.60?}: {}", said.message);
        }
        assert_eq!(node.mounts(), before);
        assert_eq!(agent.calls(), []);
        assert!(!node.log().contains("HTTP"), "options are not logged");
    });
}

#[test]
fn a_link_anywhere_below_kubelets_root_is_refused_by_mount_and_unmount() {
    story(|node| {
        let agent = node.agent(willing);
        let before = node.mounts();
        let parts: Vec<&str> = TARGET[KUBELET.len() + 1..].split('/').collect();
        for depth in 1..=parts.len() {
            let part = format!("{KUBELET}/{}", parts[..depth].join("/"));
            let moved = format!("{KUBELET}/moved");
            fs::rename(&part, &moved).unwrap();
            symlink(&moved, &part).unwrap();
            node.mount().fails(LINK);
            node.unmount().fails(LINK);
            fs::remove_file(&part).unwrap();
            fs::rename(&moved, &part).unwrap();
        }
        assert_eq!(node.mounts(), before);
        assert_eq!(agent.counts().0, 0);
    });
}

#[test]
fn kubelets_root_itself_may_be_a_link_of_the_operators() {
    story(|node| {
        node.agent(willing);
        symlink(KUBELET, "/run/link").unwrap();
        let target = TARGET.replace(KUBELET, "/run/link");
        node.driver(&["mount", &target, &options(UID, "creds")]).succeeds();
        assert_eq!(node.layers(TARGET), 1);
        node.driver(&["unmount", &target]).succeeds();
        assert_eq!(node.layers(TARGET), 0);
    });
}

#[test]
fn a_directory_that_kubelet_did_not_make_is_not_made_by_the_driver() {
    story(|node| {
        node.agent(willing);
        fs::remove_dir(TARGET).unwrap();
        node.mount().fails("the volume's directory does not exist (TARGET_MISSING)");
        assert!(!Path::new(TARGET).exists());
    });
}

#[test]
fn a_run_directory_that_others_may_write_to_is_not_trusted_but_unmount_goes_on() {
    story(|node| {
        node.agent(willing);
        node.mount().succeeds();
        fs::set_permissions("/run/krb-broker", fs::Permissions::from_mode(0o777)).unwrap();
        let said = node.mount();
        assert!(said.message.starts_with("locking the volume: "), "{}", said.message);
        assert_eq!(node.layers(TARGET), 0, "a failed mount leaves nothing, not even another's");
        node.mount_foreign("tmpfs");
        node.unmount().succeeds();
        assert_eq!(node.layers(TARGET), 0);
    });
}

#[test]
fn the_log_is_roots_alone_and_bounded() {
    story(|node| {
        let log = "/run/krb-broker/driver.log";
        node.driver_within(100, &["mount", TARGET, &options(UID, "creds")]).fails(AWAY);
        assert_eq!(fs::metadata(log).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata("/run/krb-broker").unwrap().mode() & 0o7777, 0o700);
        let line = node.log();
        let (seconds, rest) = line.split_once(' ').unwrap();
        assert!(seconds.parse::<u64>().unwrap() > 1_600_000_000, "{line}");
        assert_eq!(rest, format!("mount {UID}/creds: {AWAY}\n"));

        fs::write(log, "x".repeat((1 << 20) + 1)).unwrap();
        node.driver(&["unmount", "/"]);
        assert!(node.log().len() < 200, "a new one is begun");
        assert_eq!(fs::metadata(format!("{log}.1")).unwrap().len(), (1 << 20) + 1);
    });
}
