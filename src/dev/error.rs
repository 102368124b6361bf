//! What can go wrong with the dev stack: one sentence each, with the mend.

use std::path::PathBuf;

/// Why there is no dev stack.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A program that the stack is made of is not on this machine.
    #[error("{what} is not installed; {mend}")]
    Missing {
        /// Which.
        what: String,
        /// How to get it.
        mend: String,
    },
    /// A file or folder of the stack.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was tried: "create", "read" …
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The folder cannot serve as state folder.
    #[error("the state folder {} {why}", path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// The sentence goes on here.
        why: String,
    },
    /// A part did not start, or did not become ready.
    #[error("{part} did not start: {why}{}", tail_of(log_tail))]
    Start {
        /// Which.
        part: String,
        /// Why.
        why: String,
        /// The end of its log, if it has one.
        log_tail: String,
    },
    /// A part died by itself.
    #[error("{part} died ({status}){}", tail_of(log_tail))]
    Died {
        /// Which.
        part: String,
        /// Its exit status.
        status: String,
        /// The end of its log.
        log_tail: String,
    },
    /// The daemon did not take the demo data.
    #[error("the demo data could not be made: {0}; `intentd dev --reset` starts anew")]
    Demo(String),
    /// `--local` names no chain.
    #[error("--local {name}: there is no such chain; there are: {known}")]
    UnknownChain {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// Stopped by a signal before it was up.
    #[error("stopped before the stack was up")]
    Interrupted,
}

impl DevError {
    /// For `map_err`: what was being done to which path.
    pub(super) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    /// A part that did not start and has no log worth showing.
    pub(super) fn start(part: impl Into<String>, why: impl ToString) -> Self {
        Self::Start { part: part.into(), why: why.to_string(), log_tail: String::new() }
    }
}

fn tail_of(log: &str) -> String {
    if log.trim().is_empty() { String::new() } else { format!("; the end of its log:\n{}", log.trim_end()) }
}
