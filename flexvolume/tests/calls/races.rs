//! Two drivers for one volume, and drivers that are killed.

use super::*;

#[test]
fn many_mounts_of_one_volume_at_once_make_one_layer() {
    story(|node| {
        let inside = AtomicUsize::new(0);
        let agent = node.agent(move |_| {
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
            thread::yield_now();
            inside.fetch_sub(1, Ordering::SeqCst);
            Act::Reply("")
        });
        let drivers: Vec<_> = (0..8).map(|_| node.start_mount()).collect();
        for driver in drivers {
            answer(driver).succeeds();
        }
        assert_eq!(agent.counts(), (8, 0));
        assert_eq!(node.layers(TARGET), 1);
        assert!(node.locks().is_empty());
    });
}

#[test]
fn an_unmount_ends_a_mount_that_still_waits_for_the_agent() {
    story(|node| {
        let agent = node.agent(|call| match call {
            Call::Fill(_) => Act::Silence,
            Call::Forget(_) => Act::Reply(""),
        });
        let mount = node.start(&["mount", TARGET, &options(UID, "creds")], 60_000);
        until(|| agent.counts().0 == 1);
        node.unmount().succeeds();
        answer(mount).fails(UNMOUNTED);
        assert_eq!(node.layers(TARGET), 0);
        assert!(!node.log().contains("without the lock"), "it gave up at once");
        assert!(agent.counts().1 >= 1, "the agent may hold a lease: it is told");
        assert!(node.locks().is_empty());
    });
}

#[test]
fn a_mount_that_is_filled_after_an_unmount_came_does_not_end_well() {
    story(|node| {
        let lock = format!("/run/krb-broker/locks/{UID}.creds");
        let agent = node.agent(move |call| {
            if matches!(call, Call::Fill(_)) {
                until(|| fs::metadata(&lock).is_ok_and(|lock| lock.len() > 0));
            }
            Act::Reply("")
        });
        let mount = node.start_mount();
        until(|| agent.counts().0 == 1);
        let unmount = node.start(&["unmount", TARGET], 10_000);
        answer(mount).fails(UNMOUNTED);
        answer(unmount).succeeds();
        assert_eq!(node.layers(TARGET), 0);
    });
}

#[test]
fn a_mount_that_was_killed_in_the_middle_leaves_nothing_and_is_done_by_the_next() {
    story(|node| {
        let fills = AtomicUsize::new(0);
        let agent = node.agent(move |_| match fills.fetch_add(1, Ordering::SeqCst) {
            0 => Act::Silence,
            _ => Act::Reply(""),
        });
        let mut killed = node.start_mount();
        until(|| agent.counts().0 == 1);
        killed.kill().unwrap();
        killed.wait().unwrap();
        assert_eq!(node.layers(TARGET), 0, "kubelet would take it for a filled volume");
        node.mount().succeeds();
        assert_eq!((node.layers(TARGET), agent.counts()), (1, (2, 0)));
        assert!(node.locks().is_empty());
    });
}

#[test]
fn a_kubelet_that_has_gone_away_hears_no_complaint() {
    story(|node| {
        let agent = node.agent(willing);
        let mut mount = node.start_mount();
        drop((mount.stdout.take(), mount.stderr.take()));
        assert_eq!(mount.wait().unwrap().code(), Some(0));
        assert_eq!((node.layers(TARGET), agent.counts()), (1, (1, 0)));
    });
}

#[test]
fn an_unmount_does_not_wait_for_ever_for_a_mount_that_is_stuck() {
    story(|node| {
        let agent = node.agent(|call| match call {
            Call::Fill(_) => Act::Silence,
            Call::Forget(_) => Act::Reply(""),
        });
        let mount = node.start_mount();
        until(|| agent.counts().0 == 1);
        let stuck = rustix::process::Pid::from_child(&mount);
        rustix::process::kill_process(stuck, rustix::process::Signal::STOP).unwrap();
        node.driver_within(200, &["unmount", TARGET]).succeeds();
        assert_eq!(node.layers(TARGET), 0);
        assert!(node.log().contains("going on without the lock"), "{}", node.log());

        rustix::process::kill_process(stuck, rustix::process::Signal::CONT).unwrap();
        answer(mount).fails(UNMOUNTED);
        assert_eq!(node.layers(TARGET), 0);
    });
}
