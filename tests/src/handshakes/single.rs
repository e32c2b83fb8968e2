//! Single handshakes: whether this server accepts that client now.

use std::{path::Path, process::Command};

use super::{
    acceptor, complete, initiator, program,
    side::{Broken, Side},
};
use crate::world::{World, WorldError, pods::Pod};

/// A server's process, which opens its keytab anew at each handshake.
pub struct Acceptor(Side);

/// A client's process.
pub struct Initiator(Side);

/// What came of a handshake.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Both sides have proved who they are.
    Accepted,
    /// Which side refused, and what the library said.
    Refused(String),
}

impl Outcome {
    /// Whether both sides have proved who they are.
    pub fn is_accepted(&self) -> bool {
        *self == Self::Accepted
    }
}

impl Acceptor {
    /// In the container of a mounted pod.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn of(world: &World, pod: &Pod) -> Result<Self, WorldError> {
        acceptor(world, pod, &program::built()?).map(Self)
    }

    /// Outside of all nodes, with a keytab that somebody took along. It remembers no handshake,
    /// so that nothing but the keys decides.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn with_keytab(world: &World, keytab: &Path) -> Result<Self, WorldError> {
        let mut command = Command::new(program::built()?);
        command.arg("accept").env_clear().env("KRB5_CONFIG", world.realm.profile_path());
        command.env("KRB5_KTNAME", format!("FILE:{}", keytab.display()));
        command.env("KRB5RCACHENAME", "none:");
        Side::start("acceptor", &command).map(Self)
    }
}

impl Initiator {
    /// A client with this krb5.conf.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn new(profile: &Path) -> Result<Self, WorldError> {
        initiator(profile, &program::built()?).map(Self)
    }

    /// Tries a handshake with the tickets of this ccache; tickets that it lacks are fetched, and
    /// added to it. `service` is `HTTP@host`.
    ///
    /// # Errors
    /// When one of the processes has ended or does not answer.
    pub async fn shake(
        &mut self,
        acceptor: &mut Acceptor,
        ccache: &Path,
        service: &str,
    ) -> Result<Outcome, WorldError> {
        match complete(&mut self.0, &mut acceptor.0, ccache, service).await {
            Ok(()) => Ok(Outcome::Accepted),
            Err(Broken::Handshake(said)) => Ok(Outcome::Refused(said)),
            Err(Broken::Side(said)) => Err(WorldError::new("a single handshake", said)),
        }
    }
}
