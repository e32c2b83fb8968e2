//! Which pods are gone: absent from the view for long enough, and then denied by the API server
//! itself.
//!
//! Those that seem gone are asked for one by one, so many in a sweep. None is given out before
//! all have been asked for that seemed gone when the asking began: if half the cluster vanishes,
//! whoever weighs that sees all of it at once.
//!
//! Pure: it says whom to ask for, and is told the answers.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use krb_proto::{PodRef, PodUid};

use crate::clock::Boottime;

/// How many pods are asked for in a sweep.
pub const A_SWEEP: usize = 500;

/// What is known of pods that are not in the view.
#[derive(Debug, Default)]
pub struct Absences {
    /// Since when each is absent.
    since: HashMap<PodUid, Boottime>,
    /// Those that are to be asked for before any is given out.
    asking: Vec<PodRef>,
    /// Those that were asked for and are gone.
    denied: HashSet<PodUid>,
}

impl Absences {
    /// Takes over what the view says of these pods, which are all that matter: whether each is
    /// `absent`. Gives those to ask for now.
    pub fn look(
        &mut self,
        pods: &[PodRef],
        absent: impl Fn(&PodRef) -> bool,
        now: Boottime,
        gone_after: Duration,
    ) -> Vec<PodRef> {
        let away: HashMap<&PodUid, &PodRef> =
            pods.iter().filter(|pod| absent(pod)).map(|pod| (&pod.uid, pod)).collect();
        self.since.retain(|uid, _| away.contains_key(uid));
        self.denied.retain(|uid| away.contains_key(uid));
        self.asking.retain(|pod| away.contains_key(&pod.uid));
        for uid in away.keys() {
            self.since.entry((*uid).clone()).or_insert(now);
        }
        if self.asking.is_empty() {
            let long = |uid: &PodUid| {
                self.since.get(uid).is_some_and(|since| now.since(*since) >= gone_after)
            };
            let seem_gone =
                away.iter().filter(|(uid, _)| long(uid) && !self.denied.contains(**uid));
            self.asking = seem_gone.map(|(_, pod)| (*pod).clone()).collect();
            self.asking.sort();
        }
        self.asking.iter().take(A_SWEEP).cloned().collect()
    }

    /// The API server's answer for one: whether it is gone.
    pub fn answered(&mut self, uid: &PodUid, gone: bool) {
        self.asking.retain(|pod| pod.uid != *uid);
        if gone {
            self.denied.insert(uid.clone());
        } else {
            self.since.remove(uid); // its time begins anew
        }
    }

    /// Those that are gone, unless others are still to be asked for.
    pub fn gone(&self) -> Vec<PodUid> {
        if self.asking.is_empty() { self.denied.iter().cloned().collect() } else { Vec::new() }
    }

    /// Whether it is known that the pod is gone.
    pub fn is_gone(&self, uid: &PodUid) -> bool {
        self.denied.contains(uid)
    }

    /// The view can't be believed: every time of absence begins anew.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Boottime {
        Boottime(Duration::from_secs(seconds))
    }

    fn pods(count: usize) -> Vec<PodRef> {
        let (cluster, namespace) = ("prod-1".into(), "tsfoo".parse().unwrap());
        let one = PodRef {
            cluster,
            namespace,
            name: "web".parse().unwrap(),
            uid: "uid".parse().unwrap(),
        };
        (0..count)
            .map(|n| PodRef { uid: format!("uid-{n}").parse().unwrap(), ..one.clone() })
            .collect()
    }

    #[test]
    fn a_pod_is_gone_after_its_minute_and_when_the_api_server_says_so() {
        let mut absences = Absences::default();
        let pods = pods(1);
        let mut look = |now| absences.look(&pods, |_| true, at(now), MINUTE).len();
        assert_eq!((look(0), look(59), look(60)), (0, 0, 1));
        assert!(absences.gone().is_empty(), "it has only been asked for");
        absences.answered(&pods[0].uid, true);
        assert_eq!(absences.gone(), [pods[0].uid.clone()]);
        assert!(absences.look(&pods, |_| true, at(70), MINUTE).is_empty(), "asked once");
        absences.look(&pods, |_| false, at(80), MINUTE);
        assert!(absences.gone().is_empty(), "it is there after all");
    }

    #[test]
    fn a_pod_that_was_there_meanwhile_begins_a_new_minute() {
        let mut absences = Absences::default();
        let pods = pods(1);
        absences.look(&pods, |_| true, at(0), MINUTE);
        absences.look(&pods, |_| false, at(30), MINUTE);
        assert!(absences.look(&pods, |_| true, at(60), MINUTE).is_empty());
        assert_eq!(absences.look(&pods, |_| true, at(120), MINUTE).len(), 1);
        absences.answered(&pods[0].uid, false); // the view is behind
        assert!(absences.look(&pods, |_| true, at(130), MINUTE).is_empty());
    }

    #[test]
    fn nobody_is_given_out_before_all_have_been_asked_for() {
        let mut absences = Absences::default();
        let pods = pods(A_SWEEP + 1);
        absences.look(&pods, |_| true, at(0), MINUTE);
        let first = absences.look(&pods, |_| true, at(60), MINUTE);
        assert_eq!(first.len(), A_SWEEP);
        first.iter().for_each(|pod| absences.answered(&pod.uid, true));
        assert!(absences.gone().is_empty());
        let last = absences.look(&pods, |_| true, at(61), MINUTE);
        assert_eq!(last.len(), 1);
        absences.answered(&last[0].uid, true);
        assert_eq!(absences.gone().len(), A_SWEEP + 1);
    }
}
