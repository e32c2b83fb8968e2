//! A krb5 context, the names made in it, and what it says of errors.

use std::{
    ffi::{CStr, CString, c_char, c_long},
    ptr,
    sync::Arc,
};

use krb_proto::Principal;

use super::library::{Api, Opaque};
use crate::kdc::mit::codes;

/// What the library or kadmind said.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message} ({code})")]
pub(in crate::kdc::mit) struct Kadm5Error {
    /// A com_err code: kadm5's from 43787520 on, libkrb5's negative.
    pub(in crate::kdc::mit) code: i64,
    /// Its text.
    pub(in crate::kdc::mit) message: String,
}

/// A `krb5_context`.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) api: Arc<Api>,
    pub(super) raw: Opaque,
}

impl Context {
    /// A context of the profile at `path` and nothing else: no environment, no /etc/krb5.conf.
    pub(super) fn from_profile(api: &Arc<Api>, path: &CStr) -> Result<Self, Kadm5Error> {
        let failed = |code: c_long, what: &str| Kadm5Error {
            code,
            message: format!("{what} {}", path.to_string_lossy()),
        };
        let mut profile = ptr::null_mut();
        // SAFETY: the path is a C string; `profile` is ours to be filled.
        let code = unsafe { (api.profile_init_path)(path.as_ptr(), &mut profile) };
        if code != 0 {
            return Err(failed(code, "reading the profile"));
        }
        let mut raw = ptr::null_mut();
        // SAFETY: `profile` was filled above; the context keeps a copy of its own.
        let code = unsafe { (api.krb5_init_context_profile)(profile, 0, &mut raw) };
        // SAFETY: `profile` was filled above and is not used after this.
        unsafe { (api.profile_release)(profile) };
        if code != 0 {
            return Err(failed(code.into(), "making a context of"));
        }
        Ok(Self { api: api.clone(), raw })
    }

    /// The library's form of a principal.
    pub(super) fn parse(&self, principal: &Principal) -> Result<Name<'_>, Kadm5Error> {
        // a checked principal has no NUL
        let text = CString::new(principal.to_string()).map_err(|_| self.error(codes::FAILURE))?;
        let mut raw = ptr::null_mut();
        // SAFETY: context and text are live; `raw` is ours to be filled.
        let code = unsafe { (self.api.krb5_parse_name)(self.raw, text.as_ptr(), &mut raw) };
        self.check(code.into())?;
        Ok(Name { context: self, raw })
    }

    /// The text of a principal of the library's.
    pub(super) fn unparse(&self, name: Opaque) -> Option<String> {
        if name.is_null() {
            return None;
        }
        let mut text = ptr::null_mut();
        // SAFETY: `name` is a principal that the library made; `text` is ours to be filled.
        let code = unsafe { (self.api.krb5_unparse_name)(self.raw, name, &mut text) };
        if code != 0 {
            return None;
        }
        let copy = copy_text(text);
        // SAFETY: the library made `text`, and it is not used after this.
        unsafe { (self.api.krb5_free_unparsed_name)(self.raw, text) };
        copy
    }

    /// An error for any code but 0.
    pub(super) fn check(&self, code: c_long) -> Result<(), Kadm5Error> {
        if code == 0 { Ok(()) } else { Err(self.error(code)) }
    }

    /// What the library says of a code.
    pub(super) fn error(&self, code: c_long) -> Kadm5Error {
        let short = i32::try_from(code).unwrap_or(i32::MAX);
        // SAFETY: the context is live; the text is freed below, after it was copied.
        let text = unsafe { (self.api.krb5_get_error_message)(self.raw, short) };
        let message = copy_text(text).unwrap_or_default();
        if !text.is_null() {
            // SAFETY: the library made `text`, and it is not used after this.
            unsafe { (self.api.krb5_free_error_message)(self.raw, text) };
        }
        Kadm5Error { code, message }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by krb5_init_context_profile, freed once, and no handle uses it: a
        // `Connection` drops its handle first.
        unsafe { (self.api.krb5_free_context)(self.raw) };
    }
}

/// A `krb5_principal`.
pub(super) struct Name<'a> {
    context: &'a Context,
    pub(super) raw: Opaque,
}

impl Drop for Name<'_> {
    fn drop(&mut self) {
        // SAFETY: made by krb5_parse_name in this context and freed once.
        unsafe { (self.context.api.krb5_free_principal)(self.context.raw, self.raw) };
    }
}

/// A copy of a C string of the library's; `None` for a null pointer.
pub(super) fn copy_text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and what the library gives out ends with a NUL.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}
