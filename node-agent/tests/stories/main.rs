//! Stories of an agent: real volumes, a real socket, a broker that keeps its promises, and
//! time that passes when nothing else happens.
//!
//! Each story runs in a mount namespace of its own, which needs root.

#![allow(clippy::unwrap_used)] // fixtures, too, stop at the first surprise

mod broker;
mod detached;
mod files;
mod mounts;
mod node;
mod requests;
mod restarts;
mod sessions;
mod tls;

/// A test that runs in a mount namespace of its own: the test binary starts itself again there.
macro_rules! story {
    ($(#[$meta:meta])* async fn $name:ident() $body:block) => {
        $(#[$meta])*
        #[test]
        fn $name() {
            let path = concat!(module_path!(), "::", stringify!($name));
            crate::mounts::in_own_namespace(path, || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .start_paused(true)
                    .build()
                    .unwrap();
                runtime.block_on(async $body);
            });
        }
    };
}
pub(crate) use story;
