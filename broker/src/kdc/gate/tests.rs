use std::sync::{Arc, Mutex as StdMutex};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn caps(per_second: u32, in_flight: u32) -> Caps {
    let positive = |number| NonZeroU32::new(number).unwrap();
    Caps { per_second: positive(per_second), in_flight: positive(in_flight) }
}

fn gate(kdc: Caps) -> Arc<Gate> {
    Arc::new(Gate::new(kdc, caps(1, 1)))
}

/// Passes the gate `requests` times at once, each working for `work`; when each began.
async fn crowd(gate: &Arc<Gate>, requests: usize, work: Duration) -> Vec<Duration> {
    let start = Instant::now();
    let begun = Arc::new(StdMutex::new(Vec::new()));
    let tasks: Vec<_> = (0..requests)
        .map(|_| {
            let (gate, begun) = (gate.clone(), begun.clone());
            tokio::spawn(async move {
                let work = async {
                    begun.lock().unwrap().push(start.elapsed());
                    time::sleep(work).await;
                };
                gate.pass(Lane::Kdc, Class::PodStart, MINUTE, work).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let begun = begun.lock().unwrap();
    begun.clone()
}

#[tokio::test(start_paused = true)]
async fn no_second_sees_more_requests_begin_than_the_cap() {
    for cap in [1, 2, 7, 100, 150, 500, 2_000] {
        let gate = gate(caps(cap, 10_000));
        let begun = crowd(&gate, (cap as usize * 3).min(3_000), Duration::ZERO).await;
        for (index, from) in begun.iter().enumerate() {
            let within = begun[index..].iter().take_while(|at| **at - *from < SECOND).count();
            assert!(within <= cap as usize, "{within} in a second, the cap is {cap}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_passes_at_nearly_the_cap() {
    let gate = gate(caps(500, 10_000));
    let begun = crowd(&gate, 1_000, Duration::ZERO).await;
    let took = begun.last().unwrap();
    assert!(*took < SECOND * 5 / 2, "1000 requests at 500 a second took {took:?}");
}

#[tokio::test(start_paused = true)]
async fn never_are_more_in_flight_than_the_cap() {
    let gate = gate(caps(1_000_000, 3));
    let work = Duration::from_millis(100);
    let begun = crowd(&gate, 30, work).await;
    for (index, from) in begun.iter().enumerate() {
        let at_once = begun[index..].iter().take_while(|at| **at - *from < work).count();
        assert!(at_once <= 3, "{at_once} at once");
    }
}

#[tokio::test(start_paused = true)]
async fn what_can_not_pass_in_time_is_refused_at_once_and_nothing_of_it_done() {
    let gate = gate(caps(1, 1_000));
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let gate = gate.clone();
            let pass = async move { gate.pass(Lane::Kdc, Class::Rotation, MINUTE, async {}).await };
            tokio::spawn(pass)
        })
        .collect();
    tokio::task::yield_now().await;
    let start = Instant::now();
    let refused = gate
        .pass(Lane::Kdc, Class::PodStart, 5 * SECOND, async { panic!("began past its deadline") })
        .await
        .unwrap_err();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(refused.lane, Lane::Kdc);
    assert!(refused.retry_after > 5 * SECOND, "{refused}");
    for task in waiting {
        task.await.unwrap().unwrap();
    }
    let [kdc, _] = gate.counts();
    assert_eq!((kdc.passed_in_all(), kdc.refused, kdc.in_flight, kdc.waiting), (20, 1, 0, 0));
    assert_eq!(kdc.passed[Class::Rotation as usize], 20);
}

#[tokio::test(start_paused = true)]
async fn one_who_waits_for_a_place_in_flight_is_refused_at_its_deadline() {
    let gate = gate(caps(100, 1));
    let slow = gate.clone();
    let slow = tokio::spawn(async move {
        slow.pass(Lane::Kdc, Class::PodStart, MINUTE, time::sleep(MINUTE)).await
    });
    tokio::task::yield_now().await;
    let start = Instant::now();
    let refused = gate.pass(Lane::Kdc, Class::PodStart, 2 * SECOND, async {}).await;
    assert!(refused.is_err());
    assert_eq!(start.elapsed().as_secs(), 2);
    let other_lane = gate.pass(Lane::Kadmin, Class::PodStart, SECOND, async { 7 }).await;
    assert_eq!(other_lane, Ok(7), "one lane does not hold up the other");
    slow.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn work_that_is_given_up_frees_its_place() {
    let gate = gate(caps(1_000, 1));
    let hung = gate.pass(Lane::Kdc, Class::PodStart, MINUTE, std::future::pending::<()>());
    assert!(time::timeout(SECOND, hung).await.is_err());
    assert_eq!(gate.counts()[0].in_flight, 0);
    assert_eq!(gate.pass(Lane::Kdc, Class::PodStart, SECOND, async { 1 }).await, Ok(1));
}
