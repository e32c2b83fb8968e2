//! `mount`: filled, or nothing is there.

use super::{world::Node, *};

#[test]
fn a_mount_makes_a_small_safe_tmpfs_and_has_it_filled_before_it_answers() {
    story(|node| {
        let agent = node.writing_agent(move |_, volume| {
            assert_eq!(node.layers(TARGET), 0, "kubelet must not find it unfilled");
            fill_as_made(volume);
            Act::Reply("")
        });
        node.mount().succeeds();

        assert_eq!(agent.calls(), [a_fill()]);
        assert_made_and_filled(node);
    });
}

#[test]
fn an_older_kernel_mounts_the_same_before_it_is_filled() {
    story(|node| {
        let node = node.before_5_2();
        let agent = node.writing_agent(move |_, volume| {
            assert_eq!(node.layers(TARGET), 1, "the agent must find it mounted");
            fill_as_made(volume);
            Act::Reply("")
        });
        node.mount().succeeds();

        assert_eq!(agent.calls(), [a_fill_in_place()]);
        assert_made_and_filled(node);
        node.unmount().succeeds();
        assert_eq!(node.layers(TARGET), 0);
    });
}

/// Sees that the volume's directories are as they should be, and writes a file.
fn fill_as_made(volume: &str) {
    for name in DIRECTORIES {
        let made = fs::metadata(format!("{volume}/{name}")).unwrap();
        assert!(made.is_dir());
        assert_eq!((made.mode() & 0o7777, made.uid(), made.gid()), (0o755, 0, 0));
    }
    fs::write(format!("{volume}/tickets/tsfoo"), "ticket").unwrap();
}

fn assert_made_and_filled(node: Node) {
    assert_eq!(fs::read(format!("{TARGET}/tickets/tsfoo")).unwrap(), b"ticket");
    assert_eq!(fs::metadata(TARGET).unwrap().mode() & 0o7777, 0o755);
    let mounts = node.mounts();
    let ours = mounts.lines().find(|line| line.contains(TARGET)).unwrap();
    for wanted in ["nosuid", "nodev", "noexec", "tmpfs krb-broker", "size=1024k", "nr_inodes=128"] {
        assert!(ours.contains(wanted), "{wanted}: {ours}");
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    assert_eq!(ours.contains("noswap"), version >= (6, 4), "{ours}");
    assert!(node.locks().is_empty());
}

#[test]
fn a_second_mount_of_a_volume_fills_it_again_and_keeps_what_is_there() {
    story(|node| {
        let agent = node.agent(willing);
        node.mount().succeeds();
        fs::write(format!("{TARGET}/rcache/a"), "kept").unwrap();
        node.mount().succeeds();
        assert_eq!(node.layers(TARGET), 1);
        assert_eq!(agent.calls(), [a_fill(), a_fill_in_place()]);
        assert_eq!(fs::read(format!("{TARGET}/rcache/a")).unwrap(), b"kept");
    });
}

#[test]
fn what_the_agent_denies_is_told_word_for_word_and_nothing_stays_mounted() {
    story(|node| {
        let text = "tsfoo may not have \"nfs\"\u{7} (SERVICE_NOT_ENTITLED)";
        let agent = node.agent(move |call| match call {
            Call::Fill(_) => Act::Reply(text),
            Call::Forget(_) => panic!("a volume that never was is not forgotten"),
        });
        for _ in 0..2 {
            node.mount().fails(text);
            assert_eq!(node.layers(TARGET), 0);
        }
        assert_eq!(agent.counts(), (2, 0));
        assert!(Path::new(TARGET).is_dir(), "the directory is kubelet's");
        let shown = text.replace('\u{7}', "\u{fffd}");
        assert!(node.log().contains(&format!("mount {UID}/creds: {shown}\n")), "{}", node.log());
        assert!(node.locks().is_empty());
    });
}

#[test]
fn a_volume_that_was_there_and_is_now_denied_is_taken_off_and_its_lease_given_back() {
    story(|node| {
        let fills = AtomicUsize::new(0);
        let agent = node.agent(move |call| match call {
            Call::Fill(_) if fills.fetch_add(1, Ordering::SeqCst) == 1 => Act::Reply("no (GONE)"),
            _ => Act::Reply(""),
        });
        node.mount().succeeds();
        node.mount().fails("no (GONE)");
        assert_eq!(node.layers(TARGET), 0);
        assert_eq!(agent.calls(), [a_fill(), a_fill_in_place(), a_forget()]);
    });
}

#[test]
fn with_no_agent_nothing_is_ever_mounted_and_the_text_is_the_same_each_time() {
    story(|node| {
        let mount = ["mount", TARGET, &options(UID, "creds")];
        for _ in 0..2 {
            node.driver_within(300, &mount).fails(AWAY);
            assert_eq!(node.layers(TARGET), 0);
        }
        assert!(node.locks().is_empty());
    });
}

#[test]
fn an_agent_that_comes_up_late_is_waited_for_with_nothing_mounted() {
    story(|node| {
        let driver = node.start_mount();
        until(|| !node.locks().is_empty());
        assert_eq!(node.layers(TARGET), 0, "a kubelet restarted now would take it for done");
        node.agent(willing);
        answer(driver).succeeds();
        assert_eq!(node.layers(TARGET), 1);
    });
}

#[test]
fn an_agent_that_restarts_in_the_middle_is_asked_again() {
    story(|node| {
        let fills = AtomicUsize::new(0);
        let agent = node.agent(move |_| match fills.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Act::HangUp,
            _ => Act::Reply(""),
        });
        node.mount().succeeds();
        assert_eq!(agent.counts(), (3, 0));
        assert_eq!(node.layers(TARGET), 1);
    });
}

