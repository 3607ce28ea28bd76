//! Recordings in the tools' own formats, read through the tools:
//! `trace.dat` through `trace-cmd report`, `perf.data` through `perf script`.
//! Both formats carry the kernel's own descriptions of its events, for which
//! the tools are the best interpreters; their text is what importers read.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::{Error, Result};

/// A program that prints a binary recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    /// `trace.dat`, versions 6 and 7.
    TraceCmd,
    /// `perf.data`.
    Perf,
}

impl Tool {
    /// The tool for a file that begins so (`trace-cmd.dat(5)`;
    /// `tools/perf/Documentation/perf.data-file-format.txt`).
    pub(super) fn of(magic: &[u8]) -> Option<Tool> {
        if magic.starts_with(b"\x17\x08\x44tracing") {
            Some(Tool::TraceCmd)
        } else if magic.starts_with(b"PERFILE2") || magic.starts_with(b"2ELIFREP") {
            Some(Tool::Perf)
        } else {
            None
        }
    }

    fn command(self, path: &Path) -> Command {
        let mut command;
        match self {
            Tool::TraceCmd => {
                command = Command::new("trace-cmd");
                // Nanoseconds where the clock has them; no plugins of the user.
                command.args(["report", "-N", "-t", "-i"]).arg(path);
            }
            Tool::Perf => {
                command = Command::new("perf");
                command
                    .args(["script", "--ns", "-f", "-F", "comm,tid,cpu,time,event,trace", "-i"])
                    .arg(path);
            }
        }
        command
    }

    /// What a compressed one is, in messages.
    pub(super) fn compressed(self) -> &'static str {
        match self {
            Tool::TraceCmd => "a compressed recording of trace-cmd (trace.dat)",
            Tool::Perf => "a compressed recording of perf (perf.data)",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Tool::TraceCmd => "trace-cmd report",
            Tool::Perf => "perf script",
        }
    }
}

/// The text that a tool prints.
#[derive(Debug)]
pub(super) struct Printer {
    tool: Tool,
    child: Child,
    out: ChildStdout,
    ended: bool,
}

impl Printer {
    /// # Errors
    /// [`Error::NotText`] if the tool is not installed, [`Error::Io`] if it
    /// cannot be started.
    pub(super) fn start(tool: Tool, path: &Path) -> Result<Printer> {
        let started = tool
            .command(path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let (what, remedy) = match tool {
                    Tool::TraceCmd => (
                        "a recording of trace-cmd (trace.dat)",
                        "install trace-cmd (Debian's package trace-cmd), or import what `trace-cmd report -t` prints of it elsewhere",
                    ),
                    Tool::Perf => (
                        "a recording of perf (perf.data)",
                        "install perf (Debian's package linux-perf), or import what `perf script --ns` prints of it elsewhere",
                    ),
                };
                return Err(Error::NotText { path: path.to_owned(), what, remedy });
            }
            Err(e) => return Err(Error::io("start a reader of", path, e)),
        };
        let out = child.stdout.take().expect("it is piped");
        Ok(Printer { tool, child, out, ended: false })
    }
}

impl Read for Printer {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.out.read(to)?;
        if n == 0 && !to.is_empty() && !self.ended {
            self.ended = true;
            let status = self.child.wait()?;
            if !status.success() {
                let why = format!("`{}` cannot read it ({status})", self.tool.name());
                return Err(io::Error::other(why));
            }
        }
        Ok(n)
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_by_their_first_bytes() {
        assert_eq!(Tool::of(b"\x17\x08\x44tracing6\0"), Some(Tool::TraceCmd));
        assert_eq!(Tool::of(b"PERFILE2\x68\0"), Some(Tool::Perf));
        assert_eq!(Tool::of(b"# tracer: "), None);
    }
}
