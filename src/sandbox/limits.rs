//! What a program may use, and the names of the ways in which it can fail.

use serde::{Deserialize, Serialize};

/// What one program may use. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// CPU seconds of each process.
    pub cpu_seconds: f64,
    /// Seconds from start to end, whatever the program does: sleeping and stopped ones end here.
    pub wall_seconds: f64,
    /// Address space of each process.
    pub memory: u64,
    /// Processes and threads at once, the program itself among them.
    pub processes: u32,
    /// Largest file, and all files together.
    pub files: u64,
    /// Each of stdout and stderr.
    pub output: u64,
    /// What it may give back.
    pub result: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cpu_seconds: 4.0, wall_seconds: 8.0, memory: 512 << 20, processes: 8, files: 16 << 20, output: 64 << 10, result: 1 << 20 }
    }
}

impl Limits {
    /// # Errors
    /// Names the value that is out of its range, and the range.
    pub fn check(&self) -> Result<(), String> {
        let seconds = |name: &str, value: f64, most: f64| {
            let fits = value > 0.0 && value <= most;
            if fits { Ok(()) } else { Err(format!("limits.{name} must be above 0 and at most {most}, got {value}")) }
        };
        let whole = |name: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) { Ok(()) } else { Err(format!("limits.{name} must be in {low}..={high}, got {value}")) }
        };
        seconds("cpu_seconds", self.cpu_seconds, 3600.0)?;
        seconds("wall_seconds", self.wall_seconds, 3600.0)?;
        whole("memory", self.memory, 64 << 20, 1 << 40)?;
        whole("processes", u64::from(self.processes), 1, 4096)?;
        whole("files", self.files, 4096, 1 << 34)?;
        whole("output", self.output, 1, 64 << 20)?;
        whole("result", self.result, 1024, 64 << 20)
    }
}

/// Why a program did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It ran to its end and gave something else. Only the caller can say so.
    WrongAnswer,
    /// An exception, a signal, or an end without a result.
    RuntimeError,
    TimeLimit,
    MemoryLimit,
    OutputLimit,
    ProcessLimit,
    DiskLimit,
    /// It asked for something that the sandbox does not give.
    Denied,
}

impl Fault {
    pub const ALL: [Self; 8] = [
        Self::WrongAnswer,
        Self::RuntimeError,
        Self::TimeLimit,
        Self::MemoryLimit,
        Self::OutputLimit,
        Self::ProcessLimit,
        Self::DiskLimit,
        Self::Denied,
    ];

    /// The name in verdicts and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::WrongAnswer => "wrong_answer",
            Self::RuntimeError => "runtime_error",
            Self::TimeLimit => "time_limit",
            Self::MemoryLimit => "memory_limit",
            Self::OutputLimit => "output_limit",
            Self::ProcessLimit => "process_limit",
            Self::DiskLimit => "disk_limit",
            Self::Denied => "denied",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
