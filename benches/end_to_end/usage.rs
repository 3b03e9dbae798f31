//! Resources used by this process: CPU, context switches, socket calls, threads, memory.
//!
//! Linux counts `write` in `/proc/self/io` but not `send`, and std writes to sockets with `send`. So this binary
//! defines `send` and `recv` itself, and the linker prefers these to the C library's. They count and call `sendto` and
//! `recvfrom`, which are the same system calls.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::libc::{self, c_int, c_void, size_t, ssize_t};
use nix::sys::resource::{UsageWho, getrusage};

use super::Result;

static SENDS: AtomicU64 = AtomicU64::new(0);
static RECEIVES: AtomicU64 = AtomicU64::new(0);

/// Counts the call, then sends.
///
/// # Safety
///
/// As for `send(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn send(socket: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t {
    SENDS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the caller's promises for `send` are those of `sendto`; an absent address makes them the same call.
    unsafe { libc::sendto(socket, buffer, length, flags, std::ptr::null(), 0) }
}

/// Counts the call, then receives.
///
/// # Safety
///
/// As for `recv(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn recv(socket: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t {
    RECEIVES.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the caller's promises for `recv` are those of `recvfrom`; an absent address makes them the same call.
    unsafe { libc::recvfrom(socket, buffer, length, flags, std::ptr::null_mut(), std::ptr::null_mut()) }
}

/// Counts since the process began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) context_switches: u64,
    pub(crate) writes: u64,
    pub(crate) reads: u64,
}

impl Usage {
    pub(crate) fn now() -> Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let micros = |time: nix::sys::time::TimeVal| {
            u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).map(Duration::from_micros)
        };
        let io = fs::read_to_string("/proc/self/io")?;
        Ok(Self {
            cpu: micros(usage.user_time())? + micros(usage.system_time())?,
            context_switches: u64::try_from(usage.voluntary_context_switches() + usage.involuntary_context_switches())?,
            writes: number_after(&io, "syscw:")? + SENDS.load(Ordering::Relaxed),
            reads: number_after(&io, "syscr:")? + RECEIVES.load(Ordering::Relaxed),
        })
    }
}

/// Largest resident memory of this process so far, in bytes.
///
/// `ru_maxrss` would be that of the process that started this one, if it was larger.
pub(crate) fn peak_memory() -> Result<u64> {
    Ok(number_after(&fs::read_to_string("/proc/self/status")?, "VmHWM:")? * 1024)
}

/// Threads of this process by name, with their number; a number at the end of a name is removed.
pub(crate) fn threads() -> Result<BTreeMap<String, usize>> {
    let main = std::process::id().to_string();
    let mut threads = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        let name = fs::read_to_string(task.path().join("comm"))?;
        let numbered = name.trim().trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
        let name = if task.file_name() == main.as_str() { "main" } else { numbered };
        *threads.entry(name.to_owned()).or_default() += 1;
    }
    Ok(threads)
}

fn number_after(text: &str, key: &str) -> Result<u64> {
    let rest = text.split_once(key).ok_or_else(|| format!("no {key} in /proc"))?.1;
    Ok(rest.split_whitespace().next().unwrap_or_default().parse()?)
}
