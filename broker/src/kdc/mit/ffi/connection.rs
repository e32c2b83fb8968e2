//! A connection to kadmind.

use std::{
    ffi::{CStr, CString, c_int, c_long},
    ptr,
    sync::{Arc, Mutex, PoisonError},
};

use krb_proto::Principal;

use super::{
    context::{Context, Kadm5Error, Name, copy_text},
    layout::{
        API_VERSION, CONFIG_ADMIN_SERVER, CONFIG_REALM, ConfigParams, Data, KeyData, Keyblock,
        Keysalt, PolicyEntry, PrincipalEntry, STRUCT_VERSION, mask,
    },
    library::{Api, Opaque},
};
use crate::{
    kdc::mit::{codes, descriptors},
    krb5::key::Key,
};

/// The library's own state is touched by opening and closing: one at a time.
static OPENING: Mutex<()> = Mutex::new(());

const NO_DESCRIPTOR: &str = "no file descriptor is free that the library can wait for";

/// Who opens a connection, and with which files.
#[derive(Clone, Debug)]
pub(in crate::kdc::mit) struct Login {
    /// The profile that names the realm's servers.
    pub(in crate::kdc::mit) profile: CString,
    /// The realm.
    pub(in crate::kdc::mit) realm: CString,
    /// kadmind, `host:port`.
    pub(in crate::kdc::mit) kadmin: CString,
    /// The broker's principal.
    pub(in crate::kdc::mit) client: CString,
    /// Its keytab, `FILE:path`.
    pub(in crate::kdc::mit) keytab: CString,
}

/// A principal as kadmind describes it.
#[derive(Clone, Debug)]
pub(in crate::kdc::mit) struct Entry {
    /// The number of its newest key; 0 without one.
    pub(in crate::kdc::mit) kvno: u32,
    /// Its policy's name.
    pub(in crate::kdc::mit) policy: Option<String>,
    /// Seconds.
    pub(in crate::kdc::mit) max_life: i32,
    /// Seconds.
    pub(in crate::kdc::mit) max_renewable_life: i32,
    /// Seconds since 1970; 0 for never.
    pub(in crate::kdc::mit) pw_expiration: u32,
    /// `KRB5_KDB_*` bits.
    pub(in crate::kdc::mit) attributes: i32,
    /// Who changed it last.
    pub(in crate::kdc::mit) changed_by: Option<String>,
}

/// What a create or a modify sets.
#[derive(Clone, Debug)]
pub(in crate::kdc::mit) struct Change {
    /// The policy to put it under; `None` leaves it.
    pub(in crate::kdc::mit) policy: Option<CString>,
    /// Seconds.
    pub(in crate::kdc::mit) max_life: i32,
    /// Seconds.
    pub(in crate::kdc::mit) max_renewable_life: i32,
    /// Seconds since 1970; 0 for never.
    pub(in crate::kdc::mit) pw_expiration: u32,
    /// `KRB5_KDB_*` bits.
    pub(in crate::kdc::mit) attributes: i32,
}

/// One key and its number.
#[derive(Clone, Debug)]
pub(in crate::kdc::mit) struct KeyEntry {
    pub(in crate::kdc::mit) kvno: u32,
    pub(in crate::kdc::mit) key: Key,
}

/// An open handle and the context it lives in.
#[derive(Debug)]
pub(in crate::kdc::mit) struct Connection {
    // first: the handle is closed before its context is freed
    handle: Handle,
    context: Context,
}

impl Connection {
    /// Gets a ticket for `kadmin/admin` with the keytab and says hello to kadmind.
    pub(in crate::kdc::mit) fn open(api: &Arc<Api>, login: &Login) -> Result<Self, Kadm5Error> {
        let context = Context::from_profile(api, &login.profile)?;
        let handle = Handle::open(&context, login)?;
        Ok(Self { handle, context })
    }

