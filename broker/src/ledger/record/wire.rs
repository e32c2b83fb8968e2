//! The stored messages. A tag is never used for another field, and none is ever required.

use std::collections::BTreeMap;

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct Lease {
    #[prost(string, tag = "1")]
    pub node: String,
    #[prost(string, tag = "2")]
    pub cluster: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
    #[prost(string, tag = "4")]
    pub pod: String,
    #[prost(string, tag = "5")]
    pub pod_uid: String,
    #[prost(string, tag = "6")]
    pub volume: String,
    #[prost(uint64, tag = "7")]
    pub generation: u64,
    #[prost(string, tag = "8")]
    pub account: String,
    #[prost(uint32, tag = "9")]
    pub uid: u32,
    #[prost(uint32, tag = "10")]
    pub gid: u32,
    #[prost(uint32, optional, tag = "11")]
    pub keytab_gid: Option<u32>,
    #[prost(string, repeated, tag = "12")]
    pub principals: Vec<String>,
    #[prost(message, repeated, tag = "13")]
    pub tickets: Vec<Ticket>,
    #[prost(uint32, tag = "14")]
    pub state: u32,
    #[prost(string, tag = "15")]
    pub reason: String,
    #[prost(uint64, tag = "16")]
    pub acquired_at: u64,
    #[prost(message, optional, tag = "17")]
    pub end: Option<End>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Ticket {
    #[prost(string, tag = "1")]
    pub login: String,
    #[prost(string, tag = "2")]
    pub client: String,
    #[prost(bool, tag = "3")]
    pub managed: bool,
    /// 0 principal, 1 node, 2 pod.
    #[prost(uint32, tag = "4")]
    pub sharing: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct End {
    #[prost(uint64, tag = "1")]
    pub at: u64,
    #[prost(btree_map = "string, message", tag = "2")]
    pub kvnos: BTreeMap<String, Kvnos>,
    #[prost(uint64, optional, tag = "3")]
    pub ticket_endtime: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Kvnos {
    #[prost(uint32, repeated, tag = "1")]
    pub kvnos: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Session {
    #[prost(uint64, tag = "1")]
    pub generation: u64,
    #[prost(string, tag = "2")]
    pub boot_id: String,
    #[prost(uint32, tag = "3")]
    pub state: u32,
    #[prost(uint64, tag = "4")]
    pub last_heard: u64,
    /// When it was last lost, milliseconds since 1970.
    #[prost(uint64, optional, tag = "5")]
    pub lost_at: Option<u64>,
    #[prost(uint32, tag = "6")]
    pub lost_cause: u32,
    /// The operator whose act it was, where it was one's.
    #[prost(string, tag = "7")]
    pub lost_by: String,
    /// The hash of the key that it last attached with: see `session::KeyHash`.
    #[prost(bytes = "vec", tag = "8")]
    pub key: Vec<u8>,
    /// Of the Node object; empty: not known.
    #[prost(string, tag = "9")]
    pub node_uid: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Ban {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub keys: Vec<Vec<u8>>,
    #[prost(string, tag = "2")]
    pub by: String,
    #[prost(string, tag = "3")]
    pub reason: String,
    #[prost(uint64, tag = "4")]
    pub at: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Principal {
    #[prost(string, tag = "1")]
    pub owner: String,
    #[prost(bool, tag = "2")]
    pub shared: bool,
    #[prost(uint64, tag = "3")]
    pub max_life_millis: u64,
    #[prost(bool, tag = "4")]
    pub client: bool,
    #[prost(uint64, tag = "5")]
    pub made_at: u64,
    #[prost(uint32, tag = "6")]
    pub high_water: u32,
    /// Until when each pruned kvno can be misused, milliseconds since 1970.
    #[prost(btree_map = "uint32, uint64", tag = "7")]
    pub pruned: BTreeMap<u32, u64>,
    #[prost(bool, tag = "8")]
    pub ours: bool,
    #[prost(bool, tag = "9")]
    pub of_pod: bool,
    #[prost(uint32, tag = "10")]
    pub standing: u32,
    #[prost(message, optional, tag = "11")]
    pub switched_off: Option<SwitchedOff>,
    #[prost(message, optional, tag = "12")]
    pub debt: Option<Debt>,
    #[prost(uint64, optional, tag = "13")]
    pub replaced_at: Option<u64>,
    #[prost(uint64, optional, tag = "14")]
    pub given_up_at: Option<u64>,
    #[prost(uint64, optional, tag = "15")]
    pub idle_since: Option<u64>,
    #[prost(bool, tag = "31")]
    pub role_account: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct SwitchedOff {
    #[prost(uint32, tag = "1")]
    pub how: u32,
    #[prost(string, optional, tag = "2")]
    pub by: Option<String>,
    #[prost(uint64, tag = "3")]
    pub since: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Debt {
    #[prost(uint32, tag = "1")]
    pub asked: u32,
    #[prost(uint32, optional, tag = "2")]
    pub burnt_through: Option<u32>,
    #[prost(bool, tag = "3")]
    pub abrupt: bool,
    #[prost(bool, tag = "4")]
    pub ahead: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Keyset {
    #[prost(message, repeated, tag = "1")]
    pub keys: Vec<Key>,
    #[prost(uint64, tag = "2")]
    pub made_at: u64,
    #[prost(uint32, tag = "3")]
    pub phase: u32,
    #[prost(uint64, tag = "4")]
    pub since: u64,
    #[prost(uint64, optional, tag = "5")]
    pub retired_at: Option<u64>,
    #[prost(uint32, tag = "6")]
    pub missed: u32,
    #[prost(string, repeated, tag = "7")]
    pub lagging: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Key {
    #[prost(int32, tag = "1")]
    pub enctype: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub sealed: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Account {
    #[prost(uint64, optional, tag = "1")]
    pub latest_endtime: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Pin {
    #[prost(string, tag = "1")]
    pub uid: String,
    #[prost(uint64, tag = "2")]
    pub pinned_at: u64,
    #[prost(string, optional, tag = "3")]
    pub accepted_by: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Finished {
    #[prost(uint64, tag = "1")]
    pub at: u64,
}
