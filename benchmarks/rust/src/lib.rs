//! Commands and clocks of the three programs.
//!
//! A program answers each line on its standard input, `WORD NAME=NUMBER ...`, with one line of
//! JSON on its standard output, and exits when its standard input ends.

use std::io::{self, Write};
use std::process::exit;

/// One command: its word and its numbers by name.
pub struct Command {
    pub word: String,
    numbers: Vec<(String, f64)>,
}

impl Command {
    pub fn parse(line: &str) -> Command {
        let mut words = line.split_whitespace();
        let word = words.next().unwrap_or("").to_string();
        let numbers = words
            .map(|pair| {
                let (name, number) = pair.split_once('=').unwrap_or((pair, ""));
                match number.parse() {
                    Ok(number) => (name.to_string(), number),
                    Err(_) => fail(&format!("{line:?}: {pair:?} is not NAME=NUMBER")),
                }
            })
            .collect();
        Command { word, numbers }
    }

    pub fn number(&self, name: &str) -> f64 {
        match self.numbers.iter().find(|(known, _)| known == name) {
            Some((_, number)) => *number,
            None => fail(&format!("{}: {name} is missing", self.word)),
        }
    }
}

pub fn say(line: &str) {
    println!("{line}");
    if io::stdout().flush().is_err() {
        exit(1);
    }
}

pub fn fail(message: &str) -> ! {
    eprintln!("{message}");
    exit(1);
}

/// The time of the monotonic clock, which all processes share.
pub fn now_ns() -> u64 {
    nanoseconds(libc::CLOCK_MONOTONIC)
}

/// The processor time of this process (all threads), in seconds.
pub fn process_seconds() -> f64 {
    nanoseconds(libc::CLOCK_PROCESS_CPUTIME_ID) as f64 / 1e9
}

/// The processor time of this thread, in seconds.
pub fn thread_seconds() -> f64 {
    nanoseconds(libc::CLOCK_THREAD_CPUTIME_ID) as f64 / 1e9
}

fn nanoseconds(clock: libc::clockid_t) -> u64 {
    // SAFETY: all zeros is a valid timespec, and clock_gettime only fills it in.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(clock, &mut time);
        time
    };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
