//! The words in which holdings are remembered.

use std::collections::BTreeMap;

use krb_proto::{Generation, LeaseId};

use crate::{
    clock::Boottime,
    material::{Digest, Issued, Owner, PrincipalKvnos},
    place::Place,
};

/// A lease's material on a volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// The lease.
    pub lease: LeaseId,
    /// Whose the files are.
    pub owner: Owner,
    /// What the keytab holds.
    pub principals: Vec<PrincipalKvnos>,
    /// The keytab's digest; none without a keytab.
    pub digest: Option<Digest>,
}

impl From<&Issued> for Held {
    fn from(issued: &Issued) -> Self {
        Self {
            lease: issued.lease,
            owner: issued.owner.clone(),
            principals: issued.contents.principals(),
            digest: issued.contents.digest(),
        }
    }
}

/// What is known of one mounted volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum VolumeState {
    /// It has a lease's material.
    Held(Held),
    /// Its pod runs without; to be issued again once emptied.
    Wanted {
        /// Whether the old material is gone.
        emptied: bool,
    },
    /// Its lease ended for good; forgotten once emptied.
    Ended,
}

/// One filling of a volume, as opposed to those before and after.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Filling(pub(super) u64);

/// Where a push goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PushTo {
    /// On this volume, as files of this owner.
    Volume(Place, Owner),
    /// An Issue that may be this lease's is under way, or its volume is not in its place yet:
    /// look again when that has changed.
    Later,
    /// No volume has this lease.
    Nowhere,
}

/// What the journal keeps of [`super::Holdings`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Record {
    /// The generation last received.
    pub generation: Option<Generation>,
    /// Until when what is held may be served.
    pub serve_until: Option<Boottime>,
    /// The volumes.
    pub volumes: BTreeMap<Place, VolumeState>,
    /// Leases that the broker has not been told the end of yet, and where they were.
    pub releases: BTreeMap<LeaseId, Place>,
}
