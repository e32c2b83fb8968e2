//! The C structures of `kadm5/admin.h` and `krb5.h`, as krb5 1.17 to 1.21 lay them out (kadm5
//! API version 4, structure version 1). Nothing here is unsafe: they are only described.

use std::ffi::{c_char, c_int, c_long, c_uint, c_void};

/// `KADM5_STRUCT_VERSION_1`
pub(super) const STRUCT_VERSION: u32 = 0x1234_5601;
/// `KADM5_API_VERSION_4`
pub(super) const API_VERSION: u32 = 0x1234_5704;
/// `KADM5_CONFIG_REALM`
pub(super) const CONFIG_REALM: c_long = 0x1;
/// `KADM5_CONFIG_ADMIN_SERVER`
pub(super) const CONFIG_ADMIN_SERVER: c_long = 0x1_0000;

/// Which fields of [`PrincipalEntry`] count (`KADM5_*`).
pub(super) mod mask {
    use std::ffi::c_long;

    pub(crate) const PRINCIPAL: c_long = 0x1;
    pub(crate) const PW_EXPIRATION: c_long = 0x4;
    pub(crate) const ATTRIBUTES: c_long = 0x10;
    pub(crate) const MAX_LIFE: c_long = 0x20;
    pub(crate) const POLICY: c_long = 0x800;
    pub(crate) const MAX_RLIFE: c_long = 0x2000;
    pub(crate) const KEY_DATA: c_long = 0x2_0000;
    /// All but keys and tagged data.
    pub(crate) const NORMAL: c_long = 0x41_ffff;
}

/// `kadm5_principal_ent_rec`
#[repr(C)]
pub(super) struct PrincipalEntry {
    pub(super) principal: *mut c_void,
    pub(super) princ_expire_time: i32,
    pub(super) last_pwd_change: i32,
    pub(super) pw_expiration: i32,
    pub(super) max_life: i32,
    pub(super) mod_name: *mut c_void,
    pub(super) mod_date: i32,
    pub(super) attributes: i32,
    pub(super) kvno: c_uint,
    pub(super) mkvno: c_uint,
    pub(super) policy: *mut c_char,
    pub(super) aux_attributes: c_long,
    pub(super) max_renewable_life: i32,
    pub(super) last_success: i32,
    pub(super) last_failed: i32,
    pub(super) fail_auth_count: c_uint,
    pub(super) n_key_data: i16,
    pub(super) n_tl_data: i16,
    pub(super) tl_data: *mut c_void,
    pub(super) key_data: *mut c_void,
}

/// `kadm5_policy_ent_rec`
#[repr(C)]
pub(super) struct PolicyEntry {
    pub(super) policy: *mut c_char,
    pub(super) pw_min_life: c_long,
    pub(super) pw_max_life: c_long,
    pub(super) pw_min_length: c_long,
    pub(super) pw_min_classes: c_long,
    pub(super) pw_history_num: c_long,
    pub(super) policy_refcnt: c_long,
    pub(super) pw_max_fail: c_uint,
    pub(super) pw_failcnt_interval: i32,
    pub(super) pw_lockout_duration: i32,
    pub(super) attributes: i32,
    pub(super) max_life: i32,
    pub(super) max_renewable_life: i32,
    pub(super) allowed_keysalts: *mut c_char,
    pub(super) n_tl_data: i16,
    pub(super) tl_data: *mut c_void,
}

/// `kadm5_config_params`
#[repr(C)]
pub(super) struct ConfigParams {
    pub(super) mask: c_long,
    pub(super) realm: *mut c_char,
    pub(super) kadmind_port: c_int,
    pub(super) kpasswd_port: c_int,
    pub(super) admin_server: *mut c_char,
    pub(super) dbname: *mut c_char,
    pub(super) acl_file: *mut c_char,
    pub(super) dict_file: *mut c_char,
    pub(super) mkey_from_kbd: c_int,
    pub(super) stash_file: *mut c_char,
    pub(super) mkey_name: *mut c_char,
    pub(super) enctype: i32,
    pub(super) max_life: i32,
    pub(super) max_rlife: i32,
    pub(super) expiration: i32,
    pub(super) flags: i32,
    pub(super) keysalts: *mut c_void,
    pub(super) num_keysalts: i32,
    pub(super) kvno: c_uint,
    pub(super) iprop_enabled: c_int,
    pub(super) iprop_ulogsize: u32,
    pub(super) iprop_poll_time: i32,
    pub(super) iprop_logfile: *mut c_char,
    pub(super) iprop_port: c_int,
    pub(super) iprop_resync_timeout: c_int,
    pub(super) kadmind_listen: *mut c_char,
    pub(super) kpasswd_listen: *mut c_char,
    pub(super) iprop_listen: *mut c_char,
}

/// `krb5_keyblock`
#[repr(C)]
pub(super) struct Keyblock {
    pub(super) magic: i32,
    pub(super) enctype: i32,
    pub(super) length: c_uint,
    pub(super) contents: *mut u8,
}

/// `krb5_data`
#[repr(C)]
pub(super) struct Data {
    pub(super) magic: i32,
    pub(super) length: c_uint,
    pub(super) data: *mut c_char,
}

/// `krb5_keysalt`; type 0 is the normal salt
#[repr(C)]
pub(super) struct Keysalt {
    pub(super) kind: i16,
    pub(super) data: Data,
}

/// `kadm5_key_data`
#[repr(C)]
pub(super) struct KeyData {
    pub(super) kvno: c_uint,
    pub(super) key: Keyblock,
    pub(super) salt: Keysalt,
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    /// What a C compiler prints of the headers of krb5 1.20 on a 64-bit machine.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn the_structures_lie_as_in_the_headers() {
        assert_eq!(size_of::<PrincipalEntry>(), 104);
        assert_eq!(offset_of!(PrincipalEntry, max_life), 20);
        assert_eq!(offset_of!(PrincipalEntry, mod_name), 24);
        assert_eq!(offset_of!(PrincipalEntry, attributes), 36);
        assert_eq!(offset_of!(PrincipalEntry, kvno), 40);
        assert_eq!(offset_of!(PrincipalEntry, policy), 48);
        assert_eq!(offset_of!(PrincipalEntry, max_renewable_life), 64);
        assert_eq!(offset_of!(PrincipalEntry, n_key_data), 80);
        assert_eq!(offset_of!(PrincipalEntry, tl_data), 88);
        assert_eq!(offset_of!(PrincipalEntry, key_data), 96);
        assert_eq!(size_of::<PolicyEntry>(), 104);
        assert_eq!(size_of::<ConfigParams>(), 176);
        assert_eq!(offset_of!(PolicyEntry, pw_min_life), 8);
        assert_eq!(offset_of!(PolicyEntry, allowed_keysalts), 80);
        assert_eq!(offset_of!(PolicyEntry, tl_data), 96);
        assert_eq!(offset_of!(ConfigParams, realm), 8);
        assert_eq!(offset_of!(ConfigParams, keysalts), 104);
        assert_eq!(offset_of!(ConfigParams, iprop_listen), 168);
        assert_eq!(size_of::<KeyData>(), 56);
        assert_eq!(offset_of!(KeyData, key), 8);
        assert_eq!(offset_of!(KeyData, salt), 32);
        assert_eq!(offset_of!(Keyblock, contents), 16);
        assert_eq!(offset_of!(Keysalt, data), 8);
    }
}
