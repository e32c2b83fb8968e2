//! The functions of libkadm5clnt_mit and libkrb5 that are called, found at run time.

use std::{
    ffi::{c_char, c_int, c_long, c_uint, c_void},
    fmt,
    mem::ManuallyDrop,
    path::Path,
};

use libloading::Library;

use super::layout::{ConfigParams, KeyData, PolicyEntry, PrincipalEntry};

/// Names under which distributions have the library: krb5 1.18 and later, 1.17.
const NAMES: [&str; 2] = ["libkadm5clnt_mit.so.12", "libkadm5clnt_mit.so.11"];

/// A `krb5_context`, a kadm5 handle or a `krb5_principal`.
pub(super) type Opaque = *mut c_void;

/// Declares [`Api`]: a field for each C function, and the look-up of all of them.
macro_rules! api {
    ($($name:ident: fn($($arg:ty),*) $(-> $result:ty)?;)*) => {
        /// The library and the functions found in it.
        ///
        /// `libkrb5` is one of its dependencies: looking a name up in a library looks in those too.
        pub(in crate::kdc::mit) struct Api {
            $(pub(super) $name: unsafe extern "C" fn($($arg),*) $(-> $result)?,)*
            /// Keeps what the functions above point to. It is never unloaded: it leaves its
            /// error tables in a list of libcom_err's, which the next one to load would walk.
            _library: ManuallyDrop<Library>,
        }

        impl Api {
            fn find(library: Library) -> Result<Self, libloading::Error> {
                $(
                    // SAFETY: the type is the function's in the headers of krb5 1.17 to 1.21; the
                    // library, once loaded, stays.
                    let $name = unsafe {
                        *library.get::<unsafe extern "C" fn($($arg),*) $(-> $result)?>(
                            stringify!($name),
                        )?
                    };
                )*
                Ok(Self { $($name,)* _library: ManuallyDrop::new(library) })
            }
        }
    };
}

api! {
    profile_init_path: fn(*const c_char, *mut Opaque) -> c_long;
    profile_release: fn(Opaque);
    krb5_init_context_profile: fn(Opaque, i32, *mut Opaque) -> i32;
    krb5_free_context: fn(Opaque);
    krb5_get_error_message: fn(Opaque, i32) -> *const c_char;
    krb5_free_error_message: fn(Opaque, *const c_char);
    krb5_parse_name: fn(Opaque, *const c_char, *mut Opaque) -> i32;
    krb5_unparse_name: fn(Opaque, Opaque, *mut *mut c_char) -> i32;
    krb5_free_unparsed_name: fn(Opaque, *mut c_char);
    krb5_free_principal: fn(Opaque, Opaque);
    kadm5_init_with_skey: fn(
        Opaque,
        *mut c_char,
        *mut c_char,
        *mut c_char,
        *mut ConfigParams,
        u32,
        u32,
        *mut *mut c_char,
        *mut Opaque
    ) -> c_long;
    kadm5_destroy: fn(Opaque) -> c_long;
    kadm5_get_principal: fn(Opaque, Opaque, *mut PrincipalEntry, c_long) -> c_long;
    kadm5_free_principal_ent: fn(Opaque, *mut PrincipalEntry) -> c_long;
    kadm5_create_principal: fn(Opaque, *mut PrincipalEntry, c_long, *mut c_char) -> c_long;
    kadm5_modify_principal: fn(Opaque, *mut PrincipalEntry, c_long) -> c_long;
    kadm5_delete_principal: fn(Opaque, Opaque) -> c_long;
    kadm5_setkey_principal_4: fn(Opaque, Opaque, c_uint, *mut KeyData, c_int) -> c_long;
    kadm5_get_policy: fn(Opaque, *mut c_char, *mut PolicyEntry) -> c_long;
    kadm5_free_policy_ent: fn(Opaque, *mut PolicyEntry) -> c_long;
}

impl Api {
    /// Opens the library at `path`, or else under the names that distributions give it.
    ///
    /// # Errors
    /// When there is none, or it lacks a function: with what the dynamic linker said.
    pub(in crate::kdc::mit) fn open(path: Option<&Path>) -> Result<Self, String> {
        let names: Vec<&Path> = match path {
            Some(path) => vec![path],
            None => NAMES.iter().map(Path::new).collect(),
        };
        let mut said = Vec::new();
        for name in names {
            // SAFETY: the initialisers of MIT's libraries only set up their own tables; the
            // administrator who configures another path vouches for that library.
            match unsafe { Library::new(name) }.and_then(Self::find) {
                Ok(api) => return Ok(api),
                Err(error) => said.push(error.to_string()),
            }
        }
        Err(said.join("; "))
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("libkadm5clnt_mit")
    }
}