#[test]
fn on_an_older_kernel_what_fails_leaves_nothing_either() {
    story(|node| {
        let node = node.before_5_2();
        let fills = AtomicUsize::new(0);
        let agent = node.agent(move |_| match fills.fetch_add(1, Ordering::SeqCst) {
            0 => Act::Reply("no (DENIED)"),
            1 => Act::HangUp,
            _ => Act::Reply(""),
        });
        node.mount().fails("no (DENIED)");
        assert_eq!(node.layers(TARGET), 0);
        node.mount().succeeds();
        assert_eq!((node.layers(TARGET), agent.counts()), (1, (3, 0)));
    });
}

#[test]
fn an_agent_that_hung_up_before_the_volume_was_in_its_place_is_asked_again() {
    story(|node| {
        let fills = AtomicUsize::new(0);
        let (ready, go) = (Path::new("/run/asked"), Path::new("/run/go"));
        let agent = node.agent(move |_| match fills.fetch_add(1, Ordering::SeqCst) {
            0 => {
                fs::write(ready, "").unwrap();
                until(|| go.exists()); // the driver is stopped
                Act::ReplyAndHangUp
            }
            _ => Act::Reply(""),
        });
        let mount = node.start_mount();
        until(|| ready.exists());
        let driver = rustix::process::Pid::from_child(&mount);
        rustix::process::kill_process(driver, rustix::process::Signal::STOP).unwrap();
        fs::write(go, "").unwrap();
        until(|| agent.served() == 1); // and hung up
        rustix::process::kill_process(driver, rustix::process::Signal::CONT).unwrap();
        answer(mount).succeeds();
        assert_eq!((node.layers(TARGET), agent.counts()), (1, (2, 0)));
    });
}

#[test]
fn an_agent_that_never_answers_costs_no_more_than_the_limit() {
    story(|node| {
        let _agent = node.agent(|_| Act::Silence);
        let mount = ["mount", TARGET, &options(UID, "creds")];
        node.driver_within(500, &mount).fails(AWAY);
        assert_eq!(node.layers(TARGET), 0);
    });
}

