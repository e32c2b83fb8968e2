//! What keeps keys out of core dumps, debuggers and swap.

use rustix::{
    io::Errno,
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, capabilities},
};

/// Why the process can't be made safe to hold keys.
#[derive(Debug, thiserror::Error)]
pub enum Unsafe {
    /// A call failed.
    #[error("{doing}")]
    Call {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: Errno,
    },
    /// Memory may be written to a disk.
    #[error(
        "memory can't be locked ({source}) and this machine swaps: give the broker CAP_IPC_LOCK \
         or no limit of locked memory, turn swap off, or set allow_swap"
    )]
    Swap {
        /// Why it can't be locked.
        source: Errno,
    },
}

/// Makes the process safe to hold keys; called before any thread starts.
///
/// # Errors
/// Core dumps or debuggers can't be shut out, or keys could reach a disk.
pub fn apply(allow_swap: bool) -> Result<(), Unsafe> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let failed = |doing| move |source| Unsafe::Call { doing, source };
    setrlimit(Resource::Core, none).map_err(failed("forbidding core dumps"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed("shutting out debuggers"))?;
    match lock_memory() {
        Ok(()) => Ok(()),
        Err(source) if machine_swaps() && !allow_swap => Err(Unsafe::Swap { source }),
        Err(error) => {
            tracing::warn!(%error, "memory can't be locked; there is no swap, or it is allowed");
            Ok(())
        }
    }
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

/// Whether the kernel has anywhere to write memory to.
fn machine_swaps() -> bool {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    swaps.lines().count() > 1 // the first line is the table's head
}
