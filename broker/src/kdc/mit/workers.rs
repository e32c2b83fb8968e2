//! The few threads that block in libkadm5clnt, so that no other has to.
//!
//! Each has at most one connection. Calls come over one channel and are answered each by a
//! oneshot. A call whose asker has given up before it began is dropped, not done: what was given
//! up must not happen later. One that has begun can't be recalled; the library ends it by its
//! own time-out.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use tokio::sync::oneshot;

use super::{
    codes,
    ffi::{Api, Connection, Kadm5Error, Login},
    settings::SettingsError,
};

/// Why a call was not done.
#[derive(Debug)]
pub(super) enum CallError {
    /// The thread has no connection and was not allowed to open one.
    NotOpen,
    /// What kadmind or the library said.
    Kadm5(Kadm5Error),
    /// The threads are gone.
    Gone,
}

/// A call that may be made twice.
pub(super) type Call<T> = Arc<dyn Fn(&Connection) -> Result<T, Kadm5Error> + Send + Sync>;

type Job = Box<dyn FnOnce(&mut Seat) + Send>;

/// The threads. They end when this is dropped and their last call is done.
#[derive(Debug)]
pub(super) struct Workers {
    jobs: Sender<Job>,
}

impl Workers {
    /// Starts `threads` of them; none connects yet.
    pub(super) fn start(threads: usize, api: Api, login: Login) -> Result<Self, SettingsError> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (inbox, api) = (Arc::new(Mutex::new(inbox)), Arc::new(api));
        for number in 0..threads.max(1) {
            let inbox = inbox.clone();
            let (api, login) = (api.clone(), login.clone());
            thread::Builder::new()
                .name(format!("kadmin-{number}"))
                .spawn(move || {
                    let mut seat = Seat { api, login, connection: None };
                    while let Some(job) = next(&inbox) {
                        job(&mut seat);
                    }
                })
                .map_err(|source| SettingsError::Thread { source })?;
        }
        Ok(Self { jobs })
    }

    /// Does `call` on a thread's connection. With `may_open` the thread opens one where it has
    /// none, or where it turns out to be dead, and then tries once more.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        may_open: bool,
        call: Call<T>,
    ) -> Result<T, CallError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |seat| {
            if reply.is_closed() {
                return;
            }
            let result = seat.perform(may_open, &*call, &|| reply.is_closed());
            let dead =
                matches!(&result, Err(CallError::Kadm5(e)) if codes::ends_the_handle(e.code));
            // answered first: closing a dead connection may take the library a while
            let _ = reply.send(result);
            if dead {
                seat.connection = None;
            }
        });
        self.jobs.send(job).map_err(|_| CallError::Gone)?;
        answer.await.map_err(|_| CallError::Gone)?
    }
}

/// The next call; `None` when there will be none.
fn next(inbox: &Mutex<Receiver<Job>>) -> Option<Job> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// What one thread has.
struct Seat {
    api: Arc<Api>,
    login: Login,
    connection: Option<Connection>,
}

impl Seat {
    fn perform<T>(
        &mut self,
        may_open: bool,
        call: &dyn Fn(&Connection) -> Result<T, Kadm5Error>,
        given_up: &dyn Fn() -> bool,
    ) -> Result<T, CallError> {
        if let Some(connection) = &self.connection {
            match call(connection) {
                Err(error) if may_open && codes::ends_the_handle(error.code) => {
                    self.connection = None;
                }
                result => return result.map_err(CallError::Kadm5),
            }
        }
        if !may_open || given_up() {
            return Err(CallError::NotOpen);
        }
        let fresh = Connection::open(&self.api, &self.login).map_err(CallError::Kadm5)?;
        let connection = self.connection.insert(fresh);
        if given_up() {
            Err(CallError::NotOpen)
        } else {
            call(connection).map_err(CallError::Kadm5)
        }
    }
}
