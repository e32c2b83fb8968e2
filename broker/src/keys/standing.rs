//! Principals that are not in use: nobody has held them for long, or an operator has switched
//! them off.
//!
//! What a principal is to be and what it is at the KDC are stored apart, and what is about to be
//! done there is stored before it is done. A pod that comes in the middle of it is therefore
//! never given a key that the KDC no longer takes: the principal comes back with a new one,
//! above every number that it ever had.

use std::time::SystemTime;

use super::{
    ManagedPrincipal, Phase,
    walk::{Step, WalkView},
};

/// How a principal is not in use.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Off {
    /// The KDC issues no tickets for it.
    Disabled,
    /// It is not there.
    Deleted,
}

impl Off {
    /// The word for it in the audit log and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Deleted => "deleted",
        }
    }
}

/// What a principal is at the KDC.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Standing {
    /// As usual, or not made yet.
    #[default]
    InUse,
    /// Being switched off: the KDC may have it either way.
    Leaving(Off),
    /// Switched off, seen at kadmin.
    Off(Off),
}

/// That a principal is to be switched off.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SwitchedOff {
    /// How.
    pub how: Off,
    /// The operator who said so; `None`: nobody used it, and the next pod brings it back.
    pub by: Option<String>,
    /// Since when.
    pub since: SystemTime,
}

impl ManagedPrincipal {
    /// Whether an operator has switched it off: no pod gets it until one switches it on.
    pub fn is_switched_off_by_operator(&self) -> bool {
        self.switched_off.as_ref().is_some_and(|off| off.by.is_some())
    }

    /// Whether it comes back from being switched off in the middle: a KDC may use the key that it
    /// had until all use the next.
    pub(super) fn may_still_be_used(&self) -> bool {
        let comes_back = self.switched_off.is_none() && self.current().is_none();
        comes_back && matches!(self.standing, Standing::Leaving(_))
    }

    /// The step towards being switched off, or back from it. `None`: its walk goes on as usual.
    pub(super) fn step_of_standing(&self, view: &WalkView<'_>) -> Option<Step> {
        let Some(wanted) = self.switched_off.as_ref().map(|off| off.how) else {
            // What it had is given up; the walk makes what it will have.
            let comes_back = self.standing != Standing::InUse && self.current().is_some();
            return comes_back.then_some(Step::Return);
        };
        let given_up =
            |held: &&super::Held| matches!(held.phase, Phase::Pending | Phase::Distributing);
        if let Some(held) = self.keysets.values().find(given_up) {
            return Some(Step::Burn {
                kvno: held.keyset.kvno,
                why: super::walk::Burnt::SwitchedOff,
            });
        }
        Some(match self.standing {
            Standing::Off(how) if how == wanted => self.step_of_the_retired(view),
            Standing::Leaving(how) if how == wanted => Step::SwitchOff(wanted),
            _ => Step::Leave(wanted),
        })
    }

    /// The KDC has switched it off: whatever key it had opens nothing new.
    pub fn went_off(&mut self, how: Off, now: SystemTime) {
        self.standing = Standing::Off(how);
        self.give_up_all(now);
    }

    /// Every key leaves the keytabs; what the KDCs may have used until now counts from now.
    pub fn give_up_all(&mut self, now: SystemTime) {
        for held in self.keysets.values_mut() {
            if matches!(held.phase, Phase::Current | Phase::Activating) {
                held.retired_at = Some(now);
            }
            if held.phase != Phase::Dropping {
                (held.phase, held.since) = (Phase::Dropping, now);
            }
        }
    }
}
