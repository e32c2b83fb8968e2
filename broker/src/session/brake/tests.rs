use proptest::prelude::*;

use super::*;

const MINUTE: u64 = 60;

fn at(seconds: u64) -> Boottime {
    Boottime(Duration::from_secs(10_000 + seconds))
}

fn seen(all: u32, due: u32, coming: u32) -> Sessions {
    Sessions { all, due, coming }
}

#[test]
fn three_of_nine_are_not_more_than_a_third_and_four_are() {
    let mut brake = Brake::new(Limits::default());
    assert_eq!(brake.sessions(at(0), seen(9, 3, 0)), 3);
    assert!(!brake.is_on());
    let mut brake = Brake::new(Limits::default());
    assert_eq!(brake.sessions(at(0), seen(9, 4, 0)), 0);
    assert_eq!(brake.why().unwrap(), "4 of 9 nodes vanish at once");
}

#[test]
fn the_last_of_the_nodes_that_return_are_not_lost_when_the_count_falls_back() {
    let mut brake = Brake::new(Limits::default());
    assert_eq!(brake.sessions(at(0), seen(50, 30, 0)), 0);
    for second in 1..30 {
        let left = 30 - u32::try_from(second).unwrap();
        assert_eq!(brake.sessions(at(second), seen(50, left, 0)), 0, "{left} still return");
    }
    assert_eq!(brake.sessions(at(30), seen(50, 0, 0)), 0);
    assert!(brake.is_on());
    brake.sessions(at(60), seen(50, 0, 0));
    assert!(!brake.is_on());
}

#[test]
fn two_nodes_are_a_small_cluster_and_no_catastrophe() {
    let mut brake = Brake::new(Limits::default());
    assert_eq!(brake.sessions(at(0), seen(2, 2, 0)), 2);
}

#[test]
fn nodes_that_were_cut_at_once_and_are_due_one_by_one_are_judged_together() {
    let mut brake = Brake::new(Limits::default());
    for due in 1..=30 {
        let passed = brake.sessions(at(u64::from(due)), seen(50, due, 30 - due));
        assert_eq!(passed, 0, "the first third must not get through either");
    }
}

#[test]
fn what_was_lost_counts_until_the_window_is_over() {
    let mut brake = Brake::new(Limits::default());
    assert_eq!(brake.sessions(at(0), seen(9, 3, 0)), 3);
    assert_eq!(brake.sessions(at(MINUTE), seen(6, 1, 0)), 0);
    assert_eq!(brake.sessions(at(10 * MINUTE - 1), seen(6, 1, 0)), 0);
    assert_eq!(brake.sessions(at(10 * MINUTE), seen(6, 1, 0)), 0, "not before it has settled");
    assert_eq!(brake.sessions(at(10 * MINUTE + 39), seen(6, 1, 0)), 0);
    assert_eq!(brake.sessions(at(10 * MINUTE + 40), seen(6, 1, 0)), 1, "it lets go by itself");
    assert!(!brake.is_on());
}

#[test]
fn what_there_was_counts_for_an_hour() {
    let mut brake = Brake::new(Limits::default());
    brake.sessions(at(0), seen(30, 0, 0));
    assert_eq!(brake.sessions(at(MINUTE), seen(9, 4, 0)), 4, "4 of 30");
    let mut brake = Brake::new(Limits::default());
    brake.sessions(at(0), seen(30, 0, 0));
    brake.sessions(at(1), seen(9, 0, 0));
    assert_eq!(brake.sessions(at(62 * MINUTE), seen(9, 4, 0)), 0, "the 30 are long ago");
}

#[test]
fn while_it_is_on_two_an_hour_pass_evenly() {
    let mut brake = Brake::new(Limits::default());
    let passed: Vec<u64> = (0..=120)
        .filter(|minute| brake.sessions(at(minute * MINUTE), seen(50, 30, 0)) == 1)
        .collect();
    assert_eq!(passed, [30, 60, 90, 120]);
}

