//! The configuration files of a throw-away realm.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use super::{ADMIN, Options, POLICY};

/// krb5.conf: how clients find the realm. Names all KDCs, in order.
pub(super) fn client_profile(
    options: &Options,
    kdcs: &[SocketAddr],
    kadmind: SocketAddr,
    kpasswd: SocketAddr,
    plugins: &Path,
) -> String {
    let (realm, clock_skew) = (&options.name, options.clock_skew);
    let plugins = plugins.display();
    let mut text = format!(
        "[libdefaults]\n  default_realm = {realm}\n  clockskew = {clock_skew}\n  dns_lookup_kdc = false\n  \
         dns_lookup_realm = false\n  dns_canonicalize_hostname = false\n  rdns = false\n  \
         plugin_base_dir = {plugins}\n\n[realms]\n  {realm} = {{\n"
    );
    for kdc in kdcs {
        let _ = writeln!(text, "    kdc = {kdc}");
    }
    let _ = writeln!(text, "    admin_server = {kadmind}\n    kpasswd_server = {kpasswd}\n  }}");
    text
}

/// What one KDC's own profile says.
pub(super) struct KdcProfile<'a> {
    /// The directory with its database, stash, log.
    pub(super) dir: &'a Path,
    /// Where it listens, UDP and TCP.
    pub(super) kdc: SocketAddr,
    /// Where kadmind would listen.
    pub(super) kadmind: SocketAddr,
    /// Where kadmind would listen for password changes.
    pub(super) kpasswd: SocketAddr,
    /// The plug-ins of libkrb5.
    pub(super) plugins: &'a Path,
}

/// kdc.conf: how one KDC (and, at the first, kadmind) runs.
pub(super) fn kdc_profile(options: &Options, at: &KdcProfile<'_>) -> String {
    let KdcProfile { kdc, kadmind, kpasswd, .. } = at;
    let Options { name, max_life, max_renewable_life, enctypes, .. } = options;
    let (dir, plugins) = (at.dir.display(), at.plugins.display());
    let keysalts: Vec<String> = enctypes.iter().map(|name| format!("{name}:normal")).collect();
    let keysalts = keysalts.join(" ");
    format!(
        "[kdcdefaults]\n  kdc_listen = {kdc}\n  kdc_tcp_listen = {kdc}\n\n\
         [realms]\n  {name} = {{\n    database_module = db\n    key_stash_file = {dir}/stash\n    \
         acl_file = {dir}/kadm5.acl\n    kadmind_listen = {kadmind}\n    \
         kpasswd_listen = {kpasswd}\n    max_life = {max_life}\n    \
         max_renewable_life = {max_renewable_life}\n    \
         master_key_type = aes256-cts-hmac-sha1-96\n    supported_enctypes = {keysalts}\n  }}\n\n\
         [dbmodules]\n  db_module_dir = {plugins}/kdb\n  \
         db = {{\n    db_library = db2\n    database_name = {dir}/principal\n  }}\n\n\
         [logging]\n  kdc = FILE:{dir}/kdc.log\n  admin_server = FILE:{dir}/kadmind.log\n"
    )
}

/// kadm5.acl as the administrator would write it for the broker: one line for each service and
/// each managed role account, no right to extract keys or change passwords; and it may read single-component principals.
pub(super) fn acl(options: &Options) -> String {
    let realm = &options.name;
    if let Some(lines) = &options.acl {
        return lines.iter().map(|line| format!("{line}\n")).collect();
    }
    let mut text = String::new();
    for service in &options.services {
        let _ = writeln!(
            text,
            "{ADMIN}@{realm} admsi {service}/*@{realm} -maxlife 4h -maxrenewlife 0 -policy {POLICY}"
        );
    }
    for login in &options.managed {
        let _ = writeln!(
            text,
            "{ADMIN}@{realm} admsi {login}@{realm} -maxlife 4h -maxrenewlife 0 -policy {POLICY}"
        );
    }
    let _ = writeln!(text, "{ADMIN}@{realm} i *@{realm}");
    text
}