    /// Reads a principal.
    pub(in crate::kdc::mit) fn entry(&self, principal: &Principal) -> Result<Entry, Kadm5Error> {
        let name = self.context.parse(principal)?;
        let mut entry = empty_entry();
        // SAFETY: handle and name are live; `entry` is a whole structure for the library to fill.
        let code = unsafe {
            (self.api().kadm5_get_principal)(self.handle.raw, name.raw, &mut entry, mask::NORMAL)
        };
        self.context.check(code)?;
        let read = Entry {
            kvno: entry.kvno,
            policy: copy_text(entry.policy),
            max_life: entry.max_life,
            max_renewable_life: entry.max_renewable_life,
            pw_expiration: entry.pw_expiration.cast_unsigned(),
            attributes: entry.attributes,
            changed_by: self.context.unparse(entry.mod_name),
        };
        // SAFETY: the library filled `entry` and nothing refers to it any more.
        unsafe { (self.api().kadm5_free_principal_ent)(self.handle.raw, &mut entry) };
        Ok(read)
    }

    /// Makes a principal without any key.
    pub(in crate::kdc::mit) fn create(
        &self,
        principal: &Principal,
        change: &Change,
    ) -> Result<(), Kadm5Error> {
        let name = self.context.parse(principal)?;
        let (mut entry, fields) = change.as_entry(&name);
        let fields = fields | mask::PRINCIPAL | mask::KEY_DATA; // no key data: no key
        // SAFETY: handle, name and the policy's text outlive the call, which only reads `entry`;
        // a null password is what goes with KADM5_KEY_DATA.
        let code = unsafe {
            let create = self.api().kadm5_create_principal;
            create(self.handle.raw, &mut entry, fields, ptr::null_mut())
        };
        self.context.check(code)
    }

    /// Changes a principal.
    pub(in crate::kdc::mit) fn modify(
        &self,
        principal: &Principal,
        change: &Change,
    ) -> Result<(), Kadm5Error> {
        let name = self.context.parse(principal)?;
        let (mut entry, fields) = change.as_entry(&name);
        // SAFETY: as for `create`.
        let code =
            unsafe { (self.api().kadm5_modify_principal)(self.handle.raw, &mut entry, fields) };
        self.context.check(code)
    }

    /// Removes a principal.
    pub(in crate::kdc::mit) fn delete(&self, principal: &Principal) -> Result<(), Kadm5Error> {
        let name = self.context.parse(principal)?;
        // SAFETY: handle and name are live, and only read.
        let code = unsafe { (self.api().kadm5_delete_principal)(self.handle.raw, name.raw) };
        self.context.check(code)
    }

    /// Makes these a principal's only keys, with exactly these numbers and the normal salt.
    pub(in crate::kdc::mit) fn set_keys(
        &self,
        principal: &Principal,
        keys: &[KeyEntry],
    ) -> Result<(), Kadm5Error> {
        let name = self.context.parse(principal)?;
        let mut data: Vec<KeyData> = keys.iter().map(KeyEntry::as_key_data).collect();
        let count = c_int::try_from(data.len()).map_err(|_| self.context.error(codes::FAILURE))?;
        let keepold = 0; // 1 drops the old keys all the same, silently (1.20)
        // SAFETY: `data` holds `count` structures whose contents point into `keys`; both outlive
        // the call, which only reads them.
        let code = unsafe {
            let set_keys = self.api().kadm5_setkey_principal_4;
            set_keys(self.handle.raw, name.raw, keepold, data.as_mut_ptr(), count)
        };
        self.context.check(code)
    }

