//! How a command ends when it does not end well: what is said, and the exit code.

use std::process::ExitCode;

use kctl_shared::fault::Fault;
use tonic::Code;

#[derive(Debug)]
pub enum Fail {
    Fault(Fault),
    /// Wrong use of the command line.
    Usage(Fault),
    /// The operation finished but failed; what happened is told already.
    Operation,
    /// The linter found errors; they are told already.
    Findings,
    /// Still in progress after --timeout.
    Unfinished,
    Interrupted,
    /// A diagnosis that found something; it is told already.
    Found {
        errors: bool,
    },
}

pub type Outcome<T = ()> = Result<T, Fail>;

impl From<Fault> for Fail {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<std::io::Error> for Fail {
    fn from(e: std::io::Error) -> Self {
        Self::Fault(Fault::new("IO", e.to_string()))
    }
}

impl Fail {
    pub fn usage(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage(Fault::new(code, message).hint(hint))
    }

    /// Says it on standard error and gives the exit code.
    pub fn report(self) -> ExitCode {
        let (fault, code) = match self {
            Self::Operation => return ExitCode::from(3),
            Self::Findings => return ExitCode::from(1),
            Self::Unfinished => return ExitCode::from(8),
            Self::Found { errors } => return ExitCode::from(if errors { 1 } else { 2 }),
            Self::Interrupted => return ExitCode::from(130),
            Self::Usage(fault) => (fault, 64),
            Self::Fault(fault) => {
                let code = exit_code(&fault);
                (fault, code)
            }
        };
        eprintln!("✖ {}", fault.message);
        if fault.hint.is_empty() {
            eprintln!("  {}", fault.code);
        } else {
            eprintln!("  {}   {}", fault.code, fault.hint);
        }
        ExitCode::from(code)
    }
}

fn exit_code(fault: &Fault) -> u8 {
    match fault.code.as_str() {
        "UNREACHABLE" | "NOT_LEADER" | "NO_QUORUM" => 7,
        "NOT_ALLOWED" => 4,
        "TARGET_REQUIRED" => 64,
        _ => match fault.class() {
            Code::NotFound => 5,
            Code::FailedPrecondition => 6,
            Code::Unavailable => 7,
            _ => 1,
        },
    }
}