#[test]
fn a_source_of_pods_that_suddenly_lists_nothing_wipes_nobody() {
    let mut brake = Brake::new(Limits::default());
    assert!(brake.pods(at(0), 300, 20), "what ends day by day is released");
    assert!(!brake.pods(at(1), 280, 280));
    assert_eq!(brake.sessions(at(2), seen(9, 1, 0)), 0, "nothing else is believed either");
    assert!(!brake.pods(at(3), 280, 5), "the source lists most of them again");
    assert!(brake.pods(at(43), 280, 5));
    assert!(!brake.is_on());
    assert_eq!(brake.sessions(at(44), seen(9, 1, 0)), 1);
}

#[test]
fn losses_before_a_restart_count_as_if_there_had_been_none() {
    let mut brake = Brake::new(Limits::default());
    brake.remember_loss(at(5));
    brake.remember_loss(at(0));
    brake.remember_loss(at(3));
    assert_eq!(brake.sessions(at(MINUTE), seen(6, 1, 0)), 0, "4 of 9");
    assert_eq!(brake.sessions(at(10 * MINUTE + 1), seen(6, 1, 0)), 0, "3 of 9, just now");
    assert_eq!(brake.sessions(at(10 * MINUTE + 41), seen(6, 1, 0)), 1);
}

#[test]
fn a_share_is_two_numbers_the_first_not_the_greater() {
    assert_eq!("1/3".parse(), Ok(Share { parts: 1, of: 3 }));
    for bad in ["", "1", "0/3", "4/3", "1/0", "a/b", "-1/3", "1/3/4"] {
        assert_eq!(bad.parse::<Share>(), Err(InvalidShare), "{bad}");
    }
}

proptest! {
    /// Whatever vanishes and comes, and in whatever steps: beyond the share only the passes.
    #[test]
    fn no_more_than_the_share_is_lost_in_any_window_but_for_the_passes(
        sizes in 3_u32..60,
        steps in proptest::collection::vec((1_u64..400, 0_u32..20, 0_u32..20), 1..80)
    ) {
        let limits = Limits::default();
        let mut brake = Brake::new(limits);
        let (mut now, mut alive, mut due) = (0_u64, sizes, 0_u32);
        let mut lost: Vec<(u64, u32)> = Vec::new(); // without the passes
        let mut passes: Vec<u64> = Vec::new();
        let mut most: Vec<(u64, u32)> = Vec::new();
        for (span, falls, returns) in steps {
            now += span;
            due -= returns.min(due);
            due = (due + falls).min(alive);
            let recent = |list: &[(u64, u32)], span: u64| -> Vec<u32> {
                list.iter().filter(|(at, _)| now - at < span).map(|(_, n)| *n).collect()
            };
            let before: u32 = recent(&lost, 600).iter().sum::<u32>()
                + u32::try_from(passes.iter().filter(|at| now - **at < 600).count()).unwrap();
            most.push((now, alive + before));
            let passed = brake.sessions(at(now), seen(alive, due, 0));
            prop_assert!(passed <= due);
            if brake.is_on() {
                prop_assert!(passed <= 1);
                passes.extend(std::iter::repeat_n(now, passed as usize));
            } else {
                prop_assert_eq!(passed, due, "off means off");
                lost.push((now, passed));
                let in_window = recent(&lost, 600).iter().sum::<u32>();
                let peak = most.iter().map(|(_, n)| *n).max().unwrap();
                prop_assert!(
                    in_window * 3 <= peak || in_window < limits.sessions,
                    "{} of {}", in_window, peak
                );
            }
            let hour = passes.iter().filter(|at| now - **at < 3600).count();
            prop_assert!(hour <= 2, "{} passes", hour);
            alive -= passed;
            due -= passed;
            if alive < sizes / 2 { alive += returns; }
        }
    }
}
