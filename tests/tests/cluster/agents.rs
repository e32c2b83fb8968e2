//! The agents as processes of their machines: stopped in the middle of what they do.

use std::error::Error;

use krb_tests::cluster::Node;

use crate::story::Told;

/// Prints the agent's number on its machine, which has its own.
const FIND: &str = "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = krb-node-agent ] \
                    && echo ${p#/proc/}; done";

/// An agent that does nothing until it is let go, which happens at the latest when this is dropped.
pub struct Hanging<'n, 'c>(&'n Node<'c>);

impl<'n, 'c> Hanging<'n, 'c> {
    /// Stops the agent of a machine.
    pub fn on(node: &'n Node<'c>) -> Result<Self, Box<dyn Error>> {
        signal(node, "STOP")?;
        Ok(Self(node))
    }

    /// Lets it go on.
    pub fn let_go(self) -> Told {
        signal(self.0, "CONT")
    }
}

impl Drop for Hanging<'_, '_> {
    fn drop(&mut self) {
        // where the machine has died it is gone anyway
        let _ = signal(self.0, "CONT");
    }
}

fn signal(node: &Node<'_>, signal: &str) -> Told {
    Ok(node.exec(&format!("kill -{signal} $({FIND})")).map(drop)?)
}
