//! What keeps material out of core dumps, debuggers and swap.

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
};

/// Why the process can't be made safe to hold material.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct Unsafe {
    doing: &'static str,
    source: rustix::io::Errno,
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
    // Only what is touched: the stacks of idle threads stay unbacked.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if let Err(error) = mlockall(flags) {
        tracing::error!(%error, "MEMORY CAN'T BE LOCKED: material may reach the swap; the agent needs CAP_IPC_LOCK");
    }
    Ok(())
}
