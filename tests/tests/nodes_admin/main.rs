//! What an operator does with nodes, and what the broker does by itself when many fall silent:
//! a real broker and realm, real agents or many light ones.

mod brake;
mod eviction;
mod witness;

type Story = Result<(), Box<dyn std::error::Error>>;
