//! What the benchmark programs share. Linux only.
//!
//! The programs are built and run together:
//!
//! ```text
//! cargo build --release -p onbytes-benches
//! target/release/compare --rounds 5 --seconds 2
//! ```
//!
//! `compare` starts one echo server after the other, lets `load` exercise it over loopback and
//! reports the CPU time the server spent per message, relative to `epoll-echo`; with `--tls` it does
//! so for echo servers over TLS, and with `--framing` for echo servers of frames. `frames` measures the
//! finding and writing of frames by itself. `idle-cost` tells what the program `onbytes` costs before anybody says
//! anything.

pub mod bounds;
pub mod callgrind;
pub mod chart;
pub mod cli;
pub mod echo;
pub mod epoll;
pub mod frames;
pub mod host;
#[cfg(feature = "ntex")]
pub mod ntex_echo;
pub mod pattern;
pub mod program;
pub mod results;
#[cfg(feature = "tls")]
pub mod secure;
pub mod stats;
pub mod testing;