    /// Reads a policy's `minlife`, in seconds.
    pub(in crate::kdc::mit) fn policy_min_life(&self, policy: &CStr) -> Result<i64, Kadm5Error> {
        let mut entry = empty_policy();
        // SAFETY: the name is only read; `entry` is a whole structure for the library to fill.
        let code = unsafe {
            let get_policy = self.api().kadm5_get_policy;
            get_policy(self.handle.raw, policy.as_ptr().cast_mut(), &mut entry)
        };
        self.context.check(code)?;
        let min_life = entry.pw_min_life;
        // SAFETY: the library filled `entry` and nothing refers to it any more.
        unsafe { (self.api().kadm5_free_policy_ent)(self.handle.raw, &mut entry) };
        Ok(min_life)
    }

    fn api(&self) -> &Api {
        &self.context.api
    }
}

impl Change {
    /// The structure and the fields of it that count. It borrows from `self` and `name`.
    fn as_entry(&self, name: &Name<'_>) -> (PrincipalEntry, c_long) {
        let mut entry = empty_entry();
        entry.principal = name.raw;
        entry.max_life = self.max_life;
        entry.max_renewable_life = self.max_renewable_life;
        entry.pw_expiration = self.pw_expiration.cast_signed();
        entry.attributes = self.attributes;
        let mut fields = mask::MAX_LIFE | mask::MAX_RLIFE | mask::PW_EXPIRATION | mask::ATTRIBUTES;
        if let Some(policy) = &self.policy {
            entry.policy = policy.as_ptr().cast_mut();
            fields |= mask::POLICY;
        }
        (entry, fields)
    }
}

impl KeyEntry {
    /// The structure; it borrows the key's bytes.
    fn as_key_data(&self) -> KeyData {
        let bytes = self.key.contents().expose();
        KeyData {
            kvno: self.kvno,
            key: Keyblock {
                magic: 0,
                enctype: self.key.enctype().number(),
                // an enctype's key has 32 bytes at most
                length: u32::try_from(bytes.len()).unwrap_or(0),
                contents: bytes.as_ptr().cast_mut(),
            },
            salt: Keysalt { kind: 0, data: Data { magic: 0, length: 0, data: ptr::null_mut() } },
        }
    }
}

/// A kadm5 handle.
#[derive(Debug)]
struct Handle {
    api: Arc<Api>,
    raw: Opaque,
}

impl Handle {
    fn open(context: &Context, login: &Login) -> Result<Self, Kadm5Error> {
        let mut params = empty_params();
        params.mask = CONFIG_REALM | CONFIG_ADMIN_SERVER;
        params.admin_server = login.kadmin.as_ptr().cast_mut();
        params.realm = login.realm.as_ptr().cast_mut();
        let mut raw = ptr::null_mut();
        let opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        if !descriptors::give_way() {
            return Err(Kadm5Error { code: codes::FAILURE, message: NO_DESCRIPTOR.to_owned() });
        }
        // SAFETY: all texts outlive the call, which copies what it keeps; the context outlives
        // the handle; there are no db_args on the client's side.
        let code = unsafe {
            (context.api.kadm5_init_with_skey)(
                context.raw,
                login.client.as_ptr().cast_mut(),
                login.keytab.as_ptr().cast_mut(),
                c"kadmin/admin".as_ptr().cast_mut(),
                &mut params,
                STRUCT_VERSION,
                API_VERSION,
                ptr::null_mut(),
                &mut raw,
            )
        };
        descriptors::reserve();
        drop(opening);
        context.check(code)?;
        Ok(Self { api: context.api.clone(), raw })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: made by kadm5_init_with_skey, destroyed once, its context still lives.
        unsafe { (self.api.kadm5_destroy)(self.raw) };
    }
}

fn empty_entry() -> PrincipalEntry {
    // SAFETY: of integers and pointers, for which all zeroes are a value.
    unsafe { std::mem::zeroed() }
}

fn empty_policy() -> PolicyEntry {
    // SAFETY: as for `empty_entry`.
    unsafe { std::mem::zeroed() }
}

fn empty_params() -> ConfigParams {
    // SAFETY: as for `empty_entry`.
    unsafe { std::mem::zeroed() }
}
