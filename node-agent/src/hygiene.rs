//! What keeps material out of core dumps, debuggers and swap.

use rustix::{
    io::Errno,
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, capabilities},
};

/// Why the process can't be made safe to hold material.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct Unsafe {
    doing: &'static str,
    source: Errno,
}

/// Makes the process safe to hold material; called before any thread starts.
///
/// Memory that can't be locked is only warned of: tmpfs pages could be swapped too, and
/// whether the node may swap is the operator's to say.
///
/// # Errors
/// Core dumps or debuggers can't be shut out.
pub fn apply() -> Result<(), Unsafe> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let failed = |doing| move |source| Unsafe { doing, source };
    setrlimit(Resource::Core, none).map_err(failed("forbidding core dumps"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed("shutting out debuggers"))?;
    if let Err(error) = lock_memory() {
        tracing::error!(%error, "MEMORY CAN'T BE LOCKED: material may reach the swap; \
            the agent needs CAP_IPC_LOCK");
    }
    Ok(())
}

/// Without the capability a limit counts, and what is locked up to it makes a later thread
/// fail to start: then nothing is locked.
fn lock_memory() -> Result<(), Errno> {
    let capable = capabilities(None)?.effective.contains(CapabilitySet::IPC_LOCK);
    if !capable && getrlimit(Resource::Memlock).current.is_some() {
        return Err(Errno::PERM);
    }
    // Only what is touched: the stacks of idle threads stay unbacked.
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
}
