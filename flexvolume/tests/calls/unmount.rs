//! `unmount`: nothing is there, whoever is away.

use super::*;

#[test]
fn unmount_succeeds_where_nothing_is_mounted_or_nothing_is_there() {
    story(|node| {
        node.unmount().succeeds();
        assert!(Path::new(TARGET).is_dir(), "the directory is kubelet's to remove");
        fs::remove_dir(TARGET).unwrap();
        node.unmount().succeeds();
        fs::remove_dir_all(KUBELET).unwrap();
        node.unmount().succeeds();
        assert!(node.locks().is_empty());
    });
}

#[test]
fn unmount_removes_the_files_then_tells_the_agent_then_takes_the_volume_off() {
    story(|node| {
        let agent = node.agent(move |call| {
            if matches!(call, Call::Forget(_)) {
                assert_eq!(node.layers(TARGET), 1, "it is still mounted");
                let left = fs::read_dir(format!("{TARGET}/tickets")).unwrap().count();
                assert_eq!(left, 0, "and empty");
            }
            Act::Reply("")
        });
        node.mount().succeeds();
        fs::write(format!("{TARGET}/tickets/tsfoo"), "ticket").unwrap();
        node.unmount().succeeds();
        assert_eq!(agent.calls(), [a_fill(), a_forget()]);
        assert_eq!(node.layers(TARGET), 0);
        assert_eq!(fs::read_dir(TARGET).unwrap().count(), 0);
    });
}

#[test]
fn a_container_that_still_runs_loses_its_files_and_can_lead_the_driver_nowhere() {
    story(|node| {
        node.agent(willing);
        node.mount().succeeds();
        fs::write("/run/precious", "stays").unwrap();
        fs::create_dir("/run/precious.d").unwrap();
        fs::write("/run/precious.d/file", "stays").unwrap();
        let rcache = format!("{TARGET}/rcache");
        symlink("/run/precious", format!("{rcache}/file")).unwrap();
        symlink("/run/precious.d", format!("{rcache}/directory")).unwrap();
        fs::create_dir_all(format!("{rcache}/{}", "d/".repeat(60))).unwrap();
        fs::write(format!("{rcache}/d/d/.hidden"), "x").unwrap();
        fs::create_dir(format!("{TARGET}/tickets/@REALM")).unwrap();
        symlink(".", format!("{TARGET}/tickets/@DEFAULT")).unwrap();
        for file in ["tickets/tsfoo", "tickets/@REALM/tsfoo", "keytabs/tsfoo", "conf/krb5.conf"] {
            fs::write(format!("{TARGET}/{file}"), "x").unwrap();
        }
        let bind = |from: &str| {
            let to = format!("/run/container-{}", from.rsplit('/').next().unwrap());
            fs::create_dir(&to).unwrap();
            let bound = std::process::Command::new("mount").args(["--bind", from, &to]).status();
            assert!(bound.unwrap().success());
            to
        };
        let seen: Vec<String> = DIRECTORIES.map(|name| bind(&format!("{TARGET}/{name}"))).into();
        let open = fs::File::open(format!("{TARGET}/keytabs/tsfoo")).unwrap();

        node.unmount().succeeds();

        assert_eq!(node.layers(TARGET), 0, "an open file does not keep it");
        drop(open);
        for directory in seen {
            assert_eq!(files_below(Path::new(&directory)), 0, "{directory}");
        }
        assert_eq!(fs::read("/run/precious").unwrap(), b"stays");
        assert_eq!(fs::read("/run/precious.d/file").unwrap(), b"stays");
        assert_eq!(node.log(), "");
    });
}

fn files_below(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(
            |entry| {
                if entry.file_type().unwrap().is_dir() { files_below(&entry.path()) } else { 1 }
            },
        )
        .sum()
}

#[test]
fn unmount_does_without_an_agent_that_is_away_or_says_nothing() {
    story(|node| {
        let agent = node.agent(willing);
        node.mount().succeeds();
        agent.die();
        node.unmount().succeeds();
        assert_eq!(node.layers(TARGET), 0);

        node.agent(|call| match call {
            Call::Fill(_) => Act::Reply(""),
            Call::Forget(_) => Act::Silence,
        });
        node.mount().succeeds();
        node.unmount().succeeds();
        assert_eq!(node.layers(TARGET), 0);
    });
}

#[test]
fn unmount_takes_all_layers_off_ours_and_others() {
    story(|node| {
        node.agent(willing);
        node.mount().succeeds();
        node.mount_foreign("tmpfs");
        node.mount_foreign("proc");
        node.mount_foreign("tmpfs");
        assert_eq!(node.layers(TARGET), 4);
        node.unmount().succeeds();
        assert_eq!(node.layers(TARGET), 0);
    });
}
