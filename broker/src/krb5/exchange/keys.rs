//! Which key of an account an AS exchange uses.

use krb_proto::Kvno;

use crate::krb5::key::{Enctype, Key, Keyset};

/// Which key a KDC used for a client in a reply that decrypted: worth keeping, and it makes
/// the next exchange one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Learnt {
    /// The enctype that the reply was encrypted with.
    pub enctype: Enctype,
    /// The number of the key that decrypted it.
    pub kvno: Kvno,
}

/// One key of an account.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) kvno: Kvno,
    pub(super) key: &'a Key,
}

/// An account's keys, the newest keyset first.
pub(super) struct Keys<'a>(Vec<&'a Keyset>);

impl<'a> Keys<'a> {
    pub(super) fn new(keysets: &'a [Keyset]) -> Self {
        let mut keysets: Vec<_> = keysets.iter().collect();
        keysets.sort_by_key(|keyset| std::cmp::Reverse(keyset.kvno));
        Self(keysets)
    }

    /// What the account has keys of, best first; nothing weaker than what is known to work,
    /// unless the account has no key of that any more.
    pub(super) fn enctypes(&self, learnt: Option<Learnt>) -> Vec<Enctype> {
        let all = || self.0.iter().flat_map(|keyset| &keyset.keys);
        let mut enctypes = Enctype::ALL.to_vec();
        enctypes.retain(|enctype| all().any(|key| key.enctype() == *enctype));
        let known = |enctype: &Enctype| learnt.is_some_and(|learnt| learnt.enctype == *enctype);
        if let Some(weakest) = enctypes.iter().position(known) {
            enctypes.truncate(weakest + 1);
        }
        enctypes
    }

    /// The newest key of that enctype that is not of a number already tried.
    pub(super) fn newest(&self, enctype: Enctype, tried: &[Kvno]) -> Option<Candidate<'a>> {
        let untried = self.0.iter().filter(|keyset| !tried.contains(&keyset.kvno));
        untried.into_iter().find_map(|keyset| of_enctype(keyset, enctype))
    }

    /// The key of that enctype and number.
    pub(super) fn exact(&self, enctype: Enctype, kvno: Kvno) -> Option<Candidate<'a>> {
        let keyset = self.0.iter().find(|keyset| keyset.kvno == kvno)?;
        of_enctype(keyset, enctype)
    }

    /// The key to begin with when it is known what the KDC uses: that one, or where the
    /// account no longer has it the newest.
    pub(super) fn known(&self, learnt: Learnt) -> Option<Candidate<'a>> {
        self.exact(learnt.enctype, learnt.kvno).or_else(|| self.newest(learnt.enctype, &[]))
    }
}

fn of_enctype(keyset: &Keyset, enctype: Enctype) -> Option<Candidate<'_>> {
    let key = keyset.keys.iter().find(|key| key.enctype() == enctype)?;
    Some(Candidate { kvno: keyset.kvno, key })
}
