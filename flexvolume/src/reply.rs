//! The driver's answer: one JSON object and a line's end on stdout.
//!
//! The object alone says whether the call went well; the exit code is always 0. Kubelet goes by
//! the object, and logs the call's arguments when the code is another: those of a pod that names
//! a `secretRef` hold that secret.

use std::io::{self, Write};

use serde_json::Value;

/// What kubelet is told.
#[derive(Debug, Eq, PartialEq)]
pub enum Reply {
    /// To `init`: nothing is attached by the control plane, and kubelet is to chown, relabel,
    /// measure and resize nothing. Kubelet takes a capability that is left out for given.
    Init,
    /// It is done.
    Success,
    /// It is not done, and why, for the pod's owner.
    Failure(String),
    /// The driver does without this call. Kubelet never makes it again.
    NotSupported,
}

impl Reply {
    /// The object and its line's end.
    pub fn line(&self) -> String {
        match self {
            Self::Init => concat!(
                r#"{"status":"Success","capabilities":{"attach":false,"fsGroup":false,"#,
                r#""selinuxRelabel":false,"supportsMetrics":false,"requiresFSResize":false}}"#,
                "\n"
            )
            .to_owned(),
            Self::Success => "{\"status\":\"Success\"}\n".to_owned(),
            Self::Failure(message) => {
                let message = Value::from(message.as_str());
                format!("{{\"status\":\"Failure\",\"message\":{message}}}\n")
            }
            Self::NotSupported => "{\"status\":\"Not supported\"}\n".to_owned(),
        }
    }

    /// Prints it in one write. A kubelet that has gone away meanwhile is nobody to complain to.
    pub fn print(&self) {
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(self.line().as_bytes());
        let _ = stdout.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_one_object_on_one_line() {
        for (reply, golden) in [
            (
                Reply::Init,
                r#"{"status":"Success","capabilities":{"attach":false,"fsGroup":false,"selinuxRelabel":false,"supportsMetrics":false,"requiresFSResize":false}}"#,
            ),
            (Reply::Success, r#"{"status":"Success"}"#),
            (Reply::NotSupported, r#"{"status":"Not supported"}"#),
            (
                Reply::Failure("a \"b\"\n\u{1}é".to_owned()),
                r#"{"status":"Failure","message":"a \"b\"\n\u0001é"}"#,
            ),
        ] {
            assert_eq!(reply.line(), format!("{golden}\n"));
        }
    }
}
