//! What keeps keys out of core dumps, debuggers and swap.

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
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
        source: rustix::io::Errno,
    },
    /// Memory may be written to a disk.
    #[error(
        "memory can't be locked ({source}) and this machine swaps: give the broker CAP_IPC_LOCK, \
         turn swap off, or set allow_swap"
    )]
    Swap {
        /// Why it can't be locked.
        source: rustix::io::Errno,
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
    // Only what is touched: the stacks of idle threads stay unbacked.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    match mlockall(flags) {
        Ok(()) => Ok(()),
        Err(source) if machine_swaps() && !allow_swap => Err(Unsafe::Swap { source }),
        Err(error) => {
            tracing::warn!(%error, "memory can't be locked; there is no swap, or it is allowed");
            Ok(())
        }
    }
}

/// Whether the kernel has anywhere to write memory to.
fn machine_swaps() -> bool {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    swaps.lines().count() > 1 // the first line is the table's head
}
