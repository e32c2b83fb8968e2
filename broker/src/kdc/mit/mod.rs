//! The administration of an MIT realm: kadm5, through libkadm5clnt_mit.
//!
//! - `admin`: the recipe, how a principal is made and gets its keys. - `described`: its
//!   attributes in kadm5's terms. - `link`: one call to kadmind, through the gate, within its
//!   time. - `workers`: the threads that block in the library. - `ffi`: the library.
//! - `startup`: what is checked before the broker serves.
//!
//! It sets keys only on principals that carry the broker's policy, never on reserved names, and
//! never lowers a kvno. It keeps no state but its connections: the KDC is asked each time.

mod admin;
mod codes;
mod described;
mod descriptors;
mod ffi;
mod link;
mod reserved;
mod settings;
mod startup;
mod workers;

use std::sync::Arc;

pub use settings::{MitSettings, PROFILE, SettingsError, Timeouts};
pub use startup::StartupCheck;

use self::link::Link;
use super::{
    Health,
    gate::{Class, Gate},
};
use crate::clock::Clock;

/// An MIT realm's administration. Clones share their connections.
#[derive(Clone, Debug)]
pub struct MitAdmin {
    link: Arc<Link>,
    class: Class,
}

impl MitAdmin {
    /// Opens the library, writes the profile and starts the threads. Connects to nothing yet.
    ///
    /// # Errors
    /// When the library is not there or a setting can't be used.
    pub fn start(
        settings: MitSettings,
        gate: Arc<Gate>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SettingsError> {
        let link = Arc::new(Link::start(settings, gate, clock)?);
        Ok(Self { link, class: Class::Rotation })
    }

    /// How kadmind answered lately.
    pub fn health(&self) -> Health {
        self.link.health()
    }
}
