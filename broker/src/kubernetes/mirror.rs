//! The objects of one kind as a list and a watch told of them, and how recent that is.
//!
//! A new list changes the objects in place, one by one; what it does not have goes only when it
//! is complete. So there is never a half-empty mirror, and never a second copy in memory. While
//! a list runs, and while no watch is connected, nothing is confirmed.
//!
//! Pure: it does no I/O and takes its time as a parameter.

use std::{collections::BTreeMap, ops::Bound, time::Duration};

use crate::clock::Boottime;

/// All objects of one kind.
#[derive(Debug)]
pub struct Mirror<K, V> {
    objects: BTreeMap<K, Entry<V>>,
    /// The number of the list that runs, or ran last.
    list: u32,
    /// Whether any list has been complete.
    complete: bool,
    connected: bool,
    heard: Option<Boottime>,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    /// The last list that it was in, or that it came after.
    list: u32,
}

impl<K: Ord, V> Default for Mirror<K, V> {
    fn default() -> Self {
        let objects = BTreeMap::new();
        Self { objects, list: 0, complete: false, connected: false, heard: None }
    }
}

impl<K: Ord + Clone, V> Mirror<K, V> {
    /// A list begins.
    pub fn begin_list(&mut self) {
        self.list = self.list.wrapping_add(1);
        self.connected = false;
    }

    /// The list is complete: it shows what there was at `as_of`. What it did not have is absent.
    pub fn end_list(&mut self, as_of: Boottime) {
        let list = self.list;
        self.objects.retain(|_, entry| entry.list == list);
        self.complete = true;
        self.heard = Some(as_of);
    }

    /// The watch is connected: from here on it delivers what happens, once it has delivered
    /// something. Until then nothing says that it does.
    pub fn connected(&mut self) {
        self.connected = true;
    }

    /// The watch delivered something, if only a sign that nothing happened.
    pub fn heard(&mut self, now: Boottime) {
        self.heard = Some(now);
    }

    /// The watch ended.
    pub fn lost(&mut self) {
        self.connected = false;
        self.heard = None;
    }

    /// The object is there, and is like this.
    pub fn put(&mut self, key: K, value: V) {
        self.objects.insert(key, Entry { value, list: self.list });
    }

    /// The object is not there.
    pub fn remove(&mut self, key: &K) {
        self.objects.remove(key);
    }

    /// The object as it was last told of.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.objects.get(key).map(|entry| &entry.value)
    }

    /// All objects from this key on.
    pub fn from(&self, key: &K) -> impl Iterator<Item = (&K, &V)> {
        let from = self.objects.range((Bound::Included(key), Bound::Unbounded));
        from.map(|(key, entry)| (key, &entry.value))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Whether a list has been complete and the watch after it is connected.
    pub fn is_followed(&self) -> bool {
        self.complete && self.connected
    }

    /// When it was last known to be right; never while it is not followed.
    pub fn as_of(&self) -> Option<Boottime> {
        self.heard.filter(|_| self.is_followed())
    }

    /// Whether it was known to be right less than `within` ago.
    pub fn is_confirmed(&self, now: Boottime, within: Duration) -> bool {
        self.as_of().is_some_and(|at| now.since(at) < within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Boottime {
        Boottime(Duration::from_secs(seconds))
    }

    fn listed(names: &[&'static str], now: Boottime) -> Mirror<&'static str, u32> {
        let mut mirror = Mirror::default();
        mirror.begin_list();
        names.iter().for_each(|name| mirror.put(*name, 1));
        mirror.end_list(now);
        mirror.connected();
        mirror
    }

    #[test]
    fn during_a_list_nothing_is_absent_and_after_it_what_it_did_not_have_is() {
        let mut mirror = listed(&["a", "b"], at(0));
        mirror.begin_list();
        mirror.put("b", 2);
        mirror.put("c", 2);
        assert_eq!(mirror.get(&"a"), Some(&1), "the list may still come to it");
        assert!(!mirror.is_confirmed(at(1), TEN), "but nothing is confirmed meanwhile");
        mirror.end_list(at(2));
        assert_eq!(mirror.get(&"a"), None);
        assert_eq!((mirror.get(&"b"), mirror.get(&"c")), (Some(&2), Some(&2)));
    }

    #[test]
    fn a_list_that_is_given_up_takes_nothing_away() {
        let mut mirror = listed(&["a", "b"], at(0));
        mirror.begin_list();
        mirror.put("a", 2); // and then the API server goes away
        mirror.begin_list();
        mirror.put("b", 3);
        mirror.end_list(at(5));
        assert_eq!((mirror.get(&"a"), mirror.get(&"b")), (None, Some(&3)));
    }

    #[test]
    fn what_a_watch_brought_after_a_list_stays() {
        let mut mirror = listed(&["a"], at(0));
        mirror.put("b", 1);
        mirror.remove(&"a");
        assert_eq!(mirror.from(&"a").map(|(name, _)| *name).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn it_is_confirmed_for_a_while_after_each_sign_of_a_watch_that_is_connected() {
        let mut mirror = listed(&["a"], at(0));
        assert!(mirror.is_confirmed(at(9), TEN));
        assert!(!mirror.is_confirmed(at(10), TEN));
        mirror.heard(at(20));
        assert!(mirror.is_confirmed(at(29), TEN));
        mirror.lost();
        assert!(!mirror.is_confirmed(at(21), TEN));
        assert!(!mirror.is_followed());
        mirror.connected();
        assert!(!mirror.is_confirmed(at(21), TEN), "it has delivered nothing yet");
        mirror.heard(at(22));
        assert!(mirror.is_confirmed(at(22), TEN));
        assert!(mirror.is_followed());
    }

    #[test]
    fn before_the_first_list_is_complete_nothing_is_confirmed() {
        let mut mirror: Mirror<&str, u32> = Mirror::default();
        mirror.begin_list();
        mirror.put("a", 1);
        mirror.connected();
        mirror.heard(at(1));
        assert!(!mirror.is_confirmed(at(1), TEN));
        assert!(!mirror.is_followed());
    }
}
