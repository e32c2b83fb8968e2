//! libkadm5clnt_mit, opened at run time: the only place of the broker with unsafe code.
//!
//! [`Connection`] is the safe face: one krb5 context and one kadm5 handle, used by one thread at
//! a time. Its calls block, for as long as the library's own time-out of tens of seconds when
//! kadmind hangs. What goes in is checked names and keys; what comes out is copied into plain
//! Rust before the library's memory is given back.
//!
//! It passes no gate and knows no recipe.
#![expect(unsafe_code, reason = "C functions are called here, and nowhere else")]

mod connection;
mod context;
mod layout;
mod library;

pub(super) use connection::{Change, Connection, Entry, KeyEntry, Login};
pub(super) use context::Kadm5Error;
pub(super) use library::Api;