#[test]
fn an_agent_that_takes_no_connections_costs_no_more_than_the_limit() {
    story(|node| {
        fs::create_dir_all("/run/krb-broker").unwrap();
        let full = rustix::net::SocketAddrUnix::new(krb_proto::driver::SOCKET).unwrap();
        let socket = || {
            let (family, kind) =
                (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
            rustix::net::socket(family, kind, None).unwrap()
        };
        let listener = socket();
        rustix::net::bind(&listener, &full).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let first = socket();
        rustix::net::connect(&first, &full).unwrap(); // the queue is full now

        let mount = ["mount", TARGET, &options(UID, "creds")];
        node.driver_within(500, &mount).fails(AWAY);
        node.unmount().succeeds();
        assert_eq!(node.layers(TARGET), 0);
    });
}

#[test]
fn an_answer_that_is_no_reply_is_a_failure_that_leaves_nothing() {
    story(|node| {
        let agent = node.agent(|call| match call {
            Call::Fill(_) => Act::Garbage,
            Call::Forget(_) => Act::Reply(""),
        });
        node.mount().fails(
            "krb-broker's agent on this node gave an answer that can't be read (AGENT_GARBLED)",
        );
        assert_eq!(node.layers(TARGET), 0);
        assert_eq!(agent.counts(), (1, 1), "the agent may hold a lease: it is told");
    });
}

#[test]
fn a_volume_too_full_to_be_filled_is_taken_off_and_a_full_one_is_unmounted() {
    story(|node| {
        let fills = AtomicUsize::new(0);
        node.writing_agent(move |call, volume| {
            let full = fs::write(format!("{volume}/conf/big"), vec![1; 2 << 20]);
            match call {
                Call::Fill(_) if fills.fetch_add(1, Ordering::SeqCst) == 0 => {
                    assert_eq!(full.unwrap_err().raw_os_error(), Some(28), "its size is bounded");
                    Act::Reply("the volume is full (VOLUME_FULL)")
                }
                _ => Act::Reply(""),
            }
        });
        node.mount().fails("the volume is full (VOLUME_FULL)");
        assert_eq!(node.layers(TARGET), 0);

        node.mount().succeeds();
        let made = (0..).take_while(|n| fs::write(format!("{TARGET}/rcache/{n}"), "").is_ok());
        assert!(made.count() < 128, "its inodes are bounded");
        node.unmount().succeeds();
        assert_eq!(node.layers(TARGET), 0);
    });
}

#[test]
fn what_is_not_a_volume_of_ours_is_not_filled_but_replaced() {
    story(|node| {
        node.agent(willing);
        node.mount_foreign("proc");
        node.mount().succeeds();
        assert_eq!(node.layers(TARGET), 1);
        assert!(Path::new(&format!("{TARGET}/keytabs")).is_dir());
    });
}

#[test]
fn nothing_stays_mounted_while_an_agent_that_went_away_is_waited_for() {
    story(|node| {
        let agent = node.agent(|_| Act::HangUp);
        let mount = node.start_mount();
        until(|| agent.counts().0 > 0);
        agent.die();
        until(|| node.layers(TARGET) == 0);
        node.agent(willing);
        answer(mount).succeeds();
        assert_eq!(node.layers(TARGET), 1);
    });
}

#[test]
fn a_kernel_without_noswap_will_do_as_long_as_the_node_has_no_swap() {
    story_without_noswap(|node| {
        node.agent(willing);
        swaps("Filename Type Size Used Priority\n");
        node.mount().succeeds();
        assert!(!node.mounts().contains("noswap"));
        node.unmount().succeeds();
        assert_eq!(node.layers(TARGET), 0);
    });
}

#[test]
fn a_node_that_would_swap_credentials_gets_none() {
    story_without_noswap(|node| {
        let agent = node.agent(willing);
        swaps("Filename Type Size Used Priority\n/dev/sdb partition 1 0 -2\n");
        node.mount().fails(
            "this node has swap switched on and a kernel without noswap: \
             credentials are not written to it (SWAP_ON)",
        );
        assert_eq!((node.layers(TARGET), agent.counts().0), (0, 0));
    });
}

/// What the kernel says of the node's swap from now on.
fn swaps(list: &str) {
    fs::write("/run/swaps", list).unwrap();
    let mut bind = std::process::Command::new("mount");
    assert!(bind.args(["--bind", "/run/swaps", "/proc/swaps"]).status().unwrap().success());
}
