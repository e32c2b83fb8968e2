//! What kubelet asks for, read from the command line.
//!
//! Nothing below this module takes a path or an option as it was written.

use std::ffi::OsString;

use crate::{
    failure::Failure,
    options::{self, PodNames},
    target::Target,
};

/// One call-out.
#[derive(Debug, Eq, PartialEq)]
pub enum Call {
    /// Say what the driver can do.
    Init,
    /// Mount the volume of a pod that has these names, and have it filled.
    Mount(Target, PodNames),
    /// Take the volume off.
    Unmount(Target),
    /// A call that this driver does without, such as `getvolumename`.
    Other,
}

impl Call {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// [`Failure::Call`] when `mount` or `unmount` has too few, too many or unreadable
    /// arguments; [`Failure::Target`] and [`Failure::Options`] when one does not hold.
    pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, Failure> {
        let arguments: Vec<OsString> = arguments.collect();
        let texts: Option<Vec<&str>> = arguments.iter().map(|a| a.to_str()).collect();
        match texts.as_deref() {
            Some(["init", ..]) => Ok(Self::Init),
            Some(["mount", target, json]) => {
                let target = target.parse()?;
                let names = options::agree(json, &target)?;
                Ok(Self::Mount(target, names))
            }
            Some(["unmount", target]) => Ok(Self::Unmount(target.parse()?)),
            Some(["mount" | "unmount", ..]) => Err(Failure::Call),
            // kubelet remembers `Not supported` for good: these two are never answered so
            None if arguments[0] == "mount" || arguments[0] == "unmount" => Err(Failure::Call),
            _ => Ok(Self::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Call, Failure> {
        Call::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn mount_and_unmount_are_never_called_unsupported() {
        for call in ["mount", "unmount"] {
            assert_eq!(parse(&[call]), Err(Failure::Call));
            assert_eq!(parse(&[call, "a", "b", "c"]), Err(Failure::Call));
            let garbled = [OsString::from(call), OsString::from_vec(vec![0xff])];
            assert_eq!(Call::parse(garbled.into_iter()), Err(Failure::Call));
        }
    }

    #[test]
    fn a_call_that_kubelet_may_do_without_is_no_failure() {
        for other in [&["getvolumename", "{}"][..], &["mountdevice"], &["Mount", "x", "{}"], &[]] {
            assert_eq!(parse(other), Ok(Call::Other), "{other:?}");
        }
        let garbled = [OsString::from_vec(vec![0xff])];
        assert_eq!(Call::parse(garbled.into_iter()), Ok(Call::Other));
    }
}
