//! One call to kadmind: through the gate, within its time, on a connection that works.

use std::{
    ffi::CString,
    fmt,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use krb_proto::Principal;

use super::{
    codes, descriptors,
    ffi::{Api, Kadm5Error, Login},
    settings::{MitSettings, SettingsError},
    workers::{Call, CallError, Workers},
};
use crate::{
    clock::{Clock, Now},
    kdc::{
        Health, KdcError,
        gate::{Class, Gate, GateFull, Lane},
    },
};

/// What went wrong with one call, before it is said in the seam's words.
#[derive(Debug)]
pub(super) enum LinkError {
    /// The gate.
    Full(GateFull),
    /// What kadmind or the library said.
    Kadm5(Kadm5Error),
    /// kadmind did not answer in time. What was asked may still happen.
    Late,
    /// The threads are gone.
    Gone,
}

/// kadm5 looks for a default profile, and fails without one; what it says does not matter, since
/// the broker passes all that is read from it. These are the places where it looks.
const PROFILE_VARIABLE: &str = "KRB5_CONFIG";
const DEFAULT_PROFILE: &str = "/etc/krb5.conf";

/// The way to one kadmind.
pub(super) struct Link {
    settings: MitSettings,
    workers: Workers,
    gate: Arc<Gate>,
    clock: Arc<dyn Clock>,
    health: Mutex<Health>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn start(
        settings: MitSettings,
        gate: Arc<Gate>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SettingsError> {
        if std::env::var_os(PROFILE_VARIABLE).is_none() && !Path::new(DEFAULT_PROFILE).exists() {
            return Err(SettingsError::NoDefaultProfile);
        }
        descriptors::reserve();
        let api = Api::open(settings.library.as_deref())
            .map_err(|detail| SettingsError::Library { detail })?;
        let login = login(&settings, &settings.write_profile()?)?;
        let workers = Workers::start(settings.threads, api, login)?;
        let health = Mutex::new(Health {
            address: format!("kadmin:{}", settings.kadmin),
            reachable: false,
            last_error: None,
            last_success: None,
        });
        Ok(Self { settings, workers, gate, clock, health })
    }

    pub(super) fn settings(&self) -> &MitSettings {
        &self.settings
    }

    pub(super) fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Makes a call; opens a connection for it where there is none or kadmind was restarted.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        class: Class,
        call: Call<T>,
    ) -> Result<T, LinkError> {
        let first = self.once(class, false, call.clone()).await;
        let result = match first {
            Err(CallEnd::NotOpen) => self.opening(class, call).await,
            Err(CallEnd::Link(LinkError::Kadm5(error))) if codes::ends_the_handle(error.code) => {
                self.opening(class, call).await
            }
            result => result,
        };
        self.note(&result);
        result.map_err(|end| match end {
            CallEnd::NotOpen => LinkError::Gone,
            CallEnd::Link(error) => error,
        })
    }

    /// Makes a call that may open a connection. Opening asks a KDC for a ticket (twice with
    /// preauthentication) and says hello to kadmind, so these pass the gate as well.
    async fn opening<T: Send + 'static>(&self, class: Class, call: Call<T>) -> Result<T, CallEnd> {
        let wait = self.settings.timeouts.gate;
        self.gate.pass(Lane::Kdc, class, wait, async {}).await.map_err(LinkError::Full)?;
        self.gate.pass(Lane::Kadmin, class, wait, async {}).await.map_err(LinkError::Full)?;
        let work = self.once(class, true, call);
        self.gate.pass(Lane::Kdc, class, wait, work).await.map_err(LinkError::Full)?
    }

    async fn once<T: Send + 'static>(
        &self,
        class: Class,
        may_open: bool,
        call: Call<T>,
    ) -> Result<T, CallEnd> {
        let timeouts = &self.settings.timeouts;
        let answer = tokio::time::timeout(timeouts.answer, self.workers.call(may_open, call));
        let passed = self.gate.pass(Lane::Kadmin, class, timeouts.gate, answer).await;
        match passed.map_err(LinkError::Full)? {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(CallError::NotOpen)) => Err(CallEnd::NotOpen),
            Ok(Err(CallError::Kadm5(error))) => Err(LinkError::Kadm5(error).into()),
            Ok(Err(CallError::Gone)) => Err(LinkError::Gone.into()),
            Err(_elapsed) => Err(LinkError::Late.into()),
        }
    }

    /// Remembers whether kadmind answered; a refusal is an answer.
    fn note<T>(&self, result: &Result<T, CallEnd>) {
        let silence = match result {
            Ok(_) => None,
            Err(CallEnd::Link(LinkError::Kadm5(error))) => {
                codes::is_transient(error.code).then(|| error.to_string())
            }
            Err(CallEnd::Link(LinkError::Late)) => Some(self.lateness()),
            Err(CallEnd::Link(LinkError::Full(_) | LinkError::Gone) | CallEnd::NotOpen) => return,
        };
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.reachable = silence.is_none();
        if silence.is_none() {
            health.last_success = Some(self.clock.now().wall);
        } else {
            health.last_error = silence;
        }
    }

    fn lateness(&self) -> String {
        format!("no answer within {:?}", self.settings.timeouts.answer)
    }

    /// The same in the seam's words.
    pub(super) fn explain(
        &self,
        error: LinkError,
        operation: &'static str,
        principal: &Principal,
    ) -> KdcError {
        let server = format!("kadmin:{}", self.settings.kadmin);
        match error {
            LinkError::Full(full) => full.for_principal(principal),
            LinkError::Kadm5(error) => codes::kdc_error(&error, &server, operation, principal),
            LinkError::Late => KdcError::Unavailable {
                server,
                principal: principal.clone(),
                detail: self.lateness(),
            },
            LinkError::Gone => KdcError::Failed {
                operation,
                principal: principal.clone(),
                detail: "the threads for kadmin are gone".to_owned(),
            },
        }
    }
}

/// How one attempt ended without a result.
enum CallEnd {
    NotOpen,
    Link(LinkError),
}

impl From<LinkError> for CallEnd {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

fn login(settings: &MitSettings, profile: &Path) -> Result<Login, SettingsError> {
    let text = |what, bytes: Vec<u8>| CString::new(bytes).map_err(|_| SettingsError::Nul { what });
    let mut keytab = b"FILE:".to_vec();
    keytab.extend_from_slice(settings.admin_keytab.as_os_str().as_bytes());
    Ok(Login {
        profile: text("run_dir", profile.as_os_str().as_bytes().to_vec())?,
        realm: text("realm", settings.realm.as_str().into())?,
        kadmin: text("kadmin", settings.kadmin.clone().into())?,
        client: text("admin_principal", settings.admin_principal.to_string().into())?,
        keytab: text("admin_keytab", keytab)?,
    })
}
