//! `broker.toml`, checked whole and then trusted.
